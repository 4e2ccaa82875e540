"""Eight simulated CPU devices for every test, whatever the machine has."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"

# Not yet shown to pass on a quiet machine; each goes from this list once it has been.
collect_ignore = [
    "commands",
    "evaluation/test_perplexity.py",
    "training/test_checkpoints.py",
    "training/test_sharded_training.py",
]
