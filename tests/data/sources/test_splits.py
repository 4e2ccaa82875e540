import hashlib
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from data.sources import splits
from errors import UserError

WHOLE = ("train", "validation")
NAMES = [f"document {i}" for i in range(3000)]


def names_of(split: str) -> list[str]:
    parts = splits.parse(split, WHOLE, "corpus")
    return [name for name in NAMES if any(part.holds(name) for part in parts)]


def test_a_part_is_a_range_of_the_hash() -> None:
    def place(name: str) -> float:  # from 0 to 100
        return int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64 * 100

    assert names_of("train") == NAMES
    assert names_of("train[:10%]") == [n for n in NAMES if place(n) < 10]
    assert names_of("train[2.5%:90%]") == [n for n in NAMES if 2.5 <= place(n) < 90]
    assert names_of("train[-10%:]") == [n for n in NAMES if place(n) >= 90]
    assert 250 < len(names_of("train[:10%]")) < 350
    both = names_of("train[:10%]+train[10%:]")
    assert both == NAMES and len(names_of("train[:10%]") + names_of("train[10%:]")) == len(NAMES)


@pytest.mark.parametrize(
    ("split", "match"),
    [
        ("test", r"^corpus has no documents for split 'test': use 'train', 'validation', .*or so$"),
        ("train[", r"no documents for split"),
        ("train+", r"no documents for split"),
        ("train[:10]", r"counts documents.*give percents, as 'train\[:10%\]'$"),
        ("train[-5:]", r"counts documents"),
        ("train[:1shard]", r"counts documents"),
        ("train[%:]", r"no documents for split"),
        ("train[:0%]", r"'train\[:0%\]' is empty"),
        ("train[60%:40%]", r"is empty"),
        ("train+train[:10%]", r"names documents twice"),
    ],
)
def test_what_is_no_part_is_one_line(split: str, match: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        splits.parse(split, WHOLE, "corpus", ", or so")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("train", "evaluation"),
    [
        ("train", "train"),
        ("train", "all"),
        ("all", "validation[:5]"),
        ("train", "train[90%:]"),
        ("train[:90.5%]", "validation + train[90%:]"),
        ("train[:90%]", "train[-10.5%:]"),
        ("train[:1_000]", "train[999:1200]"),
        ("train[-100:]", "train[:-99]"),
        ("train[:2shard]", "train[1shard:]"),
        ("train[5:]", "train[90%:]"),  # both have the end
        ("train[0:7]", "train[:1%]"),  # both have the beginning
    ],
)
def test_to_train_on_what_is_evaluated_on_is_refused(train: str, evaluation: str) -> None:
    for pair in ((train, evaluation), (evaluation, train)):
        with pytest.raises(UserError, match=r"^data\.train_split=.* of corpus share documents: m"):
            splits.check_apart(*pair, "corpus")


@pytest.mark.parametrize(
    ("train", "evaluation"),
    [
        ("train", "validation"),
        ("train", "none"),
        ("all", "none"),
        ("train[:90%]", "train[90%:]"),
        ("train[:90%]", "train[-10%:]"),
        ("train[10%:]+test", "train[:10%]+validation"),
        ("train[:1000]", "train[1_000:]"),
        ("train[:-100]", "train[-100:]"),
        ("train[1shard:]", "train[:1shard]"),
        ("all[:90%]", "all[90%:]"),
        ("train[:90%]", "train[-5:]"),  # who knows
        ("train[:0]", "train"),  # there are none: its source says so
        ("train[", "train["),  # likewise
    ],
)
def test_what_does_not_tell_of_an_overlap_is_let_be(train: str, evaluation: str) -> None:
    splits.check_apart(train, evaluation, "corpus")


@pytest.mark.parametrize(
    "split",
    [
        *("train", "all", "validation[3:5]", "train[:25%]", "train[-7:]", "train[5:-5]"),
        *("train[33%:66%]+validation[:2]", "validation+train[:1shard]"),
    ],
)
def test_a_part_by_count_is_what_tfds_makes_of_it(poems: Path, split: str) -> None:
    builder = tfds.builder_from_directory(str(poems / "poems/short/1.2.0"))

    def texts(split: str) -> list[bytes]:
        return [record["text"] for record in builder.as_data_source(split=split)]

    assert splits.select(split, {name: texts(name) for name in WHOLE}, "poems") == texts(split)


@pytest.mark.parametrize("split", ["test", "train[", "train[:0]", "train[:99]", "all[:5]"])
def test_a_part_by_count_that_is_not_there_is_one_line(split: str) -> None:
    match = r"^poems has no documents for split .*: its splits are train \(40 documents\)\Z"
    with pytest.raises(UserError, match=match):
        splits.select(split, {"train": range(40)}, "poems")
