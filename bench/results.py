"""Files of results: what was measured, by which command, on what."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from absl import flags

from reporting.environment import describe

FOLDER = Path(__file__).parent / "results"
FLOPS = (
    "a token, forward and backward: 6 x the weights that multiply it (attention, MLP, output "
    "projection) + 12 x layers x heads x head size x the keys it sees (causal: half the length); "
    "ModelConfig.flops_per_token"
)

OUT = flags.DEFINE_string("out", "", "Also write the result to this file, as JSON.")


def write(result: dict[str, Any], environment: dict[str, str] | None = None) -> None:
    """Writes a result to --out, if that is given, with what it was measured on.

    Args:
      result: what was measured.
      environment: of the process that measured it; by default this one's.
    """
    if not OUT.value:
        return
    # Where an interpreter or the runs lie on this machine says nothing to others.
    places = re.compile(r"--(torch_python|python|workdir|work|model|source)=.*")
    kept = (a for a in sys.argv[1:] if not a.startswith("--out="))
    arguments = [places.sub(lambda found: f"--{found[1]}={found[1].upper()}", a) for a in kept]
    module = Path(sys.argv[0]).stem
    head = {
        "command": shlex.join(["python", "-m", "bench", module, *arguments]),
        "environment": describe() if environment is None else environment,
    }
    path = Path(OUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head | result, indent=1) + "\n")
