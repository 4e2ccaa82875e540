"""What goes to the hosts' memory in a step, and what comes back: each a named line."""

from typing import NamedTuple

from planning.analytic import remat
from planning.analytic.layout import Layout
from planning.analytic.memory import bytes_of
from planning.analytic.work import BACKWARD, FORWARD, UPDATE


class Transfer(NamedTuple):
    """Between a device and its host, one way; the other way is another line.

    Attributes:
      phase: of planning.analytic.work.PHASES.
      name: of what.
      bytes: of a step.
      formula: of them.
    """

    phase: str
    name: str
    bytes: float
    formula: str


def transfers(layout: Layout) -> tuple[Transfer, ...]:
    """All of a step."""
    lines = []
    for name in sorted(remat.offloaded(layout.run.model)):
        tensor = remat.TENSORS[name]
        size = layout.calls * tensor.size(layout)
        formula = f"n B T x {tensor.formula}"
        lines += [Transfer(phase, name, size, formula) for phase in (FORWARD, BACKWARD)]
    if layout.run.optimizer.offload:
        size = bytes_of(layout.state.opt_state)
        lines += [
            Transfer(UPDATE, f"optimizer state, {way}", size, "of every leaf its shard")
            for way in ("to the device", "to the host")
        ]
    return tuple(lines)
