"""The decoder as Tunix calls a model."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from model.decoder import Decoder

_NEVER = -1e30  # finite: Tunix multiplies what it masks by 0


class Policy(nnx.Module):
    """A decoder behind the signature that Tunix's losses call.

    Tunix tells padding from tokens by an id, which no text may have: here it is V, one more than
    the decoder has (`padding_id`). So logits have a place for it, of probability 0.

    Args:
      decoder: with its parameters.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.config, self.decoder = decoder.config, decoder

    @property
    def padding_id(self) -> int:
        """The id that stands for padding."""
        return self.config.padded_vocab_size

    def __call__(
        self,
        tokens_BT: jax.Array,
        positions: jax.Array,
        cache: None = None,
        attention_mask: Any = None,
        segment_ids: jax.Array | None = None,
    ) -> tuple[jax.Array, None]:
        """Args:
          tokens_BT: int32 ids, `padding_id` among them.
          positions: int32 [B, T], from 0 at the first token of each text.
          cache: none: texts are drawn by model/generation.py (rollout.py).
          attention_mask: says what `segment_ids` do, which our attention reads.
          segment_ids: int32 [B, T], 0 where there is padding.

        Returns:
          logits [B, T, V + 1], float32 and finite; and the cache, which is None.
        """
        if cache is not None or segment_ids is None:
            raise ValueError("segment_ids are needed and no cache is kept: rollout.py draws texts")
        tokens_BT = jnp.where(segment_ids > 0, tokens_BT, 0)
        logits = jnp.maximum(self.decoder(tokens_BT, positions, segment_ids), _NEVER)
        return jnp.pad(logits, ((0, 0), (0, 0), (0, 1)), constant_values=_NEVER), None
