import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data.documents import Document, Source
from data.sources import tfds
from tests.data.sources.reading import find as find_source
from tests.data.sources.reading import read, refused

VERSION = Path("poems/short/1.2.0")


def find(data_dir: Path, source: str = "tfds:poems/short", **fields: Any) -> Source:
    return find_source(source, data_dir=str(data_dir), **fields)


def read_poems(data_dir: Path, split: str = "train", **fields: Any) -> list[Document]:
    return read("tfds:poems/short", split, data_dir=str(data_dir), **fields)


@pytest.fixture
def copy(poems: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(poems, tmp_path / "copy"))


def test_any_prepared_dataset_reads_as_documents(poems: Path) -> None:
    train = read_poems(poems)
    assert len(train) == 40
    assert sorted(d.text for d in train) == sorted(
        f"40 roses, né {i}\n" * (i % 5 + 1) for i in range(40)
    )
    assert [d.id for d in train[:2]] == ["train:0", "train:1"]
    assert all(d.metadata == {"lines": d.text.count("\n")} for d in train)
    assert read_poems(poems, "train[:25%]")[3].text == train[3].text
    assert len(read_poems(poems, "train[:25%]")) == 10
    assert len(read_poems(poems, "train[30:]+validation")) == 18


def test_whole_records(poems: Path) -> None:
    plain = read_poems(poems)
    expected = [Document(d.id, "", {"text": d.text, **d.metadata}) for d in plain]
    assert read_poems(poems, text_key="") == expected


def test_shards_are_ranges(poems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_poems(poems)
    monkeypatch.setattr(tfds, "_SHARD_BYTES", 300)
    monkeypatch.setattr(tfds, "_HELD_BYTES", 100)
    tfds._opened.cache_clear()
    shards = find(poems).shards("train")
    assert len(shards) > 5 and sum(len(list(shard.documents())) for shard in shards) == 40
    assert read_poems(poems) == whole
    tfds._opened.cache_clear()


@pytest.mark.parametrize("name", ["tfds:poems/short", "tfds:poems/short:1.2.0"])
def test_the_version_may_be_given(poems: Path, name: str) -> None:
    assert find(poems, name).name == str(VERSION)


def test_the_newest_version_is_taken(copy: Path) -> None:
    shutil.copytree(copy / VERSION, copy / "poems/short/1.10.0")
    assert find(copy).name == "poems/short/1.10.0"
    assert find(copy, "tfds:poems/short:1.2.0").name == str(VERSION)


def test_the_fingerprint_follows_the_content(poems: Path, copy: Path) -> None:
    before = find(poems).fingerprint
    assert find(copy).fingerprint == before
    shard = next((copy / VERSION).glob("*train*"))
    content = bytearray(shard.read_bytes())
    content[-1000] ^= 1
    shard.write_bytes(content)
    assert find(copy).fingerprint != before


def test_an_unprepared_dataset_is_told_how_to_prepare(tmp_path: Path) -> None:
    command = rf"tfds build c4/en --file_format=array_record --data_dir={tmp_path}"
    refused(rf"'c4/en' is not prepared.*docs/data\.md.*{command}", find, tmp_path, "tfds:c4/en")


def test_a_wrong_name_is_told_what_is_there(poems: Path) -> None:
    for name in ("tfds:poem/short", "tfds:poems/long", "tfds:poems/short:9.9.9"):
        refused(r"\(prepared there: 'tfds:poems/short'\)", find, poems, name)


def test_a_missing_config_is_told_the_choices(poems: Path) -> None:
    refused(r"needs a config: use one of 'tfds:poems/short'", find, poems, "tfds:poems")


def test_another_file_format_is_refused(copy: Path) -> None:
    info = copy / VERSION / "dataset_info.json"
    content = json.loads(info.read_text())
    content["fileFormat"] = "tfrecord"
    info.write_text(json.dumps(content))
    refused(
        r"is prepared as tfrecord: prepare it with --file_format=array_record",
        read_poems,
        copy,
    )


def test_a_missing_split_is_told_the_splits(poems: Path) -> None:
    for split in ("test", "train[:5%", "test[:3]"):
        match = r"has no documents for split .*its splits are train, validation"
        refused(match, read_poems, poems, split)


def test_a_missing_text_key_is_told_the_keys(poems: Path) -> None:
    refused(r"no feature 'body': .* lines, text", read_poems, poems, text_key="body")
    refused(r"'lines' .* is not text: .*text$", read_poems, poems, text_key="lines")


def test_damaged_metadata_is_refused(copy: Path) -> None:
    (copy / VERSION / "dataset_info.json").write_text("{")
    refused(r"is not a readable TFDS dataset", read_poems, copy)


def test_missing_data_files_are_refused(copy: Path) -> None:
    for shard in (copy / VERSION).glob("*train*"):
        shard.unlink()
    refused(r"cannot be read", read_poems, copy)


def test_damaged_data_files_are_refused(copy: Path) -> None:
    for shard in (copy / VERSION).glob("*train*"):
        content = shard.read_bytes()
        shard.write_bytes(bytes(len(content) // 2) + content[len(content) // 2 :])
    refused(r"document 0 of split 'train' .* cannot be read", read_poems, copy)


def test_splits_that_overlap_are_refused(poems: Path) -> None:
    match = r"of data\.source 'tfds:poems/short' share documents: make them apart"
    refused(match, find, poems, train_split="train", eval_split="train[:5]")
    find(poems, train_split="train[5:]", eval_split="train[:5]+validation")


def test_an_empty_split_is_refused(poems: Path) -> None:
    match = r"has no documents for split 'validation\[:0\]'"
    refused(match, read_poems, poems, "validation[:0]")
