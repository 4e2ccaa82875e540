"""How rotary positions are stretched for rows longer than those a model was first trained on."""

import dataclasses
import math
from typing import Literal

import numpy as np

Kind = Literal["none", "linear", "llama3", "yarn"]


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """What becomes of the frequencies of rotary positions.

    Attributes:
      kind: "linear" divides all by `factor` (Chen et al. 2023). "llama3" divides those whose waves
        are longer than original_length / low_freq_factor, leaves those that are shorter than
        original_length / high_freq_factor, and mixes between (Llama 3.1). "yarn" divides those
        that turn less than beta_slow times in original_length, leaves those that turn more than
        beta_fast times, and mixes between, by index (Peng et al. 2023).
      factor: how much longer rows are to be.
      original_length: tokens of the rows before.
      low_freq_factor, high_freq_factor: of "llama3".
      beta_fast, beta_slow: of "yarn".
      truncate: "yarn" rounds the indices between which it mixes to whole ones.
      attention_factor: "yarn" multiplies queries and keys by it, where they are rotated; 0 is
        0.1 ln(factor) + 1.
    """

    kind: Kind = "none"
    factor: float = 1.0
    original_length: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 0.0

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"factor={self.factor}: must be at least 1")
        for name in ("original_length", "attention_factor"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
            if not 0 < getattr(self, low) < getattr(self, high):
                raise ValueError(
                    f"{low}={getattr(self, low)}: must be positive and less than "
                    f"{high}={getattr(self, high)}"
                )
        if self.kind in ("llama3", "yarn") and not self.original_length:
            raise ValueError(f"original_length=0: kind={self.kind!r} needs it")

    @property
    def amplitude(self) -> float:
        """What rotated queries and keys are multiplied by."""
        if self.kind != "yarn":
            return 1.0
        return self.attention_factor or 0.1 * math.log(self.factor) + 1.0


def frequencies(size: int, theta: float, scaling: RopeScaling) -> np.ndarray:
    """Radians a token by which each pair of features is turned: float32 [size / 2].

    Args:
      size: features of a head that are rotated.
      theta: pair i is turned by theta^(-2i / size), but for scaling.
      scaling: what becomes of that.
    """
    plain = theta ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    divided = plain / scaling.factor
    if scaling.kind == "none":
        found = plain
    elif scaling.kind == "linear":
        found = divided
    elif scaling.kind == "llama3":
        turns = scaling.original_length * plain / (2 * np.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = np.clip((turns - low) / (high - low), 0, 1)
        found = kept * plain + (1 - kept) * divided
    else:
        kept = 1 - _ramp(size, theta, scaling)
        found = kept * plain + (1 - kept) * divided
    return found.astype(np.float32)


def _ramp(size: int, theta: float, scaling: RopeScaling) -> np.ndarray:
    """YaRN's: 0 for pairs that turn fast, 1 for those that turn slowly, by index."""

    def index(turns: float) -> float:
        """Of the pair that turns so many times in the original length."""
        waves = scaling.original_length / (turns * 2 * math.pi)
        return size * math.log(waves) / (2 * math.log(theta))

    first, last = index(scaling.beta_fast), index(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    if first == last:
        last += 0.001  # a step
    return np.clip((np.arange(size // 2) - first) / (last - first), 0, 1)
