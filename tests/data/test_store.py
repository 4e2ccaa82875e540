import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import store
from data.documents import Document
from data.store import TokenStore
from data.tokenizer import ByteTokenizer, train_bpe
from errors import UserError

DOCUMENTS: list[Document] = [
    {"id": f"dir/né_{i}.py", "text": f"x = {i}\n" * (i % 7)} for i in range(200)
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    path = tmp_path_factory.mktemp("stores") / "one"
    return store.build(path, DOCUMENTS, ByteTokenizer(), {"split": "train"})


def test_it_holds_every_document_once(built: TokenStore) -> None:
    seen = {}
    for i in range(built.n_documents):
        tokens = built.tokens[built.token_offsets[i] : built.token_offsets[i + 1]]
        assert tokens[0] == built.bos_id and tokens[-1] == built.eos_id
        text = bytes(tokens[1:-1].tolist()).decode()
        assert built.byte_offsets[i + 1] - built.byte_offsets[i] == len(text.encode())
        seen[built.document_id(i)] = text
    assert seen == {d["id"]: d["text"] for d in DOCUMENTS}
    assert built.token_offsets[-1] == built.n_tokens == built.n_bytes + 2 * 200
    assert built.tokens.dtype == np.uint16
    assert np.array_equal(built.token_bytes, ByteTokenizer().token_bytes)
    assert not built.tokens.flags.writeable


def test_neighbours_are_unrelated(built: TokenStore) -> None:
    order = [int(built.document_id(i)[7:-3]) for i in range(200)]
    assert sum(abs(a - b) == 1 for a, b in itertools.pairwise(order)) < 12
    assert [store.in_store_order(DOCUMENTS, i)["id"] for i in (0, 7)] == [
        built.document_id(0),
        built.document_id(7),
    ]


def test_the_same_content_has_the_same_fingerprint(built: TokenStore, tmp_path: Path) -> None:
    def build(name: str, documents: list[Document]) -> str:
        about = {"split": name}
        return store.build(tmp_path / name, documents, ByteTokenizer(), about).fingerprint

    assert build("again", DOCUMENTS) == built.fingerprint
    assert build("less", DOCUMENTS[:-1]) != built.fingerprint
    assert build("changed", [*DOCUMENTS[:-1], {"id": "x", "text": "y"}]) != built.fingerprint


def test_the_address_names_what_determines_the_content() -> None:
    bpe = train_bpe(["text"], 300)
    addresses = [
        store.address("a", "train", "text", ByteTokenizer()),
        store.address("b", "train", "text", ByteTokenizer()),
        store.address("a", "test", "text", ByteTokenizer()),
        store.address("a", "train", "body", ByteTokenizer()),
        store.address("a", "train", "text", bpe),
    ]
    assert len(set(addresses)) == len(addresses)


def test_progress_counts_documents(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    store.build(tmp_path / "s", DOCUMENTS, ByteTokenizer(), {}, lambda *call: calls.append(call))
    assert calls == sorted(set(calls))
    assert calls[-1] == (200, 200) and len(calls) > 2


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    class Wide(ByteTokenizer):
        vocab_size = 70_000
        bos_id = 69_998
        eos_id = 69_999

        def __init__(self) -> None:
            self.token_bytes = np.array([1] * 256 + [0] * (70_000 - 256), np.int32)

    opened = store.build(tmp_path / "s", DOCUMENTS[:3], Wide(), {})
    assert opened.tokens.dtype == np.uint32
    assert opened.tokens[0] == 69_998 and opened.tokens[-1] == 69_999


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *itertools.product(store._FILES, ["flip", "truncate", "extend", "remove"]),
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
    with pytest.raises(UserError, match=rf"^{path / name} is missing or damaged: delete .*\Z"):
        TokenStore(path)


def test_verify_reads_also_what_opening_does_not(
    built: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(built.path, tmp_path / "copy"))
    content = bytearray((path / "tokens.bin").read_bytes())
    content[1000] ^= 1
    (path / "tokens.bin").write_bytes(content)
    monkeypatch.setattr(store, "_VERIFIED_BYTES", 100)
    opened = TokenStore(path)
    with pytest.raises(UserError, match=r"tokens\.bin is missing or damaged"):
        opened.verify()


def test_no_documents_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^there are no documents .*'train'.*\Z"):
        store.build(tmp_path / "s", [], ByteTokenizer(), {"split": "train"})


def test_a_tokenizer_that_loses_text_is_refused(tmp_path: Path) -> None:
    class Lossy(ByteTokenizer):
        def encode_batch(self, texts: object) -> list[np.ndarray]:
            return [np.array([65], np.uint32) for _ in DOCUMENTS[:64]]

    with pytest.raises(UserError, match=r"^the tokenizer loses text of document"):
        store.build(tmp_path / "s", DOCUMENTS[:64], Lossy(), {})
    assert not (tmp_path / "s").exists()


def test_an_empty_document_is_bos_and_eos(build_store: Callable[..., TokenStore]) -> None:
    assert build_store([""]).tokens.tolist() == [256, 257]
