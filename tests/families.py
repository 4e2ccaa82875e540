"""A small decoder of every family, with weights and documents that need no file.

Goldens and the comparisons with a living `transformers` share it. No code of its here.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from conversion import pieces
from conversion.pieces import Piece
from model import parameters
from model.config import ModelConfig
from model.families import FAMILIES, Family
from model.families.hf_config import HfConfig
from model.families.weights import to_ours, to_theirs
from training import fields

GOLDENS = Path(__file__).parent / "golden" / "families"
VOCABULARY, WINDOW = 40, 5
LENGTHS = (20, 12)
LENGTH = 34

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 8.0,
    "beta_slow": 1.0,
    "rope_theta": 200.0,
}
_IN_TURNS = {"sliding_window": WINDOW, "head_dim": 16}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
_SLIDING, _FULL = "sliding_attention", "full_attention"

SMALL: Mapping[str, dict[str, Any]] = {
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_positions": 64,
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_inner": 48,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "llama": {
        **_SIZES,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 200.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "mistral": {**_SIZES, "sliding_window": WINDOW, "head_dim": 16},
    "qwen2": {
        **_SIZES,
        "tie_word_embeddings": True,
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
    },
    "qwen3": {**_SIZES, "head_dim": 16, "rope_parameters": _YARN},
    "gemma2": {
        **_SIZES,
        **_IN_TURNS,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 4.0,
    },
    "gemma3_text": {
        **_SIZES,
        **_IN_TURNS,
        "num_hidden_layers": 4,
        "query_pre_attn_scalar": 20,
        "layer_types": [_SLIDING, _SLIDING, _FULL, _SLIDING],
        "rope_parameters": {
            _FULL: {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0},
            _SLIDING: {"rope_type": "default", "rope_theta": 100.0},
        },
    },
    "olmo2": _SIZES,
    "phi3": {**_SIZES, "sliding_window": WINDOW},
    "mixtral": {
        **_SIZES,
        "num_hidden_layers": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": WINDOW,
    },
    "qwen3_moe": {
        **_SIZES,
        **_EXPERTS,
        "head_dim": 16,
        "num_experts": 6,
        "norm_topk_prob": True,
        "mlp_only_layers": [0],
    },
    "deepseek_v3": {
        **_SIZES,
        **_EXPERTS,
        "num_key_value_heads": 4,
        "n_routed_experts": 8,
        "n_group": 4,
        "topk_group": 2,
        "num_experts_per_tok": 3,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 12,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "rope_parameters": {**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    },
    "gpt_oss": {
        **_SIZES,
        **_IN_TURNS,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rope_parameters": {**_YARN, "truncate": False},
    },
}
"""Of every family a config that uses all it has, by the keys of `transformers`."""


def drawn(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """The weight of a name: float32, the same wherever it is drawn.

    Matrices have a standard deviation of 0.2, which is about what keeps 32 features at their size;
    vectors one of 0.3, so that each of them matters, and those of norms lie around 1. Experts of
    gpt-oss have larger biases, so that what has bounds meets them.
    """
    values = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
    if name.rsplit(".", 1)[-1] in ("bias", "sinks") or len(shape) == 1:
        is_scale = name.endswith("weight")
        return (float(is_scale) + 0.3 * values).astype(np.float32)
    large = name.endswith("gate_up_proj_bias")
    return ((4.0 if large else 0.2) * values).astype(np.float32)


def documents() -> list[np.ndarray]:
    """Token ids."""
    rng = np.random.default_rng(5)
    return [rng.integers(3, 37, length, dtype=np.int32) for length in LENGTHS]


class Rows(NamedTuple):
    """Rows for the decoder, [B, T] each: every document alone, and all of them packed, twice.

    Attributes:
      tokens, positions, segments: int32.
      where: of each row the documents that it has, and where they begin.
    """

    tokens: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    where: tuple[tuple[tuple[int, int], ...], ...]


def rows() -> Rows:
    tokens, positions, segments = np.zeros((3, 4, LENGTH), np.int32)
    order: list[tuple[int, ...]] = [(0,), (1,), (0, 1), (1, 0)]
    where = []
    for row, numbers in enumerate(order):
        start, here = 0, []
        for segment, number in enumerate(numbers, 1):
            document = documents()[number]
            part = slice(start, start + len(document))
            tokens[row, part] = document
            positions[row, part] = np.arange(len(document))
            segments[row, part] = segment
            here.append((number, start))
            start += len(document)
        where.append(tuple(here))
    return Rows(tokens, positions, segments, tuple(where))


def largest_difference(logits_BTV: Any, expected: list[np.ndarray]) -> float:
    """Between our logits of `rows()` and those of each document alone, [T, V]."""
    found = np.asarray(logits_BTV)[..., :VOCABULARY]
    differences = [
        np.abs(found[row, start : start + len(expected[number])] - expected[number]).max()
        for row, here in enumerate(rows().where)
        for number, start in here
    ]
    return float(max(differences))


def config_of(values: Mapping[str, Any]) -> tuple[Family, ModelConfig, HfConfig]:
    """What a config.json describes."""
    family, hf = FAMILIES[values["model_type"]], HfConfig(values)
    return family, family.from_hf(hf), hf


def to_params(family: Family, config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> Any:
    """Our parameters of all their tensors; every one of both is used once."""
    outline = parameters.outline(config)
    shapes = parameters.shapes(outline)
    found = {path: np.zeros(x.shape, np.float32) for path, x in fields.flat(shapes).items()}
    counts = {path: np.zeros(x.shape, int) for path, x in found.items()}
    wanted = pieces.pieces(family, outline)
    assert sorted(piece.theirs for piece in wanted) == sorted(tensors)
    for piece in wanted:
        values = to_ours(piece.weight, tensors[piece.theirs], piece.shapes)
        for path, value in zip(piece.paths, values, strict=True):
            inside = tuple(map(slice, value.shape))
            found[path][piece.at][inside] = value  # a part of it, not a copy
            counts[path][piece.at][inside] += 1
    for path, count in counts.items():
        rows = config.vocab_size if path in ("embedding", "unembedding") else len(count)
        assert (count[:rows] == 1).all(), path
    return pieces.like(shapes, found)


def to_tensors(family: Family, config: ModelConfig, params: Any) -> dict[str, np.ndarray]:
    """Their tensors of all our parameters."""
    flat = {path: np.asarray(x) for path, x in fields.flat(params).items()}

    def of(piece: Piece) -> np.ndarray:
        ours = (flat[path][piece.at] for path in piece.paths)
        parts = (x[tuple(map(slice, shape))] for x, shape in zip(ours, piece.shapes, strict=True))
        return to_theirs(piece.weight, list(parts))

    outline = parameters.outline(config)
    return {piece.theirs: of(piece) for piece in pieces.pieces(family, outline)}


class Golden(NamedTuple):
    """What `transformers` said.

    Attributes:
      config: the config.json that it saved.
      shapes: of the tensors that it saved.
      logits: of each document alone, [T, V].
    """

    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    logits: list[np.ndarray]

    def tensors(self) -> dict[str, np.ndarray]:
        return {name: drawn(name, shape) for name, shape in self.shapes.items()}


def golden(name: str) -> Golden:
    found = json.loads((GOLDENS / f"{name}.json").read_text())
    shapes = {key: tuple(shape) for key, shape in found["tensors"].items()}
    return Golden(found["config"], shapes, [np.array(one) for one in found["logits"]])
