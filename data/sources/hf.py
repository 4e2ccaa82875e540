"""Hugging Face datasets: "hf:allenai/c4@en", "hf:PATH" of a folder that `save_to_disk` wrote.

What stands after "@" is the config. A dataset of the hub, or of a folder with data files, is
streamed: nothing of it is kept but its tokens. No code that comes with a dataset is ever run.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import cache
from data.documents import Document, Progress, Shard, Source, Wanted, line_of
from data.sources import packages
from data.sources.records import Maker
from errors import UserError

VERSION = 1  # part of the fingerprint: raise it when names or order change
_SAVED = ("dataset_dict.json", "state.json")  # one of them is in a folder that was saved
_SHARDS = 256  # at most, of a saved dataset
_LEAST = 10_000  # documents of each


def find(name: str, wanted: Wanted, progress: Progress) -> Source:
    """Finds the dataset.

    Raises:
      UserError: there is none of this name, or the package is missing.
    """
    del progress
    dataset = _Dataset(*name.partition("@")[::2])
    try:
        content = cache.key(content=dataset.fingerprint(), name=dataset.config, version=VERSION)
    except UserError:
        raise
    except Exception as error:  # whatever the hub or the file formats raise
        raise UserError(
            f"data.source 'hf:{name}' cannot be found ({line_of(error)}): correct its name"
        ) from error
    return Source(f"hf:{name}", content, functools.partial(_shards, dataset, Maker.of(wanted)))


@dataclass(frozen=True)
class _Dataset:
    """A dataset by its name.

    Attributes:
      name: on the hub, or the path of a folder.
      config: "" is the only one.
    """

    name: str
    config: str

    @property
    def is_saved(self) -> bool:
        folder = Path(self.name).expanduser()
        return any((folder / name).is_file() for name in _SAVED)

    def fingerprint(self) -> str:
        """Names the content, without reading it."""
        datasets = _library(self)
        if self.is_saved:
            saved = datasets.load_from_disk(self._path)
            splits = saved if isinstance(saved, dict) else {"train": saved}
            return repr([(key, len(one), one._fingerprint) for key, one in splits.items()])
        builder = datasets.load_dataset_builder(self._path, self.config or None)
        return repr((builder.name, builder.config.name, str(builder.hash)))

    def open(self, split: str) -> Any:
        """A split, to iterate over."""
        datasets = _library(self)
        if not self.is_saved:
            return datasets.load_dataset(
                self._path, self.config or None, split=split, streaming=True
            )
        saved = datasets.load_from_disk(self._path)
        splits = saved if isinstance(saved, dict) else {"train": saved}
        if split not in splits:
            raise KeyError(f"its splits are {', '.join(splits)}")
        return splits[split]

    @property
    def _path(self) -> str:
        folder = Path(self.name).expanduser()
        return str(folder.absolute()) if folder.is_dir() else self.name


@dataclass(frozen=True)
class _Part:
    """A part of a split."""

    dataset: _Dataset
    split: str
    maker: Maker
    index: int
    count: int
    size: int

    @property
    def name(self) -> str:
        return f"part {self.index} of {self.split} of {self.dataset.name}"

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        number = start
        try:
            part = self.dataset.open(self.split).shard(self.count, self.index, contiguous=True)
            if self.dataset.is_saved and start >= len(part):
                return
            for record in part.skip(start):
                name = f"{self.split}:{self.index}:{number}"
                yield self.maker.from_record(record, name, f"record {name}"), number + 1
                number += 1
        except UserError:
            raise
        except Exception as error:  # whatever the file formats raise
            raise UserError(
                f"{self.name} cannot be read after document {number} ({line_of(error)}): try "
                "again, or repair it"
            ) from error


def _shards(dataset: _Dataset, maker: Maker, split: str) -> Sequence[Shard]:
    try:
        opened = dataset.open(split)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"hf:{dataset.name} has no documents for split {split!r} ({line_of(error)}): correct "
            "the split"
        ) from error
    if dataset.is_saved:
        count = max(1, min(_SHARDS, len(opened) // _LEAST))
        size = len(opened) // count
    else:
        info = (opened.info.splits or {}).get(split)
        count = opened.num_shards
        size = info.num_examples // count if info is not None else 0
    return [_Part(dataset, split, maker, index, count, size) for index in range(count)]


def _library(dataset: _Dataset) -> Any:
    where = f"data.source 'hf:{dataset.name}'"
    return packages.needed("datasets", "datasets", where, "make setup HF=1")
