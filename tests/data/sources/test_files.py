import gzip
import json
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from data import sources, store
from data.config import DataConfig
from data.documents import Document, Source
from data.prepare import prepare, prepare_split
from data.tokenizer import ByteTokenizer
from errors import UserError

NOTES = {f"{'abc'[i % 3]}/note{i}.md": f"Note {i}, né.\r\n" for i in range(90)}


def silent(what: str, done: int, total: int) -> None:
    pass


def config(source: str, **fields: Any) -> DataConfig:
    values: dict[str, Any] = {"sequence_length": 16, "tokenizer": "byte"}
    return DataConfig(source=source, **(values | fields))


def find(source: str, **fields: Any) -> Source:
    wanted = config(source, **fields)
    return sources.find(wanted.source, wanted, silent)


def read(source: str, split: str, **fields: Any) -> list[Document]:
    return list(find(source, **fields).open(split, silent))


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = text.encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return root


def lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return write(tmp_path / "notes", NOTES)


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """Two shards to train on, one of them compressed, and one to evaluate on."""
    shards: dict[str, list[dict[str, Any]]] = {
        "train-0.jsonl": [{"id": f"a{i}", "text": f"first {i} é"} for i in range(60)],
        "train-1.jsonl.gz": [{"text": f"second {i}\n", "year": 1800 + i} for i in range(60)],
        "valid.jsonl.gz": [{"id": i, "text": f"valid {i}"} for i in range(9)],
    }
    return write(tmp_path / "books", {name: lines(*records) for name, records in shards.items()})


def refused(match: str, action: Callable[..., object], *arguments: Any, **fields: Any) -> None:
    with pytest.raises(UserError, match=match) as error:
        action(*arguments, **fields)
    assert "\n" not in str(error.value)


def test_a_file_is_a_document_named_by_its_path(notes: Path) -> None:
    pattern = f"files:{notes}/**/*.md"
    parts = [read(pattern, split) for split in ("train", "validation")]
    assert {d["id"]: d["text"] for part in parts for d in part} == NOTES
    assert sum(map(len, parts)) == len(NOTES) and 1 <= len(parts[1]) <= 15
    assert [d["id"] for d in parts[0]] == sorted(d["id"] for d in parts[0])


def test_a_line_is_a_document(books: Path) -> None:
    pattern = f"files:{books}/*.jsonl*"
    parts = [read(pattern, split) for split in ("train", "validation")]
    found = {d["id"]: d["text"] for part in parts for d in part}
    assert len(found) == sum(map(len, parts)) == 129
    assert found["a7"] == "first 7 é"
    assert found["train-1.jsonl.gz:8"] == "second 7\n"  # no id: the file and the line
    assert found["3"] == "valid 3"
    assert parts[1]  # something is held back


def test_what_is_held_back_does_not_move_when_documents_are_added(notes: Path) -> None:
    before = {d["id"] for d in read(f"files:{notes}/a/*.md", "validation")}
    write(notes, {f"a/more{i}.md": "more" for i in range(30)})
    after = {d["id"] for d in read(f"files:{notes}/a/*.md", "validation")}
    assert before == {name for name in after if "note" in name}


def test_splits_may_be_patterns(books: Path, notes: Path) -> None:
    splits = {"train_split": "train-*.jsonl*", "eval_split": "valid.jsonl.gz"}
    pattern = f"files:{books}/*"
    train = read(pattern, "train-*.jsonl*", **splits)
    expected = [f"first {i} é" for i in range(60)] + [f"second {i}\n" for i in range(60)]
    assert [d["text"] for d in train] == expected
    assert len(read(pattern, "valid.jsonl.gz", **splits)) == 9
    whole = {"train_split": "[ab]/*.md", "eval_split": "c/*.md"}
    assert {d["id"][0] for d in read(f"files:{notes}/**/*.md", "[ab]/*.md", **whole)} == {"a", "b"}


def test_a_part_of_a_split(books: Path) -> None:
    train = read(f"files:{books}/*", "train")
    assert read(f"files:{books}/*", "train[:10%]") == train[: round(len(train) / 10)]
    joined = read(f"files:{books}/*", "train[-2:]+validation[:1]")
    assert joined == train[-2:] + read(f"files:{books}/*", "validation")[:1]


def test_it_trains_end_to_end(books: Path) -> None:
    wanted = config(f"files:{books}/*", train_split="train-*.jsonl*", eval_split="valid.jsonl.gz")
    prepared = prepare(wanted)
    assert (prepared.train.n_documents, prepared.eval.n_documents) == (120, 9)
    assert prepared.eval.n_bytes == sum(len(f"valid {i}") for i in range(9))
    names = {prepared.eval.document_id(i) for i in range(9)}
    assert names == {str(i) for i in range(9)}
    alone, fingerprint = prepare_split(wanted, "train-0.jsonl", ByteTokenizer())
    assert alone.n_documents == 60 and fingerprint == prepared.description["fingerprint"]


def test_the_fingerprint_follows_names_and_content_and_not_the_place(
    books: Path, tmp_path: Path
) -> None:
    def fingerprint(root: Path) -> str:
        return find(f"files:{root}/*").fingerprint

    copy = tmp_path / "copy"
    copy.mkdir()
    for path in books.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert fingerprint(copy) == fingerprint(books)
    first = copy / "train-0.jsonl"
    changed = first.read_text().replace("first 59", "FIRST 59")
    first.write_text(changed)
    assert fingerprint(copy) != fingerprint(books)
    (copy / "train-1.jsonl.gz").rename(copy / "train-2.jsonl.gz")
    assert len({fingerprint(copy), fingerprint(books), find(f"files:{books}/t*").fingerprint}) == 3


def test_another_text_key_is_another_copy(tmp_path: Path) -> None:
    rows = [{"id": i, "text": f"text {i}", "title": f"title {i}"} for i in range(50)]
    write(tmp_path, {"a.jsonl": lines(*rows)})
    pattern = f"files:{tmp_path}/a.jsonl"
    for key in ("text", "title"):
        assert all(d["text"] == f"{key} {d['id']}" for d in read(pattern, "train", text_key=key))


def test_memory_does_not_grow_with_the_texts(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        name = f"{n}.jsonl.gz"
        write(tmp_path, {name: lines(*[{"text": f"{i} " + "x" * 50_000} for i in range(n)])})
        tracemalloc.start()
        documents = find(f"files:{tmp_path}/{name}").open("train", silent)
        for i in range(len(documents)):
            assert len(store.in_store_order(documents, i)["text"]) > 50_000
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)  # imports
    assert peak(400) < 5_000_000  # of 20 MB


def test_files_that_are_not_there_or_not_of_a_kind(notes: Path, books: Path) -> None:
    refused(r"matches no file", find, f"files:{notes}/*.txt")
    refused(r"is a folder: give a pattern .*/\*\*/\*\.txt'", find, f"files:{notes}")
    refused(r"only mounted file systems", find, "files:gs://bucket/*.txt")
    write(notes, {"a/picture.png": "no text"})
    refused(r"matches a/picture\.png: use a pattern of \.txt, ", find, f"files:{notes}/**/*")
    write(books, {"about.txt": "about"})
    refused(r"matches about\.txt and .*jsonl.*one kind", find, f"files:{books}/*")


def test_splits_that_overlap_or_are_not_there(books: Path) -> None:
    pattern = f"files:{books}/*"
    both = {"train_split": "*.jsonl.gz", "eval_split": "valid.jsonl.gz"}
    refused(r"both match valid\.jsonl\.gz: make them apart", find, pattern, **both)
    mixed = {"train_split": "train", "eval_split": "valid.jsonl.gz"}
    refused(r"for both or for neither", find, pattern, **mixed)
    apart = {"train_split": "test.jsonl", "eval_split": "valid.jsonl.gz"}
    refused(
        r"matches split 'test\.jsonl': there are train-0\.jsonl, ",
        read,
        pattern,
        "test.jsonl",
        **apart,
    )
    refused(r"no documents for split 'test' .*train \(\d+ documents\)", read, pattern, "test")
    refused(r"no documents for split 'train\[:5'", read, pattern, "train[:5")
    one = f"files:{books}/valid.jsonl.gz"
    refused(
        r"no documents for split 'validation\[:0\]' \(it is empty\)", read, one, "validation[:0]"
    )


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b'{"text": ', r"line bad\.jsonl:2 is not a document"),
        (b'{"body": "x"}', r"bad\.jsonl:2 .*has no 'text', but body"),
        (b'{"text": 3}', r"bad\.jsonl:2 .*'text' is not text"),
        (b'{"text": "x", "id": [1]}', r"bad\.jsonl:2 .*'id' is neither text nor a number"),
        (b'["text"]', r"bad\.jsonl:2 .*it is a list, not an object"),
        (b'{"text": "\xff"}', r"bad\.jsonl:2 is not a document"),
        (b'{"text": "\\ud800"}', r"bad\.jsonl:2 is not a document"),
        (b"[" * 100_000, r"bad\.jsonl:2 is not a document"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, own_cache: Path, line: bytes, match: str) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "good"}\n' + line + b"\n")
    refused(match, read, f"files:{tmp_path}/bad.jsonl", "train")
    assert not [p for p in own_cache.rglob("*") if p.is_file()]  # nothing half-written


@pytest.mark.parametrize("damage", ["cut", "flipped", "no gzip"])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bad.jsonl.gz"
    content = bytearray(gzip.compress(lines(*[{"text": f"{i} é"} for i in range(2000)]).encode()))
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content[:2] = b"no"
    path.write_bytes(content)
    refused(r"bad\.jsonl", read, f"files:{path}", "train")


def test_a_file_that_is_not_text_is_named(notes: Path) -> None:
    (notes / "a/note0.md").write_bytes(b"caf\xe9")
    refused(r"cannot read .*a/note0\.md as UTF-8 text", prepare, config(f"files:{notes}/**/*.md"))


def test_a_damaged_copy_is_named(books: Path, own_cache: Path) -> None:
    read(f"files:{books}/*", "train")
    for copy in own_cache.rglob("*.array_record"):
        copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
    refused(r"is missing or damaged: delete the directory", read, f"files:{books}/*", "train")
