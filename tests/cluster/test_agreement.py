"""Processes that were not started alike are told which has what."""

import pytest

from cluster.agreement import (
    Disagreement,
    agree,
    code_fingerprint,
    differences,
    processes,
)
from tests.cluster.shared import Shared, in_threads


def answers(facts: list[dict[str, str]], timeout_s: float = 20, count: int | None = None):
    """What `agree` says to each process, None where it is content."""
    values: dict[str, str] = {}
    found: dict[int, str | None] = {}

    def one(index: int) -> None:
        try:
            others = Shared(values, index, count or len(facts))
            agree(others, "the start", facts[index], timeout_s)
            found[index] = None
        except Disagreement as error:
            found[index] = str(error)

    in_threads(*(lambda index=index: one(index) for index in range(len(facts))))
    return found


def test_the_same_facts_are_agreed_on():
    assert answers([{"jax": "1", "seed": "0"}] * 3) == {0: None, 1: None, 2: None}


def test_all_processes_hear_which_has_what():
    found = answers([{"jax": "1", "seed": "0"}, {"jax": "2", "seed": "0"}, {"jax": "1"}])
    assert len(set(found.values())) == 1
    assert "jax is 1 on processes 0, 2, 2 on process 1" in (found[0] or "")
    assert "seed is 0 on processes 0, 1, absent on process 2" in (found[0] or "")
    assert "\n" not in (found[0] or "")


def test_one_that_does_not_come_is_named():
    found = answers([{"a": "1"}, {"a": "1"}], timeout_s=0.2, count=4)
    assert found[0] == found[1]
    assert (found[0] or "").startswith("processes 2, 3 did not come to compare the start within 0s")


def test_many_differences_are_cut_short():
    line = differences([{str(i): "a" for i in range(9)}, {str(i): "b" for i in range(9)}])
    assert line.count(" on process 1") == 4 and "(and 5 more)" in line


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([3], "process 3"),
        ([0, 2], "processes 0, 2"),
        ([0, 1], "processes 0, 1"),
        ([1, 2, 3, 5], "processes 1-3, 5"),
        (list(range(64)), "processes 0-63"),
    ],
)
def test_processes(indices, text):
    assert processes(indices) == text


def test_code_fingerprint_follows_the_code_alone(tmp_path):
    (tmp_path / "room").mkdir()
    for name in ("train.py", "room/__init__.py", "room/a.py"):
        (tmp_path / name).write_text("x = 1\n")
    first = code_fingerprint(tmp_path)
    (tmp_path / "notes.txt").write_text("not code")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "b.py").write_text("not of the project")
    assert code_fingerprint(tmp_path) == first
    (tmp_path / "room" / "a.py").write_text("x = 2\n")
    assert code_fingerprint(tmp_path) != first
