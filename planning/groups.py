"""Which devices exchange with one another, as a compiled program writes it.

XLA writes groups of devices as lists ({{0,1},{2,3}}), as a count that is reshaped and transposed
([2,4]<=[4,2]T(1,0): rows are groups), or as axes of a mesh of its own (mesh['a'=4,'b'=2] {'a'});
exchanges from one to another as pairs. Between slices of TPUs, whose programs know themselves
alone, it names devices by their ids. `planning/grid.py` says whom the numbers are.
"""

import itertools
import math
import re

import numpy as np

_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_COUNTED = re.compile(r"\[([\d,]+)\](?:T\(([\d,]+)\))?$")
_MESH = re.compile(r"mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}")
_AXIS = re.compile(r"'?([^',]+?)'?(?::\((\d+)\)(\d+))?(?:,|$)")
_SLICE = 100_000  # the ids of a slice's devices begin at this times its number
_LISTS = re.compile(r"\{((?:\{[\d,]*\},?)*)\}")


def replica_groups(attributes: str, devices: int) -> np.ndarray:
    """The groups within which devices exchange.

    Args:
      attributes: of an instruction.
      devices: how many there are in all: without groups they all exchange.

    Returns:
      int [groups, devices in one], in the order that the program has them in.

    Raises:
      ValueError: if they are written in a way that is not known, or differ in size.
    """
    if "replica_groups=" not in attributes:
        return np.arange(devices)[None]
    text = attributes.split("replica_groups=", 1)[1]
    if found := _IOTA.match(text):
        return _counted(found[2], found[3] or "").reshape(_numbers(found[1]))
    if found := _MESH.match(text):
        return _of_axes(found[1], found[2], found[3])
    if not (found := _LISTS.match(text)):
        raise ValueError(f"groups of devices written in a way that is not known: {text[:80]}")
    lists = [_numbers(group) for group in re.findall(r"\{([\d,]*)\}", found[1])]
    if not any(lists):
        return np.arange(devices)[None]
    if len({len(group) for group in lists}) > 1:
        raise ValueError(f"groups of devices that differ in size: {found[0][:80]}")
    return np.asarray(lists)


def pairs(attributes: str) -> np.ndarray:
    """Who sends to whom: int [pairs, 2] of sources and targets."""
    found = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes)
    return np.asarray(_numbers(found[1]) if found else [], int).reshape(-1, 2)


def across_slices(attributes: str) -> np.ndarray:
    """The groups of an exchange between slices, or its pairs.

    Returns:
      int [groups, members] of the ids of devices.

    Raises:
      ValueError: if they are written in a way that is not known.
    """
    if found := re.search(r'_xla_megascale_target="\{([\d,]+)\}x\{(\d+):(\d+)\}"', attributes):
        # Of all slices (counted from 1) those from one to another that have the same place.
        slices, places = _numbers(found[1]), range(int(found[2]), int(found[3]) + 1)
        return np.asarray([[_SLICE * n + place for n in slices] for place in places])
    if found := re.search(r"_xla_megascale_target=\{((?:\{[\d,>-]*\},?)*)\}", attributes):
        groups = re.findall(r"\{([\d,>-]*)\}", found[1])
        return np.asarray([_numbers(group) for group in groups])
    raise ValueError(f"slices that exchange in a way that is not known: {attributes[:200]}")


def _counted(shape: str, order: str) -> np.ndarray:
    """0, 1, 2, ... in a shape, with the dimensions in another order."""
    sizes = _numbers(shape)
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    return numbers.transpose(_numbers(order) or range(len(sizes)))


def _of_axes(mesh: str, order: str | None, named: str) -> np.ndarray:
    """Groups along axes, or parts of axes: 'a':(2)4 is the middle one of 2 x 4 x the rest."""
    sizes = {name: int(size) for name, size in re.findall(r"'?([^',=]+?)'?=(\d+)", mesh)}
    ids = np.arange(math.prod(sizes.values()))
    if found := _COUNTED.match(order or ""):
        ids = _counted(found[1], found[2] or "").reshape(-1)
    elif order:
        ids = np.asarray(_numbers(order))
    dims: list[int] = []
    first: dict[tuple[str, int], int] = {}  # the dimension at which a part of an axis begins
    parts = [
        (name, int(before or 1), int(size or sizes[name]))
        for name, before, size in _AXIS.findall(named)
    ]
    for name, whole in sizes.items():
        cuts = sorted({1, whole} | {n for axis, b, s in parts if axis == name for n in (b, b * s)})
        for low, high in itertools.pairwise(cuts):
            first[name, low] = len(dims)
            dims.append(high // low)
        if whole == 1:
            first[name, 1] = len(dims)
            dims.append(1)
    inside: list[int] = []
    for name, before, size in parts:
        while size > 1:
            place = first[name, before]
            inside.append(place)
            before, size = before * dims[place], size // dims[place]
    outside = [n for n in range(len(dims)) if n not in inside]
    members = math.prod(dims[n] for n in inside)
    return ids.reshape(dims).transpose(outside + inside).reshape(-1, members)


def _numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]
