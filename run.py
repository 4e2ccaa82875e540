"""What a run of train.py is, alike on all processes."""

from collections.abc import Mapping
from typing import NamedTuple

from jax.sharding import Mesh

import commands
from checkpointing.workdir import Workdir
from data.preparation import Prepared
from data.stream import Stream
from data.windows import Windows
from evaluation.asking import Asking
from evaluation.perplexity import Rows
from training.assembly import Assembly
from training.config import RunConfig


class Run(NamedTuple):
    """What a run is, alike on all processes.

    Attributes:
      job: the processes.
      config: with the vocabulary's size in it.
      mesh: of all devices.
      workdir: where it is kept.
      data: what it reads, and is tested on.
      stream: the batches.
      made: the step, and the model without its numbers.
      asking: what its objective asks, if that asks anybody (config.objective).
    """

    job: commands.Job
    config: RunConfig
    mesh: Mesh
    workdir: Workdir
    data: Prepared
    stream: Stream
    made: Assembly
    asking: Asking | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.job.others.index == 0

    def held_out(self, max_tokens: int | None) -> Mapping[str, Rows]:
        """What an evaluation scores of each corpus; at most so many tokens of each."""
        some = self._windows(max_tokens)
        if self.asking is None or not self.asking.judges:
            return some
        return self.asking.about_windows(some, self._windows(None))

    def _windows(self, max_tokens: int | None) -> Mapping[str, Windows]:
        how, length = self.config.evaluation, self.config.data.sequence_length
        return {
            corpus.name: Windows(
                corpus.eval, length, how.batch_size, how.stride or None, max_tokens
            )
            for corpus in self.data.corpora
            if corpus.eval is not None
        }
