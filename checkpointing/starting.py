"""The checkpoint that a fresh run takes its parameters from (config.train.start_from)."""

from typing import NamedTuple

from checkpointing import record
from checkpointing.checkpoints import Checkpoints
from checkpointing.workdir import CONVERTING, PUBLISHED, TOKENIZER, Workdir
from errors import UserError
from model import parameters
from model.decoder import Decoder
from model.parameters import Params
from sharding.layer_order import LayerOrder

_KEY = "config.train.start_from"
_OF_THE_MODEL = ("config.json",)
"""What of the published files is true with any tokenizer."""


class Start(NamedTuple):
    """Attributes:
    workdir: that has it.
    step: of the newest checkpoint there.
    record: of that.
    """

    workdir: Workdir
    step: int
    record: record.Record


def find(text: str) -> Start:
    """The newest checkpoint of a workdir.

    Raises:
      UserError: there is none.
    """
    workdir = Workdir(text, _KEY)
    if not workdir.exists():
        raise UserError(f"{_KEY}={text}: there is no such directory")
    with Checkpoints(workdir.path) as checkpoints:
        if (step := checkpoints.latest()) is None:
            raise UserError(f"{_KEY}={text}: no checkpoint is there")
        return Start(workdir, step, record.read(checkpoints.run(step), workdir)[0])


def check(workdir: Workdir) -> None:
    """Refuses to train in the workdir of a converted model, or of one that is bare.

    Raises:
      UserError: it is one, or a conversion was killed there.
    """
    if not workdir.exists():
        return
    if CONVERTING in workdir.names():
        raise UserError(
            f"a conversion to {workdir} was interrupted: give its command again, or choose another "
            "--workdir"
        )
    saved = workdir.read_run()
    kinds = {"imported": "a converted model", "bare": "a model without an optimizer's state"}
    for kind in (kinds[key] for key in kinds if saved is not None and saved.get(key)):
        raise UserError(
            f"{workdir} has {kind}: train from it by --{_KEY}={workdir} and another --workdir"
        )


def take(start: Start, outline: Decoder, abstract: Params, order: LayerOrder) -> Params:
    """The parameters, float32, where a run has them.

    Args:
      start: where they are.
      outline: of the run's decoder, whose model is that of `start`.
      abstract: shape, dtype and sharding.
      order: of the layers of the run's states.
    """
    with Checkpoints(start.workdir.path) as checkpoints:
        params = checkpoints.params(start.step, abstract)
    return order._replace(stacked=parameters.stacked(outline)).by_stage(params)


def carry(start: Start, workdir: Workdir, same_tokenizer: bool) -> None:
    """Brings along what was published with the model, for what is made of the run."""
    start.workdir.fetch(PUBLISHED)
    folder, target = start.workdir.local / PUBLISHED, workdir.local / PUBLISHED
    if not folder.is_dir() or folder.resolve() == target.resolve():
        return
    target.mkdir(exist_ok=True)
    for file in sorted(folder.iterdir()):
        if same_tokenizer or file.name in _OF_THE_MODEL:
            (target / file.name).write_bytes(file.read_bytes())
    workdir.publish(PUBLISHED)


def tokenizer_of(text: str) -> str:
    """The path of the tokenizer of a workdir: also what a run's config says of it, when the
    workdir is gone.
    """
    return f"{text.rstrip('/')}/{TOKENIZER}"
