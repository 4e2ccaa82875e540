"""What a step minimises."""

import dataclasses
from typing import Literal

ObjectiveName = Literal["next_token", "distill", "dpo", "ipo", "simpo"]
Divergence = Literal["forward_kl", "reverse_kl", "jsd"]

PREFERENCES = ("dpo", "ipo", "simpo")
"""Objectives of pairs of answers: the rows have them as segments 2i + 1 and 2i + 2."""


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Attributes:
    name: "next_token", the text itself; "distill", a teacher's distribution of each next token
      beside it (Hinton et al. 2015); of pairs of answers "dpo" (Rafailov et al. 2023), "ipo" (Azar
      et al. 2023) or "simpo" (Meng et al. 2024).
    teacher: a workdir, of a run or of convert.py, with the same tokenizer: what "distill" learns
      from; for "dpo" and "ipo" the reference, and empty is what train.start_from leads to.
    stored: what the teacher says of the rows is computed once, before the first step, and kept in
      the cache; else it is computed in every step.
    top_k: of "distill" where it is stored, so many of the likeliest tokens are kept of each
      position; what the teacher gives to all others is kept as one number.
    divergence: from the teacher's distribution p to the decoder's q: "forward_kl", KL(p | q);
      "reverse_kl", KL(q | p); "jsd", the generalised Jensen-Shannon divergence (Agarwal et al.
      2024).
    jsd_weight: of p in the mixture that "jsd" compares both with: its beta.
    temperature: both distributions are softened by it; the divergence is multiplied by its square.
    mix: weight of the text itself (cross-entropy) in "distill"; that of the teacher is 1 - mix. The
      z-loss (train.z_loss) comes beside both.
    beta: how strongly "dpo" and "ipo" hold on to the reference (the tau of "ipo"), and the scale
      of the rewards; of "simpo" the scale of the mean log-probabilities, for which the default is
      far too small: its authors use 2 to 10.
    margin: by which "simpo" wants the better answer to be ahead: its gamma. Its authors use 0.3 to
      1.6, with a beta of 2 or 2.5.
    label_smoothing: of "dpo", the part of the pairs that are taken to be the wrong way round.
    """

    name: ObjectiveName = "next_token"
    teacher: str = ""
    stored: bool = True
    top_k: int = 64
    divergence: Divergence = "forward_kl"
    jsd_weight: float = 0.5
    temperature: float = 1.0
    mix: float = 0.5
    beta: float = 0.1
    margin: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k={self.top_k}: must be at least 1")
        for name in ("temperature", "beta"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")
        if not 0 < self.jsd_weight < 1:
            raise ValueError(f"jsd_weight={self.jsd_weight}: must lie in (0, 1)")
        if not 0 <= self.mix <= 1:
            raise ValueError(f"mix={self.mix}: must lie in [0, 1]")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing={self.label_smoothing}: must lie in [0, 0.5)")
        if self.margin < 0:
            raise ValueError(f"margin={self.margin}: must not be negative")
        if self.name == "distill" and not self.teacher:
            raise ValueError("teacher='': distillation needs a teacher, a workdir")

    @property
    def learns_from(self) -> str:
        """What it needs another decoder for: "distill", "reference" or "" for none."""
        return {"distill": "distill", "dpo": "reference", "ipo": "reference"}.get(self.name, "")
