"""The shape of Qwen 3 8B (Yang et al. 2025): normalised queries and keys, 8.19 B parameters.

    python train.py --config=configs/qwen3_8b.py --workdir=runs/qwen3_8b \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a byte-level tokenizer of 151,936 ids;
4.2 million tokens a step.

Hardware: the layouts below; `python plan.py --config=configs/qwen3_8b.py --topology=v5e:16x16`
says what each chip holds and how fast it should be. It has been run on no hardware.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 151936
    config.model.num_layers = 36
    config.model.embed_dim = 4096
    config.model.num_heads = 32
    config.model.num_kv_heads = 8
    config.model.head_dim = 128
    config.model.mlp_dim = 12288
    config.model.spare_vocab = True
    config.model.norm_eps = 1e-6
    config.model.rope_theta = 1_000_000.0
    config.model.qk_norm = True
    config.model.tie_embeddings = False
    config.model.max_length = 4096
    config.model.remat = "full"
    config.model.logits_mb = 512
    config.data.source = "tfds:c4/en"
    config.data.tokenizer = config_dict.placeholder(str)
    config.data.sequence_length = 4096
    config.mesh.data = 1
    config.mesh.fsdp = -1
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
        "v5e-256": {"train": {"accumulation": 4}},
        "v5p-64": {"train": {"accumulation": 4}},
    }
    return config
