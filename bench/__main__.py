"""Measures Podium beside its peers.

    python -m bench cpu --torch_python=PYTHON      # data, steps and memory on this machine
    python -m bench gpu --torch_python=PYTHON      # steps on one GPU
    python -m bench tpu_aot --python=PYTHON        # steps and memory, compiled for TPUs
    python -m bench report                         # docs/performance.md, of the results

Each of the first three writes its results to bench/results/, from which the last makes the
tables. One measurement alone, with its flags: `python -m bench data|step|tpu|memory --help`.
`make bench ARGS="cpu --torch_python=PYTHON"` is the same.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_RESULTS = Path(__file__).parent / "results"
_HARDWARE = {"cpu": ("data", "step", "memory"), "gpu": ("step",), "tpu_aot": ("tpu", "memory")}
"""What is measured there; the result of each is `<name>_<hardware>.json`."""
_NAMES = ("data", "step", "curves", "tpu", "memory", "report")
_OWN = {"step": "--torch_python=", "tpu": "--python="}
"""The flag of the command that a measurement takes."""


def main(arguments: Sequence[str]) -> int:
    """Runs each in a process of its own; the exit code is that of the first that fails."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    first, *given = arguments
    if first in _NAMES:
        return _run(sys.executable, first, given)
    if first not in _HARDWARE:
        print(f"error: {first!r}: give {', '.join([*_HARDWARE, *_NAMES])} first", file=sys.stderr)
        return 2
    unknown = [a for a in given if not a.startswith(tuple(_OWN.values()))]
    if unknown:
        print(f"error: {unknown[0]}: give --torch_python= or --python= only", file=sys.stderr)
        return 2
    # Memory is asked of the compiler for TPUs, which is where the peer is.
    there = next((a.partition("=")[2] for a in given if a.startswith("--python=")), sys.executable)
    for name in _HARDWARE[first]:
        own = [a for a in given if a.startswith(_OWN.get(name, "--none"))]
        own.append(f"--out={_RESULTS / f'{name}_{first}.json'}")
        on_tpu = first == "tpu_aot" and name == "memory"
        code = _run(there if on_tpu else sys.executable, name, own)
        if code:
            return code
    return 0


def _run(python: str, name: str, arguments: Sequence[str]) -> int:
    print(f"-- {name}", flush=True)
    command = [python, "-m", f"bench.{name}", *arguments]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
