"""Families of models as Hugging Face publishes them: one file each, and this table.

A family says what of a `config.json` is which option of the decoder, and by which names and in
which form the weights of one are those of the other. It computes nothing.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from model.config import ModelConfig
from model.families import (
    deepseek_v3,
    gemma2,
    gemma3_text,
    gpt2,
    gpt_oss,
    llama,
    mistral,
    mixtral,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
)
from model.families.hf_config import HfConfig
from model.families.weights import Names


class Family(Protocol):
    """What the module of a family has.

    Attributes:
      MODEL_TYPE: the `model_type` of its config.json.
      ARCHITECTURE: the class of `transformers` that computes it.
      PREFIX: of the names of its weights, but for those that begin with "/" in `names`.
    """

    MODEL_TYPE: str
    ARCHITECTURE: str
    PREFIX: str

    def from_hf(self, hf: HfConfig) -> ModelConfig:
        """The decoder that a config.json describes.

        Raises:
          HfConfigError: a key is missing, or has a value that the decoder has no option for.
        """

    def to_hf(self, config: ModelConfig) -> dict[str, Any]:
        """The config.json of a decoder, without what does not depend on the family.

        It need not describe the decoder: whether it does is found out by reading it again.
        """

    def names(self, config: ModelConfig) -> Names:
        """Which weights of the decoder are which of theirs."""


FAMILIES: Mapping[str, Family] = {
    family.MODEL_TYPE: family
    for family in (
        gpt2,
        llama,
        mistral,
        qwen2,
        qwen3,
        gemma2,
        gemma3_text,
        olmo2,
        phi3,
        mixtral,
        qwen3_moe,
        deepseek_v3,
        gpt_oss,
    )
}
"""By model_type. Where several could say what a decoder is, the first one does."""
