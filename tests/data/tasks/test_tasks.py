"""Tasks are found by name, and make examples of records."""

import pytest

from data import tasks
from data.tasks.task import Example


def test_a_task_is_found_by_its_file() -> None:
    found = tasks.find("clinc150")
    made = found.fields({"text": "what is my apr", "intent": "credit_limit_change"})
    assert made == Example("Question: what is my apr\nIntent:", " credit limit change")
    assert made.targets in found.labels
    assert len(set(found.labels)) == 150


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"task='clinc': no such task; there is clinc150"):
        tasks.find("clinc")


def test_an_argument_that_a_task_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match="takes no argument"):
        tasks.find("clinc150:val")
