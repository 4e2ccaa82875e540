from pathlib import Path

import pytest

from data import sources
from data.config import DataConfig
from data.documents import select
from errors import UserError


def silent(what: str, done: int, total: int) -> None:
    pass


@pytest.mark.parametrize(
    "split",
    [
        "train",
        "all",
        "validation[3:5]",
        "train[:25%]",
        "train[-7:]",
        "train[5:-5]",
        "train[33%:66%]+validation[:2]",
        "validation+train[:1shard]",
    ],
)
def test_a_part_of_a_split_is_what_tfds_makes_of_it(poems: Path, split: str) -> None:
    config = DataConfig("tfds:poems/short", 32, data_dir=str(poems))
    found = sources.find(config.source, config, silent)
    whole = {name: found.open(name, silent) for name in ("train", "validation")}
    chosen = select(split, whole, "poems")
    assert [d["text"] for d in chosen] == [d["text"] for d in found.open(split, silent)]
    assert chosen[-1] == chosen[len(chosen) - 1] and chosen[1:3] == list(chosen)[1:3]
    with pytest.raises(IndexError):
        chosen[len(chosen)]


@pytest.mark.parametrize("split", ["test", "train[", "train[:0]", "train[:99]", "all[:5]"])
def test_a_part_that_is_not_there_is_one_line(poems: Path, split: str) -> None:
    config = DataConfig("tfds:poems/short", 32, data_dir=str(poems))
    whole = {"train": sources.find(config.source, config, silent).open("train", silent)}
    match = r"^poems has no documents for split .*: its splits are train \(40 documents\), or so\Z"
    with pytest.raises(UserError, match=match):
        select(split, whole, "poems", ", or so")
