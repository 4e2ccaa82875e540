"""The pass in which a decoder says once what a run asks of it: annotations of the rows to come.

Of a teacher the likeliest tokens of each position, of a reference log P(target). The pass goes over
the bins that the run shows, on the run's mesh; killed, it goes on where it was.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from data import annotations, cache
from data.annotations import Annotations, Asked, Found, Making
from data.documents import Progress
from model import parameters
from model.decoder import Decoder
from model.parameters import Params
from sharding import collectives
from sharding.order import natural
from sharding.placement import place_rows
from sharding.table import sharding, ways
from training import chunks
from training.chunks import Chunk
from training.loss import spread_out
from training.objectives.config import ObjectiveConfig
from training.objectives.distillation import IDS, LOG_PROBS, REST, marked
from training.objectives.objective import REFERENCE, likelihoods

Score = Callable[[Params, dict[str, jax.Array]], dict[str, jax.Array]]


def kind(config: ObjectiveConfig) -> dict[str, str | int]:
    """What determines annotations beside the rows and the decoder."""
    if config.learns_from == "reference":
        return {"kind": REFERENCE}
    return {"kind": "likeliest", "top_k": config.top_k, "temperature": repr(config.temperature)}


def annotate(
    config: ObjectiveConfig,
    of: Mapping[str, str],
    teacher: Callable[[], Decoder],
    params: Callable[[], Params],
    mesh: Mesh,
    rows: Asked,
    progress: Progress,
) -> Annotations:
    """Finds or makes the annotations of some rows; all processes call it together.

    Args:
      config: what is asked.
      of: what determines the answers of who is asked: parameters, and what it computes with.
      teacher, params: give its outline and its parameters, if they are needed.
      mesh: of all arrays.
      rows: what is asked about.
      progress: told of what is done.

    Raises:
      UserError: those that are there are damaged, or the cache cannot be written.
    """
    what = {**kind(config), **of}
    path = annotations.address(rows, **what)
    if _everywhere(np.array(cache.has(path))):
        return Annotations(path)
    making = Making(path, rows)
    done = _everywhere(making.done)
    outline = teacher()
    score = make_score(config, outline, mesh)
    for number, make in enumerate(rows.batches):
        first = number * rows.at_once
        progress(f"asking about {rows.name}: rows", first, rows.bins.size)
        if not done[number]:
            found = jax.device_get(score(params(), place_rows(mesh, rows.at_once, make)))
            some = min(rows.at_once, rows.bins.size - first)
            making.add(number, _kept(found, some, outline.config.vocab_size))
    return making.publish(what, progress)


def make_score(config: ObjectiveConfig, teacher: Decoder, mesh: Mesh) -> Score:
    """The jitted answers to a batch: by name [B, T, ...], in the order of the text, whole on every
    device; with "weights".
    """

    def score(params: Params, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        model = parameters.bind(teacher, params)
        if config.learns_from == "reference":
            found = {REFERENCE: likelihoods(model, batch, mesh)}
        else:
            found = _likeliest(config, model, batch, mesh)
        whole = {name: natural(x, ways(mesh, "length")) for name, x in found.items()}
        return whole | {"weights": batch["weights"]}

    return jax.jit(score, out_shardings=sharding(mesh, ()))


def _likeliest(
    config: ObjectiveConfig, model: Decoder, batch: dict[str, jax.Array], mesh: Mesh
) -> dict[str, jax.Array]:
    batch = spread_out(mesh, batch)
    x_BTD, _, _ = model.features(batch["tokens"], batch["positions"], batch["segments"])
    ask = functools.partial(likeliest, config.top_k, config.temperature)
    table_VD = model.table[...]
    found: dict[str, jax.Array] = chunks.of_tokens(
        model.config, mesh, ask, table_VD, x_BTD, batch["targets"]
    )
    return found


def likeliest(top_k: int, temperature: float, chunk: Chunk) -> dict[str, jax.Array]:
    """The likeliest tokens of a chunk, and the mass of all others (see distillation.py)."""
    logits_MV = chunk.logits_MV / temperature
    of_all = chunks.softmax(logits_MV, chunk.vocab)
    values, places = jax.lax.top_k(logits_MV, min(top_k, logits_MV.shape[1]))
    ids = chunk.ids_V[places]
    values, ids = (collectives.gathered(x, chunk.vocab, 1) for x in (values, ids))
    values, places = jax.lax.top_k(values, top_k)
    ids = jnp.take_along_axis(ids, places, axis=1)
    others = jnp.where(marked(ids, chunk.ids_V), 0, of_all.exps_MV)
    others = collectives.total(jnp.sum(others, axis=-1), chunk.vocab)
    rest = jnp.log(jnp.maximum(others / of_all.total_M, 1e-30))
    return {IDS: ids, LOG_PROBS: values - of_all.log_z_M[:, None], REST: rest}


def _kept(found: dict[str, np.ndarray], bins: int, vocab_size: int) -> Found:
    """As it is kept: of the rows that are bins; ids and what is beside them in two bytes each."""
    found = {name: np.asarray(array)[:bins] for name, array in found.items()}
    is_real = found.pop("weights") > 0
    sums: dict[str, Any] = {"positions": int(is_real.sum())}
    if IDS in found:
        sums["mass beyond"] = float(np.exp(found[REST][is_real]).sum(dtype=np.float64))
        small = vocab_size <= 1 << 16
        found[IDS] = found[IDS].astype(np.uint16 if small else np.uint32)
        found[LOG_PROBS] = found[LOG_PROBS].astype(np.float16)
        found[REST] = found[REST].astype(np.float16)
    return Found(found, sums)


def _everywhere(here: np.ndarray) -> np.ndarray:
    """Where it is true on all processes."""
    if jax.process_count() == 1:
        return here
    return np.asarray(np.all(multihost_utils.process_allgather(here), axis=0))
