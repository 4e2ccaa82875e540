"""The text part of a Gemma 3 that sees, too (Gemma Team 2025)."""

from typing import Any

from model.config import ModelConfig
from model.families import gemma3_text
from model.families.hf_config import HfConfig
from model.families.weights import Names

MODEL_TYPE = "gemma3"
ARCHITECTURE = "Gemma3ForConditionalGeneration"
PREFIX = "language_model.model."

_UNSAID = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
}
"""Within another config only what differs from these is written."""


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.ignore("vision_config", "mm_tokens_per_image", "tie_word_embeddings")
    hf.ignore("boi_token_index", "eoi_token_index", "image_token_index")
    return gemma3_text.from_hf(hf.part("text_config", _UNSAID))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    text = gemma3_text.to_hf(config)
    return {"text_config": {"model_type": gemma3_text.MODEL_TYPE, **text}}


def names(config: ModelConfig) -> Names:
    found = gemma3_text.names(config)
    outside = tuple(
        weight._replace(theirs=weight.theirs.replace("/", "/language_model."))
        if weight.theirs.startswith("/")
        else weight
        for weight in found.outside
    )
    unused = ("/language_model.lm_head.weight", "/vision_tower.*", "/multi_modal_projector.*")
    return found._replace(outside=outside, unused=unused)
