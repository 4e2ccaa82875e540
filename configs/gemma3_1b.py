"""The shape of Gemma 3 1B (Gemma Team 2025): five local layers for each global one, 1.00 B
parameters.

    python train.py --config=configs/gemma3_1b.py --workdir=runs/gemma3_1b \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a tokenizer of 262,144 ids; two million
tokens a step.

Hardware: the layouts below; `python plan.py --config=configs/gemma3_1b.py --topology=v5e:4x4`
says what each chip holds and how fast it should be. It has been run on no hardware.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 262144
    config.model.num_layers = 26
    config.model.embed_dim = 1152
    config.model.num_heads = 4
    config.model.num_kv_heads = 1
    config.model.head_dim = 256
    config.model.mlp_dim = 6912
    config.model.norm_eps = 1e-6
    config.model.norms = "both"
    config.model.norm_offset = 1.0
    config.model.mlp = "geglu"
    config.model.rope_theta = 1_000_000.0
    config.model.rope_local_theta = 10_000.0
    config.model.qk_norm = True
    config.model.sliding_window = 512
    config.model.layer_pattern = (*("local",) * 5, "global")
    config.model.embed_scale = 1152**0.5
    config.model.max_length = 8192
    config.model.remat = "full"
    config.model.logits_mb = 512
    config.data.source = "tfds:c4/en"
    config.data.tokenizer = config_dict.placeholder(str)
    config.data.sequence_length = 8192
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.optimizer.learning_rate = 4e-4
    config.optimizer.warmup_steps = 2000
    config.train.steps = 500_000
    config.train.batch_size = 256
    config.train.accumulation = 8
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.evaluation.batch_size = 32
    config.checkpoint.every = 1000
    config.layouts = {
        "v5e-16": {"train": {"accumulation": 16}},
        "h100x8": {"train": {"accumulation": 16}},
    }
    return config
