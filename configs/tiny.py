"""Seconds on a laptop: for tests, and to see everything work once.

    python train.py --config=configs/tiny.py --workdir=runs/tiny

A byte-level model of 0.16 M parameters on the Python standard library; 20 steps. The loss falls
from 5.3 to about 3.1 nats a byte: it has learned which bytes are common, and nothing more.
"""

from ml_collections import ConfigDict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.num_layers = 2
    config.model.embed_dim = 64
    config.model.num_heads = 8
    config.model.num_kv_heads = 8
    config.model.head_dim = 8
    config.model.mlp_dim = 256
    config.model.max_length = 128
    config.data.tokenizer = "byte"
    config.data.train_split = "train[:20%]"
    config.data.eval_split = "validation[:10%]"
    config.data.sequence_length = 64
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_steps = 5
    config.train.steps = 20
    config.train.batch_size = 16
    config.evaluation.every = 10
    config.evaluation.max_tokens = 4096
    config.evaluation.batch_size = 64
    config.checkpoint.every = 5
    config.report.prompts = ("def main(",)
    config.report.max_tokens = 40
    return config
