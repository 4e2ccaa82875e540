"""Any text dataset of TFDS, with a small decoder of 110 M parameters: a starting point to change.

    python train.py --config=configs/tfds_text.py --workdir=runs/wiki40b \
      --config.data.source=tfds:wiki40b/en --config.data.data_dir=DIR

The dataset is prepared beforehand in the array_record format, in an environment of its own:
docs/data.md has the commands. A byte-level BPE of 32,000 ids is trained on it.

Hardware: one device of 24 GB or more. Compiled without the hardware, XLA's TPU compiler asks for
16.6 GB on a v5p; for less, raise config.train.accumulation. On GPUs neither computed nor measured;
on no hardware has it been run.
"""

from ml_collections import ConfigDict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.num_layers = 12
    config.model.embed_dim = 768
    config.model.num_heads = 12
    config.model.num_kv_heads = 12
    config.model.head_dim = 64
    config.model.mlp_dim = 2048
    config.model.max_length = 1024
    config.data.source = "tfds:wiki40b/en"
    config.data.sequence_length = 1024
    config.data.tokenizer_vocab_size = 32_000
    config.optimizer.learning_rate = 6e-4
    config.optimizer.warmup_steps = 500
    config.train.steps = 20_000
    config.train.batch_size = 64
    config.train.accumulation = 8
    config.evaluation.every = 1000
    config.evaluation.max_tokens = 500_000
    config.checkpoint.every = 1000
    return config
