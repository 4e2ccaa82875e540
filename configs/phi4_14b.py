"""The shape of Phi-4 14B (Abdin et al. 2024): 14.7 B parameters, ten key-value heads.

    python train.py --config=configs/phi4_14b.py --workdir=runs/phi4_14b \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a byte-level tokenizer of 100,352 ids;
4.2 million tokens a step.

Hardware: the layouts below; `python plan.py --config=configs/phi4_14b.py --topology=v5e:16x16`
says what each chip holds and how fast it should be. It has been run on no hardware.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 100352
    config.model.num_layers = 40
    config.model.embed_dim = 5120
    config.model.num_heads = 40
    config.model.num_kv_heads = 10
    config.model.head_dim = 128
    config.model.mlp_dim = 17920
    config.model.spare_vocab = True
    config.model.rope_theta = 250_000.0
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
