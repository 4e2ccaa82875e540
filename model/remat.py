"""What of a block is kept for the backward pass, what is put into the host's memory, and what is
computed again: by the names that the block gives its tensors."""

from collections.abc import Callable
from typing import Any

import jax

from model.config import PRODUCTS, ModelConfig

_KEPT: dict[str, tuple[str, ...]] = {
    "full": (),
    "save_attention": ("attention",),
    "save_dots": (*PRODUCTS, "attention"),
}

Policy = Callable[..., Any]


def policy(config: ModelConfig) -> Policy | None:
    """For jax.checkpoint; None where nothing is computed again."""
    if config.remat == "none":
        return None
    kept = {*_KEPT[config.remat], *config.remat_save} - set(config.remat_offload)
    if not config.remat_offload:
        return jax.checkpoint_policies.save_only_these_names(*sorted(kept))
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=sorted(kept),
        names_which_can_be_offloaded=sorted(config.remat_offload),
        offload_src="device",
        offload_dst="pinned_host",
    )
