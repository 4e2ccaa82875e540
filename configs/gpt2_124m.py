"""GPT-2 124M (Radford et al. 2019), trained as nanoGPT does: half a million tokens a step.

    python train.py --config=configs/gpt2_124m.py --workdir=runs/gpt2 \
      --config.data.data_dir=DIR --config.data.tokenizer=PATH/tokenizer.json

Data: C4 in English, prepared as docs/data.md says, with a byte-level tokenizer of 50,257 ids; 315
billion tokens in all.

Hardware: the layouts below, each device with a copy of the model; `python plan.py
--config=configs/gpt2_124m.py --topology=v5p:2x2x2` says what each chip holds and how fast it should
be. It has been run on no hardware.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.vocab_size = 50257
    config.model.num_layers = 12
    config.model.embed_dim = 768
    config.model.num_heads = 12
    config.model.num_kv_heads = 12
    config.model.head_dim = 64
    config.model.mlp_dim = 3072
    config.model.max_length = 1024
    config.model.norm = "layernorm"
    config.model.positions = "learned"
    config.model.mlp = "gelu"
    config.model.bias = True
    config.model.logits_mb = 512
    config.data.source = "tfds:c4/en"
    config.data.tokenizer = config_dict.placeholder(str)
    config.data.sequence_length = 1024
    config.optimizer.learning_rate = 6e-4
    config.optimizer.warmup_steps = 2000
    config.train.steps = 600_000
    config.train.batch_size = 512
    config.train.accumulation = 4
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 1_000_000
    config.checkpoint.every = 1000
    config.layouts = {
        "v5e-16": {"train": {"accumulation": 4}},
        "v5p-8": {"train": {"accumulation": 4}},
        "h100x8": {"train": {"accumulation": 4}},
    }
    return config
