"""Plans every shipped run on all the hardware that it has a layout for, one after the other.

    make plan-all

Exits with 1 if one does not fit, does not compile, or takes more memory than --memory_gb to plan.
GPUs that are not here are estimated only.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags

from configs import flags as config_flags
from configs.layouts import layouts_of
from planning.hardware import topology_of
from reporting.progress import duration

ONLY = flags.DEFINE_list("only", [], "Names of runs; all of them by default.")
MEMORY_GB = flags.DEFINE_float("memory_gb", 16.0, "Most that planning one may take.")

_COMMAND = Path(__file__).parent.parent / "plan.py"


class Planned(NamedTuple):
    """Attributes:
    plan: as plan.py --json has it; None where it failed.
    error: what it said then.
    seconds, memory: that planning took, and bytes.
    """

    plan: dict[str, Any] | None
    error: str
    seconds: float
    memory: int


def plan(name: str, hardware: str) -> Planned:
    """Plans a run in a process of its own."""
    arrangement, slices = topology_of(hardware)
    command = [sys.executable, str(_COMMAND), f"--config=configs/{name}.py", "--json"]
    command += [f"--topology={arrangement}", f"--slices={slices}"]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=_COMMAND.parent)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        try:
            found = json.load(out)
        except ValueError:
            found = None
        lines = err.read().strip().splitlines() or ["it said nothing"]
    return Planned(found, lines[-1], took, used.ru_maxrss << 10)


def described(planned: Planned) -> str:
    """What came of it, in a line."""
    took = f"{duration(planned.seconds)}, {planned.memory / 1e9:.1f} GB to plan"
    if planned.plan is None:
        return f"FAILED ({planned.error}); {took}"
    found = planned.plan
    fits = "fits" if found["fits"] else "DOES NOT FIT"
    said = f"{fits}, {found['needed'] / 1e9:.2f} of {(found['memory'] or 0) / 1e9:.2f} GB"
    if found["program"] is None:
        said += f", estimated ({found['reason']})"
    elif found["time"]:
        said += f", {found['time']['step']:.2f} s a step predicted, MFU {found['mfu']:.1%}"
    return f"{said}; {took}"


def main(argv: list[str]) -> None:
    del argv
    began, bad = time.monotonic(), 0
    for name in ONLY.value or config_flags.runs():
        for hardware in layouts_of(name):
            planned = plan(name, hardware)
            print(f"{name} on {hardware}: {described(planned)}", flush=True)
            fits = planned.plan is not None and planned.plan["fits"]
            bad += not fits or planned.memory > MEMORY_GB.value * 1e9
    print(f"{duration(time.monotonic() - began)} in all; {bad or 'none'} not as it should be")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    app.run(main)
