"""Exact, token-weighted perplexity and bits per byte of a split."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from cluster.interrupts import BrokenOff, Vote
from errors import UserError
from model import parameters
from model.decoder import Decoder
from sharding.placement import place_rows
from sharding.table import sharding
from training.loss import Sums
from training.objectives.objective import Objective, next_token


class Rows(Protocol):
    """What is scored: batches by index, such as data.windows.Windows."""

    n_batches: int
    batch_size: int
    is_examples: bool

    def batch(self, index: int, rows: slice | None = None) -> dict[str, np.ndarray]:
        """A batch, or some of its rows."""


Scorer = Callable[[parameters.Params, dict[str, jax.Array]], Sums]


def make_scorer(
    model: Decoder, mesh: Mesh, params_shardings: Any, of_pairs: Objective | None = None
) -> Scorer:
    """The jitted sums of a batch; `model` is an outline.

    Args:
      of_pairs: an objective of pairs, whose sums are wanted, too.
    """
    names = ["loss", "tokens", "bytes", *(("pairs", *of_pairs.per) if of_pairs else ())]

    def score(params: parameters.Params, batch: dict[str, jax.Array]) -> Sums:
        asked = of_pairs or next_token(0.0)
        sums = asked.sums(parameters.bind(model, params), batch, mesh, None)[1]
        return {name: sums[name] for name in names}

    return jax.jit(
        score,
        in_shardings=(params_shardings, sharding(mesh, ("batch",))),
        out_shardings=sharding(mesh, ()),
    )


def evaluate(
    score: Scorer,
    params: parameters.Params,
    windows: Rows,
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
      loss (nats a token), perplexity, bits_per_byte, tokens, bytes; of pairs also how many, and
      the means over them.

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
    loss, pairs = total["loss"] / total["tokens"], int(total.pop("pairs", 0))
    of_text = {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700)),
        "bits_per_byte": total["loss"] / math.log(2) / total["bytes"],
        "tokens": int(total["tokens"]),
        "bytes": int(total["bytes"]),
    }
    if not pairs:
        return of_text
    of_pairs = {name: x / pairs for name, x in total.items() if name not in of_text}
    return {**of_text, **of_pairs, "pairs": pairs}


def together(results: Mapping[str, dict[str, float]]) -> dict[str, float]:
    """The result over several splits, from that of each: every token, and every pair, counts the
    same.
    """
    tokens = sum(result["tokens"] for result in results.values())
    text_bytes = sum(result["bytes"] for result in results.values())
    total = sum(result["loss"] * result["tokens"] for result in results.values())
    of_text = {
        "loss": total / tokens,
        "perplexity": math.exp(min(total / tokens, 700)),
        "bits_per_byte": total / math.log(2) / text_bytes,
        "tokens": tokens,
        "bytes": text_bytes,
    }
    of = [result for result in results.values() if "pairs" in result]
    pairs = sum(result["pairs"] for result in of)
    means = {
        name: sum(result[name] * result["pairs"] for result in of) / pairs
        for name in (of[0].keys() - of_text.keys() - {"pairs"} if of else ())
    }
    return {**of_text, **means, **({"pairs": pairs} if of else {})}


def _add(total: dict[str, float], sums: Sums) -> None:
    """Adds the sums of a batch, and refuses a count that has run over (see training/loss.py)."""
    for name, value in jax.device_get(sums).items():
        if name in ("tokens", "bytes") and value < 0:
            raise UserError(
                f"a batch has more {name} than 2^31 and cannot be counted: make "
                "evaluation.batch_size smaller"
            )
        total[name] = total.get(name, 0) + value.item()
