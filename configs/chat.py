"""A model that is there learns to answer in short dialogues, as its own chat template writes them.

    python convert.py from-hf HuggingFaceTB/SmolLM2-135M-Instruct --workdir=runs/smollm2
    python train.py --config=configs/chat.py --workdir=runs/chat \
      --config.train.start_from=runs/smollm2 \
      --config.data.source="files:$PODIUM_ASSETS/tasks/chat/*.jsonl.gz"
    python generate.py --workdir=runs/chat --chat

What the assistant says is learned, with the end of its turn, and nothing else (docs/tasks.md,
"Dialogues"). SmolLM2-135M-Instruct comes from 3.75 nats a token in the first step to 0.87 on the
held-out dialogues, in six minutes on two CPU cores.

In seconds, without any assets. The template is a plain one, and spells specials, which single bytes
cannot:

    python train.py --config=configs/tiny.py --workdir=runs/tiny_bpe --config.model.max_length=512 \
      --config.data.tokenizer=bpe --config.data.tokenizer_vocab_size=512
    python train.py --config=configs/chat.py:tiny --workdir=runs/chat_tiny \
      --config.train.start_from=runs/tiny_bpe

Hardware: one device that holds the parameters in float32, and activations; or two CPU cores.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base


def get_config(form: str = "") -> ConfigDict:
    config = base()
    config.train.start_from = config_dict.placeholder(str)
    config.data.packing = "best_fit"
    config.data.too_long = "cut"
    config.tuning.method = "lora"
    config.optimizer.weight_decay = 0.0
    if form == "tiny":
        config.data.task = "next_line:chat"
        config.data.chat_template = "data/examples/turns.jinja"
        config.data.sequence_length = 512
        config.tuning.rank = 4
        config.tuning.alpha = 8.0
        config.optimizer.learning_rate = 1e-2
        config.optimizer.warmup_steps = 2
        config.train.steps = 10
        config.train.batch_size = 4
        config.evaluation.every = 5
        config.evaluation.batch_size = 4
        config.evaluation.max_tokens = 2048
        config.checkpoint.every = 5
        return config
    config.data.task = "chat"
    config.data.sequence_length = 256
    config.tuning.rank = 16
    config.tuning.alpha = 32.0
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 10
    config.train.steps = 120
    config.train.batch_size = 4
    config.evaluation.every = 40
    config.evaluation.batch_size = 4
    config.evaluation.max_tokens = 5000
    config.checkpoint.every = 40
    return config
