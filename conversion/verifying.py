"""Logits beside those of `transformers`, where that is installed."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from model import parameters
from model.decoder import Decoder
from model.layers import ON_ONE
from model.parameters import Params

TOLERANCE = 1e-3
"""The largest difference of two logits, both computed in float32."""

_ROWS, _LENGTH = 4, 32


def require() -> None:
    """Refuses to compare where there is nothing to compare with.

    Raises:
      UserError: torch or transformers is not installed.
    """
    lacks = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if lacks:
        raise UserError(
            f"--verify needs {' and '.join(lacks)}, which Podium does not install: `pip install "
            "torch transformers` into this environment, or leave it out"
        )


def difference(folder: Path, outline: Decoder, params: Params) -> float:
    """The largest difference of logits, on a few rows of random ids, each one document.

    Args:
      folder: that `transformers` reads.
      outline: of the decoder.
      params: its parameters.

    Raises:
      UserError: `transformers` cannot read it.
    """
    length = min(_LENGTH, outline.config.max_length)
    ids = np.random.default_rng(0).integers(0, outline.config.vocab_size, (_ROWS, length))
    theirs = _theirs(folder, ids)
    ours = np.asarray(_ours(outline, params, ids))[..., : outline.config.vocab_size]
    return float(np.max(np.abs(ours - theirs[..., : outline.config.vocab_size])))


def _ours(outline: Decoder, params: Params, ids: np.ndarray) -> jax.Array:
    config = dataclasses.replace(outline.config, dtype="float32")
    model = parameters.outline(config, ON_ONE)
    tokens = jnp.asarray(ids, jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)

    def logits(params: Params, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        return parameters.bind(model, params)(tokens, positions, jnp.ones_like(tokens))

    return jax.jit(logits)(params, tokens, positions)


def _theirs(folder: Path, ids: np.ndarray) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise UserError(f"transformers does not read {folder}: {line}") from error
    with torch.no_grad():
        logits: np.ndarray = model.eval()(torch.from_numpy(ids)).logits.float().numpy()
    return logits
