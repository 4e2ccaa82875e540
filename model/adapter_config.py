"""What is trained beside weights that stay as they are."""

import dataclasses
from typing import Literal

Adapters = Literal["none", "lora", "dora"]


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Low-rank adapters (model/adapters.py).

    Attributes:
      kind: "lora" (Hu et al. 2021); "dora" (Liu et al. 2024), whose adapted weights have a length
        of their own for each output.
      rank: features between the two matrices of an adapter.
      alpha: what they give is multiplied by alpha / rank.
      targets: which products have one, by their names in PRODUCTS (model/config.py).
    """

    kind: Adapters = "none"
    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank={self.rank}: must be at least 1")
        if self.alpha <= 0:
            raise ValueError(f"alpha={self.alpha}: must be positive")

    @property
    def scale(self) -> float:
        """What a low-rank product is multiplied by."""
        return self.alpha / self.rank
