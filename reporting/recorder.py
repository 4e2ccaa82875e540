"""Metrics on their way from the devices to the files, one step behind."""

import math
import time
from typing import NamedTuple

import jax

from errors import UserError
from reporting.metrics import MetricsFiles
from reporting.progress import Progress
from training.step import Metrics


class _Pending(NamedTuple):
    step: int
    metrics: Metrics
    data_wait_s: float
    stop: jax.Array | bool


class Recorder:
    """Takes each step's metrics when it is dispatched, and reads them when the next one has been.

    So the devices always have work while the host waits, reads and writes.

    Args:
      files, progress: where lines go; None on every process but the first.
      tokens: predicted before this start of the run.
      tokens_per_step: positions that a step computes, for the rates.
      flops_per_step: of the model (ModelConfig.flops_per_token), on one device.
      peak_flops: of one device, or None where it is not known.
    """

    def __init__(
        self,
        files: MetricsFiles | None,
        progress: Progress | None,
        *,
        tokens: int,
        tokens_per_step: int,
        flops_per_step: float,
        peak_flops: float | None,
    ):
        self.tokens = tokens
        self.stop = False
        self._files, self._progress = files, progress
        self._tokens_per_step, self._flops_per_step = tokens_per_step, flops_per_step
        self._peak_flops = peak_flops
        self._pending: _Pending | None = None
        self._mark = time.perf_counter()

    def add(self, step: int, metrics: Metrics, data_wait_s: float, stop: jax.Array | bool) -> None:
        """Notes a step that was just dispatched.

        Args:
          step: steps finished once it is.
          metrics: scalars on the devices.
          data_wait_s: seconds its batch was waited for.
          stop: whether a process wishes to stop (checkpointing/interrupts.py).
        """
        previous, self._pending = self._pending, _Pending(step, metrics, data_wait_s, stop)
        if previous is not None:
            self._write(previous)

    def drain(self) -> None:
        """Waits for the last step, so that all before a checkpoint or an evaluation is on disk."""
        if self._pending is not None:
            self._write(self._pending)
            self._pending = None
        if self._files is not None:
            self._files.flush()

    def restart_clock(self) -> None:
        """Says that the time since the last step was not spent on steps."""
        self._mark = time.perf_counter()

    def _write(self, done: _Pending) -> None:
        values = {name: float(value) for name, value in jax.device_get(done.metrics).items()}
        self.stop = bool(done.stop)
        now = time.perf_counter()
        seconds, self._mark = now - self._mark, now
        tokens, text_bytes = values.pop("tokens"), values.pop("bytes")
        if min(tokens, text_bytes) < 0:  # see training/loss.py
            raise UserError(
                f"step {done.step} has more than 2^31 bytes of text, which cannot be counted: make "
                "config.train.batch_size smaller"
            )
        self.tokens += int(tokens)
        loss, flops = values["loss"], self._flops_per_step / seconds
        line = {
            "tokens": self.tokens,
            "loss": loss,
            "perplexity": math.exp(min(loss, 700)) if math.isfinite(loss) else loss,
            "bits_per_byte": loss * tokens / math.log(2) / max(text_bytes, 1),
            **{name: value for name, value in values.items() if name != "loss"},
            "time/step_s": seconds,
            "time/data_wait_s": done.data_wait_s,
            "time/tokens_per_s": self._tokens_per_step / seconds,
            "time/tflops": flops / 1e12,
            "time/mfu": flops / self._peak_flops if self._peak_flops else None,
        }
        if self._files is not None:
            self._files.write(done.step, line)
        if self._progress is not None:
            self._progress.update(done.step, line)
        if not math.isfinite(loss):
            raise UserError(
                f"the loss of step {done.step} is {loss}; nothing was saved since the last "
                "checkpoint. Lower config.optimizer.learning_rate or raise its warmup_steps"
            )
