"""A model that is there, converted or trained, goes on learning from English books.

    python convert.py from-hf HuggingFaceTB/SmolLM2-135M --workdir=runs/smollm2
    python train.py --config=configs/continued.py --workdir=runs/continued \
      --config.train.start_from=runs/smollm2 \
      --config.data.source="files:$PODIUM_ASSETS/books/*.jsonl.gz"

The model and its tokenizer are those of the workdir that it starts from (docs/convert.md), whatever
they are; the data is that of configs/books.py, and what is here is what to change for another. The
optimizer is a fresh one, with a peak far below that of a training from nothing.

Hardware: one device that holds four times the parameters in float32, and activations.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.train.start_from = config_dict.placeholder(str)
    config.data.source = "files:books/*.jsonl.gz"
    config.data.train_split = "train-*.jsonl.gz"
    config.data.eval_split = "valid.jsonl.gz"
    config.data.sequence_length = 256
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 10
    config.optimizer.weight_decay = 0.01
    config.train.steps = 50
    config.train.batch_size = 4
    config.evaluation.every = 25
    config.evaluation.max_tokens = 10_000
    config.evaluation.batch_size = 4
    config.checkpoint.every = 25
    config.report.prompts = ("It was", "The old man ")
    return config
