"""A prepared TFDS dataset: "tfds:name", "tfds:name/config", "tfds:name/config:1.2.3".

Reading goes through TFDS's `as_data_source` over array_record files, which needs no TensorFlow.
Finding needs no TFDS: it is imported only by what reads documents.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data import cache
from data.documents import Document, Progress, Shard, Source, Wanted, line_of
from data.sources import fingerprint
from data.sources.storage import File
from errors import UserError

_SHARDS = 1024  # at most
_LEAST = 10_000  # documents of each
_INFO = "dataset_info.json"  # what makes a directory a TFDS dataset


def find(name: str, wanted: Wanted, progress: Progress) -> Source:
    """Finds the newest version, or the named one, under data.data_dir."""
    data_dir = (
        Path(wanted.data_dir).expanduser().absolute()
        if wanted.data_dir
        else cache.root() / "tensorflow_datasets"
    )
    directory = _version_directory(name, data_dir)
    found = str(directory.relative_to(data_dir))
    files = [
        File(path.name, str(path), path.stat().st_size)
        for path in directory.iterdir()
        if path.is_file()
    ]
    content = fingerprint.of_files(files, progress)
    return Source(found, content, functools.partial(_shards, found, directory, wanted.text_key))


@dataclass(frozen=True)
class _Range:
    """Some documents of a split, in the dataset's own order.

    A document's id is the feature "id" where there is one, else "split:index".
    """

    where: str
    directory: Path
    split: str
    text_key: str
    id_key: str | None
    first: int
    last: int

    @property
    def name(self) -> str:
        return f"{self.split} {self.first}:{self.last} of {self.where}"

    @property
    def size(self) -> int:
        return self.last - self.first

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(str(self.directory))
        records = builder.as_data_source(split=self.split, file_format="array_record")
        for index in range(self.first + start, self.last):
            try:
                record = records[index]
                name = _text(record[self.id_key]) if self.id_key else f"{self.split}:{index}"
                document = Document(name, _text(record[self.text_key]))
            except Exception as error:  # whatever the reader of the file format raises
                raise UserError(
                    f"document {index} of split {self.split!r} of {self.where} cannot be read as "
                    f"text ({line_of(error)}): prepare the dataset again"
                ) from error
            yield document, index + 1 - self.first


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


def _shards(name: str, directory: Path, text_key: str, split: str) -> Sequence[Shard]:
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
    if text_key not in features:
        raise UserError(
            f"{name} has no feature {text_key!r}: set data.text_key to one of "
            + ", ".join(sorted(features))
        )
    if not isinstance(features[text_key], tfds.features.Text):
        raise UserError(
            f"feature {text_key!r} of {name} is not text: set data.text_key to one "
            "of "
            + ", ".join(sorted(k for k in features if isinstance(features[k], tfds.features.Text)))
        )
    try:
        records = builder.as_data_source(split=split, file_format="array_record")
        count = len(records)
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
    has_id = "id" in features and isinstance(features["id"], tfds.features.Text)
    parts = max(1, min(_SHARDS, count // _LEAST))
    bounds = [count * i // parts for i in range(parts + 1)]
    return [
        _Range(where, directory, split, text_key, "id" if has_id else None, first, last)
        for first, last in itertools.pairwise(bounds)
    ]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
