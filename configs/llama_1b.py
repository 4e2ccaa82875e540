"""The shape of Llama 3.2 1B: grouped-query attention, tied embeddings, 1.24 B parameters.

    python train.py --config=configs/llama_1b.py --workdir=runs/llama_1b \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a byte-level tokenizer of 128,256 ids.

Hardware: the layouts below; `python plan.py --config=configs/llama_1b.py --topology=v5e:4x4` says
what each chip holds and how fast it should be. It has been run on no hardware.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 128256
    config.model.num_layers = 16
    config.model.embed_dim = 2048
    config.model.num_heads = 32
    config.model.num_kv_heads = 8
    config.model.head_dim = 64
    config.model.mlp_dim = 8192
    config.model.max_length = 4096
    config.model.rope_theta = 500_000.0
    config.model.remat = "full"
    config.model.logits_mb = 512
    config.data.source = "tfds:c4/en"
    config.data.tokenizer = config_dict.placeholder(str)
    config.data.sequence_length = 4096
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.optimizer.learning_rate = 4e-4
    config.optimizer.warmup_steps = 2000
    config.train.steps = 100_000
    config.train.batch_size = 256
    config.train.accumulation = 8
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.evaluation.batch_size = 32
    config.checkpoint.every = 1000
    config.layouts = {
        "v5e-16": {"train": {"accumulation": 8}},
        "v5p-8": {"train": {"accumulation": 8}},
        "h100x8": {"train": {"accumulation": 8}},
    }
    return config
