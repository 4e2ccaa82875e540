"""Both benchmarks, one after the other: the data, then the step.

python -m bench
python -m bench.data --help
python -m bench.step --help
"""

import subprocess
import sys


def main() -> int:
    """Runs each in a process of its own; the exit code is that of the first that fails."""
    for name in ("data", "step"):
        print(f"-- {name}", flush=True)
        code = subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
