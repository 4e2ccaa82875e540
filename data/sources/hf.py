"""A Hugging Face dataset: "hf:owner/name", "hf:owner/name/config", "hf:/a/local/folder".

The package `datasets` reads it, streaming. Code that a dataset brings is never run. A local folder
is one that `save_to_disk` wrote, or one of data files; it is written with "/", "." or "~" first.
Splits are the dataset's own, and parts of them by percent ("train[:10%]", data/sources/splits.py).
"""

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data import cache, fingerprint, packages
from data.documents import Document, Progress, Shard, Source, Wanted, line_of
from data.sources import splits
from data.sources.records import Maker
from data.sources.splits import Part
from errors import UserError

VERSION = 1  # part of the fingerprint: raise it when names, order or splits change
_INSTALL = "make setup HF=1"
_SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves
_SHARD_BYTES = 64 << 20  # of a shard of a saved dataset, about; a guess of any other
_DOCUMENT_BYTES = 2000  # likewise
_LOCAL = ("/", ".", "~")  # what the path of a local folder begins with
_REVISION = re.compile(r"@([0-9a-f]{40})/")


class Address(NamedTuple):
    """What is after "hf:".

    Attributes:
      path: a local folder, or the name of a dataset.
      config: None for the dataset's own choice.
      revision: of a dataset on the hub, as it was found.
    """

    path: str
    config: str | None = None
    revision: str | None = None

    @property
    def is_saved(self) -> bool:
        return any(Path(self.path, name).is_file() for name in _SAVED)

    def __str__(self) -> str:
        return f"hf:{self.path}" + (f"/{self.config}" if self.config else "")


def find(name: str, wanted: Wanted, progress: Progress) -> Source:
    """Finds the dataset; only its description is fetched."""
    where = f"data.source 'hf:{name}'"
    datasets = packages.needed("datasets", "datasets", where, _INSTALL)
    splits.check_apart(wanted.train_split, wanted.eval_split, where)
    address = _address(name, where)
    parts: dict[str, str] = {"config": address.config or ""}
    if Path(address.path).is_dir():
        root = Path(address.path)
        files = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
        parts["files"] = fingerprint.of_files(files, progress)
    else:
        try:
            builder = datasets.load_dataset_builder(address.path, address.config)
        except Exception as error:  # of the hub, the network, the dataset
            raise _unreadable(address, error) from error
        info = builder.info
        sizes = {str(k): s.num_examples for k, s in sorted((info.splits or {}).items())}
        origin = str(builder.config.data_files)
        if revision := _REVISION.search(origin):
            address = address._replace(revision=revision[1])
        parts |= {
            "path": address.path,
            "hash": str(builder.hash),
            "version": str(info.version),
            "splits": str(sizes),
            "origin": origin,
        }
    content = cache.key(**parts, source_version=VERSION)
    return Source(str(address), content, functools.partial(_shards, address, Maker.of(wanted)))


@dataclass(frozen=True)
class HfShard:
    """A part of one of a dataset's splits.

    A document's id is the column "id" where there is one, else "split:index" of a saved dataset
    and "split:shard:index" of another.

    Attributes:
      index, count: which of how many shards; a saved dataset is cut into consecutive ranges.
      size, average: bytes of the shard and of a document; a guess where the dataset does not tell.
      part: of the split; its documents are kept.
    """

    address: Address
    index: int
    count: int
    size: int
    average: int
    part: Part
    maker: Maker

    @property
    def name(self) -> str:
        return f"{self.address} {self.part.split} ({self.index + 1} of {self.count})"

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        """See `Shard`."""
        kept = (pair for pair in self._all() if self.part.holds(pair[0].id))
        yield from itertools.islice(kept, start, None)

    def _all(self) -> Iterator[tuple[Document, int]]:
        dataset = _splits(self.address)[self.part.split]
        prefix, first = f"{self.part.split}:{self.index}", 0
        if self.address.is_saved:
            n = len(dataset)
            first = self.index * n // self.count
            dataset = dataset.select(range(first, (self.index + 1) * n // self.count))
            prefix = self.part.split
        elif self.count > 1:
            dataset = dataset.shard(num_shards=self.count, index=self.index)
        columns = _columns(dataset, self.maker.text_key, self.address)
        if columns:
            dataset = dataset.select_columns(columns)
        records = iter(dataset)
        for i in itertools.count():
            where = f"document {first + i} of {self.name}"
            try:
                record: Mapping[str, Any] = next(records)
            except StopIteration:
                return
            except Exception as error:  # of the network, of any of its file formats
                raise UserError(
                    f"{where} cannot be read ({line_of(error)}): repair the dataset, or try again "
                    "if it was the network"
                ) from error
            name = f"{prefix}:{first + i}"
            read = min((i + 1) * self.average, self.size)
            yield self.maker.from_record(record, name, where), read


def _address(name: str, where: str) -> Address:
    if name.startswith(_LOCAL):
        path = Path(name).expanduser()
        if path.is_dir():
            return Address(str(path.absolute()))
        if path.parent.is_dir() and path.parent != Path(path.anchor):
            return Address(str(path.parent.absolute()), path.name)
        raise UserError(f"{where}: there is no folder {path}: correct the path")
    parts = name.split("/")
    address = Address("/".join(parts[:2]), "/".join(parts[2:]) or None)
    here = Path(address.path).absolute()
    if here.is_dir():  # `datasets` would take it, and not ask the hub
        raise UserError(
            f"{where} is a dataset of the hub, but there is a folder {here} too: write "
            f"'hf:./{name}' if you mean the folder, or start in another one"
        )
    return address


def _splits(address: Address) -> Mapping[str, Any]:
    """The dataset's splits by name, nothing of them read."""
    datasets = packages.needed("datasets", "datasets", str(address), _INSTALL)
    try:
        if address.is_saved:
            saved = datasets.load_from_disk(address.path)
            return saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
        found = datasets.load_dataset(
            address.path, address.config, revision=address.revision, streaming=True
        )
        return {str(split): dataset for split, dataset in found.items()}
    except Exception as error:  # of the hub, the network, the dataset
        raise _unreadable(address, error) from error


def _shards(address: Address, maker: Maker, split: str) -> list[Shard]:
    found = _splits(address)
    shards: list[Shard] = []
    for part in splits.parse(split, list(found), str(address)):
        dataset = found[part.split]
        _columns(dataset, maker.text_key, address)
        count, size, average = _sizes(dataset, part.split, address.is_saved)
        shards += [HfShard(address, i, count, size, average, part, maker) for i in range(count)]
    return shards


def _sizes(dataset: Any, split: str, is_saved: bool) -> tuple[int, int, int]:
    """How many shards there are, and the bytes of one and of a document: guesses if need be."""
    if is_saved:
        n, n_bytes = len(dataset), dataset.data.nbytes
        count = max(1, min(n, -(-n_bytes // _SHARD_BYTES)))
        return count, n_bytes // count, max(1, n_bytes // max(1, n))
    count = max(1, dataset.num_shards)
    told = (dataset.info.splits or {}).get(split)
    n, n_bytes = (told.num_examples or 0, told.num_bytes or 0) if told else (0, 0)
    if not (n and n_bytes):
        return count, _SHARD_BYTES, _DOCUMENT_BYTES
    return count, n_bytes // count, max(1, n_bytes // n)


def _columns(dataset: Any, text_key: str, address: Address) -> Sequence[str]:
    """The columns to read, those that JSON has the kinds of; none where they are not known, or all
    are to be read."""
    features = dataset.features
    if features is None or not text_key:
        return []
    if text_key not in features:
        raise UserError(
            f"{address} has no column {text_key!r}: set config.data.text_key to one of "
            + ", ".join(sorted(features))
        )
    datasets = packages.needed("datasets", "datasets", str(address), _INSTALL)
    return [
        key
        for key, kind in features.items()
        if key == text_key
        or isinstance(kind, datasets.ClassLabel)
        or (isinstance(kind, datasets.Value) and re.match("u?int|float|bool|.*string", kind.dtype))
    ]


def _unreadable(address: Address, error: BaseException) -> UserError:
    return UserError(
        f"data.source '{address}' cannot be read ({line_of(error)}): correct the path, the name or "
        "the config, written as hf:owner/name/config, or as hf:./folder if it is local"
    )
