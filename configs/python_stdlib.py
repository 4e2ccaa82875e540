"""The default run: a decoder learns the Python standard library's source, on two CPU cores.

make train
python train.py --config=configs/python_stdlib.py --workdir=runs/python_stdlib
"""

from ml_collections import ConfigDict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.num_layers = 4
    config.model.embed_dim = 192
    config.model.num_heads = 3
    config.model.num_kv_heads = 3
    config.model.head_dim = 64
    config.model.mlp_dim = 512
    config.model.max_length = 512
    config.data.sequence_length = 512
    config.data.tokenizer_vocab_size = 2048
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 4e-3
    config.optimizer.schedule = "wsd"
    config.optimizer.warmup_steps = 40
    config.optimizer.decay_steps = 250
    config.optimizer.final_fraction = 0.0
    config.train.steps = 640
    config.train.batch_size = 4
    config.evaluation.every = 160
    config.evaluation.max_tokens = 20_000
    config.evaluation.batch_size = 16
    config.evaluation.stride = 256
    config.checkpoint.every = 160
    config.report.prompts = ("def main(", "import ", "class Queue:\n    ")
    return config
