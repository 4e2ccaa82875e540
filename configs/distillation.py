"""A small student learns what a larger model expects of each next token of English books.

    python convert.py from-hf HuggingFaceTB/SmolLM2-135M --workdir=runs/smollm2
    python train.py --config=configs/distillation.py --workdir=runs/distillation \
      --config.objective.teacher=runs/smollm2 \
      --config.data.tokenizer=runs/smollm2/tokenizer.json \
      --config.data.source="files:$PODIUM_ASSETS/books/*.jsonl.gz"

Before the first step the teacher goes once over the rows to come, and its 64 likeliest tokens of
each position are kept in the cache. docs/distillation.md has what that costs and what it gives, and
how to do without it. `--config.objective.name=next_token` is the same student without a teacher.

In seconds, without any assets, with the run of configs/tiny.py as the teacher:

    python train.py --config=configs/tiny.py --workdir=runs/tiny
    python train.py --config=configs/distillation.py:tiny --workdir=runs/distillation_tiny \
      --config.objective.teacher=runs/tiny

Hardware: one device, or two CPU cores.
"""

from ml_collections import ConfigDict, config_dict

from configs import tiny
from configs.base import base


def get_config(form: str = "") -> ConfigDict:
    if form == "tiny":
        config = tiny.get_config()
        config.model.embed_dim = 32
        config.model.num_heads = 4
        config.model.num_kv_heads = 4
        config.model.mlp_dim = 128
        config.objective.top_k = 16
    else:
        config = base()
        config.model.num_layers = 4
        config.model.embed_dim = 256
        config.model.num_heads = 4
        config.model.num_kv_heads = 4
        config.model.head_dim = 64
        config.model.mlp_dim = 1024
        config.model.max_length = 256
        config.data.tokenizer = config_dict.placeholder(str)
        config.data.source = "files:books/*.jsonl.gz"
        config.data.train_split = "train-*.jsonl.gz"
        config.data.eval_split = "valid.jsonl.gz"
        config.data.sequence_length = 256
        config.optimizer.learning_rate = 1e-3
        config.optimizer.warmup_steps = 20
        config.train.steps = 250  # 0.5 M tokens
        config.train.batch_size = 8
        config.evaluation.every = 50
        config.evaluation.max_tokens = 20_000
        config.evaluation.batch_size = 8
        config.checkpoint.every = 50
        config.report.prompts = ("It was", "The old man ")
    config.objective.name = "distill"
    config.objective.teacher = config_dict.placeholder(str)
    config.objective.mix = 0.5
    return config
