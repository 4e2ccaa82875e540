"""Metrics on their way from the devices to the files, one step behind."""

import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax

from errors import UserError
from reporting.metrics import MetricsFiles
from reporting.progress import Progress
from training.step import Metrics

_MEANS = (
    "loss perplexity bits_per_byte z_loss distill_loss preference_loss accuracy margin "
    "reward_chosen reward_rejected log_prob_chosen log_prob_rejected"
).split()
"""Metrics of what a step learns from: there are none of a step that learns from nothing."""


class Work(NamedTuple):
    """What a step computes.

    Attributes:
      tokens: positions, for the rates.
      flops: of the model (ModelConfig.flops_per_token), on one device.
    """

    tokens: int
    flops: float


class _Pending(NamedTuple):
    step: int
    metrics: Metrics
    data_wait_s: float
    stop: jax.Array | bool


class Recorder:
    """Takes each step's metrics when it is dispatched, and reads them when the next one has been.

    So the devices always have work while the host waits, reads and writes.

    Every number of a step must be finite: a NaN in the loss was in the parameters before, one in
    the gradient is in them after. The step that breaks this ends the run when it is read. `drain`
    reads it before a checkpoint is made, so none holds it.

    Args:
      files, progress: where lines go; None on every process but the first.
      tokens: predicted before this start of the run.
      work: what a step computes, by its number (finished steps once it is).
      sources: names of a mixture's corpora, in the order of the metrics' "source_loss".
      tasks: which of them are of examples.
      peak_flops: of one device, or None where it is not known.
    """

    def __init__(
        self,
        files: MetricsFiles | None,
        progress: Progress | None,
        *,
        tokens: int,
        work: Callable[[int], Work],
        sources: Sequence[str] = (),
        tasks: Collection[str] = (),
        peak_flops: float | None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.tokens = tokens
        self.stop = False
        self._files, self._progress = files, progress
        self._work, self._sources, self._tasks = work, sources, tasks
        self._peak_flops = peak_flops
        self._pending: _Pending | None = None
        self._clock = clock
        self._mark = clock()

    def add(self, step: int, metrics: Metrics, data_wait_s: float, stop: jax.Array | bool) -> None:
        """Notes a step that was just dispatched.

        Args:
          step: steps finished once it is.
          metrics: scalars on the devices, integers or floats; with loss, tokens and bytes.
          data_wait_s: seconds its batch was waited for.
          stop: whether a process wishes to stop (cluster/interrupts.py).

        Raises:
          UserError: a number of the step before is not finite.
        """
        previous, self._pending = self._pending, _Pending(step, metrics, data_wait_s, stop)
        if previous is not None:
            self._write(previous)

    def drain(self) -> None:
        """Waits for the last step, so that all before a checkpoint or an evaluation is on disk.

        Raises:
          UserError: a number of the last step is not finite.
        """
        if self._pending is not None:
            self._write(self._pending)
            self._pending = None
        if self._files is not None:
            self._files.flush()

    def restart_clock(self) -> None:
        """Says that the time since the last step was not spent on steps."""
        self._mark = self._clock()

    def _by_source(self, found: dict[str, Any]) -> dict[str, float | None]:
        """Takes the loss of each source out of `found`; None where a step has no row of it. With
        it comes the mean of the tasks that a step has rows of."""
        if not self._sources:
            return {}
        losses, tokens = found.pop("source_loss").tolist(), found.pop("source_tokens").tolist()
        of_source = {
            name: loss if count else None
            for name, loss, count in zip(self._sources, losses, tokens, strict=True)
        }
        line = {f"loss/{name}": loss for name, loss in of_source.items()}
        if len(self._tasks) > 1:
            there = [loss for name in self._tasks if (loss := of_source[name]) is not None]
            line["task_loss"] = sum(there) / len(there) if there else None
        return line

    def _write(self, done: _Pending) -> None:
        step, found = done.step, jax.device_get(done.metrics)
        by_source = self._by_source(found)
        numbers: dict[str, float | int] = {name: value.item() for name, value in found.items()}
        values = dict(numbers)
        self.stop = bool(done.stop)
        now = self._clock()
        seconds, self._mark = now - self._mark, now
        tokens, text_bytes = values.pop("tokens"), values.pop("bytes")
        bad = {name: value for name, value in numbers.items() if not math.isfinite(value)}
        if not bad and min(tokens, text_bytes) < 0:  # see training/loss.py
            raise UserError(
                f"step {step} has more than 2^31 bytes of text, which cannot be counted: make "
                "config.train.batch_size smaller"
            )
        loss, work = values.pop("loss"), self._work(step)
        flops = work.flops / seconds
        self.tokens += int(tokens) if math.isfinite(tokens) else 0
        line: dict[str, float | int | None] = {
            "tokens": self.tokens,
            "loss": loss,
            "perplexity": math.exp(min(loss, 700)) if math.isfinite(loss) else loss,
            "bits_per_byte": loss * tokens / math.log(2) / max(text_bytes, 1),
            **values,
            **by_source,
            "time/step_s": seconds,
            "time/wait_percent": 100 * done.data_wait_s / seconds,
            "time/tokens_per_s": work.tokens / seconds,
            "time/tflops": flops / 1e12,
            "time/mfu_percent": 100 * flops / self._peak_flops if self._peak_flops else None,
        }
        line.pop("pairs", None)
        if not tokens:  # config.data.skip leaves out all of it
            line |= {name: None for name in _MEANS if name in line}
        if self._files is not None:
            self._files.write(step, line)
        if self._progress is not None:
            self._progress.update(step, line)
        if bad:
            listed = ", ".join(f"{name} {value}" for name, value in bad.items())
            raise UserError(
                f"step {step} gave numbers that are not finite ({listed}), and no checkpoint has "
                "them. The same command would come to them again: start in another --workdir with "
                "a lower config.optimizer.learning_rate or more config.optimizer.warmup_steps"
            )
