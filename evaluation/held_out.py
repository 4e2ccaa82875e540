"""Evaluation of the held-out split during a run and at its end, with its line in the metrics."""

import time
from collections.abc import Callable, Mapping

from jax.sharding import Mesh

from cluster.interrupts import Vote
from cluster.watch import Watch
from evaluation.perplexity import Rows, Scorer, evaluate, together
from model.parameters import Params
from reporting.metrics import MetricsFiles
from reporting.progress import duration


class HeldOut:
    """Scores windows of the held-out split, and tells.

    Args:
      score: from evaluation.perplexity.make_scorer.
      mesh: where the batches go.
      files: where the line goes; None on every process but the first.
      say: where people read.
      watch: is told of every batch.
    """

    def __init__(
        self,
        score: Scorer,
        mesh: Mesh,
        files: MetricsFiles | None,
        say: Callable[[str], None],
        watch: Watch,
    ) -> None:
        self._score, self._mesh, self._files = score, mesh, files
        self._say, self._watch = say, watch

    def __call__(
        self,
        step: int,
        params: Params,
        windows: Mapping[str, Rows],
        vote: Vote | None = None,
    ) -> dict[str, float]:
        """Evaluates the parameters after `step` steps.

        Args:
          step: finished steps.
          params: the parameters.
          windows: what to score, by corpus.
          vote: asked once a batch whether to break off (cluster/interrupts.py).

        Returns:
          what `evaluate` returns, of all corpora together.

        Raises:
          BrokenOff: the vote was to stop; nothing is recorded.
        """
        began = time.perf_counter()

        def progress(done: int, total: int) -> None:
            what = f"evaluating after step {step}, batch {done} of {total}"
            self._watch.at(what, self._watch.bounds.step)

        results = {
            name: evaluate(self._score, params, some, self._mesh, progress, vote)
            for name, some in windows.items()
        }
        result = together(results)
        spent = time.perf_counter() - began
        line = {f"eval/{name}": value for name, value in result.items()}
        of_tasks, mean = [], ""
        if len(results) > 1:
            line |= {f"eval/loss/{name}": found["loss"] for name, found in results.items()}
            of_tasks = [results[name]["loss"] for name, some in windows.items() if some.is_examples]
        if len(of_tasks) > 1:
            line["eval/task_loss"] = sum(of_tasks) / len(of_tasks)
            mean = f", mean over {len(of_tasks)} tasks {line['eval/task_loss']:.4f}"
        if self._files is not None and not self._files.has(step, "eval/loss"):
            self._files.write(step, {**line, "time/eval_s": spent})
        self._say(
            f"step {step}: held-out loss {result['loss']:.4f}{mean}, perplexity "
            f"{result['perplexity']:.2f}, {result['bits_per_byte']:.4f} bits/byte "
            f"({result['tokens']:,} tokens in {duration(spent)}){_of_pairs(result)}"
        )
        return result


def _of_pairs(result: Mapping[str, float]) -> str:
    """What to say of them, if there are any."""
    if "pairs" not in result:
        return ""
    return (
        f"; of {result['pairs']:,} pairs {result['accuracy']:.1%} right, margin "
        f"{result['margin']:.3f}, loss {result['preference_loss']:.4f}"
    )
