"""Exact, token-weighted perplexity and bits per byte of a split."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cluster.interrupts import BrokenOff, Vote
from data.windows import Windows
from model import parameters
from model.decoder import Decoder
from sharding.placement import place_rows
from sharding.table import sharding
from training.loss import Sums, batch_sums

Scorer = Callable[[parameters.Params, dict[str, jax.Array]], Sums]


def make_scorer(model: Decoder, mesh: Mesh, params_shardings: Any) -> Scorer:
    """The jitted sums of a batch; `model` is an outline."""

    def score(params: parameters.Params, batch: dict[str, jax.Array]) -> Sums:
        return batch_sums(parameters.bind(model, params), batch, ways=mesh.size)[1]

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

    Sums of batches are added in double precision on the host, so the figure does not depend on
    how the split was cut into batches, or the batches over devices, beyond float32 rounding
    within one batch.

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
    """
    total = np.zeros(len(Sums._fields), np.float64)
    pending: Sums | None = None
    stop: jax.Array | bool = False
    for index in range(windows.n_batches):
        make = functools.partial(windows.batch, index)
        batch = place_rows(mesh, windows.batch_size, make)
        sums = score(params, batch)
        if pending is not None:  # one batch behind, so that the devices never wait for the host
            total += np.array(jax.device_get(pending), np.float64)
            if stop:
                raise BrokenOff
        pending, stop = sums, vote() if vote is not None else False
        if progress is not None:
            progress(index + 1, windows.n_batches)
    total += np.array(jax.device_get(pending), np.float64)
    sums = Sums(*total)
    loss = float(sums.loss / sums.tokens)
    return {
        "loss": loss,
        "perplexity": math.exp(loss),
        "bits_per_byte": float(sums.loss / math.log(2) / sums.bytes),
        "tokens": int(sums.tokens),
        "bytes": int(sums.bytes),
    }
