"""Text continues token by token, with a cache of keys and values."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from model import parameters
from model.decoder import Cache, Decoder


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
      temperature: logits are divided by it; 0 takes the likeliest token.
      top_k: only the k likeliest tokens; 0 is off.
      top_p: only the likeliest tokens that together have this probability (Holtzman et al. 2020);
        1 is off.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature}: must not be negative")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k}: must not be negative")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: must lie in (0, 1]")


def sample(logits_BV: jax.Array, key: jax.Array, how: Sampling) -> jax.Array:
    """Draws a token a row, int32 [B]; ids with a logit of -inf are never drawn."""
    if how.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV.astype(jnp.float32) / how.temperature
    if how.top_k and how.top_k < logits_BV.shape[-1]:
        least = jax.lax.top_k(logits_BV, how.top_k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV >= least, logits_BV, -jnp.inf)
    if how.top_p < 1:
        ranked = jnp.sort(logits_BV, axis=-1, descending=True)
        probabilities = jax.nn.softmax(ranked, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        least = jnp.min(jnp.where(before < how.top_p, ranked, jnp.inf), axis=-1, keepdims=True)
        logits_BV = jnp.where(logits_BV >= least, logits_BV, -jnp.inf)
    return jax.random.categorical(key, logits_BV, axis=-1).astype(jnp.int32)


class Generator:
    """Continues prompts, one at a time.

    Args:
      model: an outline of the decoder.
      params: its parameters; cast once to the dtype that they are multiplied in.
      how: the sampling.
      replicated: where drawn tokens lie if the parameters are spread over several devices; None
        with one. (The model's `constrain` places the cache.)
    """

    def __init__(
        self,
        model: Decoder,
        params: parameters.Params,
        how: Sampling,
        replicated: jax.sharding.Sharding | None = None,
    ):
        self._model, self._params = model, parameters.in_compute_dtype(model, params)

        def extend(
            params: parameters.Params,
            cache: Cache,
            tokens_BT: jax.Array,
            start: jax.Array,
            last: jax.Array,
            seeds: jax.Array,
        ) -> tuple[jax.Array, Cache]:
            """Feeds tokens into the cache at `start`; draws what follows the one at `last`."""
            decoder = parameters.bind(model, params)
            positions = start + jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
            ones = jnp.ones_like(tokens_BT)
            found = decoder.features(tokens_BT, positions, ones, cache, start)
            assert found.cache is not None
            x_BD = jax.lax.dynamic_index_in_dim(found.x_BTD, last, axis=1, keepdims=False)
            key = jax.random.fold_in(jax.random.key(seeds[0]), seeds[1])
            return sample(decoder.unembed(x_BD), key, how), found.cache

        self._extend = jax.jit(extend, donate_argnames=("cache",), out_shardings=(replicated, None))
        self._empty = jax.jit(model.empty_cache, static_argnums=(0, 1))

    def __call__(
        self, prompt: Sequence[int], *, max_tokens: int, seed: int, stop: int | None = None
    ) -> Iterator[int]:
        """Continues one prompt.

        Token i is drawn with a key of (seed, i) alone: the same seed gives the same text.

        Args:
          prompt: token ids, at least one (BOS where there is nothing else).
          max_tokens: at most so many new tokens.
          seed: of the draws.
          stop: the id that ends the text (EOS); it is not yielded.

        Returns:
          the new tokens, each as soon as it is drawn.

        Raises:
          ValueError: an empty prompt, or prompt and new tokens together longer than the model
            takes.
        """
        limit = self._model.config.max_length
        if not prompt:
            raise ValueError("the prompt is empty: it needs at least one token")
        if len(prompt) + max_tokens > limit:
            raise ValueError(
                f"the prompt's {len(prompt)} tokens and max_tokens={max_tokens} together exceed "
                f"the model's max_length={limit}: shorten one"
            )
        return self._tokens(prompt, max_tokens, seed, stop)

    def _tokens(
        self, prompt: Sequence[int], max_tokens: int, seed: int, stop: int | None
    ) -> Iterator[int]:
        # Lengths are rounded up to powers of two, so that many prompts share few compiled
        # programs. What the padding writes into the cache lies after the prompt, and is
        # overwritten before any token sees it.
        limit = self._model.config.max_length
        padded = min(1 << (len(prompt) - 1).bit_length(), limit)
        cache_length = min(1 << (len(prompt) + max_tokens - 1).bit_length(), limit)
        cache = self._empty(1, cache_length)
        tokens = np.zeros((1, padded), np.int32)
        tokens[0, : len(prompt)] = prompt
        start, last = 0, len(prompt) - 1
        for index in range(max_tokens):
            seeds = np.array([seed & 0xFFFFFFFF, index], np.uint32)
            drawn, cache = self._extend(self._params, cache, tokens, start, last, seeds)
            token = int(drawn[0])
            if token == stop:
                return
            yield token
            tokens = np.array([[token]], np.int32)
            start, last = len(prompt) + index, 0
