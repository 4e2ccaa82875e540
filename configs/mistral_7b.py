"""The shape of Mistral 7B v0.1 (Jiang et al. 2023): a window of 4,096 tokens, 7.24 B parameters.

    python train.py --config=configs/mistral_7b.py --workdir=runs/mistral_7b \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a tokenizer of 32,000 ids; 4.2 million
tokens a step.

Hardware: the layouts below; `python plan.py --config=configs/mistral_7b.py --topology=v5e:16x16`
says what each chip holds and how fast it should be. It has been run on no hardware.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 32000
    config.model.num_layers = 32
    config.model.embed_dim = 4096
    config.model.num_heads = 32
    config.model.num_kv_heads = 8
    config.model.head_dim = 128
    config.model.mlp_dim = 14336
    config.model.sliding_window = 4096
    config.model.tie_embeddings = False
    config.model.max_length = 8192
    config.model.remat = "full"
    config.model.logits_mb = 512
    config.data.source = "tfds:c4/en"
    config.data.tokenizer = config_dict.placeholder(str)
    config.data.sequence_length = 8192
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 2000
    config.train.steps = 480_000
    config.train.batch_size = 512
    config.train.accumulation = 2
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.evaluation.batch_size = 256
    config.checkpoint.every = 1000
    config.layouts = {
        "v5e-256": {"train": {"accumulation": 2}},
        "v5p-64": {"train": {"accumulation": 4}},
    }
    return config
