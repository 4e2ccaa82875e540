import dataclasses
import gzip
import json
import lzma
import pickle
import random
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from data import sources
from data.config import Corpus, DataConfig
from data.documents import Document, Source
from data.preparation import prepare, prepare_split
from data.sources import pieces, splits
from data.tokenizer import ByteTokenizer
from errors import UserError

NOTES = {f"{'abc'[i % 3]}/note{i}.md": f"Note {i}, né.\r\n" for i in range(90)}


def silent(what: str, done: int, total: int) -> None:
    pass


def config(source: str, **fields: Any) -> DataConfig:
    values: dict[str, Any] = {"sequence_length": 16, "tokenizer": "byte"}
    return DataConfig(source=source, **(values | fields))


def find(source: str, **fields: Any) -> Source:
    wanted = Corpus("text", 1.0, source, "train", "validation", "text", "", "refuse")
    return sources.find(source, dataclasses.replace(wanted, **fields), silent)


def read(source: str, split: str, **fields: Any) -> list[Document]:
    shards = find(source, **fields).shards(split)
    return [document for shard in shards for document, _ in shard.documents()]


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
    assert {d.id: d.text for part in parts for d in part} == NOTES
    assert sum(map(len, parts)) == len(NOTES) and 1 <= len(parts[1]) <= 15
    assert [d.id for d in parts[0]] == sorted(d.id for d in parts[0])


def test_a_line_is_a_document(books: Path) -> None:
    pattern = f"files:{books}/*.jsonl*"
    parts = [read(pattern, split) for split in ("train", "validation")]
    found = {d.id: d.text for part in parts for d in part}
    assert len(found) == sum(map(len, parts)) == 129
    assert found["a7"] == "first 7 é"
    assert found["train-1.jsonl.gz:8"] == "second 7\n"  # no id: the file and the line
    assert found["3"] == "valid 3"
    assert parts[1]  # something is held back


def test_what_is_held_back_does_not_move_when_documents_are_added(notes: Path) -> None:
    before = {d.id for d in read(f"files:{notes}/a/*.md", "validation")}
    write(notes, {f"a/more{i}.md": "more" for i in range(30)})
    after = {d.id for d in read(f"files:{notes}/a/*.md", "validation")}
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


def test_a_part_of_a_split_is_by_the_hash_of_names(books: Path) -> None:
    pattern = f"files:{books}/*"
    train = read(pattern, "train")
    tenths = [read(pattern, f"train[{10 * i}%:{10 * i + 10}%]") for i in range(10)]
    assert sorted(d.id for tenth in tenths for d in tenth) == sorted(d.id for d in train)
    assert all(3 <= len(tenth) <= 22 for tenth in tenths)
    for name in tenths[0]:
        assert splits.hash_of(name.id) < 2**64 / 10
    order = [d.id for d in read(pattern, "train[:50%]+validation")]
    both = {d.id for d in [*read(pattern, "train[:50%]"), *read(pattern, "validation")]}
    assert set(order) == both and len(order) == len(both)


def test_it_trains_end_to_end(books: Path) -> None:
    wanted = config(f"files:{books}/*", train_split="train-*.jsonl*", eval_split="valid.jsonl.gz")
    prepared = prepare(wanted)
    (corpus,) = prepared.corpora
    assert corpus.eval is not None
    assert (corpus.train.n_documents, corpus.eval.n_documents) == (120, 9)
    assert corpus.eval.n_bytes == sum(len(f"valid {i}") for i in range(9))
    names = {corpus.eval.document_id(i) for i in range(9)}
    assert names == {str(i) for i in range(9)}
    alone, fingerprint = prepare_split(wanted, "train-0.jsonl", ByteTokenizer())
    assert alone["text"].n_documents == 60 and fingerprint == prepared.fingerprint


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
        assert all(d.text == f"{key} {d.id}" for d in read(pattern, "train", text_key=key))


def test_memory_does_not_grow_with_the_texts(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        name = f"{n}.jsonl.gz"
        draw = random.Random(0)
        texts = [f"{i} " + draw.randbytes(25_000).hex() for i in range(n)]
        write(tmp_path, {name: lines(*[{"text": text} for text in texts])})
        del texts
        tracemalloc.start()
        for shard in find(f"files:{tmp_path}/{name}").shards("train"):
            for document, _ in shard.documents():
                assert len(document.text) > 50_000
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)  # imports
    assert peak(400) < 5_000_000  # of 20 MB


def test_files_that_are_not_there_or_not_of_a_kind(notes: Path, books: Path) -> None:
    refused(r"matches no file", find, f"files:{notes}/*.txt")
    refused(r"is a folder: give a pattern .*/\*\*/\*\.txt'", find, f"files:{notes}")
    write(notes, {"a/picture.png": "no text"})
    refused(r"matches a/picture\.png: use a pattern of \.txt, ", find, f"files:{notes}/**/*")
    write(books, {"about.txt": "about"})
    refused(r"matches about\.txt and .*jsonl.*one kind", find, f"files:{books}/*")
    refused(r"cannot list .*correct the URL|Protocol not known", find, "files:nowhere://b/*.txt")


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
    refused(r"no documents for split 'test': use 'train', 'validation'", read, pattern, "test")
    refused(r"no documents for split 'train\[:5'", read, pattern, "train[:5")
    refused(r"counts documents, .* give percents", read, pattern, "train[:5]")
    refused(r"'train\[:0%\]' is empty", read, pattern, "train[:0%]")
    refused(r"names documents twice", read, pattern, "train[:50%]+train[40%:]")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b'{"text": ', r"line bad\.jsonl:2 is not a document \(it is no JSON"),
        (b'{"body": "x"}', r"bad\.jsonl:2 .*has no 'text', but body.*config\.data\.text_key"),
        (b'{"text": 3}', r"bad\.jsonl:2 .*'text' is not text but int"),
        (b'{"text": null}', r"bad\.jsonl:2 .*'text' is not text but null"),
        (b'{"text": "x", "id": [1]}', r"bad\.jsonl:2 .*'id' is neither text nor a number"),
        (b'["text"]', r"bad\.jsonl:2 .*a list, not an object"),
        (b'{"text": "\xff"}', r"line bad\.jsonl:2 is not UTF-8 .*invalid_utf8=.replace"),
        (b'{"text": "\\ud800"}', r"bad\.jsonl:2 is not a document .*lone surrogate"),
        (b"[" * 100_000, r"bad\.jsonl:2 is not a document"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, own_cache: Path, line: bytes, match: str) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "good"}\n' + line + b"\n")
    wanted = config(f"files:{tmp_path}/bad.jsonl", eval_split="validation")
    refused(match, prepare, wanted)
    assert not list((own_cache / "stores").glob("[!.]*"))  # nothing half-written


@pytest.mark.parametrize(
    ("content", "text", "invalid"),
    [
        (b'{"text": "caf\xe9 \xff\xfe"}', "caf\ufffd \ufffd\ufffd", 3),
        (b'{"text": "\xef\xbf\xbd \xe2\x82"}', "\ufffd \ufffd", 2),  # one of them was there
        (b'{"text": "\\ud800x"}', "\ufffdx", 3),
        ('{"text": "né"}'.encode(), "né", 0),
    ],
)
def test_what_is_not_utf8_may_be_replaced_and_is_counted(
    tmp_path: Path, content: bytes, text: str, invalid: int
) -> None:
    (tmp_path / "a.jsonl").write_bytes(content + b"\n")
    split = {"train_split": "*.jsonl", "eval_split": "none"}
    source = f"files:{tmp_path}/*.jsonl"
    (document,) = read(source, "*.jsonl", invalid_utf8="replace", **split)
    assert (document.text, document.invalid) == (text, invalid)


@pytest.mark.parametrize("ending", ["gz", "xz", "zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "no archive"])
def test_a_damaged_archive_is_named(tmp_path: Path, ending: str, damage: str) -> None:
    path = tmp_path / f"bad.jsonl.{ending}"
    draw = random.Random(0)
    records = [{"text": f"{draw.getrandbits(64)} é"} for i in range(20_000)]
    content = bytearray(PACKED[ending](lines(*records).encode()))
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content[:4] = b"none"
    path.write_bytes(content)
    refused(rf"bad\.jsonl\.{ending}", read, f"files:{path}", "train")
    if damage == "cut":
        refused(
            r"after document 'bad\.jsonl\.\w+:\d+' \(it ends before", read, f"files:{path}", "train"
        )


def test_a_file_that_is_not_text_is_named(notes: Path) -> None:
    (notes / "a/note0.md").write_bytes(b"caf\xe9")
    refused(r"a/note0\.md is not UTF-8 .*invalid_utf8", prepare, config(f"files:{notes}/**/*.md"))


def test_a_file_that_changes_meanwhile_is_named(books: Path) -> None:
    shards = find(f"files:{books}/*").shards("train")
    with (books / "train-0.jsonl").open("a") as file:
        file.write(lines({"text": "more"}))
    refused(r"train-0\.jsonl has changed since it was found", lambda: [*shards[0].documents()])


# What a record holds, and the text of each; written by what is not ours.
RECORDS = [{"id": f"n{i}", "text": f"text {i} é\n" * (i % 5), "stars": i} for i in range(200)]
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": lambda content: zstandard.ZstdCompressor(write_checksum=True).compress(content),
}


def write_records(root: Path, ending: str) -> str:
    """A file of RECORDS; its name."""
    name = f"records{ending}"
    bare, _, packed = ending.removeprefix(".").partition(".")
    path = root / name
    if bare == "parquet":
        pq.write_table(pa.Table.from_pylist(RECORDS), path, row_group_size=64)
        return name
    if bare == "array_record":
        plain = root / "plain.tmp"
        writer = ArrayRecordWriter(str(plain), "group_size:8")
        for record in RECORDS:
            writer.write(json.dumps(record).encode())
        writer.close()
        content = plain.read_bytes()
    else:
        content = lines(*RECORDS).encode()
    path.write_bytes(PACKED[packed](content) if packed else content)
    return name


ENDINGS = [
    *(
        f"{bare}{packed}"
        for bare in (".jsonl", ".json", ".array_record")
        for packed in ("", ".gz", ".xz", ".zst")
    ),
    ".parquet",
]
ALL = {"train_split": "*r*", "eval_split": "none"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_its_records(tmp_path: Path, ending: str) -> None:
    name = write_records(tmp_path, ending)
    (shard,) = pickle.loads(pickle.dumps(find(f"files:{tmp_path}/{name}", **ALL).shards("*r*")))
    found = list(shard.documents())
    assert [(d.id, d.text) for d, _ in found] == [(r["id"], r["text"]) for r in RECORDS]
    assert [d.metadata for d, _ in found] == [{"stars": r["stars"]} for r in RECORDS]
    reads = [read for _, read in found]
    assert reads == sorted(reads) and 0 < reads[-1] <= shard.size
    for start in (0, 1, 63, 64, 65, 199, 200):
        assert list(shard.documents(start)) == found[start:]


@pytest.mark.parametrize("packed", ["", ".gz", ".xz", ".zst"])
def test_whole_files_may_be_compressed(tmp_path: Path, packed: str) -> None:
    texts = {f"{i}.txt{packed}": f"file {i} é" for i in range(5)} | {f"empty.txt{packed}": ""}
    for name, text in texts.items():
        pack = PACKED[packed[1:]] if packed else bytes
        (tmp_path / name).write_bytes(pack(text.encode()) if text else b"")
    both = {"train_split": f"*.txt{packed}", "eval_split": "none"}
    found = read(f"files:{tmp_path}/*.txt{packed}", f"*.txt{packed}", **both)
    assert {d.id: d.text for d in found} == {name: text for name, text in texts.items() if text}


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(max_size=30), min_size=1, max_size=30),
    cut_bytes=st.integers(1, 200),
    ends=st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_a_large_file_is_read_in_pieces(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cut_bytes: int, ends: str
) -> None:
    path = tmp_path_factory.mktemp("cut") / "r.jsonl"
    content = ends.join(json.dumps({"text": text}, ensure_ascii=True) for text in texts)
    path.write_bytes(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces.cut, "__defaults__", (cut_bytes,))
        patch.setattr(pieces.grouped, "__defaults__", (1,))
        shards = find(f"files:{path}", **ALL).shards("*r*")
    assert len(shards) == max(1, -(-len(content.encode()) // cut_bytes))
    found = [d for shard in shards for d, _ in shard.documents()]
    assert [d.text for d in found] == texts
    assert len({d.id for d in found}) == len(texts)


def test_small_files_are_read_together(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(f"files:{notes}/**/*.md", "train")
    monkeypatch.setattr(pieces.grouped, "__defaults__", (100,))
    shards = find(f"files:{notes}/**/*.md").shards("train")
    assert 10 < len(shards) < len(whole)
    assert [d for shard in shards for d, _ in shard.documents()] == whole
    for shard in shards:
        found = list(shard.documents())
        assert [list(shard.documents(k)) for k in range(4)] == [found[k:] for k in range(4)]


def test_a_schema_that_changes_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "r0.parquet")
    pq.write_table(pa.table({"text": ["a"], "n": ["x"]}), tmp_path / "r1.parquet")
    refused(
        r"the columns of .*r1\.parquet are not those of .*r0\.parquet: 'n' is",
        read,
        f"files:{tmp_path}/*.parquet",
        "*r*",
        **ALL,
    )
    pq.write_table(pa.table({"body": ["a"], "n": [1]}), tmp_path / "r1.parquet")
    refused(
        r"r1\.parquet has no column 'text', but body, n",
        read,
        f"files:{tmp_path}/*.parquet",
        "*r*",
        **ALL,
    )


def test_a_damaged_file_of_records_is_named(tmp_path: Path) -> None:
    for ending in (".parquet", ".array_record"):
        path = tmp_path / write_records(tmp_path, ending)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        refused(rf"cannot read .*records{ending}", read, f"files:{path}", "*r*", **ALL)


def test_files_may_be_where_fsspec_reaches(books: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in books.iterdir():
        memory.pipe(f"/bucket/books/{path.name}", path.read_bytes())
    try:
        there = "files:memory://bucket/books/*"
        assert read(there, "train") == read(f"files:{books}/*", "train")
        before = find(there).fingerprint
        assert before == find(there).fingerprint
        memory.pipe("/bucket/books/valid.jsonl.gz", gzip.compress(lines({"text": "x"}).encode()))
        assert find(there).fingerprint != before
        refused(r"matches no file", find, "files:memory://bucket/none/*")
        memory.pipe("/bucket/books/valid.jsonl.gz", b"no archive")
        refused(
            r"cannot read memory://.*valid\.jsonl\.gz",
            read,
            there,
            "valid.jsonl.gz",
            train_split="train*",
            eval_split="valid.jsonl.gz",
        )
    finally:
        memory.rm("/bucket", recursive=True)
