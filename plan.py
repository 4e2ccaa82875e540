"""Says of a run, without its hardware, whether it fits, what it exchanges, how fast it should be.

    python plan.py --config=configs/llama3_8b.py --topology=v5e:16x16

Compiles the training step that train.py would compile, for chips that need not be here (TPUs:
`make setup EXTRA=tpu`; no TPU is needed), and reads what the compiler says of it. Exit code 3: it
does not fit.
"""

import signal

if __name__ == "__main__":
    # Before libraries are read: Python's own handler raises an exception, which gets lost in JAX.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import json
import sys

from absl import flags

import commands
from configs import flags as config_flags
from configs.layouts import AUTO, NONE
from errors import UserError
from planning import devices, search, text
from planning.hardware import name_of
from planning.plan import make_plan, read_config
from planning.topology import Topology, parse
from training.config import RunConfig

CONFIG = config_flags.define()
TOPOLOGY = flags.DEFINE_string(
    "topology", "", "Chips and their arrangement: v5e:16x16, v5p:4x4x8, h100:8, cpu:8."
)
SLICES = flags.DEFINE_integer("slices", 1, "How many slices of that, over the network.")
COMPILE = flags.DEFINE_bool("compile", True, "Compile the step, where something here can.")
JSON = flags.DEFINE_bool("json", False, "Print one JSON object in the place of tables.")
SEARCH = flags.DEFINE_bool("search", False, "Look for the fastest layout that fits.")
SEARCH_MINUTES = flags.DEFINE_float(
    "search_minutes", 12.0, "How long --search may take, of which the last compilation is cut off."
)
PRICE = flags.DEFINE_float("price", 0.0, "Of an hour of one chip, for the cost of the whole run.")

DOES_NOT_FIT = 3


def topology() -> Topology:
    if not TOPOLOGY.value:
        raise UserError("--topology is missing: give v5e:16x16, v5p:4x4x8, h100:8 or cpu:8")
    return parse(TOPOLOGY.value, SLICES.value)


def main(job: commands.Job) -> None:
    del job
    config, layout = read_config(CONFIG.value, topology(), config_flags.given())
    if layout:
        print(layout, file=sys.stderr)
    if SEARCH.value:
        _search(config)
        return
    asked = CONFIG.value.layout
    name = (name_of(topology()) if asked == AUTO else asked) if layout else NONE
    plan = make_plan(config, topology(), COMPILE.value, name)
    if JSON.value:
        print(json.dumps(plan.to_dict(), indent=1))
    else:
        print("\n".join(text.told(plan, PRICE.value)))
    sys.stdout.flush()
    if not plan.fits:
        sys.exit(DOES_NOT_FIT)


def _search(config: RunConfig) -> None:
    """Prints what was found, and the flags of the best."""
    here = topology()
    if here.chip is None:
        raise UserError("--search needs chips whose rates are known: see --topology")
    if reason := devices.devices_of(here)[1]:
        raise UserError(f"--search: {reason}")
    arguments = [one for one in sys.argv[1:] if not one.lstrip("-").startswith("search")]
    found = search.search(
        config,
        here,
        arguments,
        60 * SEARCH_MINUTES.value,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    best = search.best(found)
    if JSON.value:
        print(json.dumps([one.flags | {"step_s": one.seconds} for one in found], indent=1))
        return
    print("\n".join(search.described(one) for one in found))
    if best is None:
        raise UserError(
            "no layout that was compiled fits: take more chips, or raise --search_minutes"
        )
    own = search.flags_of(config, here.devices)
    changed = {key: value for key, value in best.flags.items() if value != own[key]}
    flags = " ".join(text.flag(f"config.{key}", value) for key, value in changed.items())
    print(f"\nthe fastest:\n{flags or 'the config as it stands'}")


if __name__ == "__main__":
    commands.run(main, required=("config",), check=lambda: devices.prepare(topology()))
