"""What a run asks another decoder: before its first step about all rows to come, or in each."""

from collections.abc import Mapping

from jax.sharding import Mesh

from checkpointing import teacher
from checkpointing.starting import Start
from checkpointing.teacher import Teacher
from cluster.watch import Watch
from commands import PreparationProgress
from data.annotations import Annotations, Asked, of_bins
from data.stream import Stream
from data.windows import Windows
from evaluation.answers import Answers, asked_of
from evaluation.perplexity import Rows
from model import parameters
from model.parameters import Params
from training.annotating import annotate
from training.config import RunConfig
from training.fields import flat


class Asking:
    """A teacher, or a reference, that is asked. Its parameters are read when they are needed.

    Args:
      asked: whom.
      config: of the run.
      mesh: of all arrays.
      watch: is told of every batch.
      shows: whether people read what this process prints.
    """

    def __init__(
        self, asked: Teacher, config: RunConfig, mesh: Mesh, watch: Watch, shows: bool
    ) -> None:
        self.teacher, self._config, self._mesh = asked, config, mesh
        self._watch, self._shows = watch, shows
        self._params: Params | None = None

    @property
    def stored(self) -> bool:
        """Whether steps find in their rows what it says."""
        return self._config.objective.stored

    @property
    def judges(self) -> bool:
        """Whether held-out rows need it, too."""
        return self._config.objective.learns_from == "reference"

    def params(self) -> Params:
        """Its parameters, where the run has its own."""
        if self._params is None:
            self._watch.at("reading the teacher", self._watch.bounds.start)
            self._params = teacher.take(self.teacher, self._config, self._mesh)
        return self._params

    def lend(self, source: Start, fixed: Params) -> None:
        """Has it use what a run holds anyway, if that is all of it: the model under adapters.

        Args:
          source: what the run started from.
          fixed: of that, what does not move.
        """
        if (found := self.teacher.found) is None:
            return
        names = flat(parameters.shapes(found.outline)).keys()
        if source.record.identity() == self.teacher.identity and flat(fixed).keys() == names:
            self._params = fixed

    def release(self) -> None:
        """Lets go of the parameters."""
        self._params = None

    def about_stream(self, stream: Stream) -> list[Annotations]:
        """Annotations of each corpus, of all rows of the run."""
        found = []
        for corpus, bins in zip(stream.corpora, stream.bins(self._config.train.steps), strict=True):
            rows = self._config.train.batch_size // self._config.train.accumulation
            found.append(self._ask(of_bins(corpus.name, corpus.store, corpus.plan, bins, rows)))
        return found

    def about_windows(
        self, windows: Mapping[str, Windows], whole: Mapping[str, Windows]
    ) -> dict[str, Rows]:
        """Held-out rows with what it says of them.

        Args:
          windows: by corpus.
          whole: those of the whole split, about all of which it is asked once. The rows of fewer
            are the first ones of them, the last of these perhaps with less in it.
        """
        how = repr((self._config.evaluation.stride, None))  # as it was when budgets were apart
        return {
            name: Answers(some, self._ask(asked_of(f"{name}, held out", whole[name], how)))
            for name, some in windows.items()
        }

    def _ask(self, rows: Asked) -> Annotations:
        with PreparationProgress() as show:

            def progress(what: str, done: int, total: int) -> None:
                self._watch.at(f"{what} {done} of {total}", self._watch.bounds.start)
                if self._shows:
                    show(what, done, total)

            return annotate(
                self._config.objective,
                {"model": self.teacher.identity, **teacher.computing(self._config)},
                lambda: self.teacher.here.outline,
                self.params,
                self._mesh,
                rows,
                progress,
            )
