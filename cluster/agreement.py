"""Before anything is compiled, the processes compare what must be the same on all of them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.coordination import KeyValues
from errors import UserError

_SHOWN = 4  # differences in one message


class Disagreement(UserError):
    """What is raised on every process alike."""


def agree(others: KeyValues, topic: str, facts: Mapping[str, str], timeout_s: float) -> None:
    """Compares `facts` of all processes; every process calls it, and all get the same answer.

    Args:
      others: the processes.
      topic: names this comparison; each is made once.
      facts: what must be equal, by name.
      timeout_s: how long to wait for the slowest process.

    Raises:
      Disagreement: the facts differ, saying which process has what; or a process has not come.
    """
    others.put(f"agree/{topic}/{others.index}", json.dumps(dict(facts)))
    if others.index == 0:
        verdict = _collect(others, topic, timeout_s)
        others.put(f"agreed/{topic}", verdict)
    else:
        # Process 0 takes its whole time before it says who is missing.
        found = others.wait(f"agreed/{topic}", timeout_s + 30)
        verdict = f"process 0 has not come to compare {topic} within {timeout_s:.0f}s"
        verdict = found if found is not None else verdict
    if verdict:
        raise Disagreement(verdict)


def _collect(others: KeyValues, topic: str, timeout_s: float) -> str:
    """What is wrong, or ""."""
    found = []
    for index in range(others.count):
        # A later one is not waited for anew: those that are there answer at once.
        value = others.wait(f"agree/{topic}/{index}", timeout_s) if index else None
        value = others.look(f"agree/{topic}/{index}") if value is None else value
        if value is None:
            missing = [i for i in range(others.count) if i not in others.look_all(f"agree/{topic}")]
            return (
                f"{processes(missing)} did not come to compare {topic} within {timeout_s:.0f}s: "
                "see what it prints"
            )
        found.append(json.loads(value))
    return differences(found)


def differences(facts: Sequence[Mapping[str, str]]) -> str:
    """One line that says which process has what, or "" if all have the same.

    Args:
      facts: of each process, in order.
    """
    told = []
    for name in dict.fromkeys(name for of_one in facts for name in of_one):
        holders: dict[str, list[int]] = {}
        for index, of_one in enumerate(facts):
            holders.setdefault(of_one.get(name, "absent"), []).append(index)
        if len(holders) > 1:
            has = ", ".join(f"{value} on {processes(where)}" for value, where in holders.items())
            told.append(f"{name} is {has}")
    if not told:
        return ""
    more = f" (and {len(told) - _SHOWN} more)" if len(told) > _SHOWN else ""
    return (
        f"the processes do not agree: {'; '.join(told[:_SHOWN])}{more}. "
        "Start every process with the same command, code and versions, on the same files"
    )


def processes(indices: Sequence[int]) -> str:
    """ "process 3", "processes 0, 2", "processes 1-63, 65"."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    parts = [str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}-{b}" for a, b in runs]
    return f"process{'es' if len(indices) != 1 else ''} {', '.join(parts)}"


def code_fingerprint(root: Path) -> str:
    """Names the content of all Python files under `root` that belong to the project."""
    content = hashlib.sha256()
    rooms = sorted(p.parent for p in root.glob("*/__init__.py") if p.parent.name != "tests")
    for path in [*sorted(root.glob("*.py")), *(p for r in rooms for p in sorted(r.rglob("*.py")))]:
        content.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return content.hexdigest()[:12]
