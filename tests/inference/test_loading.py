"""What a prompt begins with."""

from types import SimpleNamespace
from typing import Any

import pytest

from data.tokenizing.byte import ByteTokenizer
from inference.loading import Loaded

BYTES = ByteTokenizer()
PUBLISHED: Any = SimpleNamespace(prompt=lambda text: [7, *text.encode(), 9], stop_ids=frozenset())


def loaded(imported: bool, published: Any) -> Loaded:
    trained: Any = SimpleNamespace(record=SimpleNamespace(imported=imported))
    return Loaded(trained, BYTES, published)


@pytest.mark.parametrize(
    ("imported", "published", "as_published"),
    [(True, PUBLISHED, True), (False, PUBLISHED, False), (False, None, False), (True, None, False)],
)
def test_prompts(imported, published, as_published):
    """As documents were trained on: with BOS, but for a model that others trained."""
    inside = BYTES.encode_batch(["rose"])[0].tolist()
    expected = PUBLISHED.prompt("rose") if as_published else [BYTES.bos_id, *inside]
    assert loaded(imported, published).prompt("rose") == expected
