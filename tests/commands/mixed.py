"""A run over three corpora that every checkout has, for tests: stages, and rows left out."""

from ml_collections import ConfigDict

from configs import tiny
from configs.base import corpus, stage


def get_config() -> ConfigDict:
    config = tiny.get_config()
    config.data.mixture = {
        "docs": corpus(source="files:docs/*.md", train_split="[a-m]*.md", eval_split="p*.md"),
        "model": corpus(
            source="files:model/*.py", train_split="[a-n]*.py", eval_split="[o-z]*.py", weight=2.0
        ),
        "launch": corpus(source="files:sharding/*.py", weight=0.5, eval_split="none"),
    }
    config.data.stages = {
        "short": stage(after_step=5, sequence_length=32, batch_size=24),
        "docs": stage(after_step=8, weights={"docs": 1.0, "launch": 1.0}),
    }
    config.data.skip = ("4", "7:2-7")
    config.data.packing = "best_fit"
    config.data.max_epochs = 0.01
    config.train.steps = 12
    config.checkpoint.every = 3
    config.checkpoint.keep = 10
    config.evaluation.every = 6
    config.report.max_tokens = 4
    return config
