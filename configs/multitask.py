"""A model that is there learns seventeen tasks at once: questions, paraphrases, summaries, stars.

    python convert.py from-hf HuggingFaceTB/SmolLM2-135M --workdir=runs/smollm2
    python train.py --config=configs/multitask.py --workdir=runs/multitask \
      --config.train.start_from=runs/smollm2 \
      --config.data.source="files:$PODIUM_ASSETS/tasks/multitask/*.jsonl.gz"
    python eval.py --workdir=runs/multitask --task=multitask:paws

Every task is a corpus of the mixture, of a hundred examples at most (config.data.limit), with a
share by the root of its count (config.data.rates; docs/tasks.md, "Many tasks"). Text against
forgetting is one more corpus, with a weight, as in the form below. One task alone:
--config=configs/multitask.py:paws.

In seconds, without any assets, from the run of configs/tiny.py:

    python train.py --config=configs/tiny.py --workdir=runs/tiny
    python train.py --config=configs/multitask.py:tiny --workdir=runs/multitask_tiny \
      --config.train.start_from=runs/tiny

Hardware: one device that holds the parameters in float32, and activations; or two CPU cores.
"""

from ml_collections import ConfigDict, config_dict

from configs.base import base, corpus

TASKS = (
    "adversarial_qa_dbert",
    "common_gen",
    "cosmos_qa",
    "dream",
    "gigaword",
    "glue_mrpc",
    "glue_qqp",
    "paws",
    "qasc",
    "quarel",
    "quartz",
    "ropes",
    "samsum",
    "sciq",
    "social_i_qa",
    "xsum",
    "yelp",
)


def get_config(form: str = "") -> ConfigDict:
    config = base()
    config.train.start_from = config_dict.placeholder(str)
    config.data.packing = "best_fit"
    config.data.rates.temperature = 2.0
    config.tuning.method = "lora"
    config.optimizer.weight_decay = 0.0
    config.optimizer.warmup_steps = 10
    if form == "tiny":
        config.data.mixture = {
            "first_word": corpus(task="first_word"),
            "next_line": corpus(task="next_line"),
            "text": corpus(
                source="python_stdlib",
                train_split="train[:5%]",
                eval_split="validation[:10%]",
                weight=0.25,
            ),
        }
        config.data.sequence_length = 128
        config.tuning.rank = 4
        config.tuning.alpha = 8.0
        config.optimizer.learning_rate = 1e-2
        config.train.steps = 20
        config.train.batch_size = 8
        config.evaluation.every = 10
        config.evaluation.batch_size = 8
        config.evaluation.max_tokens = 2048
        config.evaluation.examples = 16
        config.checkpoint.every = 10
        return config
    if form:
        config.data.task = f"multitask:{form}"
        config.data.rates.temperature = 0.0
        config.train.steps = 20
    else:
        config.data.mixture = {name: corpus(task=f"multitask:{name}") for name in TASKS}
        config.train.steps = 340
    config.data.limit = 100
    config.data.sequence_length = 256
    config.tuning.rank = 16
    config.tuning.alpha = 32.0
    config.optimizer.learning_rate = 1e-3
    config.train.batch_size = 4
    config.evaluation.every = 100
    config.evaluation.batch_size = 4
    config.evaluation.max_tokens = 1000
    config.checkpoint.every = 50
    return config
