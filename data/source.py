"""Finds a dataset and names its content, without opening it.

This is all that a warm start needs: tokenizers and token stores are found in the cache by the
fingerprint given here, so that TFDS is imported only by what reads documents.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from data import cache, python_stdlib
from data.config import PYTHON_STDLIB, TFDS_PREFIX, DataConfig
from errors import UserError

# The builder's own constants, repeated because importing them would import TFDS.
_STDLIB_DIRECTORY = "python_stdlib/1.0.0"
_INFO = "dataset_info.json"  # what makes a directory a TFDS dataset
_EDGE = 1 << 16  # bytes read at either end of a data file to tell it from another


@dataclass(frozen=True)
class Source:
    """A dataset on disk.

    Attributes:
      name: for people, as "python_stdlib (Python 3.11.7)" or "c4/en:3.0.1".
      fingerprint: names the content.
      directory: the TFDS dataset's directory, the one that holds `dataset_info.json`.
      stdlib: the files to build it from, when it is the standard library and may not be there.
    """

    name: str
    fingerprint: str
    directory: Path
    stdlib: python_stdlib.Files | None = None


def find(config: DataConfig) -> Source:
    """Finds the dataset that `config` names.

    Raises:
      UserError: there is no such dataset, or it is not prepared.
    """
    if config.source == PYTHON_STDLIB:
        files = python_stdlib.read()
        fingerprint = files.fingerprint()
        directory = cache.root() / "datasets" / fingerprint / _STDLIB_DIRECTORY
        return Source(f"python_stdlib (Python {files.python})", fingerprint, directory, files)
    name = config.source.removeprefix(TFDS_PREFIX)
    data_dir = (
        Path(config.data_dir).expanduser().absolute()
        if config.data_dir
        else cache.root() / "tensorflow_datasets"
    )
    directory = _version_directory(name, data_dir)
    return Source(str(directory.relative_to(data_dir)), _tfds_fingerprint(directory), directory)


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


def _tfds_fingerprint(directory: Path) -> str:
    """Of the metadata, and of the name, size, beginning and end of every data file."""
    content = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            size = file.seek(0, 2)
            content.update(f"{path.name}\0{size}\n".encode())
            file.seek(0)
            content.update(file.read(_EDGE))
            if size > _EDGE:
                file.seek(max(_EDGE, size - _EDGE))
                content.update(file.read())
    return content.hexdigest()[:32]
