"""A store holds what went into it, and says so when it does not."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from data import building, checksums, store
from data.store import TokenStore
from data.tokenizer import ByteTokenizer
from errors import UserError
from tests.data.shards import Texts, cut

TEXTS = [f"x = {i} é\n" * (i % 7) for i in range(200)]
FILES = [
    "byte_offsets.npy",
    "id_offsets.npy",
    "ids.bin",
    "token_bytes.npy",
    "token_offsets.npy",
    "tokens-00000.bin",
    "tokens-00001.bin",
]


@pytest.fixture(scope="module", autouse=True)
def small_files() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "FILE_TOKENS", 5000)
        patch.setattr(building, "FILE_TOKENS", 5000)
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    path = tmp_path_factory.mktemp("stores") / "one"
    return building.build(path, cut(TEXTS, 3), ByteTokenizer(), {"split": "train"})


def test_it_holds_every_document_in_order(built: TokenStore) -> None:
    assert sorted(path.name for path in built.path.iterdir()) == sorted([*FILES, "manifest.json"])
    assert built.n_documents == len(TEXTS)
    for i, text in enumerate(TEXTS):
        tokens = built.read(*built.token_offsets[i : i + 2].tolist())
        assert tokens.tolist() == [built.bos_id, *text.encode(), built.eos_id]
        assert built.byte_offsets[i + 1] - built.byte_offsets[i] == len(text.encode())
        assert built.document_id(i) == f"d{i}"
        assert built.find(f"d{i}") == [i]
    assert built.find("d200") == []
    assert built.token_offsets[-1] == built.n_tokens == built.n_bytes + 2 * len(TEXTS)
    assert np.array_equal(built.token_bytes, ByteTokenizer().token_bytes)


def test_reading_does_not_see_where_a_file_ends(built: TokenStore) -> None:
    whole = np.concatenate([built.read(i, i + 1) for i in range(built.n_tokens)])
    assert whole.dtype == np.uint16
    for start, stop in itertools.combinations((0, 1, 4998, 5000, 5001, built.n_tokens), 2):
        assert np.array_equal(built.read(start, stop), whole[start:stop])
    assert built.read(3, 3).size == 0 == built.read(5000, 5000).size
    assert not built.read(0, 9).flags.writeable


def test_the_same_content_has_the_same_fingerprint(built: TokenStore, tmp_path: Path) -> None:
    def build(name: str, texts: list[str]) -> str:
        about = {"split": name}
        return building.build(tmp_path / name, [Texts(texts)], ByteTokenizer(), about).fingerprint

    assert build("again", TEXTS) == built.fingerprint
    assert build("less", TEXTS[:-1]) != built.fingerprint
    assert build("changed", [*TEXTS[:-1], "y"]) != built.fingerprint


def test_the_address_names_what_determines_the_content() -> None:
    parts = {"source": "a", "split": "train", "text_key": "text", "tokenizer": "b"}
    others = [store.address(**{**parts, name: "other"}) for name in parts]
    assert len({store.address(**parts), *others}) == 5


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *itertools.product(FILES, ["flip", "truncate", "extend", "remove"]),
        *itertools.product(["manifest.json"], ["flip", "truncate", "remove"]),
    ],
)
def test_damage_is_refused_and_the_file_named(
    built: TokenStore, tmp_path: Path, name: str, how: str
) -> None:
    path = Path(shutil.copytree(built.path, tmp_path / "copy"))
    content = bytearray((path / name).read_bytes())
    if how == "flip":
        content[len(content) // 2 if name != "manifest.json" else 0] ^= 0x10
    elif how == "truncate":
        content = content[: len(content) // 2]
    else:
        content += b"\n"
    (path / name).write_bytes(content)
    if how == "remove":
        (path / name).unlink()
    with pytest.raises(UserError, match=rf"^{path / name} is .*: build it again by .*\Z"):
        TokenStore(path)


def test_verify_reads_also_what_opening_does_not(
    built: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(built.path, tmp_path / "copy"))
    content = bytearray((path / FILES[-1]).read_bytes())
    content[1000] ^= 1
    (path / FILES[-1]).write_bytes(content)
    monkeypatch.setattr(checksums, "_AT_ONCE", 100)
    opened = TokenStore(path)
    told: list[tuple[int, int]] = []
    with pytest.raises(UserError, match=r"tokens-00001\.bin is not what was written"):
        opened.verify(lambda *call: told.append(call))
    assert told == [(i, 7) for i in range(7)]


def test_a_large_file_that_cannot_be_read_is_named(
    built: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(built.path, tmp_path / "copy"))
    content = bytearray((path / "byte_offsets.npy").read_bytes())
    content[1] ^= 1
    (path / "byte_offsets.npy").write_bytes(content)
    monkeypatch.setattr(checksums, "_AT_ONCE", 100)
    with pytest.raises(UserError, match=rf"^{path}/byte_offsets.npy is missing or damaged: "):
        TokenStore(path)
