"""A run over two tasks, mixed by counts, for tests. Its source is given on the command line."""

from ml_collections import ConfigDict

from configs import tiny
from configs.base import corpus


def get_config() -> ConfigDict:
    config = tiny.get_config()
    config.data.mixture = {
        name: corpus(task=task, train_split=f"{name}-train.jsonl", eval_split=f"{name}-val.jsonl")
        for name, task in (("sums", "gsm8k"), ("captions", "multi30k:en-de"))
    }
    config.data.rates.temperature = 2.0
    config.data.packing = "best_fit"
    config.data.limit = 300
    config.data.sequence_length = 96
    config.train.steps = 12
    config.checkpoint.every = 3
    config.checkpoint.keep = 10
    config.evaluation.every = 6
    config.report.max_tokens = 4
    return config
