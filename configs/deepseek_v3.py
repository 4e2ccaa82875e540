"""The shape of DeepSeek-V3 (2024): latent attention, 8 of 256 experts a token, 671 B parameters.

    python train.py --config=configs/deepseek_v3.py --workdir=runs/deepseek_v3 \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a byte-level tokenizer of 129,280 ids;
16.8 million tokens a step.

Hardware: the layouts below; `python plan.py --config=configs/deepseek_v3.py
--topology=v5p:8x8x16` says what each chip holds and how fast it should be. It has been run on no
hardware.

It has the shape of the first stage, rows of 4,096 tokens without YaRN, and no head that predicts
one token more.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 129280
    config.model.num_layers = 61
    config.model.embed_dim = 7168
    config.model.num_heads = 128
    config.model.num_kv_heads = 128
    config.model.head_dim = 192
    config.model.mlp_dim = 18432
    config.model.spare_vocab = True
    config.model.norm_eps = 1e-6
    config.model.latent.kv_rank = 512
    config.model.latent.query_rank = 1536
    config.model.latent.rope_dim = 64
    config.model.latent.value_dim = 128
    config.model.tie_embeddings = False
    config.model.moe.num_experts = 256
    config.model.moe.experts_per_token = 8
    config.model.moe.groups = 8
    config.model.moe.groups_per_token = 4
    config.model.moe.expert_mlp_dim = 2048
    config.model.moe.shared_experts = 1
    config.model.moe.first_dense = 3
    config.model.moe.scoring = "sigmoid"
    config.model.moe.route_scale = 2.5
    config.model.moe.balance = "bias"
    config.model.moe.balance_weight = 1e-4
    config.model.max_length = 4096
    config.model.remat = "full"
    config.model.logits_mb = 512
    config.data.source = "tfds:c4/en"
    config.data.tokenizer = config_dict.placeholder(str)
    config.data.sequence_length = 4096
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.mesh.expert = 8
    config.optimizer.learning_rate = 2.2e-4
    config.optimizer.warmup_steps = 2000
    config.train.steps = 880_000
    config.train.batch_size = 4096
    config.train.accumulation = 4
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.evaluation.batch_size = 1024
    config.checkpoint.every = 1000
    config.layouts = {
        "v5p-1024": {"mesh": {"data": 2, "expert": 32}, "train": {"accumulation": 4}},
    }
    return config
