"""Files of safetensors, read and written a part of a tensor at a time.

A file is the length of its header (8 bytes, little-endian), the header (JSON: of each tensor dtype,
shape, and where its bytes begin and end) and the tensors' bytes, row-major. The library maps whole
files into memory, which counts as memory of the process, and its NumPy side knows no FP8.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from errors import UserError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "U8": np.dtype(np.uint8),
}
"""Of the tensors that can be read."""

_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000  # the library's own bound
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Stored(NamedTuple):
    """Where a tensor is.

    Attributes:
      file: that has it.
      offset: of its first byte.
      dtype: as safetensors name it.
      shape: of the tensor.
    """

    file: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry of the first dimension."""
        return math.prod(self.shape[1:]) * DTYPES[self.dtype].itemsize

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The entries [start, stop) of the first dimension, in the tensor's dtype.

        Raises:
          UserError: the file is shorter than its header says.
        """
        dtype = DTYPES[self.dtype]
        if not self.shape:
            shape: tuple[int, ...] = ()
        else:
            shape = (len(range(*slice(start, stop).indices(self.shape[0]))), *self.shape[1:])
        read = np.empty(shape, dtype)
        with self.file.open("rb") as file:
            file.seek(self.offset + (start * self.row_bytes if shape else 0))
            if file.readinto(read.reshape(-1).view(np.uint8).data) != read.nbytes:
                raise UserError(f"{self.file} ends too early: copy it again from where it came")
        return read


def find(folder: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint, by name: of the files of its index, or of the one file.

    Raises:
      UserError: there are no such files, they are damaged, or the index and they disagree.
    """
    if (folder / INDEX).is_file():
        try:
            files_of = json.loads((folder / INDEX).read_text())["weight_map"]
            names = sorted(set(files_of.values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{folder / INDEX} is damaged: copy it again") from error
        if any(Path(name).name != name for name in names):
            raise UserError(f"{folder / INDEX} names files of other folders: it is refused")
        found: dict[str, Stored] = {}
        for name in names:
            if not (folder / name).is_file():
                raise UserError(f"{folder / name} is missing, which {INDEX} names: copy it, too")
            found |= header(folder / name)
        if lost := [name for name in files_of if name not in found]:
            raise UserError(f"{folder / INDEX} names {listed(lost)}, which its files do not have")
        return found
    if (folder / SINGLE).is_file():
        return header(folder / SINGLE)
    others = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth"))
    if others:
        raise UserError(
            f"{folder} has its weights as {others[0]}, a pickle, which can run code when it is "
            "read: give a checkpoint with safetensors"
        )
    raise UserError(f"{folder} has no weights: neither {SINGLE} nor {INDEX}")


def header(file: Path) -> dict[str, Stored]:
    """Every tensor of one file, by name.

    Raises:
      UserError: the file is damaged.
    """
    damaged = UserError(f"{file} is damaged, or no file of safetensors: copy it again")
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
        if not 2 <= length <= _LONGEST_HEADER:
            raise damaged
        text = opened.read(length)
    size = file.stat().st_size
    found = {}
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            shape = tuple(int(n) for n in entry["shape"])
            at = _LENGTH_BYTES + length + int(begin)
            found[name] = stored = Stored(file, at, str(entry["dtype"]), shape)
            known = DTYPES.get(stored.dtype)
            if known and math.prod(shape) * known.itemsize != end - begin:
                raise damaged
            if end > size - _LENGTH_BYTES - length or begin < 0:
                raise UserError(f"{file} ends too early: copy it again from where it came")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged from error
    return found


class Writer:
    """One file, whose tensors are written one after the other in the order that was said.

    Args:
      file: is made.
      tensors: name, dtype and shape of each.
    """

    def __init__(
        self, file: Path, tensors: Sequence[tuple[str, np.dtype[Any], tuple[int, ...]]]
    ) -> None:
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        at = 0
        for name, dtype, shape in tensors:
            end = at + math.prod(shape) * dtype.itemsize
            entry = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [at, end]}
            entries[name] = entry
            at = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # so that tensors are aligned
        self._left = list(tensors)[::-1]
        self._file = file.open("wb")
        self._file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Writes the next tensor, which has to be that of this name."""
        assert self._left.pop() == (name, tensor.dtype, tensor.shape), name
        self._file.write(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)

    def close(self) -> None:
        """Ends the file, which has to be complete."""
        assert not self._left
        self._file.close()


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names in a line: the first few, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
