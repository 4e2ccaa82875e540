"""What both sides train: the same model on the same tokens."""

from typing import Literal, NamedTuple

from model.config import ModelConfig


class Shape(NamedTuple):
    """A GPT-2 shape (tied embeddings, learned positions, LayerNorm, GELU) and its batch."""

    layers: int
    embed: int
    heads: int
    vocab: int
    rows: int
    length: int
    dtype: Literal["float32", "bfloat16"]

    def config(self) -> ModelConfig:
        """The same model in Podium's terms."""
        return ModelConfig(
            vocab_size=self.vocab,
            num_layers=self.layers,
            embed_dim=self.embed,
            num_heads=self.heads,
            num_kv_heads=self.heads,
            head_dim=self.embed // self.heads,
            mlp_dim=4 * self.embed,
            max_length=self.length,
            norm="layernorm",
            positions="learned",
            mlp="gelu",
            bias=True,
            dtype=self.dtype,
        )


CPU = Shape(6, 384, 6, 50304, 8, 256, "float32")
GPU = Shape(12, 768, 12, 50304, 16, 1024, "bfloat16")
LEARNING_RATE, DECAY, BETAS, CLIP = 6e-4, 0.1, (0.9, 0.95), 1.0
