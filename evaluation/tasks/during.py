"""A run's tasks, judged during the run and at its end, with their lines in the metrics."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cluster.interrupts import Vote
from cluster.watch import Watch
from data import tasks
from data.config import ALONE, DataConfig
from data.documents import NO_SPLIT
from data.tokenizer import Tokenizer
from evaluation.tasks.cases import Case, Reading, read
from evaluation.tasks.judge import Judge, Judged, mean
from model.parameters import Params
from reporting.metrics import MetricsFiles
from reporting.progress import duration


class Cases(NamedTuple):
    """Attributes:
    name: of the corpus; of one alone, of its task.
    task: see data.tasks.find.
    cases: of its eval split.
    """

    name: str
    task: str
    cases: list[Case]


def cases_of(
    config: DataConfig,
    examples: int,
    tokenizer: Tokenizer,
    say: Callable[[str], None],
) -> list[Cases]:
    """The cases of each corpus of a run that has a task and an eval split.

    Args:
      config: the run's data.
      examples: of each, see evaluation.tasks.cases.Reading; with 0 there are none.
      tokenizer: of the run.
      say: is told which tasks are not judged, and why.

    Raises:
      UserError: see evaluation.tasks.cases.read.
    """
    found = []
    how = Reading(tokenizer, config.tokenizer, config.chat_template, examples)
    for corpus in config.corpora() if examples else ():
        if not corpus.task or corpus.eval_split == NO_SPLIT:
            continue
        name, task = corpus.task if corpus.name == ALONE else corpus.name, tasks.find(corpus.task)
        if task.pairs:  # the held-out loss comes with what there is to say of them
            continue
        if not task.metrics:
            say(f"{name} is not judged by config.evaluation.examples: its Task names no metric")
            continue
        found.append(Cases(name, corpus.task, read(corpus, corpus.eval_split, how)))
    return found


class During:
    """Judges by every task, and tells.

    Args:
      judges: by name.
      files: where the line goes; None on every process but the first.
      say: where people read.
      watch: is told of every batch.
    """

    def __init__(
        self,
        judges: Sequence[Judge],
        files: MetricsFiles | None,
        say: Callable[[str], None],
        watch: Watch,
    ) -> None:
        self._judges, self._files = judges, files
        self._say, self._watch = say, watch

    def __call__(self, step: int, params: Params, vote: Vote | None = None) -> list[Judged]:
        """Judges the parameters after `step` steps.

        Args:
          step: finished steps.
          params: the parameters.
          vote: asked once a batch whether to break off (cluster/interrupts.py).

        Raises:
          BrokenOff: the vote was to stop; nothing is recorded.
        """
        found = []
        for judge in self._judges:

            def progress(what: str, done: int, total: int, name: str = judge.name) -> None:
                at = f"judging {name} after step {step}, {what}, batch {done} of {total}"
                self._watch.at(at, self._watch.bounds.start)  # some batches are compiled for

            found.append(judge(params, progress, vote))
        if not found:
            return []
        line: dict[str, float] = {}
        for one in found:
            for name, estimate in one.estimates.items():
                key = f"task/{one.name}/{name}"
                line |= {
                    key: estimate.value,
                    f"{key}/low": estimate.low,
                    f"{key}/high": estimate.high,
                }
            self._say(f"step {step}: {one} in {duration(one.seconds)}")
        if len(found) > 1:
            line["task/mean"] = mean(found)
            self._say(f"step {step}: mean of {len(found)} tasks {line['task/mean']:.1f}")
        line["time/tasks_s"] = sum(one.seconds for one in found)
        if self._files is not None and not self._files.has(step, next(iter(line))):
            self._files.write(step, line)
        return found
