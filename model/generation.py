"""Texts continue token by token, with a cache of keys and values."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model import parameters
from model.cache import Cache
from model.decoder import Decoder
from model.sampling import Drawn, Sampling, row_keys, sample

__all__ = ["Drawn", "Generator", "PromptError", "Sampling"]


_LEAST = 16  # tokens that a prompt is padded to: shorter programs would be many, and no faster


class PromptError(ValueError):
    """A prompt that is empty or, with the new tokens, longer than the model takes."""


class Rows(NamedTuple):
    """What is known of the texts that are being continued.

    Attributes:
      tokens_B: the last token of each, which has not been fed yet.
      padding_B: empty slots before its first token.
      start: the slot of these tokens, the same for all.
      seen_BV: bool, what is in them; None where nothing asks for it.
    """

    tokens_B: jax.Array
    padding_B: jax.Array
    start: jax.Array
    seen_BV: jax.Array | None


class Generator:
    """Continues prompts, one or several at a time.

    Prompts are padded on the left, so that all rows go on at the same slot of the cache: padding
    has a segment of its own, and positions count from the first token. Lengths are rounded up to
    powers of two, so that many prompts share few compiled programs. Feeding the prompts, feeding a
    token, and drawing are three programs.

    Args:
      model: an outline of the decoder.
      params: its parameters; cast once to the dtype that they are multiplied in.
      how: the sampling.
      replicated: where drawn tokens lie if the parameters are spread over several devices; None
        with one. (The model's `constrain` places the cache.)
      cache_dtype: of keys and values in the cache, "bfloat16" or "float32"; None is the model's.
      top: of how many of the likeliest tokens log-probabilities are given with each token.
      platform: what the programs are made for; None is that of the devices of `params`.
    """

    def __init__(
        self,
        model: Decoder,
        params: parameters.Params,
        how: Sampling,
        replicated: jax.sharding.Sharding | None = None,
        *,
        cache_dtype: str | None = None,
        top: int = 0,
        platform: str | None = None,
    ):
        kept_in = cache_dtype or model.config.dtype
        self._given, self._apart = model, (platform or _platform(params)) == "cpu"
        apart = self._apart
        model, self._params = self._prepared(params)
        self._model = model
        self._warm: set[tuple[int, int, int]] = set()

        def empty(batch: int, length: int) -> Cache:
            return model.empty_cache(batch, length, kept_in, apart)

        def feed(
            params: parameters.Params, cache: Cache, tokens_BT: jax.Array, padding_B: jax.Array
        ) -> tuple[jax.Array, Cache, Rows]:
            decoder = parameters.bind(model, params)
            at_T = jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)
            positions_BT = jnp.maximum(at_T - padding_B[:, None], 0)
            segments_BT = (at_T >= padding_B[:, None]).astype(jnp.int32)
            found = decoder.features(tokens_BT, positions_BT, segments_BT, cache, 0)
            assert found.cache is not None
            seen_BV = None
            if how.repetition_penalty != 1:
                seen_BV = _seen(tokens_BT, segments_BT, model.config.padded_vocab_size)
            rows = Rows(tokens_BT[:, -1], padding_B, jnp.int32(tokens_BT.shape[1]), seen_BV)
            return decoder.unembed(found.x_BTD[:, -1]), found.cache, rows

        def go_on(
            params: parameters.Params, cache: Cache, rows: Rows
        ) -> tuple[jax.Array, Cache, Rows]:
            decoder = parameters.bind(model, params)
            tokens_BT, positions_BT = rows.tokens_B[:, None], (rows.start - rows.padding_B)[:, None]
            ones_BT = jnp.ones_like(tokens_BT)
            found = decoder.features(tokens_BT, positions_BT, ones_BT, cache, rows.start)
            assert found.cache is not None
            return (
                decoder.unembed(found.x_BTD[:, 0]),
                found.cache,
                rows._replace(start=rows.start + 1),
            )

        def draw(
            logits_BV: jax.Array, rows: Rows, seeds_B: jax.Array, index: jax.Array
        ) -> tuple[Drawn, Rows]:
            drawn = sample(logits_BV, row_keys(seeds_B, index), how, rows.seen_BV, top)
            seen_BV = rows.seen_BV
            if seen_BV is not None:
                seen_BV = seen_BV.at[jnp.arange(len(seen_BV)), drawn.tokens_B].set(True)
            return drawn, rows._replace(tokens_B=drawn.tokens_B, seen_BV=seen_BV)

        self._empty = jax.jit(empty, static_argnums=(0, 1))
        where: Any = {} if replicated is None else {"out_shardings": (None, None, replicated)}
        self._feed = jax.jit(feed, donate_argnames="cache", **where)
        self._go_on = jax.jit(go_on, donate_argnames="cache", **where)
        self._draw = jax.jit(draw, out_shardings=replicated)

    def renew(self, params: parameters.Params) -> None:
        """Takes other values of the parameters: what is compiled stays."""
        _, self._params = self._prepared(params)

    def _prepared(self, params: parameters.Params) -> tuple[Decoder, parameters.Params]:
        """The model and its parameters in the form that is fed fastest."""
        params = parameters.in_compute_dtype(self._given, params)
        return _for_cpu(self._given, params) if self._apart else (self._given, params)

    def rows(
        self, prompts: Sequence[Sequence[int]], *, max_tokens: int, seeds: Sequence[int]
    ) -> Iterator[Drawn]:
        """Continues several prompts, of any lengths, at once.

        Token i of a row is drawn with a key of (its seed, i) alone: what stands in other rows
        changes nothing.

        Args:
          prompts: token ids, at least one each (BOS where there is nothing else).
          max_tokens: at most so many new tokens.
          seeds: one a row, of its draws.

        Returns:
          the next token of every row, NumPy arrays, as soon as they are drawn. It goes on after a
          row's text has ended: who asks knows what ends it. One step is computed ahead.

        Raises:
          PromptError: an empty prompt, or a prompt and new tokens together longer than the model
            takes.
        """
        limit = self._model.config.max_length
        if not prompts or not all(len(prompt) for prompt in prompts):
            raise PromptError("the prompt is empty: it needs at least one token")
        longest = max(map(len, prompts))
        if longest + max_tokens > limit:
            raise PromptError(
                f"the prompt's {longest} tokens and max_tokens={max_tokens} together exceed "
                f"the model's max_length={limit}: shorten one"
            )
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts")
        return self._rows(prompts, max_tokens, seeds)

    def _rows(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, seeds: Sequence[int]
    ) -> Iterator[Drawn]:
        if max_tokens < 1:
            return
        width = _rounded(max(map(len, prompts)))
        tokens_BT = np.zeros((len(prompts), width), np.int32)
        padding_B = np.array([width - len(prompt) for prompt in prompts], np.int32)
        for row, prompt in enumerate(prompts):
            tokens_BT[row, padding_B[row] :] = prompt
        seeds_B = np.array([seed & 0xFFFFFFFF for seed in seeds], np.uint32)
        cache = self._empty(len(prompts), _rounded(width + max_tokens))
        logits, cache, rows = self._feed(self._params, cache, tokens_BT, padding_B)
        drawn, rows = self._draw(logits, rows, seeds_B, np.int32(0))
        for index in range(1, max_tokens):
            logits, cache, rows = self._go_on(self._params, cache, rows)
            ahead, rows = self._draw(logits, rows, seeds_B, np.int32(index))
            yield jax.device_get(drawn)
            drawn = ahead
        yield jax.device_get(drawn)

    def warm(self, prompts: Sequence[Sequence[int]], *, max_tokens: int) -> None:
        """Compiles what `rows` needs for these, unless it has been: so that times are of work."""
        shape = len(prompts), _rounded(max(map(len, prompts))), max_tokens
        if shape not in self._warm:
            self._warm.add(shape)
            next(self.rows(prompts, max_tokens=max_tokens, seeds=[0] * len(prompts)), None)

    def __call__(
        self, prompt: Sequence[int], *, max_tokens: int, seed: int, stop: int | None = None
    ) -> Iterator[int]:
        """Continues one prompt, with the tokens of a row of `rows`.

        Args:
          prompt, max_tokens, seed: see `rows`.
          stop: the id that ends the text (EOS); it is not yielded.

        Returns:
          the new tokens, each as soon as it is drawn.
        """
        drawn = self.rows([prompt], max_tokens=max_tokens, seeds=[seed])
        tokens = (int(one.tokens_B[0]) for one in drawn)
        return _until(tokens, stop)


def _until(tokens: Iterator[int], stop: int | None) -> Iterator[int]:
    for token in tokens:
        if token == stop:
            return
        yield token


def _rounded(length: int) -> int:
    return max(_LEAST, 1 << (length - 1).bit_length())


def _platform(params: parameters.Params) -> str:
    leaf = jax.tree.leaves(params)[0]
    platform: str = next(iter(leaf.sharding.device_set)).platform
    return platform


def _for_cpu(model: Decoder, params: parameters.Params) -> tuple[Decoder, parameters.Params]:
    """The same in the form that XLA's compiled programs for CPUs read fastest.

    They copy what they take out of a stack before they multiply it, so layers lie apart. They have
    no products of bfloat16: all weights would be cast to float32 for every token. So it is done
    once, and activations are in float32 too, which rounds less.
    """
    if model.config.dtype != "float32":
        config = dataclasses.replace(model.config, dtype="float32")
        model = parameters.outline(config, model.means)
        where = jax.tree.map(lambda param: param.sharding, params)
        widen = jax.jit(lambda tree: jax.tree.map(_widened, tree), out_shardings=where)
        params = widen(params)
    return model, parameters.apart(model, params)


def _widened(param: jax.Array) -> jax.Array:
    return param.astype(jnp.float32)


def _seen(tokens_BT: jax.Array, segments_BT: jax.Array, size: int) -> jax.Array:
    """Which ids are in each row, padding left out: bool [B, V]."""
    ids_BT = jnp.where(segments_BT > 0, tokens_BT, size)  # out of bounds is dropped
    rows_B1 = jnp.arange(len(tokens_BT))[:, None]
    return jnp.zeros((len(tokens_BT), size), bool).at[rows_B1, ids_BT].set(True, mode="drop")
