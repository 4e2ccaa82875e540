"""The line about a key that does not exist."""

import pytest

from configs import keys
from configs.base import base

CONFIG = base().to_dict()


@pytest.mark.parametrize("key", ["train.steps", "model.norm", "report.prompts", "train"])
def test_keys_that_are_there(key):
    assert keys.unknown(key, CONFIG) is None


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("train.step", "did you mean train.steps?"),
        ("trian.steps", "did you mean train.steps?"),
        ("trian.step", "did you mean train.steps?"),
        ("trian", "did you mean train?"),
        ("modle.num_layer", "did you mean model.num_layers?"),
        ("checkpoints.every", "did you mean checkpoint.every?"),
        ("optimizer.steps", "did you mean train.steps?"),
        ("steps", "did you mean train.steps?"),
        ("seed", "did you mean data.seed or train.seed?"),
        ("xyz.learning_rate", "did you mean optimizer.learning_rate?"),
        ("train.xyz", "train has accumulation, batch_size, seed, start_from, steps, z_loss"),
        ("trian.xyz", "train has accumulation, batch_size, seed, start_from, steps, z_loss"),
        (
            "xyz",
            "the config has checkpoint, data, evaluation, layout, layouts, mesh, model, objective, "
            "optimizer, report, train, tuning, watch",
        ),
        ("train.steps.more", "train.steps is a value and has no keys"),
        ("trian.steps.more", "train.steps is a value and has no keys"),
        ("train.step.more", "train.steps is a value and has no keys"),
        ("", "the config has checkpoint"),
        ("train.", "train has accumulation"),
    ],
)
def test_what_was_meant(key, hint):
    line = keys.unknown(key, CONFIG)
    assert line is not None
    assert line.startswith(f"unknown config key {key}: {hint}")
    assert "\n" not in line


def test_every_slip_of_one_letter_is_understood():
    """Each key with two neighbouring letters changed over, in the section or in the key."""
    sections = {name: keys for name, keys in CONFIG.items() if isinstance(keys, dict)}
    for section, values in sections.items():
        for key in values:
            for wrong in (f"{swapped(section)}.{key}", f"{section}.{swapped(key)}"):
                line = keys.unknown(wrong, CONFIG)
                assert line is None or line.endswith(f"did you mean {section}.{key}?"), wrong


def swapped(word: str) -> str:
    middle = len(word) // 2
    return word[: middle - 1] + word[middle] + word[middle - 1] + word[middle + 1 :]
