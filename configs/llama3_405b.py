"""The shape of Llama 3.1 405B (Llama team 2024): 126 layers, 16,384 wide.

    python train.py --config=configs/llama3_405b.py --workdir=runs/llama3_405b \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a byte-level tokenizer of 128,256 ids;
16.8 million tokens a step.

Hardware: the layouts below; `python plan.py --config=configs/llama3_405b.py --topology=v5p:8x16x16`
says what each chip holds and how fast it should be. It has been run on no hardware.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 128256
    config.model.num_layers = 126
    config.model.embed_dim = 16384
    config.model.num_heads = 128
    config.model.num_kv_heads = 8
    config.model.head_dim = 128
    config.model.mlp_dim = 53248
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
    config.optimizer.learning_rate = 8e-5
    config.optimizer.warmup_steps = 8000
    config.train.steps = 1_000_000
    config.train.batch_size = 2048
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.evaluation.batch_size = 2048
    config.checkpoint.every = 500
    config.layouts = {"v5p-2048": {"train": {"accumulation": 1}}}
    return config
