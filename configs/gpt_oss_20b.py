"""The shape of gpt-oss 20B (OpenAI 2025): attention with sinks, 4 of 32 experts a token, 20.9 B
parameters.

    python train.py --config=configs/gpt_oss_20b.py --workdir=runs/gpt_oss_20b \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a byte-level tokenizer of 201,088 ids;
4.2 million tokens a step.

Hardware: the layouts below; `python plan.py --config=configs/gpt_oss_20b.py --topology=v5p:4x4x4`
says what each chip holds and how fast it should be. It has been run on no hardware.

It has rows of 4,096 tokens without YaRN; how gpt-oss itself was trained is not published.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 201088
    config.model.num_layers = 24
    config.model.embed_dim = 2880
    config.model.num_heads = 64
    config.model.num_kv_heads = 8
    config.model.head_dim = 64
    config.model.spare_vocab = True
    config.model.mlp = "clamped_swiglu"
    config.model.bias = True
    config.model.rope_theta = 150_000.0
    config.model.attention_sinks = True
    config.model.sliding_window = 128
    config.model.layer_pattern = ("local", "global")
    config.model.tie_embeddings = False
    config.model.moe.num_experts = 32
    config.model.moe.experts_per_token = 4
    config.model.moe.expert_mlp_dim = 2880
    config.model.max_length = 4096
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
    config.train.steps = 480_000
    config.train.batch_size = 1024
    config.train.accumulation = 4
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.evaluation.batch_size = 256
    config.checkpoint.every = 1000
    config.layouts = {
        "v5p-64": {"train": {"accumulation": 4}},
    }
    return config
