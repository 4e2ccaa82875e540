"""What both sides train: the same model on the same tokens."""

from typing import Literal, NamedTuple


class Shape(NamedTuple):
    """A GPT-2 shape (tied embeddings, learned positions, LayerNorm, GELU) and its batch."""

    layers: int
    embed: int
    heads: int
    vocab: int
    rows: int
    length: int
    dtype: Literal["float32", "bfloat16"]


CPU = Shape(6, 384, 6, 50304, 8, 256, "float32")
GPU = Shape(12, 768, 12, 50304, 16, 1024, "bfloat16")
LEARNING_RATE, DECAY, BETAS, CLIP = 6e-4, 0.1, (0.9, 0.95), 1.0
