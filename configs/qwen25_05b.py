"""The shape of Qwen 2.5 0.5B (Yang et al. 2024): biases on queries, keys, values, 494 M parameters.

    python train.py --config=configs/qwen25_05b.py --workdir=runs/qwen25_05b \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a byte-level tokenizer of 151,936 ids;
one million tokens a step.

Hardware: the layouts below; `python plan.py --config=configs/qwen25_05b.py --topology=v5e:4x4`
says what each chip holds and how fast it should be. It has been run on no hardware.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 151936
    config.model.num_layers = 24
    config.model.embed_dim = 896
    config.model.num_heads = 14
    config.model.num_kv_heads = 2
    config.model.head_dim = 64
    config.model.mlp_dim = 4864
    config.model.spare_vocab = True
    config.model.norm_eps = 1e-6
    config.model.rope_theta = 1_000_000.0
    config.model.qkv_bias = True
    config.model.max_length = 4096
    config.model.remat = "full"
    config.model.logits_mb = 512
    config.data.source = "tfds:c4/en"
    config.data.tokenizer = config_dict.placeholder(str)
    config.data.sequence_length = 4096
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.optimizer.learning_rate = 4e-4
    config.optimizer.warmup_steps = 2000
    config.train.steps = 500_000
    config.train.batch_size = 256
    config.train.accumulation = 4
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.evaluation.batch_size = 32
    config.checkpoint.every = 1000
    config.layouts = {
        "v5e-16": {"train": {"accumulation": 8}},
        "h100x8": {"train": {"accumulation": 8}},
    }
    return config
