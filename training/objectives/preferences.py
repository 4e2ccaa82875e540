"""Which of two answers is better, learned from pairs: DPO and its neighbours.

Each compares what it calls the rewards of the two answers, and has a loss of their difference, the
margin h, a pair:

    dpo    rewards  beta log(pi / ref)                        loss  -log sigmoid(h)
    ipo             beta x the mean of log(pi / ref) a token        (h / beta - 1 / (2 beta))^2
    simpo           beta x the mean of log pi a token               -log sigmoid(h - margin)

DPO: Rafailov et al. 2023; with `label_smoothing` e it is -(1 - e) log sigmoid(h) - e log
sigmoid(-h). IPO: Azar et al. 2023, by the mean a token, as its authors had it in their experiments
and as `trl` has it. SimPO: Meng et al. 2024.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from training.objectives.config import ObjectiveConfig
from training.objectives.pairs import Answers, Pairs

Reward = Callable[[ObjectiveConfig, Answers], jax.Array]
Loss = Callable[[ObjectiveConfig, jax.Array], jax.Array]


def of_ratio(config: ObjectiveConfig, answers: Answers) -> jax.Array:
    """beta log(pi / ref)."""
    return config.beta * (answers.log_prob - answers.reference)


def of_mean_ratio(config: ObjectiveConfig, answers: Answers) -> jax.Array:
    """beta x the mean of log(pi / ref) a token."""
    return of_ratio(config, answers) / answers.tokens


def of_mean(config: ObjectiveConfig, answers: Answers) -> jax.Array:
    """beta x the mean of log pi a token."""
    return config.beta * answers.log_prob / answers.tokens


def dpo(config: ObjectiveConfig, margin: jax.Array) -> jax.Array:
    """-(1 - e) log sigmoid(h) - e log sigmoid(-h)."""
    e = config.label_smoothing
    return -(1 - e) * jax.nn.log_sigmoid(margin) - e * jax.nn.log_sigmoid(-margin)


def ipo(config: ObjectiveConfig, margin: jax.Array) -> jax.Array:
    """(h / beta - 1 / (2 beta))^2."""
    return jnp.square(margin / config.beta - 1 / (2 * config.beta))


def simpo(config: ObjectiveConfig, margin: jax.Array) -> jax.Array:
    """-log sigmoid(h - margin)."""
    return -jax.nn.log_sigmoid(margin - config.margin)


def compared(config: ObjectiveConfig, pairs: Pairs) -> dict[str, jax.Array]:
    """Of each pair [B, P], 0 where there is none: "preference_loss"; "accuracy", 1 where the better
    answer has the higher reward, half where they are equal; "margin", "reward_chosen",
    "reward_rejected"; and "log_prob_chosen", "log_prob_rejected", of the answers, nats.
    """
    reward, loss = _TABLE[config.name]
    chosen, rejected = reward(config, pairs.chosen), reward(config, pairs.rejected)
    margin = chosen - rejected
    found = {
        "preference_loss": loss(config, margin),
        "accuracy": 0.5 * (1 + jnp.sign(margin)),
        "margin": margin,
        "reward_chosen": chosen,
        "reward_rejected": rejected,
        "log_prob_chosen": pairs.chosen.log_prob,
        "log_prob_rejected": pairs.rejected.log_prob,
    }
    return {name: jnp.where(pairs.is_pair, x_BP, 0) for name, x_BP in found.items()}


_TABLE: Mapping[str, tuple[Reward, Loss]] = {
    "dpo": (of_ratio, dpo),
    "ipo": (of_mean_ratio, ipo),
    "simpo": (of_mean, simpo),
}
