"""Which tokenizer comes along with a model."""

import json

from conversion import importing
from conversion.source import find
from data.tokenizer import BOS, train_bpe
from model.families import FAMILIES
from model.families.hf_config import HfConfig
from tests.conversion.models import LLAMA, write

CONFIG = FAMILIES["llama"].from_hf(HfConfig(LLAMA))


def test_a_tokenizer_that_is_refused_is_not_read_from_two_files(tmp_path):
    """They would give other ids than the tokenizer.json does."""
    folder = write(tmp_path, LLAMA, {})
    content = json.loads(
        train_bpe(["rose moon sea " * 9], 290).serialized.replace(BOS, "<|endoftext|>")
    )
    model = content["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(map(" ".join, model["merges"])))
    tokenizer, notes = importing._tokenizer(find(str(folder)), CONFIG)
    assert tokenizer is not None and notes == []
    (folder / "tokenizer.json").write_text(
        json.dumps(content | {"normalizer": {"type": "Lowercase"}})
    )
    tokenizer, (note,) = importing._tokenizer(find(str(folder)), CONFIG)
    assert tokenizer is None and "tokenizer.json does not give every text back" in note
