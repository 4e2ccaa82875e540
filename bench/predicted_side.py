"""Plans one published result for its TPUs, and prints what is predicted.

    python -m bench.predicted_side "Llama3.1-8B v6e:16x16"

Run by bench/predicted.py, in an environment with libtpu; nothing is executed on a device.
"""

import dataclasses
import json
import sys
from typing import Any

from bench.published import ROWS, Published
from data.config import DataConfig
from planning import devices
from planning.plan import Plan, make_plan
from planning.topology import parse
from reporting.environment import describe
from sharding.config import MeshConfig
from training.config import EvaluationConfig, RunConfig, TrainConfig


def run_of(row: Published) -> RunConfig:
    """The run of a published result in our terms: AdamW, everything else as its recipe has it."""
    assert row.config is not None, row.name
    sizes: dict[str, Any] = {"data": 1, "fsdp": -1, **row.mesh}
    return RunConfig(
        model=dataclasses.replace(row.config, max_length=row.length, logits_mb=512),
        data=DataConfig(source="python_stdlib", sequence_length=row.length),
        mesh=MeshConfig(**sizes),
        train=TrainConfig(batch_size=round(row.rows * row.chips)),
        evaluation=EvaluationConfig(batch_size=parse(row.topology, row.slices).devices),
    )


def told(row: Published, plan: Plan) -> dict[str, Any]:
    """What is kept of a plan."""
    assert plan.program is not None and plan.estimate.timing is not None, plan.reason
    found: dict[str, Any] = {
        "published_s": row.seconds(),
        "published_mfu": row.causal_mfu() / 100,
        "estimated_s": plan.estimate.timing.step_s,
        "needed": plan.needed,
        "available": round(plan.memory),
        "compile_s": round(plan.seconds, 1),
    }
    if (time := plan.time) is not None:
        found |= {"predicted_s": time.step, "predicted_mfu": plan.mfu}
        found["parts"] = {
            name: getattr(time, name)
            for name in ("products", "other", "kernels", "copies", "exposed", "exchanges")
        }
    return found


def main() -> None:
    (key,) = sys.argv[1:]
    row = next(row for row in ROWS if row.key == key)
    topology = parse(row.topology, row.slices)
    devices.prepare(topology)
    found = told(row, make_plan(run_of(row), topology))
    print("\n" + json.dumps(found | {"environment": describe()}), flush=True)


if __name__ == "__main__":
    main()
