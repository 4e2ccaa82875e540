"""The parameters of a checkpoint, read a part at a time onto a mesh."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from conversion.filling import Filling
from conversion.formats import Tensor
from conversion.pieces import Matched, Piece, like
from conversion.safetensors_files import listed
from errors import UserError
from model.families.weights import Weight, to_ours
from model.parameters import Params
from training.fields import flat

PART_BYTES = 1 << 26
"""Larger weights are read in parts of about so many bytes, where their form allows it."""


class Part(NamedTuple):
    """A part of a weight that is read at once.

    Attributes:
      first, last: the entries [first, last) of the first dimension of theirs.
      shapes: of what that is of each of ours, without layers and experts.
      starts: where that begins, layers and experts too.
    """

    first: int
    last: int
    shapes: tuple[tuple[int, ...], ...]
    starts: tuple[tuple[int, ...], ...]


def read(
    wanted: Sequence[Piece],
    matched: Matched,
    tensors: Mapping[str, Tensor],
    abstract: Params,
    progress: Callable[[int, int], None],
) -> Params:
    """Fills parameters with the weights of a checkpoint.

    Args:
      wanted: every weight.
      matched: what of the checkpoint they are.
      tensors: of the checkpoint.
      abstract: shape, dtype and sharding of the parameters; what no weight fills, the rows that
        pad the vocabulary, is zero.
      progress: is told how many megabytes of how many are read.

    Raises:
      UserError: a file is damaged, or what is there twice differs.
    """
    filling = {path: Filling(leaf) for path, leaf in flat(abstract).items()}
    total = sum(math.prod(p.shape) for p in wanted)
    done = 0
    for piece in wanted:
        tensor = tensors[matched.names[piece.theirs]]
        for part in parts(piece, tensor.row_bytes):
            targets = [
                (filling[path], start, (1,) * len(piece.at) + shape)
                for path, start, shape in zip(piece.paths, part.starts, part.shapes, strict=True)
            ]
            if any(into.wants(start, shape) for into, start, shape in targets):
                values = tensor.read(part.first, part.last)
                ours = to_ours(piece.weight, values, part.shapes)
                for (into, start, shape), value in zip(targets, ours, strict=True):
                    into.put(start, value.reshape(shape))
            done += (part.last - part.first) * math.prod(piece.shape[1:])
            progress(done // 1_000_000, max(1, total // 1_000_000))
    _check_twice(matched, tensors)
    return like(abstract, {path: one.array() for path, one in filling.items()})


def parts(piece: Piece, row_bytes: int) -> Iterator[Part]:
    """The parts that a weight is read in.

    Args:
      piece: the weight.
      row_bytes: of an entry of its first dimension.
    """
    along = along_first(piece.weight, piece.shapes)
    index, shapes = piece.at, piece.shapes
    if along is None:
        starts = tuple(index + (0,) * len(shape) for shape in shapes)
        yield Part(0, piece.shape[0], shapes, starts)
        return
    axis, inner = along
    size, each = shapes[0][axis], max(1, PART_BYTES // max(1, row_bytes * inner))
    for start in range(0, size, each):
        stop = min(start + each, size)
        cut = tuple((*shape[:axis], stop - start, *shape[axis + 1 :]) for shape in shapes)
        at = tuple(
            (*index, *(start if d == axis else 0 for d in range(len(shape)))) for shape in shapes
        )
        yield Part(start * inner, stop * inner, cut, at)


def along_first(weight: Weight, shapes: Sequence[tuple[int, ...]]) -> tuple[int, int] | None:
    """Which dimension of ours begins the first one of theirs, and how many entries of that are one
    of ours; None where theirs has to be read whole.
    """
    own, names = ["0"], [str(d) for d in range(len(shapes[0]))]
    if weight.form:
        theirs, _, ours = weight.form.partition("->")
        first = re.match(r"\s*(?:\(([^)]*)\)|(\S+))", theirs)
        own, names = (first[1] or first[2]).split() if first else [], ours.split()
        if not own or not set(own) <= set(names):
            return None
    axes = [names.index(name) for name in own]
    merged = weight.axis % len(names)
    if merged == axes[0] and (len(shapes) > 1 or weight.order):
        return None
    if merged in axes and len(shapes) > 1:
        return None
    return axes[0], math.prod(shapes[0][axis] for axis in axes[1:])


def _check_twice(matched: Matched, tensors: Mapping[str, Tensor]) -> None:
    """Refuses a second copy of a weight that is another one."""
    differ = []
    for name, whole in matched.twice.items():
        one, other = tensors[name], tensors[matched.names[whole]]
        if one.shape != other.shape or not _equal(one, other):
            differ.append(f"{name} is not {matched.names[whole]}")
    if differ:
        raise UserError(
            f"{listed(differ)}, although tie_word_embeddings of config.json says so: one of both "
            "is wrong"
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    each = max(1, PART_BYTES // max(1, one.row_bytes))
    starts = range(0, one.shape[0], each)
    return all(
        np.array_equal(
            one.read(a, a + each).astype(np.float32), other.read(a, a + each).astype(np.float32)
        )
        for a in starts
    )
