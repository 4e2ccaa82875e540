"""The decoder that a model is compared with, when it is judged by pairs."""

import dataclasses

from checkpointing import starting
from checkpointing.starting import Start
from checkpointing.workdir import TOKENIZER
from data import tokenizer as tokenizers
from data.tokenizer import Tokenizer
from data.tokenizing.comparison import first_difference
from errors import UserError
from evaluation.tasks.pairs import Reference
from evaluation.trained import Trained, load
from model import parameters
from sharding.config import MeshConfig

_FLAG = "--reference"


def find(trained: Trained, given: str, base: str) -> Start | None:
    """Where the reference is; None where a model has none.

    Args:
      trained: the model.
      given: by --reference, a workdir; "" is what the run was compared with while it learned.
      base: see evaluation.trained.load.

    Raises:
      UserError: it is not there.
    """
    if given:
        return starting.find(given, _FLAG)
    config = trained.config
    if config.objective.learns_from != "reference":
        return None
    text = config.objective.teacher or base or config.train.start_from
    if start := starting.kept(text, trained.record.teacher, _FLAG):
        return start
    raise UserError(
        f"the reference that the run had is not in {text} any more: say where one is by {_FLAG}"
    )


def read(start: Start, trained: Trained, tokenizer: Tokenizer, mesh: MeshConfig) -> Reference:
    """A reference on the model's mesh, computed as the model is.

    Raises:
      UserError: its ids are not the model's.
    """
    said = f"{_FLAG}={start.workdir}"
    if (path := start.workdir.path / TOKENIZER).exists():
        theirs = tokenizers.load(path)
        different = theirs.fingerprint != tokenizer.fingerprint
        if different and (difference := first_difference(tokenizer, theirs)):
            raise UserError(f"{said} has another tokenizer: {difference}; give another")
    found = load(start.workdir, start.step, mesh, None)
    ours, model = trained.config.model, found.config.model
    for name in ("vocab_size", "vocab_multiple"):
        here, there = getattr(ours, name), getattr(model, name)
        if here != there:
            raise UserError(f"{said} has {name}={there}, and the model {here}: give another")
    model = dataclasses.replace(model, dtype=ours.dtype, quantization=ours.quantization)
    return Reference(parameters.outline(model, found.outline.means), found.params)
