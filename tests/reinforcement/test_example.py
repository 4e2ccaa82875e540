"""The example's reward, and what it says where Tunix is not."""

import importlib.util

import pytest

from errors import UserError
from reinforcement import example


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("1", 1),
        ("f(x) # y", 1),
        ("0777", 0),
        ("", 0),
        ("(", 0),
        ("\x00", 0),
        ("1\n z", 0),
        ("'\\d'", 1),
        ("1 is 1", 1),
    ],
)
def test_reward(answer, reward):
    assert example.parses("size = ", answer) == reward


def test_without_tunix(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^Tunix is missing, .*`sh requirements/reference.sh"):
        example.check()
