"""How long things may take before a run is taken for hung."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class WatchConfig:
    """Bounds, in seconds. A run that exceeds one says which process is behind, and ends with 1.

    Time in which the whole process was stopped (Ctrl-Z, a laptop asleep) does not count.

    Attributes:
      start: comparing, restoring, compiling, the samples of the report: each on its own.
      prepare: preparation of data without any progress.
      step: one optimizer step, one batch of an evaluation, one token of a text.
      save: a checkpoint, from the wait for the one before to its copy off the devices; and the
        wait for the last one.
      lost: a process that is not heard of (killed, stopped, cut off) ends the others after this.
    """

    start: float = 1800.0
    prepare: float = 600.0
    step: float = 600.0
    save: float = 1800.0
    lost: float = 20.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name}={getattr(self, field.name)}: must be positive")
        if self.lost > 25:
            # XLA's own heartbeat ends the job after 28 to 55 s, with a message of its own.
            raise ValueError(f"lost={self.lost}: must be at most 25")
