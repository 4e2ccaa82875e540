"""A store of examples is the same to the byte, however many build it and whatever kills them."""

from pathlib import Path

import pytest

from data import building, chunks
from data.examples.chat import files_of
from data.examples.rendering import Making
from data.store import TokenStore
from data.tokenizer import ByteLevelTokenizer, ByteTokenizer, train_bpe
from errors import UserError
from tests.data.examples.test_chat import TEMPLATE, TURNS, messages
from tests.data.shards import Records
from tests.data.test_building import content

RECORDS = [{"messages": list(messages(TURNS[: 2 + 2 * (i % 3)]))} for i in range(1500)]


@pytest.fixture
def tokenizer() -> ByteLevelTokenizer:
    trained = train_bpe(["What is new? Much and more.\n<user>\n<assistant>\n Bye " * 20], 300)
    return ByteLevelTokenizer(trained.serialized, "here")


def test_killed_and_in_several_processes(
    tmp_path: Path, tokenizer: ByteLevelTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    files = files_of(tokenizer, "bpe", str(tmp_path / "t.jinja"))
    # Of four turns and of six the last two fit; the others' two are longer.
    making = Making("chat", 28, "cut", limit=700)

    def build(name: str, shards: list[Records], processes: int) -> dict[str, str]:
        built = building.build(
            tmp_path / name, shards, tokenizer, {}, processes=processes, making=making, chat=files
        )
        counts = built.manifest["counts"]
        assert counts["documents read"] == 1500 and built.n_documents == 700
        assert (counts["cut: too long"], counts["dropped: too long"]) == (1000, 500)
        return content(built.path)

    one = build("one", [Records(RECORDS)], 1)
    assert "learned-00000.bin" in one
    monkeypatch.setattr(building, "_WORTH", 1)
    kill = tmp_path / "kill"
    kill.touch()
    shards = [Records(RECORDS[:1200], 0, 1100, kill), Records(RECORDS[1200:], 1200)]
    with pytest.raises(UserError, match="signal 9"):
        build("two", shards, 2)
    assert not kill.exists() and not (tmp_path / "two").exists()
    assert build("two", shards, 2) == one


@pytest.mark.parametrize("how", ["flip", "truncate", "extend", "remove"])
def test_damage_to_what_is_learned_is_refused(tmp_path: Path, how: str) -> None:
    records = [{"question": f"{i} + {i}", "answer": str(2 * i)} for i in range(300)]
    path = tmp_path / "store"
    building.build(path, [Records(records)], ByteTokenizer(), {}, making=Making("gsm8k", 64))
    file = path / "learned-00000.bin"
    content = bytearray(file.read_bytes())
    content[0] ^= how == "flip"
    half = content[: len(content) // 2]
    file.write_bytes({"truncate": half, "extend": content + b"1"}.get(how, content))
    if how == "remove":
        file.unlink()
    with pytest.raises(UserError, match=rf"^{file} is .*: build it again by .*\Z"):
        TokenStore(path)


def test_the_chunks_do_not_show_in_the_store(
    tmp_path: Path, tokenizer: ByteLevelTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"question": f"{i} + {i}", "answer": str(2 * i)} for i in range(300)]
    making = Making("gsm8k", 64)
    whole = building.build(tmp_path / "a", [Records(records)], tokenizer, {}, making=making)
    monkeypatch.setattr(chunks, "CHUNK", 3000)
    monkeypatch.setattr(chunks, "_BATCH", 500)
    written: list[Path] = []
    save = chunks._save

    def counted(chunk: chunks.Chunk, path: Path) -> None:
        written.append(path)
        save(chunk, path)

    monkeypatch.setattr(chunks, "_save", counted)
    parts = building.build(tmp_path / "b", [Records(records)], tokenizer, {}, making=making)
    assert content(parts.path) == content(whole.path) and len(written) > 3
