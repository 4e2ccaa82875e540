"""What both sides train: the same models on the same tokens."""

import dataclasses
import hashlib
import json
from typing import Literal, NamedTuple

from model.config import ModelConfig


class Shape(NamedTuple):
    """A model of one of two families, and its batch.

    "gpt2": tied embeddings, learned positions, LayerNorm, GELU, biases. "llama": RMSNorm, rotary
    positions, SwiGLU, grouped-query attention.
    """

    family: Literal["gpt2", "llama"]
    layers: int
    embed: int
    heads: int
    kv_heads: int
    mlp: int
    vocab: int
    rows: int
    length: int
    dtype: Literal["float32", "bfloat16"]

    def config(self) -> ModelConfig:
        """The same model in Podium's terms."""
        base = ModelConfig(
            vocab_size=self.vocab,
            num_layers=self.layers,
            embed_dim=self.embed,
            num_heads=self.heads,
            num_kv_heads=self.kv_heads,
            head_dim=self.embed // self.heads,
            mlp_dim=self.mlp,
            max_length=self.length,
            dtype=self.dtype,
            logits_mb=512 if self.dtype == "bfloat16" else 128,
            # On CPUs what a loop over layers stacks costs a tenth of the step.
            scan_unroll=self.layers if self.dtype == "float32" else 1,
        )
        if self.family == "llama":
            return base
        return dataclasses.replace(
            base, norm="layernorm", positions="learned", mlp="gelu", bias=True
        )

    def matmul_size(self) -> int:
        """Of the square matrices whose product is the limit."""
        return 8192 if self.dtype == "bfloat16" else 2048

    def hash(self) -> str:
        """Names the model's config and its batch."""
        config = dataclasses.asdict(self.config()) | {"rows": self.rows, "length": self.length}
        return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


SHAPES: dict[str, dict[str, Shape]] = {
    "cpu": {
        "small": Shape("gpt2", 6, 384, 6, 6, 1536, 50304, 8, 256, "float32"),
        "gpt2_124m": Shape("gpt2", 12, 768, 12, 12, 3072, 50304, 2, 1024, "float32"),
    },
    "gpu": {
        "gpt2_124m": Shape("gpt2", 12, 768, 12, 12, 3072, 50304, 16, 1024, "bfloat16"),
        "llama_1b": Shape("llama", 16, 2048, 32, 8, 8192, 128256, 4, 2048, "bfloat16"),
    },
    # So small that it runs anywhere at once, to see that all is there.
    "smoke": {
        "gpt2": Shape("gpt2", 2, 64, 4, 4, 256, 384, 2, 64, "float32"),
        "llama": Shape("llama", 2, 64, 4, 2, 128, 384, 2, 64, "float32"),
    },
}
"""By hardware, and by name."""

LEARNING_RATE, DECAY, BETAS, CLIP = 6e-4, 0.1, (0.9, 0.95), 1.0
