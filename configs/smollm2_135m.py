"""The shape of SmolLM2 135M (Allal et al. 2025): a deep and narrow Llama, 134.5 M parameters.

    python train.py --config=configs/smollm2_135m.py --workdir=runs/smollm2_135m \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a byte-level tokenizer of 49,152 ids; one
million tokens a step.

Hardware: the layouts below; `python plan.py --config=configs/smollm2_135m.py --topology=v5e:4x4`
says what each chip holds and how fast it should be. It has been run on no hardware.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 49152
    config.model.num_layers = 30
    config.model.embed_dim = 576
    config.model.num_heads = 9
    config.model.num_kv_heads = 3
    config.model.head_dim = 64
    config.model.mlp_dim = 1536
    config.model.rope_theta = 100_000.0
    config.model.max_length = 2048
    config.model.remat = "full"
    config.model.logits_mb = 512
    config.data.source = "tfds:c4/en"
    config.data.tokenizer = config_dict.placeholder(str)
    config.data.sequence_length = 2048
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 2000
    config.train.steps = 500_000
    config.train.batch_size = 512
    config.train.accumulation = 4
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.evaluation.batch_size = 64
    config.checkpoint.every = 1000
    config.layouts = {
        "v5e-16": {"train": {"accumulation": 4}},
        "h100x8": {"train": {"accumulation": 4}},
    }
    return config
