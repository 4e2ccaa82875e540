"""Whether a layout can be, in a second and before anything slow: shapes, divisibility, bytes."""

import sys
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh

from configs import door
from errors import UserError
from model import parameters
from planning.tensors import state_tensors, total
from sharding import schedule
from sharding.config import AXES
from sharding.means import means
from sharding.mesh import make_mesh
from sharding.table import validate
from training.config import RunConfig


def lay_out(config: RunConfig, memory: int | None = None) -> Mesh:
    """The mesh of a run over the devices that are here; what does not fit is refused.

    The vocabulary need not be known yet: it will be a multiple of vocab_multiple, and a mesh that
    divides that will do. What a person should know of the layout is told on standard error, by
    process 0.

    Args:
      config: of the run.
      memory: bytes of a device; None where they are not known, and not to be judged by.

    Raises:
      UserError: see `check`; or a package that the config needs is not installed.
    """
    notes = check(config, jax.device_count(), memory)
    mesh = mesh_over(config, jax.devices())
    means(mesh, config.model, config.mesh)
    for note in notes if jax.process_index() == 0 else ():
        print(f"note: {note}", file=sys.stderr)
    return mesh


def mesh_over(config: RunConfig, devices: Sequence[jax.Device]) -> Mesh:
    """The mesh of a run over devices, whether they are here or not.

    Raises:
      UserError: they cannot be arranged so.
    """
    try:
        return make_mesh(config.mesh, devices)
    except ValueError as error:
        raise UserError(f"config.mesh: {error}") from None


def check(config: RunConfig, devices: int, memory: float | None = None) -> tuple[str, ...]:
    """Proves, without the devices, that a run can be split over so many of them.

    Args:
      config: of the run.
      devices: their number.
      memory: bytes of each, or None.

    Returns:
      what a person should know, a line each.

    Raises:
      UserError: the mesh does not suit the model, the batches or the devices; or what a device
        holds from step to step is larger than its memory.
    """
    if not config.model.vocab_size:
        config = door.with_vocabulary(config, 1)
    rows = {"evaluation.batch_size": config.evaluation.batch_size}
    for name, size in door.batch_sizes(config).items():
        rows[f"{name} / train.accumulation"] = size // config.train.accumulation
    try:
        mesh = abstract_mesh(config, devices)
        outline = parameters.outline(config.model)
        axes, shapes = parameters.logical_axes(outline), parameters.shapes(outline)
        layers = config.model.stacks
        schedule.check(mesh, config.mesh, sum(layers), rows, others=sum(layers[:-1]))
        notes = validate(mesh, axes, shapes, rows, door.sequence_lengths(config))
    except ValueError as error:
        raise UserError(f"config.mesh: {error}") from None
    if memory is not None:
        _check_memory(config, mesh, memory)
    return notes


def abstract_mesh(config: RunConfig, devices: int) -> Any:
    """The mesh of a run over so many devices, without them.

    Raises:
      ValueError: if its axes do not multiply to their number.
    """
    sizes = config.mesh.sizes(devices)
    return AbstractMesh(tuple(sizes[axis] for axis in AXES), AXES)


def _check_memory(config: RunConfig, mesh: Mesh, memory: float) -> None:
    """Refuses a state that does not fit, with the gradients that every step adds to it."""
    tensors = state_tensors(config, mesh)
    kept = {kind: total(tensors, kind) for kind in ("parameters", "optimizer", "fixed")}
    if config.optimizer.offload:
        kept["optimizer"] = 0
    kept["gradients"] = kept["parameters"]
    if (needed := sum(kept.values())) <= memory:
        return
    kept["fixed parameters"] = kept.pop("fixed")
    parts = ", ".join(f"{size / 1e9:.1f} GB of {kind}" for kind, size in kept.items() if size)
    raise UserError(
        f"config.mesh: each device would hold {parts}: {needed / 1e9:.1f} GB, "
        f"{(needed - memory) / 1e9:.1f} GB more than it has; let more devices share them "
        "(mesh.fsdp, mesh.tensor), or set optimizer.offload=True"
    )
