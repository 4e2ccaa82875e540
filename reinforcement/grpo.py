"""Group relative policy optimization (Shao et al. 2024) of a loaded run, by Tunix's learner."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout

from inference.loading import Loaded
from model import parameters
from model.parameters import Params
from reinforcement.policy import Policy
from reinforcement.rollout import Rollout, Texts

Reward = Callable[[str, str], float]
"""Of a prompt and an answer: how good it is."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Attributes:
    steps: updates of the parameters.
    prompts: of a step.
    answers: to each prompt; the mean of their rewards is what each of them is measured by.
    max_prompt, max_tokens: length of a prompt and of an answer at most, in tokens.
    temperature: of the draws, and of the probabilities in the loss.
    learning_rate: of Adam, constant.
    clip_norm: of a gradient.
    beta: weight of the divergence from the model that it began with; 0 keeps no copy of that.
    seed: of prompts and draws.
    """

    steps: int
    prompts: int = 8
    answers: int = 8
    max_prompt: int = 64
    max_tokens: int = 64
    temperature: float = 1.0
    learning_rate: float = 1e-5
    clip_norm: float = 1.0
    beta: float = 0.04
    seed: int = 0


def learn(
    loaded: Loaded,
    prompts: Sequence[str],
    reward: Reward,
    settings: Settings,
    said: Callable[[int, float], None] = lambda step, reward: None,
) -> Params:
    """Trains all parameters of a run towards a reward.

    Args:
      loaded: the run; its parameters stay as they are.
      prompts: to draw from, each as often as any other.
      reward: of an answer, without the specials that end it.
      settings: of the training.
      said: is told of each step, from 1, and the mean of its rewards, when they are known.

    Returns:
      the parameters, where those of `loaded` lie.

    Raises:
      UserError: a prompt is longer than `settings.max_prompt`.
    """
    trained = loaded.trained

    def policy() -> Policy:
        own = jax.tree.map(jnp.copy, trained.params)
        return Policy(parameters.bind(trained.outline, own))

    actor = policy()
    step = itertools.count(1)

    def judge(prompts: Sequence[Any], completions: Sequence[str], **_: Any) -> list[float]:
        pairs = zip(prompts, completions, strict=True)
        found = [float(reward(str(prompt), answer)) for prompt, answer in pairs]
        said(next(step), sum(found) / len(found))
        return found

    batch = {"mini_batch_size": settings.prompts, "train_micro_batch_size": settings.prompts}
    cluster = rl_cluster.RLCluster(
        actor=actor,
        reference=policy() if settings.beta else None,
        tokenizer=Texts(loaded, actor.padding_id),
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=dict.fromkeys(rl_cluster.Role, trained.mesh),
            rollout_engine=Rollout,
            training_config=rl_cluster.RLTrainingConfig(
                actor_optimizer=optax.chain(
                    optax.clip_by_global_norm(settings.clip_norm),
                    optax.adam(settings.learning_rate),
                ),
                eval_every_n_steps=settings.steps + 1,
                max_steps=settings.steps,
                data_sharding_axis=(("data", "fsdp"),),
                **batch,
            ),
            rollout_config=base_rollout.RolloutConfig(
                max_tokens_to_generate=settings.max_tokens,
                max_prompt_length=settings.max_prompt,
                temperature=settings.temperature,
                seed=settings.seed,
            ),
        ),
    )
    algorithm = grpo_learner.GRPOConfig(
        num_generations=settings.answers, beta=settings.beta, kl_loss_mode="low_var_kl"
    )
    learner = grpo_learner.GRPOLearner(cluster, algorithm, [judge])
    learner.train(_batches(prompts, settings))
    params: Params = nnx.to_pure_dict(nnx.state(actor.decoder, nnx.Param))
    return params


def _batches(prompts: Sequence[str], settings: Settings) -> Iterator[dict[str, np.ndarray]]:
    """The prompts of each step: all of them in one order, then in another."""
    rng = np.random.default_rng(settings.seed)
    order = (int(i) for _ in itertools.count() for i in rng.permutation(len(prompts)))
    for _ in range(settings.steps):
        yield {"prompts": np.array([prompts[i] for i in itertools.islice(order, settings.prompts)])}
