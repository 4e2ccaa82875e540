"""The shape of a mixture of experts, and how its router is kept balanced."""

import dataclasses
from typing import Literal

Scoring = Literal["softmax", "sigmoid"]
Balance = Literal["loss", "bias"]


@dataclasses.dataclass(frozen=True)
class MoeConfig:
    """Layers whose MLP is a mixture of experts: each token is computed by a few of them.

    No token is dropped, however many choose one expert. What is not predicted because it is
    padding is given to no expert and counts in no balance.

    Attributes:
      num_experts: experts of a layer that tokens choose among; 0 is a dense model, to which
        nothing here applies.
      experts_per_token: how many each token chooses, those with the highest scores.
      expert_mlp_dim: hidden width of one expert.
      shared_experts: experts that every token goes through besides, unweighted; one MLP of their
        width together (DeepSeekMoE, Dai et al. 2024).
      first_dense: so many of the first layers have a dense MLP of mlp_dim instead.
      scoring: scores of the experts from the router's logits: "softmax" over all of them (Shazeer
        et al. 2017), or "sigmoid" of each (DeepSeek-V3, 2024).
      groups: experts are in so many groups of neighbours, and a token chooses among those of a few
        groups alone: 1 is one group of all (DeepSeek-V3).
      groups_per_token: the groups among which a token chooses, those with the highest sum of their
        two highest scores.
      renormalise: the scores of the chosen experts, which weight their outputs, are divided by
        their sum (as Mixtral has it).
      route_scale: and multiplied by this.
      balance: what keeps experts equally busy. "loss": the load-balancing loss alone. "bias": a
        bias of each expert, added to its score where experts are chosen and nowhere else, grows
        by bias_rate after a step in which the expert had fewer tokens than the mean, and shrinks
        where it had more (Wang et al. 2024).
      balance_weight: of the load-balancing loss (training/balance.py); 0 is off. Beside "bias" a
        small one, 1e-4, keeps single sequences balanced.
      bias_rate: see balance.
      router_z_weight: of log(Z)^2 of the router, a token and layer (ST-MoE, Zoph et al. 2022); 0
        is off.
    """

    num_experts: int = 0
    experts_per_token: int = 2
    expert_mlp_dim: int = 1024
    shared_experts: int = 0
    first_dense: int = 0
    scoring: Scoring = "softmax"
    groups: int = 1
    groups_per_token: int = 1
    renormalise: bool = True
    route_scale: float = 1.0
    balance: Balance = "loss"
    balance_weight: float = 0.01
    bias_rate: float = 0.001
    router_z_weight: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (
            ("num_experts", 0),
            ("experts_per_token", 1),
            ("expert_mlp_dim", 1),
            ("shared_experts", 0),
            ("first_dense", 0),
            ("groups", 1),
            ("groups_per_token", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")
        for name in ("balance_weight", "router_z_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        for name in ("route_scale", "bias_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")
        if not self.num_experts:
            return
        if self.experts_per_token > self.num_experts:
            raise ValueError(
                f"experts_per_token={self.experts_per_token} is more than "
                f"num_experts={self.num_experts}"
            )
        self._check_groups()
        if self.experts_per_token == 1 and self.renormalise:
            raise ValueError(
                "renormalise=True with experts_per_token=1 weights every expert by 1, and the "
                "router learns nothing: set renormalise=False"
            )

    def _check_groups(self) -> None:
        size, rest = divmod(self.num_experts, self.groups)
        if self.groups == 1:
            return
        if rest or size < 2:  # the two highest scores of each are summed
            raise ValueError(
                f"groups={self.groups}: must divide num_experts={self.num_experts} into groups of "
                "at least two"
            )
        if self.groups_per_token > self.groups:
            raise ValueError(
                f"groups_per_token={self.groups_per_token} is more than groups={self.groups}"
            )
        if self.experts_per_token > self.groups_per_token * size:
            raise ValueError(
                f"experts_per_token={self.experts_per_token} is more than the "
                f"{self.groups_per_token * size} experts of groups_per_token="
                f"{self.groups_per_token} groups"
            )
