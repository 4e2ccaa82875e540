"""How the weights of a decoder are named and laid out in a Hugging Face checkpoint."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from einops import rearrange


class Weight(NamedTuple):
    """One tensor of theirs, and what it is of ours.

    Attributes:
      ours: dotted path of the parameter, in the decoder or in a block of it; or several, which lie
        one after the other along `axis`.
      theirs: its name, with {layer} for the number of its layer and {expert} for that of its
        expert; experts of ours are stacked along their first dimension.
      form: from their dimensions to ours in the notation of einops, such as "(n h) d -> d n h";
        without the dimension of layers, or of experts that they have apart. Empty if they are the
        same. The sizes of our dimensions are known.
      axis: of ours (with those that are merged).
      order: entry i of ours along `axis`, merged, is their entry order[i]. Empty: it is entry i.
    """

    ours: str | tuple[str, ...]
    theirs: str
    form: str = ""
    axis: int = 0
    order: tuple[int, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Dotted paths of ours."""
        return (self.ours,) if isinstance(self.ours, str) else self.ours


class Names(NamedTuple):
    """All weights of a family.

    Attributes:
      outside: those that are in no block.
      layers: those of every block.
      dense: those of blocks with an MLP.
      experts: those of blocks with experts.
    """

    outside: tuple[Weight, ...]
    layers: tuple[Weight, ...]
    dense: tuple[Weight, ...] = ()
    experts: tuple[Weight, ...] = ()


def to_ours(
    weight: Weight, theirs: np.ndarray, shapes: Sequence[tuple[int, ...]]
) -> list[np.ndarray]:
    """Our parameters of one of their tensors.

    Args:
      weight: which it is.
      theirs: its values.
      shapes: of our parameters, without layers and experts that they have apart.

    Raises:
      ValueError: it has another shape than ours would have there.
    """
    sizes = [shape[weight.axis] for shape in shapes]
    whole = list(shapes[0])
    whole[weight.axis] = sum(sizes)
    merged = theirs
    if weight.form:
        names = weight.form.split("->")[1].split()
        try:
            merged = rearrange(theirs, weight.form, **dict(zip(names, whole, strict=True)))
        except Exception as error:  # einops says by its own error which sizes do not fit
            raise ValueError(f"{theirs.shape} does not fit {tuple(whole)}") from error
    if merged.shape != tuple(whole):
        raise ValueError(f"{theirs.shape} does not fit {tuple(whole)}")
    if weight.order:
        merged = np.take(merged, weight.order, axis=weight.axis)
    return np.split(merged, np.cumsum(sizes)[:-1], axis=weight.axis)


def to_theirs(weight: Weight, ours: Sequence[np.ndarray]) -> np.ndarray:
    """Their tensor of our parameters: what `to_ours` is made from."""
    merged = ours[0] if len(ours) == 1 else np.concatenate(ours, axis=weight.axis)
    if weight.order:
        merged = np.take(merged, np.argsort(weight.order), axis=weight.axis)
    if weight.form:
        theirs, of_ours = weight.form.split("->")
        merged = rearrange(merged, f"{of_ours} -> {theirs}")
    return np.ascontiguousarray(merged)
