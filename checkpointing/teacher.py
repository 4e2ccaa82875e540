"""The decoder that a run asks (config.objective): what it learns from, or the reference."""

import dataclasses
from typing import Any, NamedTuple

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
from training.state import abstract_asked


class Found(NamedTuple):
    """Attributes:
    start: its checkpoint.
    outline: on the run's mesh, computed as the run's is.
    """

    start: Start
    outline: Decoder


class Teacher(NamedTuple):
    """Attributes:
    key, text: what names it in the config, and the workdir.
    identity: of its parameters.
    found: the decoder; None where it is not there any more, but what it said may be (stored).
    """

    key: str
    text: str
    identity: str
    found: Found | None

    @property
    def here(self) -> Found:
        """The decoder.

        Raises:
          UserError: it is not there any more.
        """
        if self.found is None:
            raise UserError(
                f"{self.key}={self.text}: what the run began with is not there any more, nor is "
                "all that it said in the cache: bring it back"
            )
        return self.found


def find(config: RunConfig, mesh: Mesh, began: str = "") -> Teacher | None:
    """The decoder that a run asks; None if it asks none.

    Args:
      config: of the run.
      mesh: of its arrays.
      began: identity of that which a run that goes on has asked; "" is the newest.

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
    return named(key, text, config, mesh, began, config.data.sequence_length)


def named(key: str, text: str, config: RunConfig, mesh: Mesh, began: str, length: int) -> Teacher:
    """The decoder of a workdir, as a run would ask it.

    Args:
      key, text: what names the workdir, for messages, and the workdir.
      config, mesh, began: see `find`.
      length: tokens of a row.

    Raises:
      UserError: see `find`.
    """
    start = starting.kept(text, began, key) if began else starting.find(text, key)
    if start is None:
        return Teacher(key, text, began, None)
    outline = _outline(f"{key}={text}", start.record.config.model.plain, config, mesh, length)
    return Teacher(key, text, start.record.identity(), Found(start, outline))


def in_step(config: RunConfig, mesh: Mesh) -> Decoder | None:
    """The decoder that every step of a plan asks; None if none does. A plan may name nothing to
    start from: then its reference has the shape of its model.

    Raises:
      UserError: see `find`.
    """
    asked = config.objective
    if asked.stored or not asked.learns_from:
        return None
    if asked.teacher or config.train.start_from:
        found = find(config, mesh)
        return None if found is None else found.here.outline
    length = config.data.sequence_length
    return _outline("the reference", config.model.plain, config, mesh, length)


def _outline(said: str, theirs: ModelConfig, config: RunConfig, mesh: Mesh, length: int) -> Decoder:
    """A model beside that of the run.

    Args:
      said: of whom, for messages.
      length: tokens of a row.

    Raises:
      UserError: it does not suit the run.
    """
    try:
        model = _here(theirs, config)
    except ValueError as error:
        raise UserError(f"{said}, computed as the run is: {error}") from None
    if model.max_length < length:
        raise UserError(
            f"{said} takes {model.max_length} tokens, and config.data.sequence_length is "
            f"{length}: make the rows shorter, or take another"
        )
    if config.objective.learns_from == "distill":
        _check_vocabulary(said, model, config)
    try:
        layers = model.stacks
        schedule.check(mesh, config.mesh, sum(layers), {}, others=sum(layers[:-1]))
        outline = parameters.outline(model, means(mesh, model, config.mesh))
        rows = {"train.batch_size": config.train.batch_size}
        validate(mesh, parameters.logical_axes(outline), parameters.shapes(outline), rows)
    except ValueError as error:
        raise UserError(f"{said} on the mesh of the run: {error}") from None
    return outline


def check_tokenizer(teacher: Teacher, tokenizer: Tokenizer) -> str:
    """Refuses a teacher whose tokens are others than the run's.

    Returns:
      what a person should know, or "".

    Raises:
      UserError: naming the first token that is another.
    """
    said = f"{teacher.key}={teacher.text}"
    path = teacher.here.start.workdir.path / TOKENIZER
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
    start, outline = teacher.here
    order = LayerOrder(mesh, config.mesh.rounds, parameters.stacked(outline))
    return starting.take(start, outline, abstract_asked(outline, mesh), order)


def computing(config: RunConfig) -> dict[str, str]:
    """What it computes with, as a run has it; where that is not the default.

    A reference is quantized as the run is: its probabilities are divided by those of the reference,
    which the first step shall find to be equal.
    """
    ours = config.model
    found: dict[str, str] = {"dtype": ours.dtype}
    if config.objective.learns_from == "reference" and ours.quantization != "none":
        found["quantization"] = ours.quantization
    return found


def _here(theirs: ModelConfig, config: RunConfig) -> ModelConfig:
    """Its model, computed as the run's is."""
    plain: dict[str, Any] = {"quantization": "none"}
    return dataclasses.replace(
        theirs,
        remat="none",
        remat_save=(),
        remat_offload=(),
        scan_unroll=1,
        logits_mb=config.model.logits_mb,
        **(plain | computing(config)),
    )


def _check_vocabulary(said: str, theirs: ModelConfig, config: RunConfig) -> None:
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
                f"{said} has {name}={there}, and config.model.{name} is {here}: the two "
                f"distributions are compared id by id, so give --config.model.{name}={there}"
            )
