"""Hugging Face datasets: saved ones, and folders of data files as `datasets` reads them."""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from data import sources
from data.config import Corpus
from data.documents import Document, Source
from data.sources import hf
from errors import UserError

RECORDS = [{"id": f"n{i}", "text": f"text {i} é\n", "stars": i} for i in range(50)]


def find(name: str, **fields: Any) -> Source:
    wanted = Corpus("text", 1.0, f"hf:{name}", "train", "validation", "text", "", "refuse")
    return sources.find(f"hf:{name}", wanted, lambda what, done, total: None)


def read(source: Source, split: str) -> list[Document]:
    shards = pickle.loads(pickle.dumps(source.shards(split)))
    return [document for shard in shards for document, _ in shard.documents()]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    train = datasets.Dataset.from_list(RECORDS)
    held_out = datasets.Dataset.from_list([{"id": "v", "text": "held out", "stars": 0}])
    both = datasets.DatasetDict({"train": train, "validation": held_out})
    both.save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, records in (("train", RECORDS), ("validation", RECORDS[:3])):
        (tmp_path / "folder").mkdir(exist_ok=True)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / "folder" / f"{split}.jsonl").write_text(lines)
    return tmp_path / "folder"


@pytest.mark.parametrize("kind", ["saved", "folder"])
def test_the_records_are_documents(kind: str, request: pytest.FixtureRequest) -> None:
    source = find(str(request.getfixturevalue(kind)))
    found = read(source, "train")
    assert [(d.id, d.text, d.metadata) for d in found] == [
        (r["id"], r["text"], {"stars": r["stars"]}) for r in RECORDS
    ]
    assert len(read(source, "validation")) == (1 if kind == "saved" else 3)
    (shard,) = source.shards("train")
    for start in (0, 1, 49, 50):
        assert [d for d, _ in shard.documents(start)] == found[start:]


def test_a_large_one_is_read_in_parts(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(find(str(saved)), "train")
    monkeypatch.setattr(hf, "_LEAST", 7)
    source = find(str(saved))
    assert len(source.shards("train")) == 7
    assert read(source, "train") == whole


def test_the_fingerprint_follows_the_content(saved: Path, tmp_path: Path) -> None:
    assert find(str(saved)).fingerprint == find(str(saved)).fingerprint
    other = datasets.DatasetDict({"train": datasets.Dataset.from_list(RECORDS[:-1])})
    other.save_to_disk(str(tmp_path / "other"))
    assert find(str(tmp_path / "other")).fingerprint != find(str(saved)).fingerprint


def test_what_is_not_there_is_one_line(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"has no documents for split 'test' .*train") as error:
        find(str(saved)).shards("test")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"^data.source 'hf:.*nothing' cannot be found") as error:
        find(str(tmp_path / "nothing"))
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs the package datasets.*`make setup HF=1`\Z"):
        find(str(saved))
