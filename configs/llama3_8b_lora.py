"""LoRA on Llama 3 8B: 42 M parameters of rank 16 move beside 8.03 B that stay as they are.

    python convert.py from-hf FOLDER --workdir=runs/llama3 --mesh=fsdp=-1
    python train.py --config=configs/llama3_8b_lora.py --workdir=runs/llama3_lora \
      --config.train.start_from=runs/llama3 --config.data.source="files:*.jsonl.gz"

The model, its tokenizer and its numbers are those of the workdir that it starts from; the shape is
here for plan.py, which needs none. Other weights: --config.tuning.targets="('query','value')";
DoRA: --config.tuning.method=dora; all parameters beside it: --config.tuning.method=all
(docs/tuning.md).

Hardware: the layouts below; `python plan.py --config=configs/llama3_8b_lora.py --topology=v6e:4x4`
says what each chip holds and how fast it should be. It has been run on no hardware.
"""

from ml_collections import ConfigDict, config_dict

from configs import llama3_8b


def get_config() -> ConfigDict:
    config = llama3_8b.get_config()
    config.train.start_from = config_dict.placeholder(str)
    config.tuning.method = "lora"
    config.tuning.rank = 16
    config.tuning.alpha = 32.0
    config.data.source = "files:*.jsonl.gz"
    config.data.sequence_length = 8192
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_steps = 20
    config.optimizer.weight_decay = 0.0
    config.train.steps = 1000
    config.train.batch_size = 16
    config.train.accumulation = 1
    config.evaluation.every = 100
    config.evaluation.batch_size = 16
    config.evaluation.max_tokens = 200_000
    config.checkpoint.every = 100
    config.layouts = {"v6e-16": {"train": {"accumulation": 1}}}
    return config
