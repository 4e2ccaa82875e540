"""A model learns which of two answers is better (DPO), from pairs of answers to the questions of
GSM8K.

    python convert.py from-hf HuggingFaceTB/SmolLM2-135M --workdir=runs/smollm2
    python train.py --config=configs/preferences.py --workdir=runs/preferences \
      --config.train.start_from=runs/smollm2 \
      --config.data.source="files:$PODIUM_ASSETS/tasks/gsm8k/preferences_*.jsonl.gz"

The reference is what the run starts from: its log-probabilities are computed once, before the first
step. `--config.objective.name=ipo` and `simpo` are the neighbours. After 27 minutes on two CPU
cores SmolLM2-135M-Instruct has the right one of 65.8 % of held-out pairs (58.0 to 73.4):
docs/preferences.md, which also says what the figures mean.

In seconds, without any assets, from the run of configs/tiny.py:

    python train.py --config=configs/tiny.py --workdir=runs/tiny --config.model.max_length=512
    python train.py --config=configs/preferences.py:tiny --workdir=runs/preferences_tiny \
      --config.train.start_from=runs/tiny

Hardware: one device that holds four times the parameters in float32, and activations.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config(form: str = "") -> ConfigDict:
    config = base()
    config.train.start_from = config_dict.placeholder(str)
    config.data.packing = "best_fit"
    config.objective.name = "dpo"
    config.objective.beta = 0.1
    config.optimizer.weight_decay = 0.0
    if form == "tiny":
        config.data.task = "line_order"
        config.data.sequence_length = 512
        config.data.train_split = "train[:20%]"
        config.data.eval_split = "validation[:30%]"
        config.optimizer.learning_rate = 1e-3
        config.optimizer.warmup_steps = 2
        config.train.steps = 10
        config.train.batch_size = 8
        config.evaluation.every = 5
        config.evaluation.batch_size = 8
        config.checkpoint.every = 5
        return config
    config.data.task = "gsm8k_preferences"
    config.data.sequence_length = 1024  # pairs of at most 512 tokens
    config.data.limit = 600
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_steps = 10
    config.train.steps = 114  # 0.98 of an epoch
    config.train.batch_size = 2
    config.evaluation.every = 50
    config.evaluation.batch_size = 2
    config.checkpoint.every = 25
    return config
