"""The decoder that a model is compared with, when it is judged by pairs."""

import dataclasses
from typing import NamedTuple

from checkpointing import teacher
from checkpointing.teacher import Teacher
from data.tokenizer import Tokenizer
from errors import UserError
from evaluation.tasks.pairs import Reference
from evaluation.trained import Trained
from sharding.config import MeshConfig
from training.config import RunConfig
from training.objectives.config import ObjectiveConfig

_FLAG = "--reference"


class On(NamedTuple):
    """Where a reference is to be asked: beside a model.

    Attributes:
      trained: the model.
      tokenizer: of it.
      layout: of its mesh.
      rows: of a batch.
    """

    trained: Trained
    tokenizer: Tokenizer
    layout: MeshConfig
    rows: int

    @property
    def config(self) -> RunConfig:
        """A run there that asks a reference."""
        config = self.trained.config
        train = dataclasses.replace(config.train, batch_size=self.rows, accumulation=1)
        asks = ObjectiveConfig("dpo", stored=False)
        return dataclasses.replace(config, mesh=self.layout, train=train, objective=asks)


def find(beside: On, given: str, base: str) -> Teacher | None:
    """The reference, on the model's mesh and computed as the model is; None where it has none.

    Args:
      beside: what.
      given: by --reference, a workdir; "" is what the run was compared with while it learned.
      base: see evaluation.trained.load.

    Raises:
      UserError: it is not there, or does not suit the model.
    """
    trained, asked = beside.trained, beside.trained.config.objective
    if not given and asked.learns_from != "reference":
        return None
    began = "" if given else trained.record.teacher
    if given:
        key, text = _FLAG, given
    elif asked.teacher:
        key, text = "config.objective.teacher", asked.teacher
    elif base:
        key, text = "--base", base
    else:
        key, text = "config.train.start_from", trained.config.train.start_from
    found = teacher.named(key, text, beside.config, trained.mesh, began, length=1)
    if found.found is None:
        raise UserError(f"{key}={text} has no more what the run was compared with: give {_FLAG}")
    teacher.check_tokenizer(found, beside.tokenizer)
    ours, theirs = trained.config.model, found.here.outline.config
    for name in ("vocab_size", "padded_vocab_size"):
        here, there = getattr(ours, name), getattr(theirs, name)
        if here != there:
            raise UserError(
                f"{key}={text} has {name}={there}, and the model {here}: they are compared id by "
                f"id, so give another {_FLAG}"
            )
    return found


def read(beside: On, found: Teacher) -> Reference:
    """A reference with its parameters."""
    params = teacher.take(found, beside.config, beside.trained.mesh)
    return Reference(found.here.outline, params)
