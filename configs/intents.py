"""A model that is there learns which of 150 intents a customer's question has (CLINC150), by LoRA.

    python convert.py from-hf HuggingFaceTB/SmolLM2-135M --workdir=runs/smollm2
    python train.py --config=configs/intents.py --workdir=runs/intents \
      --config.train.start_from=runs/smollm2 \
      --config.data.source="files:$PODIUM_ASSETS/tasks/clinc150/*.jsonl.gz"
    python eval.py --workdir=runs/intents --task=clinc150 --examples=500

Twenty examples of each intent, three times; only the adapters move and are saved: of SmolLM2-135M
93 % of the questions are right then, of 2 % before, after seven minutes of steps on two CPU cores
(docs/tuning.md). A file of another task of data/tasks/ is as much a run: --config.data.task=NAME
(docs/tasks.md).

In seconds, without any assets, from the run of configs/tiny.py:

    python train.py --config=configs/tiny.py --workdir=runs/tiny
    python train.py --config=configs/intents.py:tiny --workdir=runs/intents_tiny \
      --config.train.start_from=runs/tiny

Hardware: one device that holds the parameters in float32, and activations; or two CPU cores.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config(form: str = "") -> ConfigDict:
    config = base()
    config.train.start_from = config_dict.placeholder(str)
    config.data.packing = "best_fit"
    config.tuning.method = "lora"
    config.optimizer.weight_decay = 0.0
    if form == "tiny":
        config.data.task = "first_word"
        config.data.sequence_length = 128
        config.tuning.rank = 4
        config.tuning.alpha = 8.0
        config.optimizer.learning_rate = 1e-2
        config.optimizer.warmup_steps = 2
        config.train.steps = 20
        config.train.batch_size = 8
        config.evaluation.every = 10
        config.evaluation.batch_size = 8
        config.evaluation.max_tokens = 4096
        config.evaluation.examples = 32
        config.checkpoint.every = 10
        return config
    config.data.task = "clinc150"
    config.data.limit = 3000  # twenty of each intent
    config.data.sequence_length = 256
    config.tuning.rank = 16
    config.tuning.alpha = 32.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 10
    config.train.steps = 164  # three epochs
    config.train.batch_size = 4
    config.evaluation.every = 60
    config.evaluation.batch_size = 4
    config.evaluation.max_tokens = 10_000
    config.checkpoint.every = 30
    return config
