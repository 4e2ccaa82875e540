"""The shape of Mixtral 8x7B (Jiang et al. 2024): two of eight experts a token, 46.7 B parameters.

    python train.py --config=configs/mixtral_8x7b.py --workdir=runs/mixtral_8x7b \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a tokenizer of 32,000 ids; 2.1 million
tokens a step.

Hardware: the layouts below, with a chip of its own for each expert; `python plan.py
--config=configs/mixtral_8x7b.py --topology=v5p:4x8x8` says what each chip holds and how fast it
should be. It has been run on no hardware. No token is dropped, and the router's losses are those of
Mixtral's kin: how Mixtral itself was trained is not published.
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
    config.model.max_length = 4096
    config.model.rope_theta = 1_000_000.0
    config.model.tie_embeddings = False
    config.model.moe.num_experts = 8
    config.model.moe.experts_per_token = 2
    config.model.moe.expert_mlp_dim = 14336
    config.model.moe.balance_weight = 0.01
    config.model.moe.router_z_weight = 1e-3
    config.model.remat = "full"
    config.model.logits_mb = 512
    config.data.source = "tfds:c4/en"
    config.data.tokenizer = config_dict.placeholder(str)
    config.data.sequence_length = 4096
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.mesh.expert = 8
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 2000
    config.train.steps = 500_000
    config.train.batch_size = 512
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.evaluation.batch_size = 512
    config.checkpoint.every = 1000
    config.layouts = {
        "v5p-64": {"train": {"accumulation": 4}},
        "v5p-256": {"train": {"accumulation": 1}},
        "v5p-128x2": {"mesh": {"data": 2}, "train": {"accumulation": 1}},
    }
    return config
