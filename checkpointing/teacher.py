"""The decoder that a run asks (config.objective): what it learns from, or the reference."""

import dataclasses
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from checkpointing import starting
from checkpointing.starting import Start
from checkpointing.workdir import TOKENIZER
from data import tokenizer as tokenizers
from data.tokenizer import Tokenizer
from data.tokenizing.comparison import first_difference
from errors import UserError
from model import parameters
from model.config import ModelConfig
from model.decoder import Decoder
from model.parameters import Params
from sharding import schedule
from sharding.layer_order import LayerOrder
from sharding.means import means
from sharding.table import validate
from training.config import RunConfig
from training.state import abstract_asked, abstract_params, shardings_of


class Teacher(NamedTuple):
    """Attributes:
    key, text: what names it in the config, and the workdir.
    start: its checkpoint.
    outline: on the run's mesh, in the dtype that the run computes in.
    """

    key: str
    text: str
    start: Start
    outline: Decoder

    @property
    def identity(self) -> str:
        return self.start.record.identity()


def find(config: RunConfig, mesh: Mesh) -> Teacher | None:
    """The decoder that a run asks; None if it asks none.

    Raises:
      UserError: it is not there, or does not suit the run.
    """
    asked = config.objective
    if not asked.learns_from:
        return None
    if asked.teacher:
        key, text = "config.objective.teacher", asked.teacher
    else:
        key, text = "config.train.start_from", config.train.start_from
    start = starting.find(text, key)
    model = _here(start.record.config.model.plain, config.model)
    if model.max_length < config.data.sequence_length:
        raise UserError(
            f"{key}={text} takes {model.max_length} tokens, and config.data.sequence_length is "
            f"{config.data.sequence_length}: make the rows shorter, or take another"
        )
    if asked.learns_from == "distill":
        _check_vocabulary(key, text, model, config)
    try:
        layers = model.stacks
        schedule.check(mesh, config.mesh, sum(layers), {}, others=sum(layers[:-1]))
        outline = parameters.outline(model, means(mesh, model, config.mesh))
        rows = {"train.batch_size": config.train.batch_size}
        validate(mesh, parameters.logical_axes(outline), parameters.shapes(outline), rows)
    except ValueError as error:
        raise UserError(f"{key}={text} on the mesh of the run: {error}") from None
    return Teacher(key, text, start, outline)


def check_tokenizer(teacher: Teacher, tokenizer: Tokenizer) -> str:
    """Refuses a teacher whose tokens are others than the run's.

    Returns:
      what a person should know, or "".

    Raises:
      UserError: naming the first token that is another.
    """
    said = f"{teacher.key}={teacher.text}"
    path = teacher.start.workdir.path / TOKENIZER
    if not path.exists():
        raise UserError(f"{said} has no tokenizer, so that its tokens cannot be compared with ours")
    theirs = tokenizers.load(path)
    if theirs.fingerprint == tokenizer.fingerprint:
        return ""
    if difference := first_difference(tokenizer, theirs):
        raise UserError(
            f"{said} has another tokenizer: {difference}; give "
            f"--config.data.tokenizer={starting.tokenizer_of(teacher.text)}"
        )
    return f"note: {said} has the same tokens, but its tokenizer may cut texts in another way"


def take(teacher: Teacher, config: RunConfig, mesh: Mesh) -> Params:
    """Its parameters on the run's mesh, in the dtype that it computes in."""
    outline = teacher.outline
    order = LayerOrder(mesh, config.mesh.rounds, parameters.stacked(outline))
    params = starting.take(teacher.start, outline, abstract_params(outline, mesh), order)
    like = abstract_asked(outline, mesh)
    cast = jax.jit(
        lambda params: jax.tree.map(lambda x, to: x.astype(to.dtype), params, like),
        out_shardings=shardings_of(like),
        donate_argnums=0,
    )
    found: Params = cast(params)
    return found


def _here(theirs: ModelConfig, ours: ModelConfig) -> ModelConfig:
    """Its model, computed as the run's is."""
    return dataclasses.replace(
        theirs,
        dtype=ours.dtype,
        quantization="none",
        remat="none",
        remat_save=(),
        remat_offload=(),
        scan_unroll=1,
        logits_mb=ours.logits_mb,
    )


def _check_vocabulary(key: str, text: str, theirs: ModelConfig, config: RunConfig) -> None:
    ours, asked = config.model, config.objective
    if asked.stored and asked.top_k >= ours.vocab_size:
        raise UserError(
            f"config.objective.top_k={asked.top_k} leaves nothing of a vocabulary of "
            f"{ours.vocab_size}: make it smaller, or set config.objective.stored=False"
        )
    for name in ("vocab_size", "vocab_multiple"):
        here, there = getattr(ours, name), getattr(theirs, name)
        if here != there:
            raise UserError(
                f"{key}={text} has {name}={there}, and config.model.{name} is {here}: the two "
                f"distributions are compared id by id, so give --config.model.{name}={there}"
            )
