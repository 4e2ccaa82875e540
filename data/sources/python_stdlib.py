"""The running Python's standard library as documents: text that every machine has.

One source file is one document, named by its path. Tests, installed packages and files that
describe the machine rather than the language are left out. The splits "train" and "validation"
keep families of near-duplicates on one side.
"""

import functools
import hashlib
import os
import platform
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data import cache, neardup
from data.documents import Progress, Shard, Source, Wanted
from data.sources import files
from data.sources.records import Maker
from data.sources.splits import check_apart, select
from data.sources.storage import File
from data.waiting import steadily
from errors import UserError

SPLIT_VERSION = 1  # part of the fingerprint: raise it when the splits or their order change
VALIDATION_SHARE = 0.05
_SKIPPED_DIRECTORIES = {
    "__pycache__",
    "dist-packages",
    "idle_test",
    "lib-dynload",
    "site-packages",
    "test",
    "tests",
}
_MACHINE_FILES = ("_sysconfigdata", "_sysconfig_vars", "sitecustomize", "usercustomize")
_MACHINE_DIRECTORIES = ("config-",)  # the build's own configuration


def find(name: str, wanted: Wanted, progress: Progress) -> Source:
    """The running Python's library. It is read whole, to name its content: 12 MB."""
    del name
    check_apart(wanted.train_split, wanted.eval_split, "data.source 'python_stdlib'")
    library = read()
    validation = functools.cache(functools.partial(_validation, library, progress))
    title = f"python_stdlib (Python {library.python})"
    return Source(
        title, library.fingerprint(), functools.partial(_shards, title, library, validation)
    )


@dataclass(frozen=True)
class Files:
    """The documents of one standard library.

    Attributes:
      root: the folder they are in.
      texts: document id (relative posix path) -> text, in ascending order of id.
      python: the version they belong to, as "3.11.7".
      undecodable: files left out because they are not UTF-8.
    """

    root: Path
    texts: dict[str, str]
    python: str
    undecodable: int

    def fingerprint(self) -> str:
        """Names the content, the Python version and the way it is split."""
        content = hashlib.sha256()
        for name, text in self.texts.items():
            content.update(f"{name}\0{hashlib.sha256(text.encode()).hexdigest()}\n".encode())
        return cache.key(python=self.python, files=content.hexdigest(), split_version=SPLIT_VERSION)


def read(root: Path | None = None) -> Files:
    """Reads every Python source file under `root`, by default the running Python's library.

    Raises:
      UserError: the library is in a zip file, or is not there.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    if not root.is_dir():
        raise UserError(
            f"the Python standard library's source is not at {root} (a zipped or stripped "
            "Python?): use a Python with its library on disk, or another data.source"
        )
    texts, undecodable = {}, 0
    for directory, directories, names in os.walk(root):
        directories[:] = [
            d
            for d in directories
            if d not in _SKIPPED_DIRECTORIES and not d.startswith(_MACHINE_DIRECTORIES)
        ]
        for name in names:
            if not name.endswith(".py") or name.startswith(_MACHINE_FILES):
                continue
            path = Path(directory, name)
            try:
                text = path.read_bytes().decode()
            except UnicodeDecodeError:
                undecodable += 1
                continue
            except OSError as error:
                raise UserError(f"cannot read {path} ({error.strerror}): repair it") from error
            if text.strip():
                texts[path.relative_to(root).as_posix()] = text
    if len(texts) < 2:
        raise UserError(
            f"no Python source files under {root}: use a Python with its library's source on "
            "disk, or another data.source"
        )
    return Files(root, dict(sorted(texts.items())), platform.python_version(), undecodable)


def choose_validation(texts: dict[str, str], share: float = VALIDATION_SHARE) -> set[str]:
    """Chooses the documents of the validation split.

    Clusters of near-duplicates stay whole. They are taken in the order of a hash of their
    smallest path, until both the documents and the bytes taken reach `share`. Clusters of more
    than a fifth of that come last, which in practice means that they are trained on: or the
    validation split could be one family of character tables.

    Args:
      texts: document id -> text; at least two documents.
      share: of all documents and of all bytes, between 0 and 1.
    """
    ids = list(texts)
    size = {i: len(texts[i].encode()) for i in ids}
    least_files, least_bytes = share * len(ids), share * sum(size.values())
    families = [[ids[i] for i in c] for c in neardup.clusters(list(texts.values()))]

    def place(family: Sequence[str]) -> tuple[bool, bytes]:
        large = len(family) > least_files / 5 or sum(size[i] for i in family) > least_bytes / 5
        return large, hashlib.sha256(min(family).encode()).digest()

    chosen: set[str] = set()
    chosen_bytes = 0
    for family in sorted(families, key=place):
        if len(chosen) >= least_files and chosen_bytes >= least_bytes:
            break
        chosen.update(family)
        chosen_bytes += sum(size[i] for i in family)
    return chosen


def _validation(library: Files, progress: Progress) -> set[str]:
    return steadily(
        functools.partial(choose_validation, library.texts),
        functools.partial(progress, "splitting the library", 0, 1),
    )


def _shards(
    title: str, library: Files, validation: Callable[[], set[str]], split: str
) -> list[Shard]:
    names = {"train": set(library.texts) - validation(), "validation": validation()}
    chosen = select(split, {key: _in_order(key, names[key]) for key in names}, title)
    found = [
        File(name, str(library.root / name), len(library.texts[name].encode())) for name in chosen
    ]
    return files.whole_files(found, Maker(text_key="", replace=False))


def _in_order(split: str, names: set[str]) -> list[str]:
    """The files of a split in the order in which TFDS's own shuffle would store them.

    Any fixed order would do; this one is what stores were built in before, which keeps their
    fingerprints.
    """

    def place(name: str) -> bytes:
        return hashlib.md5(f"{split}{name}".encode(), usedforsecurity=False).digest()

    return sorted(names, key=place)
