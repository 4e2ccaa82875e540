"""What a block keeps for the backward pass, what waits in the host's memory, and what is computed
again: by the names that the block gives its tensors (model/config.py, model/remat.py).

Letters are those of planning/analytic/layout.py.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from model.config import PRODUCTS, ModelConfig
from planning.analytic.layout import Layout

KEPT: Mapping[str, tuple[str, ...]] = {
    "full": (),
    "save_attention": ("attention",),
    "save_dots": (*PRODUCTS, "attention"),
}
"""By model.remat, what is not computed again; where that is "none", nothing is."""


class Tensor(NamedTuple):
    """Something that a block can keep.

    Attributes:
      a_token: its bytes a token, on a device.
      formula: of them.
      between: whether it has the tokens between blocks, or those of whole rows.
    """

    a_token: Callable[[Layout], float]
    formula: str
    between: bool = False

    def size(self, layout: Layout) -> float:
        """Bytes of one block and microbatch."""
        length = layout.between if self.between else layout.length
        return layout.rows * length * self.a_token(layout)


def _embed(o: Layout) -> float:
    return o.itemsize * o.run.model.embed_dim


def _heads(o: Layout) -> float:
    return o.itemsize * (o.run.model.head_dim * o.heads + o.run.model.latent.query_rank)


def _keys(o: Layout) -> float:
    latent, size = o.run.model.latent, o.run.model.head_dim
    if not latent.kv_rank:
        return o.itemsize * size * o.kv_heads
    return o.itemsize * ((size - latent.rope_dim) * o.kv_heads + latent.kv_rank + latent.rope_dim)


def _values(o: Layout) -> float:
    return o.itemsize * o.run.model.value_dim * o.kv_heads


def _mixed(o: Layout) -> float:
    return o.itemsize * o.run.model.value_dim * o.heads


def _hidden(o: Layout) -> float:
    return o.itemsize * o.own_hidden


TENSORS: Mapping[str, Tensor] = {
    "block": Tensor(_embed, "D a", between=True),
    "query": Tensor(_heads, "N H a"),
    "key": Tensor(_keys, "K H a"),
    "value": Tensor(_values, "K H a"),
    "attention": Tensor(lambda o: _mixed(o) + 4 * o.heads, "N (H a + 4)"),
    "out": Tensor(_embed, "D a", between=True),
    "gate": Tensor(_hidden, "F a"),
    "up": Tensor(_hidden, "F a"),
}
"""What the backward pass reads. "down" is none of it: after it there is but a sum."""

_INSIDE: Mapping[str, Tensor] = {
    "inside the norms": Tensor(
        lambda o: 2 * ((12 + o.itemsize) * o.run.model.embed_dim + 8), "2 ((12 + a) D + 8)", True
    ),
    "attention, transposed": Tensor(_mixed, "N H a"),
    "inside the activation function": Tensor(
        lambda o: _hidden(o) * (4 if o.run.model.gated else 5), "4 F a (5 without a gate)"
    ),
}
"""What only a backward pass without recomputation reads besides."""


def _names(model: ModelConfig) -> set[str]:
    """Tensors that the model has and its backward pass reads."""
    return set(TENSORS) - (set() if model.gated else {"gate"})


def offloaded(model: ModelConfig) -> set[str]:
    """What waits in the host's memory."""
    return _names(model) & set(model.remat_offload)


def again(model: ModelConfig) -> set[str]:
    """Products, and attention, that are computed again. What is between them always is."""
    if model.remat == "none":
        return set()
    have = {"block", *KEPT[model.remat], *model.remat_save, *model.remat_offload}
    return _names(model) - have


def kept(layout: Layout) -> dict[str, Tensor]:
    """What a block keeps on a device."""
    model = layout.run.model
    if model.remat == "none":
        # The float32 of the norms holds what comes into the block, and what attention gives.
        names = _names(model) - {"block", "out"}
        return {name: TENSORS[name] for name in TENSORS if name in names} | dict(_INSIDE)
    names = _names(model) - again(model) - offloaded(model)
    return {name: TENSORS[name] for name in TENSORS if name in names}
