import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest

from data.documents import Document
from data.sources import hf
from tests.data.sources.reading import find, read, refused

RECORDS = [{"id": f"d{i}", "text": f"text {i} é", "n": i} for i in range(60)]
DOCUMENTS = [Document(f"d{i}", f"text {i} é", {"n": i}) for i in range(60)]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    root.mkdir()
    for i in range(3):
        part = RECORDS[i * 20 : i * 20 + 20]
        (root / f"train-{i}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    (root / "validation.jsonl").write_text(json.dumps({"id": "v", "text": "valid", "n": 0}) + "\n")
    return root


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    rows = [{**r, "raw": b"\xff"} for r in RECORDS]
    splits = {
        "train": datasets.Dataset.from_list(rows),
        "test": datasets.Dataset.from_list([{"text": "one"}, {"text": "two"}]),
    }
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_folder_of_files_is_streamed_in_shards(folder: Path) -> None:
    assert len(find(f"hf:{folder}").shards("train")) == 3
    assert read(f"hf:{folder}", "train") == DOCUMENTS
    assert [d.text for d in read(f"hf:{folder}", "validation+train")][:2] == ["valid", "text 0 é"]
    assert read(f"hf:{folder}/default", "train") == DOCUMENTS


def test_a_saved_dataset_is_read_in_ranges(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(f"hf:{saved}", "train") == DOCUMENTS
    assert read(f"hf:{saved}", "test") == [Document("test:0", "one"), Document("test:1", "two")]
    monkeypatch.setattr(hf, "_SHARD_BYTES", 300)
    assert len(find(f"hf:{saved}").shards("train")) > 3
    assert read(f"hf:{saved}", "train") == DOCUMENTS
    assert read(f"hf:{saved / 'train'}", "train") == DOCUMENTS  # one split, saved alone


def test_whole_records(folder: Path, saved: Path) -> None:
    expected = [Document(f"d{i}", "", RECORDS[i]) for i in range(60)]
    for where in (folder, saved):
        assert read(f"hf:{where}", "train", text_key="") == expected


def test_parts_by_percent(folder: Path, saved: Path) -> None:
    for root in (folder, saved):
        parts = [read(f"hf:{root}", split) for split in ("train[:50%]", "train[50%:]")]
        assert all(len(part) > 10 for part in parts)
        assert sorted(parts[0] + parts[1]) == sorted(DOCUMENTS)


def test_the_fingerprint_follows_the_content(folder: Path) -> None:
    before = find(f"hf:{folder}").fingerprint
    assert find(f"hf:{folder}").fingerprint == before
    (folder / "train-1.jsonl").write_text(json.dumps(RECORDS[0]) + "\n")
    assert find(f"hf:{folder}").fingerprint != before


def test_the_revision_of_a_dataset_on_the_hub_is_kept(monkeypatch: Any) -> None:
    """What the hub answers is played: there is no network in tests."""
    sha = "0123456789abcdef0123456789abcdef01234567"
    asked = {}

    data_files = {"train": [f"hf://datasets/owner/name@{sha}/a.parquet"]}
    found = SimpleNamespace(
        hash="h",
        info=datasets.DatasetInfo(version="1.0.0"),
        config=SimpleNamespace(data_files=data_files),
    )

    def builder(path: str, config: str | None) -> Any:
        assert (path, config) == ("owner/name", "en")
        return found

    def load(path: str, config: str | None, **others: Any) -> Any:
        asked.update(others)
        return {"train": datasets.Dataset.from_list(RECORDS).to_iterable_dataset(num_shards=4)}

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read("hf:owner/name/en", "train") == DOCUMENTS
    assert asked == {"revision": sha, "streaming": True}  # no code of its own is trusted


def test_a_local_folder_is_written_as_a_path(
    folder: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    for name in ("./folder", "~/folder", "./folder/default"):
        assert read(f"hf:{name}", "train") == DOCUMENTS
    match = r"'hf:saved/train' is a dataset of the hub, but .*/saved/train too: write 'hf:\./saved/"
    refused(match, find, "hf:saved/train")
    refused(r"'hf:folder' is a dataset of the hub, but .*/folder too", find, "hf:folder")
    refused(r"'hf:folder/default' cannot be read .*or as hf:\./folder", find, "hf:folder/default")
    for name in ("./nowhere", "/nowhere", "~/no/where"):
        refused(rf"'hf:{name}': there is no folder .*where: correct the path", find, f"hf:{name}")


def test_splits_that_overlap_are_refused(folder: Path) -> None:
    parts = {"train_split": "train", "eval_split": "train[90%:]"}
    refused(
        r"of data\.source 'hf:.*' share documents: make them apart", find, f"hf:{folder}", **parts
    )


def test_what_is_wrong_is_one_line(folder: Path, saved: Path, monkeypatch: Any) -> None:
    refused(
        r"no documents for split 'test': use 'train', 'validation'", read, f"hf:{folder}", "test"
    )
    refused(r"counts documents.*give percents", read, f"hf:{saved}", "train[:5]")
    match = r"no column 'body': set config\.data\.text_key to one of id, n, text"
    refused(match, read, f"hf:{folder}", "train", text_key="body")
    refused(r"document 0 of .* 'n' is not text but int", read, f"hf:{saved}", "train", text_key="n")
    refused(r"'hf:owner/name' cannot be read .*hf:owner/name/config", find, "hf:owner/name")
    (folder / "train-1.jsonl").write_text('{"id": "x", "text": "x", "n"')
    refused(r"document .* cannot be read|'hf:.* cannot be read", read, f"hf:{folder}", "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused(r"'hf:owner/name' needs the package datasets.*`make setup HF=1`", find, "hf:owner/name")
