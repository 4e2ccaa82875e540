"""The shape of Llama 3 8B: grouped-query attention, its own output projection, 8.03 B parameters.

    python train.py --config=configs/llama3_8b.py --workdir=runs/llama3_8b \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a byte-level tokenizer of 128,256 ids.

Hardware: the layouts below; `python plan.py --config=configs/llama3_8b.py --topology=v5e:16x16`
says what each chip holds and how fast it should be. It has been run on no hardware.
batch_size / accumulation must be a multiple of data x fsdp.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 128256
    config.model.num_layers = 32
    config.model.embed_dim = 4096
    config.model.num_heads = 32
    config.model.num_kv_heads = 8
    config.model.head_dim = 128
    config.model.mlp_dim = 14336
    config.model.max_length = 8192
    config.model.rope_theta = 500_000.0
    config.model.tie_embeddings = False
    config.model.remat = "full"
    config.model.logits_mb = 512
    config.data.source = "tfds:c4/en"
    config.data.tokenizer = config_dict.placeholder(str)
    config.data.sequence_length = 8192
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 2000
    config.train.steps = 100_000
    config.train.batch_size = 512
    config.train.accumulation = 2
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.evaluation.batch_size = 256
    config.checkpoint.every = 1000
    config.layouts = {
        "v5e-256": {"model": {"remat": "save_attention"}, "train": {"accumulation": 1}},
        "v6e-256": {"train": {"accumulation": 2}},
        "v5p-64": {"train": {"accumulation": 4}},
    }
    return config
