"""Every format, every compression, against texts that other writers wrote."""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from data.documents import Document
from data.sources import pieces
from data.sources.files import FileShard
from data.sources.records import Maker
from data.sources.storage import File
from tests.data.sources.reading import checked, find, read, refused
from tests.data.sources.test_compression import WRITERS

RECORDS = [
    {"id": f"d{i}", "text": f"text {i}\r\né 中 \U0001f600\0", "year": i, "tags": ["a", {"b": None}]}
    for i in range(50)
]
DOCUMENTS = [
    Document(r["id"], r["text"], {"year": r["year"], "tags": r["tags"]})  # type: ignore[arg-type]
    for r in RECORDS
]
COMPRESSED: Mapping[str, Callable[[bytes], bytes]] = {"": bytes, **WRITERS}


def lines(records: Sequence[object]) -> bytes:
    return "".join(
        json.dumps(r, ensure_ascii=i % 2 == 0) + "\n" for i, r in enumerate(records)
    ).encode()


def write_array_record(path: Path, records: Sequence[bytes]) -> None:
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def in_order(documents: Sequence[Document]) -> list[Document]:
    return sorted(documents, key=lambda d: int(d.id[1:]))


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("ending", [".txt", ".md", ".py"])
def test_whole_files(tmp_path: Path, ending: str, compression: str) -> None:
    for record in RECORDS:
        content = COMPRESSED[compression](str(record["text"]).encode())
        (tmp_path / f"{record['id']}{ending}{compression}").write_bytes(content)
    (tmp_path / f"empty{ending}{compression}").write_bytes(b"")
    (tmp_path / f"hollow{ending}{compression}").write_bytes(COMPRESSED[compression](b""))
    found = read(f"files:{tmp_path}/*", "all")
    assert {d.id: d.text for d in found} == {
        f"{d.id}{ending}{compression}": d.text for d in DOCUMENTS
    }
    assert [d.id for d in found] == sorted(d.id for d in found)


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_lines(tmp_path: Path, ending: str, compression: str) -> None:
    content = b"\xef\xbb\xbf" + lines(RECORDS[:20]) + b"\n  \r\n" + lines(RECORDS[20:]).rstrip()
    (tmp_path / f"a{ending}{compression}").write_bytes(COMPRESSED[compression](content))
    (tmp_path / f"b{ending}{compression}").write_bytes(b"")
    assert read(f"files:{tmp_path}/*", "all") == DOCUMENTS
    parts = [read(f"files:{tmp_path}/*", split) for split in ("train", "validation")]
    assert in_order(parts[0] + parts[1]) == DOCUMENTS


@pytest.mark.parametrize("compression", ["", ".gz"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, compression: str) -> None:
    bom = b"\xef\xbb\xbf"

    def found(name: str, content: bytes) -> list[Document]:
        path = tmp_path / f"{name}{compression}"
        path.write_bytes(COMPRESSED[compression](content))
        return read(f"files:{path}", "all")

    assert [d.text for d in found("a.txt", bom + b"text\xef\xbb\xbf")] == ["text\ufeff"]
    assert found("b.txt", bom) == []
    for first in (b"", b" \r\n", b"\n\n"):
        assert found("c.jsonl", bom + first + lines(RECORDS)) == DOCUMENTS
    assert found("d.jsonl", bom) == []


def test_a_byte_order_mark_is_at_the_beginning_of_the_file_alone(tmp_path: Path) -> None:
    line = b'{"text": "x"}\n'
    (tmp_path / "a.jsonl").write_bytes(line + b"\xef\xbb\xbf" + line)
    file = File("a.jsonl", str(tmp_path / "a.jsonl"), 2 * len(line) + 3)
    second = FileShard((pieces.cut(file, len(line))[1],), Maker("text", False))
    refused(r"a\.jsonl:@14 is not a document", checked, second)


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("kind", ["objects", "texts"])
def test_array_records(tmp_path: Path, kind: str, compression: str) -> None:
    records = [json.dumps(r).encode() if kind == "objects" else r["text"].encode() for r in RECORDS]  # type: ignore[attr-defined]
    write_array_record(tmp_path / "x", records)
    path = tmp_path / f"a.array_record{compression}"
    path.write_bytes(COMPRESSED[compression]((tmp_path / "x").read_bytes()))
    found = read(f"files:{path}", "all")
    if kind == "objects":
        assert found == DOCUMENTS
    else:
        assert found == [Document(f"{path.name}:{i + 1}", d.text) for i, d in enumerate(DOCUMENTS)]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), "dictionary"])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_rows(tmp_path: Path, kind: Any, rows: int) -> None:
    texts = [d.text for d in DOCUMENTS]
    column = (
        pa.array(texts).dictionary_encode()
        if kind == "dictionary"
        else pa.array([t.encode() for t in texts] if kind == pa.binary() else texts, kind)
    )
    table = pa.table(
        {
            "when": [datetime(2020, 1, 1)] * len(texts),  # JSON has no such kind
            "id": [d.id for d in DOCUMENTS],
            "text": column,
            "year": pa.array(range(len(texts)), pa.int16()),
            "tags": [[{"b": "é"}]] * len(texts),
            "raw": [b"\xff"] * len(texts),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=rows)
    pq.write_table(table.slice(0, 0), tmp_path / "b.parquet")
    expected = [
        Document(d.id, d.text, {"year": i, "tags": [{"b": "é"}]}) for i, d in enumerate(DOCUMENTS)
    ]
    assert read(f"files:{tmp_path}/*.parquet", "all") == expected
    assert len(read(f"files:{tmp_path}/a.parquet", "train[:50%]")) in range(10, 40)


def test_whole_records_are_documents_without_a_text(tmp_path: Path) -> None:
    """As a task wants them: all fields, with the id; a file that is a text has no record."""
    records: list[dict[str, Any]] = [
        {"id": "a", "q": "é", "said": [{"role": "user", "content": "x"}]},
        {"id": "b", "q": "", "said": []},
    ]
    (tmp_path / "a.jsonl").write_bytes(lines(records))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "b.parquet")
    write_array_record(tmp_path / "c.array_record", [json.dumps(r).encode() for r in records])
    (tmp_path / "d.txt").write_text("a text")
    expected = [Document(record["id"], "", record) for record in records]
    for name in ("a.jsonl", "b.parquet", "c.array_record"):
        assert read(f"files:{tmp_path}/{name}", "all", text_key="") == expected
    assert read(f"files:{tmp_path}/d.txt", "all", text_key="") == [Document("d.txt", "a text")]


def test_formats_of_records_may_be_together(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(RECORDS[:10]))
    write_array_record(tmp_path / "b.array_record", [lines([r]) for r in RECORDS[10:20]])
    (tmp_path / "c.json.zst").write_bytes(WRITERS[".zst"](lines(RECORDS[20:30])))
    pq.write_table(pa.Table.from_pylist([{"text": "last", "n": 1}]), tmp_path / "d.parquet")
    last = Document("d.parquet:1", "last", {"n": 1})
    assert read(f"files:{tmp_path}/*", "all") == [*DOCUMENTS[:30], last]


def test_a_document_without_an_id_is_named_by_its_place(tmp_path: Path) -> None:
    rows = [{"text": "one", "id": None}, {"text": "two"}, {"text": "three", "id": 7}]
    (tmp_path / "a.jsonl").write_bytes(b"\n" + lines(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    assert [d.id for d in read(f"files:{tmp_path}/a.jsonl", "all")] == [
        *("a.jsonl:2", "a.jsonl:3", "7")
    ]
    found = read(f"files:{tmp_path}/b.parquet", "all")
    assert [d.id for d in found] == ["b.parquet:1", "b.parquet:2", "7"]


@given(
    lengths=st.lists(st.one_of(st.none(), st.integers(0, 60)), max_size=40),
    size=st.integers(1, 200),
    ends=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_pieces_of_a_file_have_every_document_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int | None], size: int, ends: bool
) -> None:
    """Lines of any length, None for a blank one, and pieces of any size."""
    written = [
        b"" if n is None else json.dumps({"text": f"{i} " + "é" * n}, ensure_ascii=False).encode()
        for i, n in enumerate(lengths)
    ]
    content = b"\n".join(written) + b"\n" * ends
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    path.write_bytes(content)
    found = [
        document
        for piece in pieces.cut(File("a.jsonl", str(path), len(content)), size)
        for document in checked(FileShard((piece,), Maker("text", False)))
    ]
    assert [d.text for d in found] == [
        f"{i} " + "é" * n for i, n in enumerate(lengths) if n is not None
    ]
    assert len({d.id for d in found}) == len(found)
    if len(content) > size:  # the names say where the lines are
        for document in found:
            at = int(document.id.split("@")[1])
            assert json.loads(content[at:].split(b"\n")[0])["text"] == document.text


@given(sizes=st.lists(st.integers(0, 100)), most=st.integers(1, 120))
def test_groups_have_every_file_once(sizes: list[int], most: int) -> None:
    files = [pieces.Piece(File(f"{i}", f"/{i}", size)) for i, size in enumerate(sizes)]
    groups = pieces.grouped(files, most)
    assert [piece for group in groups for piece in group] == files
    totals = [sum(piece.size for piece in group) for group in groups]
    assert all(len(g) == 1 or t <= most for g, t in zip(groups, totals, strict=True))
    for group, total, after in zip(groups, totals, groups[1:], strict=False):
        assert group and total + after[0].size > most  # as many together as may be


def test_large_files_are_shards_of_their_own(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "b.jsonl").write_bytes(lines(RECORDS))
    for name in ("a.jsonl", "c.jsonl", "d.jsonl"):
        (tmp_path / name).write_bytes(lines([{"text": name}]))
    pattern = f"files:{tmp_path}/*"
    assert [shard.name for shard in find(pattern).shards("all")] == ["a.jsonl and 3 more"]
    whole = read(pattern, "all")
    monkeypatch.setattr(pieces.grouped, "__defaults__", (200,))
    monkeypatch.setattr(pieces.cut, "__defaults__", (1000,))
    names = [shard.name for shard in find(pattern).shards("all")]
    assert names[:2] == ["a.jsonl", "b.jsonl from byte 0 to 1,000"] and len(names) > 5
    assert names[-1] == "b.jsonl from byte 5,000 to 5,045 and 2 more"
    assert read(pattern, "all") == whole


BAD_LINES = {
    b'{"text": ': r"line bad\.jsonl:2 is not a document \(it is no JSON: ",
    b'{"body": 1, "a": 1}': r"bad\.jsonl:2 .*no 'text', but a, body\): .*config\.data\.text_key",
    b'{"text": 3}': r"bad\.jsonl:2 .*'text' is not text but int",
    b'{"text": null}': r"bad\.jsonl:2 .*'text' is not text but null",
    b'{"text": "x", "id": [1]}': r"bad\.jsonl:2 .*'id' is neither text nor a number",
    b'["text"]': r"bad\.jsonl:2 .*a list, not an object",
    b'{"text": "\xff"}': r'line bad\.jsonl:2 is not UTF-8 .*config\.data\.invalid_utf8="replace"',
    b'{"text": "\\ud800"}': r"bad\.jsonl:2 .*lone surrogate.*invalid_utf8",
    b'{"text": "x", "a": [{"\\uDFFF": 1}]}': r"bad\.jsonl:2 .*lone surrogate",
    b"[" * 100_000: r"bad\.jsonl:2 is not a document",
    b'{"text": "x", "n": ' + b"1" * 5000 + b"}": r"bad\.jsonl:2 is not a document",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "good"}\n' + line + b"\n")
    refused(BAD_LINES[line], read, f"files:{tmp_path}/bad.jsonl", "all")
    write_array_record(tmp_path / "bad.array_record", [b'{"text": "good"}', line])
    match = BAD_LINES[line].replace("line bad", "record bad").replace(r"\.jsonl", r"\.array_record")
    refused(match, read, f"files:{tmp_path}/bad.array_record", "all")


def test_an_escaped_pair_of_surrogates_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\\ud83d\\ude00 \\\\ud800"}\n')
    assert read(f"files:{tmp_path}/a.jsonl", "all")[0].text == "\U0001f600 \\ud800"


@given(st.binary(max_size=40), st.text(alphabet="a\ufffdé\U0001f600", max_size=5))
def test_what_is_no_utf8_is_replaced_and_counted(content: bytes, valid: str) -> None:
    content = valid.encode() + content
    text, invalid = Maker("text", replace=True).decode(content, "here")
    assert text == content.decode(errors="replace")
    assert invalid == len(content) - len(content.decode(errors="ignore").encode())


def test_what_is_not_utf8_may_be_replaced(tmp_path: Path) -> None:
    bad = b"caf\xe9 \xf0\x9f\x98 \xef\xbf\xbd"
    mended = "caf\ufffd \ufffd \ufffd"
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "' + bad + b'"}\n{"text": "\\ud800x", "a": "\\udfff"}\n'
    )
    (tmp_path / "a.txt").write_bytes(bad)
    table = pa.table({"text": pa.array([bad]), "a": pa.array([b"\xff"])})
    text = {"text": pa.array([bad]).view(pa.string()), "a": pa.array([b"\xff"]).view(pa.string())}
    pq.write_table(pa.table(text), tmp_path / "a.parquet")
    pq.write_table(table, tmp_path / "b.parquet")
    write_array_record(tmp_path / "a.array_record", [bad])

    def first(name: str) -> Document:
        return read(f"files:{tmp_path}/{name}", "all", invalid_utf8="replace")[0]

    for name in ("a.jsonl", "a.txt", "b.parquet", "a.array_record"):
        assert (first(name).text, first(name).invalid) == (mended, 4)
        refused(name.replace(".", r"\."), read, f"files:{tmp_path}/{name}", "all")
    assert first("a.parquet")[1:] == (mended, {"a": "\ufffd"}, 5)
    refused(r"row a\.parquet:1 is not UTF-8", read, f"files:{tmp_path}/a.parquet", "all")
    second = read(f"files:{tmp_path}/a.jsonl", "all", invalid_utf8="replace")[1]
    assert second[1:] == ("\ufffdx", {"a": "\ufffd"}, 6)


@pytest.mark.parametrize("compression", WRITERS)
@pytest.mark.parametrize("damage", ["cut", "flipped", "no archive"])
def test_a_damaged_archive_is_named(tmp_path: Path, compression: str, damage: str) -> None:
    path = tmp_path / f"bad.jsonl{compression}"
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(32, 1000, 80))) for _ in range(2000)]
    content = bytearray(WRITERS[compression](lines([{"text": text} for text in texts])))
    if damage == "cut":
        content = content[:-10]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content[:4] = b"nono"
    path.write_bytes(content)
    after = "" if damage == "no archive" else "after document 'bad"
    if damage == "flipped":  # what was damaged may be seen at a line, or only at the end
        after = "bad"
    refused(rf"{after}.*", read, f"files:{path}", "all")
    if damage == "cut":
        refused(
            rf"cannot read .*bad\.jsonl{compression} {after}\.jsonl.*:(1\d|20)\d\d' \(",
            read,
            f"files:{path}",
            "all",
        )
    (tmp_path / f"bad.txt{compression}").write_bytes(content)
    refused(rf"bad\.txt{compression}", read, f"files:{tmp_path}/bad.txt*", "all")


@pytest.mark.parametrize("name", ["a.parquet", "a.array_record"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_a_damaged_file_of_records_is_named(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    texts = [f"{i} " + "x" * 1000 for i in range(3000)]
    if name == "a.parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=500, compression="gzip")
    else:
        write_array_record(path, [text.encode() for text in texts])
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2 : len(content) // 2 + 50] = bytes(50)
    else:
        content = bytearray(b"no table\n" * 1000)
    path.write_bytes(content)
    after = r" after document 'a\..*:\d+'" if damage == "flipped" else ""
    refused(rf"cannot read .*{name}{after} \(", read, f"files:{path}", "all")


def test_columns_that_change_between_files_are_named(tmp_path: Path) -> None:
    for name, rows in {
        "a": [{"text": "x", "n": 1}],
        "b": [{"n": 2, "text": "y"}],  # another order is no other table
        "c": [{"text": "z", "n": "3"}],
        "d": [{"body": "z", "n": 3}],
    }.items():
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    assert [d.text for d in read(f"files:{tmp_path}/[ab].parquet", "all")] == ["x", "y"]
    match = r"columns of .*c\.parquet are not those of .*a\.parquet: 'n' is string, not int64"
    refused(match, read, f"files:{tmp_path}/[abc].parquet", "all")
    match = r"d\.parquet are not those of .*a\.parquet: 'body' is string, not missing"
    refused(match, read, f"files:{tmp_path}/[ad].parquet", "all")
    refused(
        r"d\.parquet has no column 'text', but body, n: set config\.data\.text_key",
        *(read, f"files:{tmp_path}/d.parquet", "all"),
    )
    null = pa.table({"text": pa.array(["x", None])})
    pq.write_table(null, tmp_path / "e.parquet")
    refused(r"row e\.parquet:2 .*not text but null", read, f"files:{tmp_path}/e.parquet", "all")


def test_columns_that_are_read_alike_are_alike(tmp_path: Path) -> None:
    texts, item = [d.text for d in DOCUMENTS[:3]], pa.field("element", pa.large_string())
    plain = pa.array(texts)
    kinds = {
        "a": (plain, pa.list_(pa.string())),
        "b": (plain.cast(pa.large_string()), pa.large_list(pa.string())),
        "c": (plain.dictionary_encode(), pa.list_(item)),
        "d": (plain.cast(pa.binary()), pa.list_(pa.string())),
        "e": (plain.cast(pa.large_binary()), pa.large_list(item)),
    }
    for name, (column, kind) in kinds.items():
        tags = pa.array([["x"]] * 3, kind)
        table = pa.table({"text": column, "title": pa.array(["y"] * 3), "tags": tags})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    found = read(f"files:{tmp_path}/*", "all")
    assert [d.text for d in found] == texts * 5
    assert all(d.metadata == {"title": "y", "tags": ["x"]} for d in found)


def test_no_room_for_a_copy_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).bytes(3_000_000).hex().encode()
    write_array_record(tmp_path / "x", [noise])
    path = tmp_path / "a.array_record.gz"
    path.write_bytes(WRITERS[".gz"]((tmp_path / "x").read_bytes()))
    shard = find(f"files:{path}").shards("all")[0]
    match = (
        r"^cannot write a temporary copy of .*a\.array_record\.gz to (/.*|any temporary folder) \("
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))  # as `ulimit -f` does
    try:
        refused(match + r"File too large\): .*TMPDIR", list, shard.documents())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    refused(match + r"No such file", list, shard.documents())
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    refused(r"cannot read .*a\.array_record\.gz \(", list, shard.documents())


def test_a_file_that_changes_after_it_was_found_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(RECORDS))
    shard = find(f"files:{path}").shards("all")[0]
    with path.open("ab") as file:
        file.write(lines(RECORDS))
    refused(r"a\.jsonl has changed since it was found", list, shard.documents())
    path.unlink()
    refused(r"cannot read .*a\.jsonl \(.*No such file", list, shard.documents())


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.zst", "a.parquet", "a.array_record"])
def test_a_large_document_is_held_few_times(tmp_path: Path, name: str) -> None:
    """In a process of its own, whose peak is that of this document: 30 MB, and nothing else."""
    text = "large é " * (30_000_000 // 8)
    match name:
        case "a.txt.gz":
            (tmp_path / name).write_bytes(WRITERS[".gz"](text.encode()))
        case "a.jsonl.zst":
            (tmp_path / name).write_bytes(WRITERS[".zst"](lines([{"text": "x"}, {"text": text}])))
        case "a.parquet":
            pq.write_table(pa.table({"text": [text]}), tmp_path / name)
        case _:
            write_array_record(tmp_path / name, [text.encode()])
    program = """
import resource, sys
from tests.data.sources.reading import find
from data.documents import Document
small, large = (find("files:" + p).shards("all")[0] for p in sys.argv[1:])
list(small.documents())
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
print(max(len(d.text) for d, _ in large.documents()), (peak() - before) * 1024)
"""
    small = tmp_path / f"small{name[1:]}"
    match name:
        case "a.parquet":
            pq.write_table(pa.table({"text": ["small"]}), small)
        case "a.array_record":
            write_array_record(small, [b"small"])
        case _:
            content = lines([{"text": "small"}])
            small.write_bytes(WRITERS[name[-3:] if name[-3:] == ".gz" else ".zst"](content))
    done = subprocess.run(
        [sys.executable, "-c", program, str(small), str(tmp_path / name)],
        check=True,
        capture_output=True,
        text=True,
    )
    length, peak = map(int, done.stdout.split())
    assert length == len(text)
    assert peak < 3.5 * len(text.encode())
