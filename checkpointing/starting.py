"""The checkpoint that a fresh run takes its parameters from (config.train.start_from)."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax

from checkpointing import record
from checkpointing.checkpoints import Checkpoints
from checkpointing.workdir import CONVERTING, PUBLISHED, TOKENIZER, Workdir
from errors import UserError
from model import adapters, parameters
from model.decoder import Decoder
from model.parameters import Params
from sharding.layer_order import LayerOrder
from training.fields import flat
from training.state import abstract_params, shardings_of
from training.tuning import moving

_KEY = "config.train.start_from"
_ELSEWHERE = f"if it is elsewhere: --base=WORKDIR, or for train.py --{_KEY}=WORKDIR"
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


def find(text: str, key: str = _KEY) -> Start:
    """The newest checkpoint of a workdir.

    Args:
      text: the workdir.
      key: that says it, for messages.

    Raises:
      UserError: there is none.
    """
    if (newest := next(_all(_there(text, key)), None)) is None:
        raise UserError(f"{key}={text}: no checkpoint is there")
    return newest


def again(text: str, identity: str, who: object, key: str = _KEY) -> Start:
    """The checkpoint that a run began with, which has what of its parameters does not move.

    Args:
      text: the workdir that it is in.
      identity: of it, as the run's record has it (`began`).
      who: the run, for the message.
      key: that says where it is, likewise.

    Raises:
      UserError: it is not there.
    """
    try:
        _there(text, key)
    except UserError as error:
        raise UserError(f"{error}; {_ELSEWHERE}") from None
    if start := kept(text, identity, key):
        return start
    raise UserError(
        f"{who} was tuned from another model than {text} has now: bring back the one that it began "
        f"with, or its checkpoint, for it has only what moved; {_ELSEWHERE}"
    )


def kept(text: str, identity: str, key: str = _KEY) -> Start | None:
    """The checkpoint of a workdir whose parameters have an identity; None if there is none, or no
    such workdir any more.

    Args:
      text, identity: of both.
      key: that says the workdir, for messages.
    """
    workdir = Workdir(text, key)
    if not workdir.exists():
        return None
    return next((one for one in _all(workdir) if one.record.identity() == identity), None)


def _there(text: str, key: str = _KEY) -> Workdir:
    workdir = Workdir(text, key)
    if not workdir.exists():
        raise UserError(f"{key}={text}: there is no such directory")
    return workdir


def _all(workdir: Workdir) -> Iterator[Start]:
    """The checkpoints of a workdir, newest first."""
    with Checkpoints(workdir.path) as checkpoints:
        for step in reversed(checkpoints.steps()):
            yield Start(workdir, step, record.read(checkpoints.run(step), workdir)[0])


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
    """The parameters where a run has them; where those of `start` have adapters, merged with them.

    Args:
      start: where they are.
      outline: of the run's decoder, whose model is that of `start`.
      abstract: shape, dtype and sharding; of nothing that is fresh in the run.
      order: of the layers of the run's states.
    """
    if not abstract:
        return {}
    stacked = parameters.part(parameters.stacked(outline), flat(abstract).keys())
    return order._replace(stacked=stacked).by_stage(plain(start, abstract))


def plain(start: Start, abstract: Params) -> Params:
    """Parameters of a model without adapters, or with them merged into its weights.

    Args:
      start: the checkpoint.
      abstract: shape, dtype and sharding of those that are wanted.
    """
    config = start.record.config.model
    if config.adapter.kind == "none":
        return whole(start, abstract)
    outline = parameters.outline(config)
    mesh = jax.tree.leaves(abstract)[0].sharding.mesh
    params = whole(start, abstract_params(outline, mesh))

    def merge(params: Params) -> Params:
        found = parameters.part(adapters.merged(config, params), flat(abstract).keys())
        return jax.tree.map(lambda x, like: x.astype(like.dtype), found, abstract)

    return jax.jit(merge, out_shardings=shardings_of(abstract))(params)


def whole(start: Start, abstract: Params, base: str = "") -> Params:
    """The parameters of a checkpoint with those that did not move when it was trained.

    Args:
      start: the checkpoint.
      abstract: shape, dtype and sharding of those that are wanted.
      base: the workdir of those that did not move, where it is not where it was.

    Raises:
      UserError: it has all parameters itself, or those that did not move are not there.
    """
    saved = start.record
    moves = moving(saved.config.tuning, parameters.outline(saved.config.model))
    with Checkpoints(start.workdir.path) as checkpoints:
        if moves.names is None:
            if base:
                raise UserError(
                    f"{start.workdir} has all parameters of its model: leave --base out"
                )
            return checkpoints.params(start.step, abstract)
        own = moves.of(abstract)
        params = checkpoints.params(start.step, own) if own else {}
    text, key = (base, "--base") if base else (saved.config.train.start_from, _KEY)
    fixed = moves.fixed(abstract)
    began = again(text, saved.began, start.workdir, key)
    return parameters.joined(params, plain(began, fixed) if fixed else {})


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


def add_published(files: Mapping[str, bytes], workdir: Workdir) -> None:
    """Puts files beside what was published with a model, as if they had been."""
    folder = workdir.local / PUBLISHED
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    workdir.publish(PUBLISHED)


def tokenizer_of(text: str) -> str:
    """The path of the tokenizer of a workdir: also what a run's config says of it, when the
    workdir is gone.
    """
    return f"{text.rstrip('/')}/{TOKENIZER}"
