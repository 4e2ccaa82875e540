"""A small decoder learns English prose from JSON lines of whole books, on two CPU cores.

    python train.py --config=configs/books.py --workdir=runs/books \
      --config.data.source="files:$PODIUM_ASSETS/books/*.jsonl.gz"

The files are `{"id", "text"}` a line: those named train-... are trained on, valid.jsonl.gz is
evaluated on. 180 MB of English books took nine minutes on two cores: three to prepare them, once,
then 300 steps and the evaluation of all of valid.jsonl.gz, at 2.32 bits a byte (gzip 2.99). To
begin with a part, add --config.data.train_split="train-00000-*.jsonl.gz"; docs/data.md says more.
"""

from ml_collections import ConfigDict

from configs.base import base


def get_config() -> ConfigDict:
    config = base()
    config.model.num_layers = 4
    config.model.embed_dim = 192
    config.model.num_heads = 3
    config.model.num_kv_heads = 3
    config.model.head_dim = 64
    config.model.mlp_dim = 512
    config.model.max_length = 512
    config.data.source = "files:books/*.jsonl.gz"
    config.data.train_split = "train-*.jsonl.gz"
    config.data.eval_split = "valid.jsonl.gz"
    config.data.sequence_length = 512
    config.data.tokenizer_vocab_size = 4096
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "wsd"
    config.optimizer.warmup_steps = 40
    config.optimizer.decay_steps = 100
    config.optimizer.final_fraction = 0.0
    config.train.steps = 300
    config.train.batch_size = 4
    config.evaluation.every = 100
    config.evaluation.max_tokens = 20_000
    config.evaluation.batch_size = 16
    config.checkpoint.every = 100
    config.report.prompts = ("It was", "The old man ")
    return config
