"""Exact, token-weighted perplexity and bits per byte of a split."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from cluster.interrupts import BrokenOff, Vote
from data.windows import Windows
from errors import UserError
from model import parameters
from model.decoder import Decoder
from sharding.placement import place_rows
from sharding.table import sharding
from training.loss import Sums, batch_sums

Scorer = Callable[[parameters.Params, dict[str, jax.Array]], Sums]


def make_scorer(model: Decoder, mesh: Mesh, params_shardings: Any) -> Scorer:
    """The jitted sums of a batch; `model` is an outline."""

    def score(params: parameters.Params, batch: dict[str, jax.Array]) -> Sums:
        sums = batch_sums(parameters.bind(model, params), batch, mesh)[1]
        return {name: sums[name] for name in ("loss", "tokens", "bytes")}

    return jax.jit(
        score,
        in_shardings=(params_shardings, sharding(mesh, ("batch",))),
        out_shardings=sharding(mesh, ()),
    )


def evaluate(
    score: Scorer,
    params: parameters.Params,
    windows: Windows,
    mesh: Mesh,
    progress: Callable[[int, int], None] | None = None,
    vote: Vote | None = None,
) -> dict[str, float]:
    """Scores every window once.

    Sums of batches are added on the host, in double precision, counts exactly; so the figure does
    not depend on how the split was cut into batches, or the batches over devices, beyond float32
    rounding within one batch.

    Args:
      score: from make_scorer.
      params: the parameters.
      windows: of the split.
      mesh: where the batches go.
      progress: called with (batches done, of how many).
      vote: called once a batch; all processes break off together if its value is true.

    Returns:
      loss (nats a token), perplexity, bits_per_byte, tokens, bytes.

    Raises:
      BrokenOff: the vote was to stop.
      UserError: more bytes in one batch than can be counted.
    """
    total: dict[str, float] = {}
    pending: Sums | None = None
    stop: jax.Array | bool = False
    for index in range(windows.n_batches):
        make = functools.partial(windows.batch, index)
        batch = place_rows(mesh, windows.batch_size, make)
        sums = score(params, batch)
        if pending is not None:  # one batch behind, so that the devices never wait for the host
            _add(total, pending)
            if stop:
                raise BrokenOff
        pending, stop = sums, vote() if vote is not None else False
        if progress is not None:
            progress(index + 1, windows.n_batches)
    if pending is not None:
        _add(total, pending)
    loss = total["loss"] / total["tokens"]
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700)),
        "bits_per_byte": total["loss"] / math.log(2) / total["bytes"],
        "tokens": int(total["tokens"]),
        "bytes": int(total["bytes"]),
    }


def together(results: Mapping[str, dict[str, float]]) -> dict[str, float]:
    """The result over several splits, from that of each: every token counts the same."""
    tokens = sum(result["tokens"] for result in results.values())
    text_bytes = sum(result["bytes"] for result in results.values())
    total = sum(result["loss"] * result["tokens"] for result in results.values())
    return {
        "loss": total / tokens,
        "perplexity": math.exp(min(total / tokens, 700)),
        "bits_per_byte": total / math.log(2) / text_bytes,
        "tokens": tokens,
        "bytes": text_bytes,
    }


def _add(total: dict[str, float], sums: Sums) -> None:
    """Adds the sums of a batch, and refuses a count that has run over (see training/loss.py)."""
    for name, value in jax.device_get(sums).items():
        if name in ("tokens", "bytes") and value < 0:
            raise UserError(
                f"a batch has more {name} than 2^31 and cannot be counted: make "
                "evaluation.batch_size smaller"
            )
        total[name] = total.get(name, 0) + value.item()
