"""What of a block is kept for the backward pass, what is put into the host's memory, and what is
computed again: by the names that the block gives its tensors."""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint

from model.config import PRODUCTS, ModelConfig
from model.layers import Name

_ALWAYS = ("routing",)
"""A router's choice: chosen again, experts that are nearly equal might be others."""

_KEPT: dict[str, tuple[str, ...]] = {
    "full": (),
    "save_attention": ("attention",),
    "save_dots": (*PRODUCTS, "attention"),
}

_WIDE = 3  # dimensions of [B, T, D] and [B, T, F]

Policy = Callable[..., Any]


def policy(config: ModelConfig) -> Policy | None:
    """For jax.checkpoint; None where nothing is computed again."""
    if config.remat == "none":
        return None
    kept = {*_ALWAYS, *_KEPT[config.remat], *config.remat_save} - set(config.remat_offload)
    if not config.remat_offload:
        return jax.checkpoint_policies.save_only_these_names(*sorted(kept))
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=sorted(kept),
        names_which_can_be_offloaded=sorted(config.remat_offload),
        offload_src="device",
        offload_dst="pinned_host",
    )


def naming(config: ModelConfig) -> Name:
    """What gives a tensor of a block its name.

    Rows [B, T, D] and [B, T, F] of what waits in the host's memory lie there one after the other,
    as the backward pass reads them: the compiler of TPUs would lay them otherwise, and then bring
    those of all layers back at once to lay them anew. What is split into heads it lays alike in
    both passes, head by head.
    """

    def named(x: jax.Array, name: str) -> jax.Array:
        if name in config.remat_offload and x.ndim == _WIDE:
            x = with_layout_constraint(x, Layout(tuple(range(x.ndim))))
        return checkpoint_name(x, name)

    return named
