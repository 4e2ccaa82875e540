"""Measures Podium beside its peers: the data, the step, and the step compiled for TPUs.

    python -m bench                    # the data and the step
    python -m bench data --source="files:$PODIUM_ASSETS/books/*.jsonl.gz"
    python -m bench step --help        # one of them, with its flags

`make bench ARGS="step --torch_python=PYTHON"` is the same.
"""

import subprocess
import sys
from collections.abc import Sequence

_NAMES: tuple[str, ...] = ("data", "step", "tpu", "memory")


def main(arguments: Sequence[str]) -> int:
    """Runs each in a process of its own; the exit code is that of the first that fails."""
    names = _NAMES[:2]  # for TPUs an interpreter with MaxText has to be named
    if arguments:
        if arguments[0] not in _NAMES:
            print(f"error: {arguments[0]!r}: give {' or '.join(_NAMES)} first", file=sys.stderr)
            return 2
        names, arguments = (arguments[0],), arguments[1:]
    for name in names:
        print(f"-- {name}", flush=True)
        command = [sys.executable, "-m", f"bench.{name}", *arguments]
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
