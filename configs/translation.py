"""A model that is there learns to translate captions from English into German (Multi30k).

    python convert.py from-hf HuggingFaceTB/SmolLM2-135M --workdir=runs/smollm2
    python train.py --config=configs/translation.py --workdir=runs/translation \
      --config.train.start_from=runs/smollm2 \
      --config.data.source="files:$PODIUM_ASSETS/tasks/multi30k/*.jsonl.gz"
    python eval.py --workdir=runs/translation --task=multi30k:en-de --examples=200

All parameters move. The other way is --config.data.task=multi30k:de-en, and French is there, too.

In seconds, without any assets, from the run of configs/tiny.py:

    python train.py --config=configs/tiny.py --workdir=runs/tiny
    python train.py --config=configs/translation.py:tiny --workdir=runs/translation_tiny \
      --config.train.start_from=runs/tiny

Hardware: one device that holds four times the parameters in float32, and activations.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config(form: str = "") -> ConfigDict:
    config = base()
    config.train.start_from = config_dict.placeholder(str)
    config.data.packing = "best_fit"
    config.optimizer.weight_decay = 0.01
    if form == "tiny":
        config.data.task = "next_line"
        config.data.sequence_length = 128
        config.data.too_long = "cut"
        config.optimizer.learning_rate = 1e-3
        config.optimizer.warmup_steps = 2
        config.train.steps = 20
        config.train.batch_size = 8
        config.evaluation.every = 10
        config.evaluation.batch_size = 8
        config.evaluation.max_tokens = 4096
        config.checkpoint.every = 10
        return config
    config.data.task = "multi30k:en-de"
    config.data.sequence_length = 128
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 20
    config.train.steps = 200
    config.train.batch_size = 8
    config.evaluation.every = 100
    config.evaluation.batch_size = 8
    config.evaluation.max_tokens = 10_000
    config.checkpoint.every = 100
    return config
