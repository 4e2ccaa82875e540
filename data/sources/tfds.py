"""A prepared TFDS dataset: "tfds:name", "tfds:name/config", "tfds:name/config:1.2.3".

Reading goes through TFDS's `as_data_source` over array_record files, which needs no TensorFlow.
Finding needs no TFDS: it is imported only by what reads documents.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data import cache, fingerprint
from data.documents import Document, Progress, Shard, Source, Wanted, line_of
from data.sources import splits
from data.sources.records import Maker
from errors import UserError

_INFO = "dataset_info.json"  # what makes a directory a TFDS dataset
_SHARD_BYTES = 64 << 20  # of a shard, about, as the dataset's own description counts them
_HELD_BYTES = 4 << 20  # of the records that are read together, about
_HELD_RECORDS = 256


def find(name: str, wanted: Wanted, progress: Progress) -> Source:
    """Finds the newest version, or the named one, under data.data_dir."""
    splits.check_apart(wanted.train_split, wanted.eval_split, f"data.source 'tfds:{name}'")
    data_dir = (
        Path(wanted.data_dir).expanduser().absolute()
        if wanted.data_dir
        else cache.root() / "tensorflow_datasets"
    )
    directory = _version_directory(name, data_dir)
    found = str(directory.relative_to(data_dir))
    files = {path.name: path for path in directory.iterdir() if path.is_file()}
    content = fingerprint.of_files(files, progress)
    return Source(found, content, functools.partial(_shards, found, directory, Maker.of(wanted)))


@dataclass(frozen=True)
class TfdsShard:
    """A range of the documents of a split, in the dataset's own order.

    A document's id is the feature "id" where there is one, else "split:index".
    """

    dataset: str
    directory: Path
    split: str
    maker: Maker
    begin: int
    end: int
    average: int

    @property
    def name(self) -> str:
        return f"{self.dataset} {self.split} from {self.begin:,} to {self.end:,}"

    @property
    def size(self) -> int:
        """In bytes, where documents of `average` bytes are taken for granted."""
        return (self.end - self.begin) * self.average

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        """See `Shard`."""
        opened = _opened(self.dataset, self.directory, self.split, self.maker.text_key)
        records, features, held = opened.records, opened.features, opened.held
        for low in range(self.begin + start, self.end, held):
            some = range(low, min(low + held, self.end))
            for index, record in zip(some, self._read(records, some), strict=True):
                read = (index + 1 - self.begin) * self.average
                yield self._document(record, features, index), read

    def _read(self, records: Any, some: range) -> list[Any]:
        try:
            return list(records.__getitems__(list(some)))
        except Exception as error:  # whatever the reader of the file format raises
            if len(some) > 1:  # names the document itself
                return [self._read(records, range(i, i + 1))[0] for i in some]
            raise UserError(
                f"document {some.start} of split {self.split!r} of {self.dataset} in "
                f"{self.directory} cannot be read as text ({line_of(error)}): prepare the dataset "
                "again"
            ) from error

    def _document(self, record: Mapping[str, Any], features: list[str], index: int) -> Document:
        where = f"document {index} of split {self.split!r} of {self.dataset} in {self.directory}"
        values, invalid = {}, 0
        for key in features:
            value = record[key]
            if isinstance(value, bytes):
                value, more = self.maker.decode(value, where)
                invalid += more
            values[key] = value.item() if hasattr(value, "item") else value
        return self.maker.from_record(values, f"{self.split}:{index}", where, invalid)


def _version_directory(name: str, data_dir: Path) -> Path:
    """`name` is "dataset", "dataset/config" or either with ":1.2.3"; the newest version wins."""
    path, _, version = name.partition(":")
    parent = data_dir / path
    found = [p.parent for p in parent.glob(f"{version or '*'}/{_INFO}")]
    if found:
        return max(found, key=lambda p: [int(n) if n.isdigit() else -1 for n in p.name.split(".")])
    configs = sorted(p.parent.parent.name for p in parent.glob(f"*/*/{_INFO}"))
    if configs:
        raise UserError(
            f"data.source 'tfds:{name}' needs a config: use one of "
            + ", ".join(f"'tfds:{path}/{c}'" for c in dict.fromkeys(configs))
        )
    # Which names TFDS knows cannot be said here: without TensorFlow and Beam it does not list C4.
    prepared = {p.parent.parent for d in ("*/*", "*/*/*") for p in data_dir.glob(f"{d}/{_INFO}")}
    names = ", ".join(sorted(f"'tfds:{p.relative_to(data_dir).as_posix()}'" for p in prepared))
    raise UserError(
        f"dataset {name!r} is not prepared under {data_dir} (prepared there: {names or 'none'}): "
        "correct data.source or data.data_dir, or prepare it, in an environment with TensorFlow "
        f"(docs/data.md), by `tfds build {path} --file_format=array_record --data_dir={data_dir}`"
    )


class _Opened(NamedTuple):
    records: Any
    features: list[str]  # whose values documents have
    held: int  # records to read together
    average: int  # bytes of a document


def _shards(name: str, directory: Path, maker: Maker, split: str) -> list[Shard]:
    opened = _opened(name, directory, split, maker.text_key)
    n = len(opened.records)
    if not n:
        raise UserError(f"{name} has no documents for split {split!r}: use a split that has some")
    a_shard = max(1, _SHARD_BYTES // opened.average)
    return [
        TfdsShard(name, directory, split, maker, begin, min(begin + a_shard, n), opened.average)
        for begin in range(0, n, a_shard)
    ]


@functools.lru_cache(maxsize=4)  # a process reads many shards of a split
def _opened(name: str, directory: Path, split: str, text_key: str) -> _Opened:
    import tensorflow_datasets as tfds

    where = f"{name} in {directory}"
    try:
        builder = tfds.builder_from_directory(str(directory))
        available = sorted(f.value for f in builder.info.available_file_formats())
    except Exception as error:
        raise UserError(
            f"{where} is not a readable TFDS dataset ({line_of(error)}): delete it and prepare it "
            "again"
        ) from error
    if "array_record" not in available:
        raise UserError(
            f"{where} is prepared as {', '.join(available)}: prepare it with "
            "--file_format=array_record, or convert it (docs/data.md)"
        )
    features = builder.info.features
    if text_key and text_key not in features:
        raise UserError(
            f"{name} has no feature {text_key!r}: set data.text_key to one of "
            + ", ".join(sorted(features))
        )
    if text_key and not isinstance(features[text_key], tfds.features.Text):
        raise UserError(
            f"feature {text_key!r} of {name} is not text: set data.text_key to one "
            "of "
            + ", ".join(sorted(k for k in features if isinstance(features[k], tfds.features.Text)))
        )
    try:
        records = builder.as_data_source(split=split, file_format="array_record")
        len(records)
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{name} has no documents for split {split!r} ({line_of(error)}): its splits are "
            + ", ".join(builder.info.splits)
        ) from error
    except Exception as error:
        raise UserError(
            f"the data files of {where} cannot be read ({line_of(error)}): prepare the dataset "
            "again"
        ) from error
    names = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Text)
        or (isinstance(feature, tfds.features.Tensor) and feature.shape == ())
    ]
    whole = builder.info.splits.values()
    n, n_bytes = (sum(getattr(s, a) for s in whole) for a in ("num_examples", "num_bytes"))
    average = max(1, n_bytes // max(1, n))
    return _Opened(
        records,
        names,
        min(max(1, _HELD_BYTES // average), _HELD_RECORDS),
        average,
    )
