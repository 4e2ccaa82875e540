"""A trained model out of a workdir, to evaluate or to generate with."""

import dataclasses
import re
import sys
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from checkpointing import record, starting
from checkpointing.checkpoints import Checkpoints
from checkpointing.starting import Start
from checkpointing.workdir import TOKENIZER, Workdir
from data import tokenizer as tokenizers
from errors import UserError
from model import adapters, parameters
from model.decoder import Decoder
from sharding import schedule
from sharding.config import AXES, MeshConfig, decoding_mesh
from sharding.means import means
from sharding.mesh import make_mesh
from sharding.table import validate
from training.config import RunConfig
from training.fields import flat
from training.state import abstract_params, shardings_of


class Trained(NamedTuple):
    """Attributes:
    config: of the run, as it was saved.
    record: of the run, at this checkpoint.
    step: of the checkpoint.
    outline: the decoder without values.
    params: its parameters, on `mesh`.
    mesh: of all devices.
    """

    config: RunConfig
    record: record.Record
    step: int
    outline: Decoder
    params: parameters.Params
    mesh: Mesh


def merged(trained: Trained) -> Trained:
    """The model without adapters, whose weights are what adapted ones were: to decode with, which
    would compute with both for every token, and to write for others. What it is given is used up.
    """
    config = trained.config.model
    if config.adapter.kind == "none":
        return trained
    run = dataclasses.replace(trained.config, model=config.plain)
    outline = parameters.outline(config.plain, trained.outline.means)
    where = shardings_of(abstract_params(outline, trained.mesh))
    weights = parameters.without_adapters(trained.params)
    beside = parameters.part(trained.params, flat(trained.params).keys() - flat(weights).keys())
    merge = jax.jit(
        lambda weights, beside: adapters.merged(config, parameters.joined(weights, beside)),
        out_shardings=where,
        donate_argnums=0,
    )
    return trained._replace(
        config=run,
        record=dataclasses.replace(trained.record, config=run),
        outline=outline,
        params=merge(weights, beside),
    )


def parse_mesh(text: str) -> MeshConfig:
    """A mesh from a flag such as "data=2,fsdp=4".

    Raises:
      UserError: an unknown axis, or a size that cannot be.
    """
    given: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        axis, _, size = part.partition("=")
        if axis not in AXES or not re.fullmatch(r"-?[0-9]+", size):
            raise UserError(f"--mesh={text}: give axes of {', '.join(AXES)}, as in fsdp=4,tensor=2")
        if axis in given:
            raise UserError(f"--mesh={text}: {axis} is given twice")
        given[axis] = int(size)
    try:
        return MeshConfig(**dict.fromkeys(AXES, 1) | given)
    except ValueError as error:
        raise UserError(f"--mesh={text}: {error}") from None


def resolve(workdir: Workdir, step: int | None) -> int:
    """`step`, or the newest one of the run.

    Raises:
      UserError: no workdir, or no such checkpoint.
    """
    if not workdir.exists():
        raise UserError(f"no run in {workdir}: there is no such directory")
    checkpoints = Checkpoints(workdir.path)
    found = checkpoints.resolve(step)
    checkpoints.close()
    return found


def tokenizer_of(workdir: Workdir) -> tokenizers.Tokenizer:
    """The tokenizer of a run.

    Raises:
      UserError: it has none, as models that are converted without one.
    """
    if not (workdir.path / TOKENIZER).exists():
        raise UserError(
            f"{workdir} has no tokenizer, and a model that is converted without one neither reads "
            "nor writes text: give convert.py a folder with one that Podium reads (docs/data.md)"
        )
    return tokenizers.load(workdir.path / TOKENIZER)


def load(
    workdir: Workdir,
    step: int | None,
    mesh_config: MeshConfig | None,
    rows: int | None,
    length: int = 0,
    base: str = "",
) -> Trained:
    """Loads the parameters of a checkpoint onto a mesh that need not be the one of the run.

    Args:
      workdir: of the run.
      step: of the checkpoint; None is the newest.
      mesh_config: the mesh; None is the one made for decoding (sharding/config.py).
      rows: of a batch, checked against the mesh; 0 is the run's evaluation.batch_size, None if
        there will be no batches.
      length: of their rows; 0 is the run's data.sequence_length.
      base: the workdir of what did not move, where it is not where it was (--base).

    Raises:
      UserError: no workdir, no such checkpoint, or a mesh that does not fit.
    """
    step = resolve(workdir, step)
    checkpoints = Checkpoints(workdir.path)
    run, notes = record.read(checkpoints.run(step), workdir)
    config, batches, lengths = run.config, {}, {}
    if rows is not None:
        name = "--batch_size" if rows else "the run's evaluation.batch_size (see --batch_size)"
        batches[name] = rows or config.evaluation.batch_size
        name = "--sequence_length" if length else "the run's data.sequence_length"
        lengths[name] = length or config.data.sequence_length
    if mesh_config is None:
        model = config.model
        sizes = model.num_heads, *model.mlp_widths, model.padded_vocab_size
        mesh_config = decoding_mesh(jax.device_count(), *sizes)
    try:
        mesh = make_mesh(mesh_config)
        if rows is None and mesh.shape["pipeline"] > 1:
            raise ValueError(
                f"pipeline={mesh.shape['pipeline']}: a token would wait in one stage for all "
                "others; leave pipeline out to generate"
            )
        layers = config.model.stacks
        schedule.check(mesh, mesh_config, sum(layers), batches, others=sum(layers[:-1]))
        outline = parameters.outline(config.model, means(mesh, config.model, mesh_config))
        shapes, axes = parameters.shapes(outline), parameters.logical_axes(outline)
        notes += validate(mesh, axes, shapes, batches, lengths)
    except ValueError as error:
        raise UserError(f"--mesh: {error}") from None
    if jax.process_index() == 0:
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
    checkpoints.close()
    params = starting.whole(Start(workdir, step, run), abstract_params(outline, mesh), base)
    return Trained(config, run, step, outline, params, mesh)
