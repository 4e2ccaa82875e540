"""What reinforcement made of a run, as a workdir that eval.py, generate.py and convert.py read."""

import dataclasses
import hashlib

import jax
import numpy as np

from checkpointing import imported
from checkpointing.starting import Start, carry
from checkpointing.workdir import TOKENIZER, Workdir
from errors import UserError
from inference.loading import Loaded
from model.parameters import Params
from training.fields import flat
from training.tuning import TuningConfig


def check(target: Workdir) -> None:
    """Refuses a workdir that has something already.

    Raises:
      UserError: it has.
    """
    if target.exists() and (there := target.names()):
        raise UserError(f"{target} has {there[0]} already: choose another --to")


def save(loaded: Loaded, source: Workdir, params: Params, target: Workdir) -> None:
    """Writes parameters, config and tokenizer: step 0 of a model that is bare (record.py).

    It keeps what the run was, so that eval.py knows its data; train.py does not go on there, but
    starts from it (config.train.start_from): Tunix's optimizer is not Podium's.

    Args:
      loaded: what it was made of.
      source: of that.
      params: as `loaded` has them.
      target: is empty.
    """
    trained = loaded.trained
    saved = dataclasses.replace(
        trained.record,
        config=dataclasses.replace(trained.config, tuning=TuningConfig()),  # all of it is there
        step=0,
        evaluated=False,
        bare=True,
        parameters=_fingerprint(params),
        began=trained.record.identity(),
    )
    hold = target.hold()
    try:
        loaded.tokenizer.save(target.local / TOKENIZER)
        target.publish(TOKENIZER)
        carry(Start(source, trained.step, trained.record), target, same_tokenizer=True)
        target.write_run(saved.to_dict())
        with target.reached():
            imported.publish(target.path, params, saved.to_dict())
    finally:
        hold.release()


def _fingerprint(params: Params) -> str:
    """Of parameters, one array on the host at a time: neither settings nor a seed are recorded, and
    two that were made of the same run differ in nothing else.
    """
    found = hashlib.sha256()
    for path, array in sorted(flat(params).items()):
        values = np.ascontiguousarray(jax.device_get(array))
        found.update(f"{path} {values.dtype} {values.shape} ".encode())
        found.update(values.view(np.uint8).data)
    return found.hexdigest()[:32]
