"""What decoding is measured on: the shape of SmolLM2-135M, with random weights on both sides.

How fast a token is drawn does not depend on what the weights are.
"""

VOCAB, LAYERS, EMBED, HEADS, KV_HEADS, MLP, THETA = 49152, 30, 576, 9, 3, 1536, 100_000.0
MAX_LENGTH = 8192
PROMPT, NEW = 32, 64
"""Tokens of each prompt, and those that are drawn after the first."""
