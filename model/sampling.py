"""Which token comes next: rules that leave some of them out, and the draw."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. The rules apply in the order in which they stand here.

    Attributes:
      repetition_penalty: logits of tokens that are in the text already, the prompt included, are
        divided by it if they are positive, and multiplied if they are not (Keskar et al. 2019); 1
        is off.
      temperature: logits are divided by it; 0 takes the likeliest token.
      top_k: only the k likeliest tokens, and those that are as likely as the last of them; 0 is
        off.
      top_p: only the likeliest tokens that together have this probability (Holtzman et al. 2020);
        1 is off.
      min_p: only tokens that have this share of the probability of the likeliest one (Nguyen et al.
        2024); 0 is off.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature}: must not be negative")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k}: must not be negative")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: must lie in (0, 1]")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p={self.min_p}: must lie in [0, 1]")
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty={self.repetition_penalty}: must be positive")


class Drawn(NamedTuple):
    """What was drawn for each row.

    Attributes:
      tokens_B: int32.
      logprobs_B: float32; the logarithm of the probability that the model itself gives to the
        token, whatever rules it was drawn by.
      top_ids_BR, top_logprobs_BR: the likeliest tokens of the model, the likeliest first, and
        theirs; R is 0 unless they were asked for.
    """

    tokens_B: jax.Array
    logprobs_B: jax.Array
    top_ids_BR: jax.Array
    top_logprobs_BR: jax.Array


def warped(logits_BV: jax.Array, how: Sampling, seen_BV: jax.Array | None = None) -> jax.Array:
    """Logits, float32, after the rules of `how`: -inf for what is left out.

    Args:
      logits_BV: of the model.
      how: the rules. With temperature 0 only the penalty for repetition applies.
      seen_BV: bool, the tokens that are in the text already; None is none.
    """
    logits_BV = logits_BV.astype(jnp.float32)
    if seen_BV is not None and how.repetition_penalty != 1:
        by = jnp.where(logits_BV < 0, how.repetition_penalty, 1 / how.repetition_penalty)
        logits_BV = jnp.where(seen_BV, logits_BV * by, logits_BV)
    if how.temperature == 0:
        return logits_BV
    logits_BV = logits_BV / how.temperature
    if how.top_k and how.top_k < logits_BV.shape[-1]:
        least = jax.lax.top_k(logits_BV, how.top_k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV >= least, logits_BV, -jnp.inf)
    if how.top_p < 1:
        probs_BV = jax.nn.softmax(logits_BV, axis=-1)
        logits_BV = jnp.where(probs_BV >= _nucleus(probs_BV, how.top_p), logits_BV, -jnp.inf)
    if how.min_p > 0:
        least = jnp.max(logits_BV, axis=-1, keepdims=True) + jnp.log(how.min_p)
        logits_BV = jnp.where(logits_BV >= least, logits_BV, -jnp.inf)
    return logits_BV


def _nucleus(probs_BV: jax.Array, top_p: float) -> jax.Array:
    """The least probability that is kept, [B, 1]: of those for which all that is likelier has less
    than `top_p`.

    The bits of numbers that are not negative are in the order of the numbers, so it is found by
    halving, bit after bit, in 30 sums. To sort a vocabulary takes many times as long.
    """

    def too_low(least_B1: jax.Array) -> jax.Array:
        likelier = jnp.where(probs_BV > least_B1, probs_BV, 0)
        return _sum(likelier) >= top_p

    def halve(bit: jax.Array, low_B1: jax.Array) -> jax.Array:
        step = jnp.int32(1) << (29 - bit)
        tried = jax.lax.bitcast_convert_type(low_B1 + step - 1, jnp.float32)
        return jnp.where(too_low(tried), low_B1 + step, low_B1)

    low = jnp.zeros((probs_BV.shape[0], 1), jnp.int32)
    return jax.lax.bitcast_convert_type(jax.lax.fori_loop(0, 30, halve, low), jnp.float32)


def _sum(x_BV: jax.Array) -> jax.Array:
    """Sums of rows, [B, 1], over two axes: along the last one CPUs add number by number."""
    wide = -(-x_BV.shape[-1] // 128) * 128
    x_BXY = jnp.pad(x_BV, ((0, 0), (0, wide - x_BV.shape[-1]))).reshape(x_BV.shape[0], -1, 128)
    return jnp.sum(jnp.sum(x_BXY, axis=1), axis=-1, keepdims=True)


def row_keys(seeds_B: jax.Array, index: jax.Array) -> jax.Array:
    """The keys of token `index` of each row: of its seed and that number alone."""
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), index))(seeds_B)


def sample(
    logits_BV: jax.Array,
    keys_B: jax.Array,
    how: Sampling,
    seen_BV: jax.Array | None = None,
    top: int = 0,
) -> Drawn:
    """Draws a token a row; ids with a logit of -inf are never drawn.

    Args:
      logits_BV: of the model.
      keys_B: a key for each row.
      how: the rules.
      seen_BV: bool, the tokens that are in the text already, for repetition_penalty.
      top: how many of the likeliest tokens are told besides.
    """
    kept_BV = warped(logits_BV, how, seen_BV)
    if how.temperature == 0:
        tokens_B = jnp.argmax(kept_BV, axis=-1)
    else:
        tokens_B = jax.vmap(jax.random.categorical)(keys_B, kept_BV)
    logprobs_BV = jax.nn.log_softmax(logits_BV.astype(jnp.float32), axis=-1)
    mine = jnp.take_along_axis(logprobs_BV, tokens_B[:, None], axis=-1)[:, 0]
    values, ids = jax.lax.top_k(logprobs_BV, top) if top else (logprobs_BV[:, :0],) * 2
    return Drawn(tokens_B.astype(jnp.int32), mine, ids.astype(jnp.int32), values)
