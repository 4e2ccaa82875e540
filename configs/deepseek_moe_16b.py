"""The shape of DeepSeekMoE 16B (Dai et al. 2024): many small experts, 16.4 B parameters.

    python train.py --config=configs/deepseek_moe_16b.py --workdir=runs/deepseek_moe_16b \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Of 64 experts a token goes to six, and to two more that all tokens share: 2.8 B parameters a token.
The first layer is dense.

Data: C4 in English, prepared as docs/data.md says, with a byte-level tokenizer of 102,400 ids; 4.2
million tokens a step.

Hardware: the layouts below; `python plan.py --config=configs/deepseek_moe_16b.py
--topology=v5e:16x16` says what each chip holds and how fast it should be. It has been run on no
hardware. What differs from the paper: the balance loss is of each sequence rather than of a batch,
and it is alone, without one of devices.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 102400
    config.model.num_layers = 28
    config.model.embed_dim = 2048
    config.model.num_heads = 16
    config.model.num_kv_heads = 16
    config.model.head_dim = 128
    config.model.mlp_dim = 10944
    config.model.max_length = 4096
    config.model.tie_embeddings = False
    config.model.moe.num_experts = 64
    config.model.moe.experts_per_token = 6
    config.model.moe.expert_mlp_dim = 1408
    config.model.moe.shared_experts = 2
    config.model.moe.first_dense = 1
    config.model.moe.renormalise = False
    config.model.moe.balance_weight = 1e-3
    config.model.remat = "full"
    config.model.logits_mb = 512
    config.data.source = "tfds:c4/en"
    config.data.tokenizer = config_dict.placeholder(str)
    config.data.sequence_length = 4096
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.mesh.expert = 8
    config.optimizer.learning_rate = 4.2e-4
    config.optimizer.warmup_steps = 2000
    config.train.steps = 480_000
    config.train.batch_size = 1024
    config.train.accumulation = 4
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.evaluation.batch_size = 256
    config.checkpoint.every = 1000
    config.layouts = {
        "v5e-256": {"train": {"accumulation": 4}},
        "v5p-64": {"train": {"accumulation": 4}},
        "v5p-64x2": {"mesh": {"data": 2}, "train": {"accumulation": 2}},
    }
    return config
