"""What every config starts from: each section's defaults, as its dataclass states them.

A run's file calls `base()` and sets what it wants to be different; `corpus()` and `stage()` make
what goes into config.data.mixture and config.data.stages, by names of its choice. config.layouts
says what some hardware changes (configs/layouts.py). The keys and
their meaning are those of ModelConfig (model/config.py), DataConfig (data/config.py), MeshConfig
(sharding/config.py) and the rest of RunConfig (training/config.py).
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from data.config import CorpusConfig, DataConfig, StageConfig
from model.config import ModelConfig
from training.config import RunConfig

AUTO = "auto"
"""model.dtype: bfloat16 on TPU and GPU, float32 on CPU. layout: see configs/layouts.py."""


def base() -> ConfigDict:
    """Every key with its default; the ones without a default are small and plain."""
    model = ModelConfig(
        vocab_size=0,  # the tokenizer's
        num_layers=4,
        embed_dim=256,
        num_heads=4,
        num_kv_heads=4,
        head_dim=64,
        mlp_dim=1024,
        max_length=512,
    )
    data = DataConfig(source="python_stdlib", sequence_length=512)
    plain = dataclasses.asdict(RunConfig(model=model, data=data))
    del plain["model"]["adapter"]  # config.tuning says it
    config = ConfigDict(plain)
    config.model.dtype = AUTO
    config.layouts = ConfigDict()
    config.layout = AUTO
    return config


def corpus(**values: Any) -> dict[str, Any]:
    """One of config.data.mixture: every key of CorpusConfig (data/config.py)."""
    return dataclasses.asdict(CorpusConfig(**values))


def stage(**values: Any) -> dict[str, Any]:
    """One of config.data.stages: every key of StageConfig (data/config.py)."""
    return dataclasses.asdict(StageConfig(**values))
