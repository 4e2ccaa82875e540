"""Whether a layout can be, in a second and before anything slow: shapes, divisibility, bytes."""

import sys
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from configs import door
from errors import UserError
from model import parameters
from planning.tensors import state_tensors, total
from sharding.means import means
from sharding.mesh import make_mesh
from sharding.table import validate
from training.config import RunConfig
from training.program import program


def lay_out(
    config: RunConfig, devices: Sequence[jax.Device] | None = None, memory: int | None = None
) -> Mesh:
    """The mesh of a run; one that does not fit is refused before anything slow happens.

    The vocabulary need not be known yet: it will be a multiple of vocab_multiple, and a mesh that
    divides that will do. What a person should know of the layout is told on standard error, by
    process 0.

    Args:
      config: of the run.
      devices: those here, unless others are given.
      memory: bytes of each; None where they are not known, and not to be judged by.

    Raises:
      UserError: the mesh does not suit the model, the batches or the devices; or what the devices
        hold from step to step is larger than their memory.
    """
    if not config.model.vocab_size:
        config = door.with_vocabulary(config, 1)
    batches = {"evaluation.batch_size": config.evaluation.batch_size}
    for name, rows in door.batch_sizes(config).items():
        batches[f"{name} / train.accumulation"] = rows // config.train.accumulation
    try:
        mesh = make_mesh(config.mesh, devices)
        outline = parameters.outline(config.model, means(mesh, config.model))
        axes, shapes = parameters.logical_axes(outline), parameters.shapes(outline)
        notes = validate(mesh, axes, shapes, batches, door.sequence_lengths(config))
    except ValueError as error:
        raise UserError(f"config.mesh: {error}") from None
    for note in notes if jax.process_index() == 0 else ():
        print(f"note: {note}", file=sys.stderr)
    if memory is not None:
        _check_memory(config, mesh, memory)
    return mesh


def _check_memory(config: RunConfig, mesh: Mesh, memory: int) -> None:
    """Refuses a state that does not fit, with the gradients that every step adds to it."""
    made = program(config, mesh)
    tensors = state_tensors(made.outline, made.state)
    kept = {kind: total(tensors, kind) for kind in ("parameters", "optimizer")}
    kept["gradients"] = kept["parameters"]
    if (needed := sum(kept.values())) <= memory:
        return
    parts = ", ".join(f"{size / 1e9:.1f} GB of {kind}" for kind, size in kept.items())
    raise UserError(
        f"config.mesh: each device would hold {parts}: {needed / 1e9:.1f} GB, "
        f"{(needed - memory) / 1e9:.1f} GB more than it has; raise mesh.fsdp (or mesh.tensor), so "
        "that more devices share them"
    )
