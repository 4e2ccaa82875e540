"""A small decoder learns English books and Python code together, with GPT-2's tokenizer.

    python train.py --config=configs/mixture.py --workdir=runs/mixture \
      --config.data.mixture.books.source="files:$PODIUM_ASSETS/books/*.jsonl.gz" \
      --config.data.tokenizer=$PODIUM_ASSETS/gpt2

Three rows in four are of books, one is of the running Python's standard library; from step 120 on
both are alike, in rows of half the length, twice as many. Every corpus has its loss in the metrics
and in the report. On two CPU cores: 40 s to prepare the books, once, then about ten minutes. The
books may be any JSON lines with a `text`, in files named train-... and valid...; the tokenizer any
that docs/data.md lists.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.base import base, corpus, stage


def get_config() -> ConfigDict:
    config = base()
    config.model.num_layers = 4
    config.model.embed_dim = 192
    config.model.num_heads = 3
    config.model.num_kv_heads = 3
    config.model.head_dim = 64
    config.model.mlp_dim = 512
    config.model.max_length = 512
    config.data.tokenizer = placeholder(str)
    config.data.sequence_length = 512
    config.data.mixture = {
        "books": corpus(
            source="files:books/*.jsonl.gz",
            train_split="train-*.jsonl.gz",
            eval_split="valid.jsonl.gz",
            weight=3.0,
        ),
        "code": corpus(source="python_stdlib", weight=1.0),
    }
    config.data.stages = {
        "even": stage(
            after_step=120,
            sequence_length=256,
            batch_size=8,
            weights={"books": 1.0, "code": 1.0},
        )
    }
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "wsd"
    config.optimizer.warmup_steps = 20
    config.optimizer.decay_steps = 60
    config.optimizer.final_fraction = 0.0
    config.train.steps = 160
    config.train.batch_size = 4
    config.evaluation.every = 80
    config.evaluation.max_tokens = 10_000
    config.evaluation.batch_size = 8
    config.checkpoint.every = 40
    config.report.prompts = ("It was", "def ")
    return config
