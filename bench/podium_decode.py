"""Podium's side of the bench of decoding.

    python -m bench.podium_decode float32 8

A line on stdin is one run, a JSON line out.
"""

import json
import sys
import time

import jax
import numpy as np

from bench import decode_shape as shape
from model import parameters
from model.config import ModelConfig
from model.generation import Generator, Sampling
from sharding.config import decoding_mesh
from sharding.means import means
from sharding.mesh import make_mesh


def main() -> None:
    dtype, batch = sys.argv[1], int(sys.argv[2])
    config = ModelConfig(
        vocab_size=shape.VOCAB,
        num_layers=shape.LAYERS,
        embed_dim=shape.EMBED,
        num_heads=shape.HEADS,
        num_kv_heads=shape.KV_HEADS,
        head_dim=shape.EMBED // shape.HEADS,
        mlp_dim=shape.MLP,
        max_length=shape.MAX_LENGTH,
        rope_theta=shape.THETA,
        dtype=dtype,  # type: ignore[arg-type]
    )
    mesh = make_mesh(decoding_mesh(1, config.num_heads), jax.devices()[:1])
    outline = parameters.outline(config, means(mesh, config))
    params = jax.jit(parameters.initialize, static_argnums=(0, 1))(config, 0)
    generator = Generator(outline, params, Sampling(temperature=0))
    del params
    prompts = np.random.default_rng(0).integers(10, 40_000, (batch, shape.PROMPT)).tolist()

    def run(tokens: int) -> float:
        began = time.perf_counter()
        drawn = list(generator.rows(prompts, max_tokens=tokens, seeds=[0] * batch))
        assert len(drawn) == tokens
        return time.perf_counter() - began

    print(json.dumps({"jax": jax.__version__}), flush=True)
    for _ in sys.stdin:
        first = run(1)
        print(json.dumps({"first_s": first, "s": run(1 + shape.NEW) - first}), flush=True)


if __name__ == "__main__":
    main()
