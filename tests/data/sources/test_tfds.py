import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data import sources
from data.config import DataConfig
from data.documents import Document, Source
from data.preparation import prepare
from errors import UserError

VERSION = Path("poems/short/1.2.0")


def poems_config(data_dir: Path, **fields: Any) -> DataConfig:
    values: dict[str, Any] = {"source": "tfds:poems/short", "sequence_length": 32}
    return DataConfig(**(values | {"data_dir": str(data_dir)} | fields))


def silent(what: str, done: int, total: int) -> None:
    pass


def find(config: DataConfig) -> Source:
    return sources.find(config.source, config, silent)


def open_poems(data_dir: Path, split: str = "train", **fields: Any) -> list[Document]:
    shards = find(poems_config(data_dir, **fields)).shards(split)
    return [document for shard in shards for document, _ in shard.documents()]


@pytest.fixture
def copy(poems: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(poems, tmp_path / "copy"))


def test_any_prepared_dataset_reads_as_documents(poems: Path) -> None:
    train = open_poems(poems)
    assert len(train) == 40
    assert sorted(d.text for d in train) == sorted(
        f"40 roses, né {i}\n" * (i % 5 + 1) for i in range(40)
    )
    assert [d.id for d in train[:2]] == ["train:0", "train:1"]
    (shard,) = pickle.loads(pickle.dumps(find(poems_config(poems)).shards("train")))
    assert [next(iter(shard.documents(k)))[0] for k in (0, 7, 39)] == [train[k] for k in (0, 7, 39)]
    assert list(shard.documents(40)) == [] and list(shard.documents())[-1][1] == shard.size
    assert len(open_poems(poems, "train[:25%]")) == 10
    assert len(open_poems(poems, "train[30:]+validation")) == 18


@pytest.mark.parametrize("name", ["tfds:poems/short", "tfds:poems/short:1.2.0"])
def test_the_version_may_be_given(poems: Path, name: str) -> None:
    assert find(poems_config(poems, source=name)).name == str(VERSION)


def test_the_newest_version_is_taken(copy: Path) -> None:
    shutil.copytree(copy / VERSION, copy / "poems/short/1.10.0")
    assert find(poems_config(copy)).name == "poems/short/1.10.0"
    named = poems_config(copy, source="tfds:poems/short:1.2.0")
    assert find(named).name == str(VERSION)


def test_the_fingerprint_follows_the_content(poems: Path, copy: Path) -> None:
    before = find(poems_config(poems)).fingerprint
    assert find(poems_config(copy)).fingerprint == before
    shard = next((copy / VERSION).glob("*train*"))
    content = bytearray(shard.read_bytes())
    content[-1000] ^= 1
    shard.write_bytes(content)
    assert find(poems_config(copy)).fingerprint != before


def test_a_dataset_trains_end_to_end(poems: Path) -> None:
    config = poems_config(
        poems,
        train_split="train[:75%]",
        eval_split="train[75%:]",
        tokenizer_vocab_size=300,
    )
    prepared = prepare(config)
    (corpus,) = prepared.corpora
    assert corpus.eval is not None
    assert corpus.train.n_documents == 30 and corpus.eval.n_documents == 10
    assert prepared.dataset == str(VERSION)


def refused(match: str, action: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(UserError, match=match) as error:
        action(*arguments)
    assert "\n" not in str(error.value)


def test_an_unprepared_dataset_is_told_how_to_prepare(tmp_path: Path) -> None:
    config = poems_config(tmp_path, source="tfds:c4/en")
    command = rf"tfds build c4/en --file_format=array_record --data_dir={tmp_path}"
    refused(rf"'c4/en' is not prepared.*docs/data\.md.*{command}", find, config)


def test_a_wrong_name_is_told_what_is_there(poems: Path) -> None:
    for name in ("tfds:poem/short", "tfds:poems/long", "tfds:poems/short:9.9.9"):
        config = poems_config(poems, source=name)
        refused(r"\(prepared there: 'tfds:poems/short'\)", find, config)


def test_a_missing_config_is_told_the_choices(poems: Path) -> None:
    config = poems_config(poems, source="tfds:poems")
    refused(r"needs a config: use one of 'tfds:poems/short'", find, config)


def test_another_file_format_is_refused(copy: Path) -> None:
    info = copy / VERSION / "dataset_info.json"
    content = json.loads(info.read_text())
    content["fileFormat"] = "tfrecord"
    info.write_text(json.dumps(content))
    refused(
        r"is prepared as tfrecord: prepare it with --file_format=array_record",
        lambda: open_poems(copy),
    )


def test_a_missing_split_is_told_the_splits(poems: Path) -> None:
    for split in ("test", "train[:5%", "test[:3]"):
        match = r"has no documents for split .*its splits are train, validation"
        refused(match, open_poems, poems, split)


def test_a_missing_text_key_is_told_the_keys(poems: Path) -> None:
    refused(r"no feature 'body': .* lines, text", lambda: open_poems(poems, text_key="body"))
    refused(r"'lines' .* is not text: .*text$", lambda: open_poems(poems, text_key="lines"))


def test_damaged_metadata_is_refused(copy: Path) -> None:
    (copy / VERSION / "dataset_info.json").write_text("{")
    refused(r"is not a readable TFDS dataset", lambda: open_poems(copy))


def test_missing_data_files_are_refused(copy: Path) -> None:
    for shard in (copy / VERSION).glob("*train*"):
        shard.unlink()
    refused(r"cannot be read", lambda: open_poems(copy)[0])


def test_damaged_data_files_are_refused_also_through_the_reading_threads(copy: Path) -> None:
    for shard in (copy / VERSION).glob("*train*"):
        content = shard.read_bytes()
        shard.write_bytes(bytes(len(content) // 2) + content[len(content) // 2 :])
    config = poems_config(copy, tokenizer="byte")
    refused(r"cannot be read", prepare, config)


def test_an_empty_split_is_refused(poems: Path) -> None:
    config = poems_config(poems, eval_split="validation[:0]", tokenizer="byte")
    refused(r"has no documents for split .validation\[:0\]. ", prepare, config)
