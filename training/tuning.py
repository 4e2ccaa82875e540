"""What of a model moves while it is trained, and what stays as it is."""

import dataclasses
import fnmatch
from typing import Literal, NamedTuple

from errors import UserError
from model import parameters
from model.adapter_config import AdapterConfig
from model.adapters import SUFFIX
from model.config import OF_ATTENTION, OF_MLPS, PRODUCTS, ModelConfig
from model.decoder import Decoder
from model.parameters import Params
from training.fields import flat

Method = Literal["all", "lora", "dora"]


@dataclasses.dataclass(frozen=True)
class TuningConfig:
    """What moves. What does not has neither gradient nor optimizer state, and is in no checkpoint:
    it is taken from train.start_from, whenever it is needed.

    Attributes:
      method: "all", or low-rank adapters beside weights, which then stay as they are: "lora"
        (Hu et al. 2021), "dora" (Liu et al. 2024).
      rank: of adapters.
      alpha: what they give is multiplied by alpha / rank.
      targets: which weights have them: query, key, value, out, gate, up, down. Empty: all of
        these that the model has.
      dropout: of what goes into adapters; there is none yet.
      moving: with "all", patterns of names of parameters (`*` is any text): those that match one
        move, and no others. Empty: all.
    """

    method: Method = "all"
    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ()
    dropout: float = 0.0
    moving: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        AdapterConfig("none", self.rank, self.alpha)
        for name in self.targets:
            if name not in PRODUCTS:
                raise ValueError(f"targets={list(self.targets)}: choose of {', '.join(PRODUCTS)}")
        if self.dropout:
            raise ValueError(f"dropout={self.dropout}: adapters have none; leave it at 0")
        if self.moving and self.method != "all":
            raise ValueError(
                f"moving={list(self.moving)}: with method={self.method!r} adapters move, and "
                "nothing else; leave it empty, or set method='all'"
            )

    @property
    def everything(self) -> bool:
        """Whether all parameters move."""
        return self.method == "all" and not self.moving

    def adapter(self, model: ModelConfig) -> AdapterConfig:
        """The adapters that a model has for it."""
        if self.method == "all":
            return AdapterConfig()
        without: tuple[str, ...] = () if model.gated else ("gate",)
        without += OF_ATTENTION if model.latent.kv_rank else ()
        without += OF_MLPS if model.moe.num_experts else ()
        targets = self.targets or tuple(name for name in PRODUCTS if name not in without)
        return AdapterConfig(self.method, self.rank, self.alpha, targets)


class Moving(NamedTuple):
    """Attributes:
    names: dotted, of the parameters that move; None is all.
    """

    names: frozenset[str] | None = None

    def of(self, tree: Params) -> Params:
        """What moves, of a tree that has something for each parameter."""
        return tree if self.names is None else parameters.part(tree, self.names)

    def fixed(self, tree: Params) -> Params:
        """What does not."""
        return {} if self.names is None else parameters.part(tree, flat(tree).keys() - self.names)


ALL = Moving()


def moving(tuning: TuningConfig, model: Decoder) -> Moving:
    """What moves of a decoder; an outline will do.

    Raises:
      UserError: a pattern that no name matches.
    """
    if tuning.everything:
        return ALL
    names = flat(parameters.shapes(model)).keys()
    if tuning.method != "all":
        return Moving(frozenset(name for name in names if f"{SUFFIX}." in name))
    found: set[str] = set()
    for pattern in tuning.moving:
        if not (matched := fnmatch.filter(names, pattern)):
            raise UserError(
                f"config.tuning.moving={list(tuning.moving)}: {pattern!r} is the name of no "
                f"parameter; there are {', '.join(sorted(names))}"
            )
        found |= {*matched}
    return Moving(frozenset(found))
