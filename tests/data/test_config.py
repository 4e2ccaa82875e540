from typing import Any

import pytest

from data.config import DataConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence_length", 1),
        ("train_split", ""),
        ("eval_split", ""),
        ("text_key", ""),
        ("tokenizer", ""),
        ("tokenizer_vocab_size", 257),
        ("seed", -1),
        ("seed", 2**63),
        ("data_dir", "gs://bucket/tfds"),
    ],
)
def test_a_bad_field_is_named_in_one_line(field: str, value: Any) -> None:
    fields: dict[str, Any] = {"source": "python_stdlib", "sequence_length": 8, field: value}
    with pytest.raises(ValueError, match=rf"^{field} is .*: .*\Z") as error:
        DataConfig(**fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["c4/en", "tfds", "tfds:", "files:", "python_stdlib:x", ""])
def test_an_unknown_source_is_told_the_choices(source: str) -> None:
    forms = "'python_stdlib', 'files:PATTERN', 'hf:PATH_OR_NAME/config', 'tfds:name/config'"
    choices = rf"use one of {forms}\Z"
    with pytest.raises(ValueError, match=rf"^source='{source}': {choices}"):
        DataConfig(source, 8)


def test_the_vocabulary_size_matters_only_to_a_tokenizer_we_train() -> None:
    config = DataConfig("tfds:c4/en", 8, tokenizer="byte", tokenizer_vocab_size=0)
    assert config.train_split == "train"
