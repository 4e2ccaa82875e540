"""A config.json that leaves a key out says what `transformers` takes it to say, or is refused."""

import json

import pytest
import transformers
from huggingface_hub.errors import StrictDataclassError

from conversion.exporting import _what_matters
from model.families import FAMILIES
from model.families.hf_config import HfConfig
from tests.families import golden

BY_WEIGHTS = {"num_key_value_heads"}
"""Where it is taken wrongly the shapes of weights do not fit, which is refused."""


def described(name, values):
    """What of the decoder matters; None where it cannot be."""
    try:
        return _what_matters(FAMILIES[name].from_hf(HfConfig(values)))
    except ValueError:
        return None


@pytest.mark.parametrize("name", list(FAMILIES))
def test_each_key_left_out(name, tmp_path):
    said = golden(name).config
    compared = 0
    for key in said.keys() - {"model_type", "architectures"} - BY_WEIGHTS:
        less = {other: value for other, value in said.items() if other != key}
        (tmp_path / "config.json").write_text(json.dumps(less))
        try:
            filled = transformers.AutoConfig.from_pretrained(tmp_path).to_dict()
        except StrictDataclassError:  # it is refused there, too
            continue
        if (ours := described(name, less)) is not None:
            assert ours == described(name, filled), key
            compared += 1
    assert compared > 8
