import gzip
import json
import os
import sys
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest

from data import packages
from tests.data.sources.reading import checked, find, read, refused

NOTES = {f"{'abc'[i % 3]}/note{i}.md": f"Note {i}, né.\r\n" for i in range(90)}


def stored(files: Mapping[str, str]) -> dict[str, bytes]:
    return {
        name: gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text.encode()
        for name, text in files.items()
    }


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in stored(files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


BOOKS = {
    "train-0.jsonl": lines(*[{"id": f"a{i}", "text": f"first {i} é"} for i in range(60)]),
    "train-1.jsonl.gz": lines(*[{"text": f"second {i}\n", "year": 1800 + i} for i in range(60)]),
    "valid.jsonl.gz": lines(*[{"id": i, "text": f"valid {i}"} for i in range(9)]),
}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return write(tmp_path / "notes", NOTES)


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """Two shards to train on, one of them compressed, and one to evaluate on."""
    return write(tmp_path / "books", BOOKS)


def test_a_file_is_a_document_named_by_its_path(notes: Path) -> None:
    pattern = f"files:{notes}/**/*.md"
    parts = [read(pattern, split) for split in ("train", "validation")]
    assert {d.id: d.text for part in parts for d in part} == NOTES
    assert sum(map(len, parts)) == len(NOTES) and 1 <= len(parts[1]) <= 15
    assert [d.id for d in parts[0]] == sorted(d.id for d in parts[0])
    assert read(pattern, "all") == read(pattern, "train+validation")


def test_a_line_is_a_document(books: Path) -> None:
    pattern = f"files:{books}/*.jsonl*"
    parts = [read(pattern, split) for split in ("train", "validation")]
    found = {d.id: d for part in parts for d in part}
    assert len(found) == sum(map(len, parts)) == 129
    assert found["a7"].text == "first 7 é" and found["a7"].metadata == {}
    assert found["train-1.jsonl.gz:8"].text == "second 7\n"  # no id: the file and the line
    assert found["train-1.jsonl.gz:8"].metadata == {"year": 1807}
    assert found["3"].text == "valid 3"
    assert parts[1]  # something is held back


def test_what_is_held_back_is_what_it_was(notes: Path) -> None:
    """The splits of runs that were there before are theirs."""
    found = {d.id for d in read(f"files:{notes}/**/*.md", "validation")}
    assert found == {"b/note43.md", "c/note47.md", "c/note5.md"}


def test_what_is_held_back_does_not_move_when_documents_are_added(notes: Path) -> None:
    before = {d.id for d in read(f"files:{notes}/**/*.md", "validation")}
    write(notes, {f"a/more{i}.md": "more" for i in range(30)})
    after = {d.id for d in read(f"files:{notes}/**/*.md", "validation")}
    assert before == {name for name in after if "note" in name}


def test_splits_may_be_patterns(books: Path, notes: Path) -> None:
    splits = {"train_split": "train-*.jsonl*", "eval_split": "valid.jsonl.gz"}
    pattern = f"files:{books}/*"
    train = read(pattern, "train-*.jsonl*", **splits)
    expected = [f"first {i} é" for i in range(60)] + [f"second {i}\n" for i in range(60)]
    assert [d.text for d in train] == expected
    assert len(read(pattern, "valid.jsonl.gz", **splits)) == 9
    whole = {"train_split": "[ab]/*.md", "eval_split": "c/*.md"}
    assert {d.id[0] for d in read(f"files:{notes}/**/*.md", "[ab]/*.md", **whole)} == {"a", "b"}


@pytest.mark.parametrize("kind", ["books", "notes"])
def test_a_part_of_a_split(kind: str, request: pytest.FixtureRequest) -> None:
    pattern = f"files:{request.getfixturevalue(kind)}/**/*"
    pattern += ".md" if kind == "notes" else ".jsonl*"
    train = read(pattern, "train")
    parts = [read(pattern, split) for split in ("train[:30.5%]", "train[30.5%:]")]
    assert all(len(part) > 10 for part in parts)
    assert sorted(parts[0] + parts[1]) == sorted(train)
    both = read(pattern, "train[-20%:]+validation")
    assert both == [d for d in read(pattern, "all") if d in both]
    assert set(map(repr, read(pattern, "validation"))) <= set(map(repr, both))


def test_the_fingerprint_follows_names_and_content_and_not_the_place(
    books: Path, tmp_path: Path
) -> None:
    def fingerprint(root: Path) -> str:
        return find(f"files:{root}/*").fingerprint

    copy = write(tmp_path / "copy", BOOKS)
    assert fingerprint(copy) == fingerprint(books)
    first = copy / "train-0.jsonl"
    first.write_text(first.read_text().replace("first 59", "FIRST 59"))
    assert fingerprint(copy) != fingerprint(books)
    (copy / "train-1.jsonl.gz").rename(copy / "train-2.jsonl.gz")
    assert len({fingerprint(copy), fingerprint(books), find(f"files:{books}/t*").fingerprint}) == 3


def test_another_text_key_is_another_text(tmp_path: Path) -> None:
    rows = [{"id": i, "text": f"text {i}", "title": f"title {i}"} for i in range(50)]
    write(tmp_path, {"a.jsonl": lines(*rows)})
    for key, other in (("text", "title"), ("title", "text")):
        found = read(f"files:{tmp_path}/a.jsonl", "all", text_key=key)
        assert all(d.text == f"{key} {d.id}" for d in found) and len(found) == 50
        assert found[3].metadata == {other: f"{other} 3"}


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_memory_does_not_grow_with_the_texts(tmp_path: Path, ending: str) -> None:
    def peak(n: int) -> int:
        name = f"{n}.{ending}"
        texts = [" ".join(map(str, range(i * 8000, i * 8000 + 8000))) for i in range(n)]
        write(tmp_path, {name: lines(*[{"text": text} for text in texts])})
        del texts
        tracemalloc.start()
        for shard in find(f"files:{tmp_path}/{name}").shards("all"):
            assert all(len(document.text) > 35_000 for document, _ in shard.documents())
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)  # imports
    assert peak(400) < 4_000_000  # of 21 MB


def test_files_that_are_not_there_or_not_of_a_kind(notes: Path, books: Path) -> None:
    refused(r"matches no file", find, f"files:{notes}/*.txt")
    refused(r"is a folder: give a pattern .*/\*\*/\*\.txt'", find, f"files:{notes}")
    write(notes, {"a/picture.png": "no text"})
    refused(r"matches a/picture\.png: use a pattern of \.txt, ", find, f"files:{notes}/**/*")
    write(notes, {"a/table.parquet.gz": "no table"})
    refused(r"matches a/table\.parquet\.gz: .*but for \.parquet", find, f"files:{notes}/**/*[tz]")
    write(books, {"about.txt": "about"})
    refused(r"matches about\.txt and .*jsonl.*one kind", find, f"files:{books}/*")


def test_a_file_that_is_matched_several_times_is_read_once(notes: Path) -> None:
    write(notes, {"a/deep/er/note.md": "deep"})
    for pattern in ("**/**/*.md", "**/*/**/*.md"):
        found = find(f"files:{notes}/{pattern}")
        assert found.name.endswith(f" ({len(NOTES) + 1} files)")
        assert read(f"files:{notes}/{pattern}", "all") == read(f"files:{notes}/**/*.md", "all")


def test_a_file_name_that_is_not_utf8_is_one_line(notes: Path) -> None:
    bad = os.fsencode(notes) + b"/a/caf\xe9.md"
    with open(bad, "wb") as file:
        file.write(b"text")
    match = r"^the name of the file .*/a/caf\\xe9\.md is not UTF-8: rename it, or leave it out"
    refused(match, find, f"files:{notes}/**/*.md")
    assert read(f"files:{notes}/**/note*.md", "all")


def test_splits_that_overlap_or_are_not_there(books: Path, tmp_path: Path) -> None:
    pattern = f"files:{books}/*"
    both = {"train_split": "*.jsonl.gz", "eval_split": "valid.jsonl.gz"}
    refused(r"both match valid\.jsonl\.gz: make them apart", find, pattern, **both)
    mixed = {"train_split": "train[:0.5%]", "eval_split": "valid.jsonl.gz"}
    refused(r"for both or for neither", find, pattern, **mixed)
    for train, evaluation in (("all", "validation"), ("train", "train"), ("train", "train[9%:]")):
        same = {"train_split": train, "eval_split": evaluation}
        refused(r"of data\.source 'files:.* share documents: make them", find, pattern, **same)
    find(pattern, train_split="all", eval_split="none")
    refused(r"matches split 'test\.jsonl': there are train-0\.jsonl, ", read, pattern, "test.jsonl")
    refused(r"no documents for split 'test': use 'train'.*patterns of file", read, pattern, "test")
    refused(r"no documents for split 'train\[:5'", read, pattern, "train[:5")
    refused(r"counts documents.*give percents", read, pattern, "train[:5]")
    write(tmp_path, {"one.txt": "one"})
    refused(
        r"no documents for split 'validation': none of its 1 files falls into it",
        *(read, f"files:{tmp_path}/one.txt", "validation"),
    )


def test_a_file_that_is_not_text_is_named(notes: Path) -> None:
    (notes / "a/note0.md").write_bytes(b"caf\xe9")
    match = r"notes/a/note0\.md is not UTF-8 .*at byte 3.*config\.data\.invalid_utf8=\"replace\""
    refused(match, read, f"files:{notes}/**/*.md", "all")


@pytest.fixture
def bucket() -> Any:
    files = fsspec.filesystem("memory")
    files.store.clear()
    for name, content in stored(BOOKS).items():
        files.pipe(f"/bucket/books/{name}", content)
    yield files
    files.store.clear()


def test_a_bucket_reads_as_a_folder_does(bucket: Any, books: Path) -> None:
    for split in ("all", "train", "validation", "train[:20%]", "train-*.jsonl*"):
        there = read("files:memory://bucket/books/*.jsonl*", split)
        assert there == read(f"files:{books}/*.jsonl*", split)
    deep = read("files:memory://bucket/**/*.jsonl.gz", "all")
    assert any(d.id == "books/train-1.jsonl.gz:8" for d in deep)


def test_every_format_is_read_from_a_bucket(bucket: Any, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.data.sources.test_formats import write_array_record

    write_array_record(tmp_path / "a.array_record", [b"one", b"two"])
    pq.write_table(pa.table({"text": ["one", "two"]}), tmp_path / "a.parquet")
    write(tmp_path, {"a.txt": "one\ntwo"})
    for name in ("a.array_record", "a.parquet", "a.txt"):
        bucket.pipe(f"/bucket/other/{name}", (tmp_path / name).read_bytes())
        found = read(f"files:memory://bucket/other/{name}", "all")
        assert found == read(f"files:{tmp_path}/{name}", "all") != []


def test_the_fingerprint_of_a_bucket_is_of_its_listing(bucket: Any, monkeypatch: Any) -> None:
    pattern = "files:memory://bucket/books/*"
    monkeypatch.setattr(bucket, "_open", None)  # nothing is read
    before = find(pattern).fingerprint
    assert find(pattern).fingerprint == before
    monkeypatch.undo()
    content = bucket.cat("/bucket/books/valid.jsonl.gz")
    bucket.pipe("/bucket/books/valid.jsonl.gz", content)  # written again: another time
    assert find(pattern).fingerprint != before


def test_what_is_wrong_with_a_bucket_is_one_line(bucket: Any, monkeypatch: Any) -> None:
    refused(r"matches no file", find, "files:memory://bucket/books/*.txt")
    refused(r"'files:nowhere://b/\*\.txt': .*nowhere", find, "files:nowhere://b/*.txt")
    shard = find("files:memory://bucket/books/*").shards("all")[0]
    assert len(checked(shard)) == 129
    bucket.pipe("/bucket/books/train-0.jsonl", b"shorter")
    match = r"memory://.*train-0\.jsonl has changed since it was found"
    refused(match, list, shard.documents())
    bucket.rm("/bucket/books/train-0.jsonl")
    refused(r"cannot read memory://.*train-0\.jsonl", list, shard.documents())
    monkeypatch.setattr(bucket, "glob", lambda *_, **__: 1 / 0)
    refused(r"cannot list .*division by zero", find, "files:memory://bucket/books/*")


def test_a_package_that_is_missing_is_named(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    refused(r"s3://b/\*\.txt' needs a package .*s3fs.*: use pip", find, "files:s3://b/*.txt")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    refused(r"gs://b/\*\.txt' needs a package .*: `make setup GCS=1`", find, "files:gs://b/*.txt")
    match = r"reading a \.zst file needs the package nothing_such.*`make setup`"
    refused(match, packages.needed, "nothing_such", "nothing_such", "reading a .zst file")
