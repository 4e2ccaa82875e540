"""Texts of prompts."""

from typing import Any

from data.tokenizing.byte import ByteTokenizer
from inference.texts import Ending, continued


def test_no_prompts_give_no_texts():
    """A run whose report continues none draws none."""
    nobody: Any = None
    ending = Ending(max_tokens=4, ids=frozenset())
    assert list(continued(nobody, ByteTokenizer(), [], ending, batch_size=8)) == []
