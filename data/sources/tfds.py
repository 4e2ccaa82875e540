"""A prepared TFDS dataset: "tfds:name", "tfds:name/config", "tfds:name/config:1.2.3".

Reading goes through TFDS's `as_data_source` over array_record files, which needs no TensorFlow.
Finding needs no TFDS: it is imported only by what reads documents.
"""

import functools
from pathlib import Path
from typing import Any

from data import cache, fingerprint
from data.documents import Document, Documents, Progress, Source, Wanted, line_of
from errors import UserError

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
    files = {path.name: path for path in directory.iterdir() if path.is_file()}
    content = fingerprint.of_files(files, progress)
    return Source(found, content, functools.partial(_open, found, directory, wanted.text_key))


class _TfdsDocuments(Documents):
    """The documents of a split, in the dataset's own order.

    A document's id is the feature "id" where there is one, else "split:index".
    """

    def __init__(
        self, records: Any, where: str, split: str, text_key: str, id_key: str | None
    ) -> None:
        self._records = records
        self._where = where
        self._split = split
        self._text_key = text_key
        self._id_key = id_key

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Document:
        try:
            record = self._records[index]
            name = _text(record[self._id_key]) if self._id_key else f"{self._split}:{index}"
            return {"id": name, "text": _text(record[self._text_key])}
        except Exception as error:  # whatever the reader of the file format raises
            raise UserError(
                f"document {index} of split {self._split!r} of {self._where} cannot be read as "
                f"text ({line_of(error)}): prepare the dataset again"
            ) from error


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


def _open(name: str, directory: Path, text_key: str, split: str, progress: Progress) -> Documents:
    del progress  # nothing to build
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
    has_id = "id" in features and isinstance(features["id"], tfds.features.Text)
    return _TfdsDocuments(records, where, split, text_key, "id" if has_id else None)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
