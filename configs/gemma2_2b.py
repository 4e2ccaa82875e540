"""The shape of Gemma 2 2B (Riviere et al. 2024): local and global layers, soft-caps, 2.61 B
parameters.

    python train.py --config=configs/gemma2_2b.py --workdir=runs/gemma2_2b \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a tokenizer of 256,000 ids; 4.2 million
tokens a step.

Hardware: the layouts below; `python plan.py --config=configs/gemma2_2b.py --topology=v5e:8x8`
says what each chip holds and how fast it should be. It has been run on no hardware.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 256000
    config.model.num_layers = 26
    config.model.embed_dim = 2304
    config.model.num_heads = 8
    config.model.num_kv_heads = 4
    config.model.head_dim = 256
    config.model.mlp_dim = 9216
    config.model.norm_eps = 1e-6
    config.model.norms = "both"
    config.model.norm_offset = 1.0
    config.model.mlp = "geglu"
    config.model.attention_softcap = 50.0
    config.model.logit_softcap = 30.0
    config.model.sliding_window = 4096
    config.model.layer_pattern = ("local", "global")
    config.model.embed_scale = 2304**0.5
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
    config.train.steps = 480_000
    config.train.batch_size = 512
    config.train.accumulation = 4
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.evaluation.batch_size = 64
    config.checkpoint.every = 1000
    config.layouts = {
        "v5e-64": {"train": {"accumulation": 8}},
        "v5p-8": {"train": {"accumulation": 32}},
    }
    return config
