"""Measures Podium beside its peers.

    python -m bench cpu --torch_python=PYTHON      # data, steps, decoding and memory here
    python -m bench gpu --torch_python=PYTHON      # steps on one GPU
    python -m bench tpu_aot --python=PYTHON        # steps and memory, compiled for TPUs
    python -m bench report                         # the tables of docs/, of the results

Each of the first three writes its results to bench/results/, from which the last makes the
tables. One measurement alone (data, step, decode, profile, curves, tpu, memory, chips, kernels,
predicted, save, conversion, perplexity, intents, multitask, distillation,
preferences, tuning), with its flags:
`python -m bench NAME --help`.
`make bench ARGS="cpu --torch_python=PYTHON"` is the same.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_RESULTS = Path(__file__).parent / "results"
_HARDWARE = {
    "cpu": ("data", "step", "decode", "profile", "memory"),
    "gpu": ("step",),
    "tpu_aot": ("tpu", "memory"),
}
"""What is measured there; the result of each is `<name>_<hardware>.json`."""
_NAMES = (
    *("data", "step", "decode", "profile", "curves", "tpu", "memory"),
    *("chips", "kernels", "predicted", "save", "conversion", "perplexity", "intents"),
    *("multitask", "distillation", "preferences", "tuning", "report"),
)
_FLAG = {"cpu": "--torch_python=", "gpu": "--torch_python=", "tpu_aot": "--python="}
"""The flag that names the interpreter where the peer is."""
_OWN = {
    "step": ("--torch_python=", "--hardware="),
    "decode": ("--torch_python=",),
    "tpu": ("--python=",),
    "memory": ("--hardware=",),
}
"""What a measurement takes of the flags."""


def main(arguments: Sequence[str]) -> int:
    """Runs each in a process of its own; the exit code is that of the first that fails."""
    if not arguments or arguments[0] in ("--help", "-h"):
        print(__doc__)
        return 0 if arguments else 2
    first, *given = arguments
    if first in _NAMES:
        return _run(sys.executable, first, given)
    if first not in _HARDWARE:
        print(f"error: {first!r}: give {', '.join([*_HARDWARE, *_NAMES])} first", file=sys.stderr)
        return 2
    if unknown := [a for a in given if not a.startswith(_FLAG[first])]:
        print(f"error: {unknown[0]}: {first} takes {_FLAG[first]}PYTHON alone", file=sys.stderr)
        return 2
    # The compiler for TPUs is where the peer is, and is asked there about memory.
    peer = given[-1].partition("=")[2] if given else sys.executable
    for name in _HARDWARE[first]:
        hardware = "here" if (first, name) == ("cpu", "memory") else first
        every = [*given, f"--hardware={hardware}"]
        own = [a for a in every if a.startswith(_OWN.get(name, ("--none",)))]
        own.append(f"--out={_RESULTS / f'{name}_{first}.json'}")
        on_tpu = (first, name) == ("tpu_aot", "memory")
        if code := _run(peer if on_tpu else sys.executable, name, own):
            return code
    return 0


def _run(python: str, name: str, arguments: Sequence[str]) -> int:
    print(f"-- {name}", flush=True)
    command = [python, "-m", f"bench.{name}", *arguments]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
