"""Answers for Tunix, drawn by Podium's own generator."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from tunix.rl import common
from tunix.rl.rollout import base_rollout

from data.tokenizer import decode
from errors import UserError
from inference.loading import Loaded
from model.generation import Sampling
from reinforcement.policy import Policy


class Texts:
    """The tokenizer of a run, with the methods that Tunix asks for.

    Args:
      loaded: the run.
      padding_id: see Policy.
    """

    def __init__(self, loaded: Loaded, padding_id: int) -> None:
        self.loaded, self._padding_id = loaded, padding_id

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt, as generate.py feeds them."""
        return self.loaded.prompt(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without specials."""
        return decode(self.loaded.tokenizer, ids)

    def bos_id(self) -> int:
        return self.loaded.tokenizer.bos_id

    def eos_id(self) -> int:
        return self.loaded.tokenizer.eos_id

    def pad_id(self) -> int:
        return self._padding_id


class Rollout(base_rollout.BaseRollout):
    """Draws answers with the parameters that are being trained.

    Tunix's own engine cuts the id that ends a text off before the loss sees it, so that no model
    learns to end, and draws every step with the same random numbers. Here the ending is part of
    the answer, and row r of call c has seed (seed, c, r).

    Args:
      rollout_actor: the policy, which the trainer changes in place.
      tokenizer: Texts, as Tunix wraps it.
      mesh: of the devices.
      rollout_config: Tunix's; temperature, top_p and top_k, lengths and seed are read.
    """

    def __init__(
        self,
        rollout_actor: Policy,
        tokenizer: Any,
        mesh: jax.sharding.Mesh,
        rollout_config: base_rollout.RolloutConfig,
    ) -> None:
        self._policy, self._texts = rollout_actor, tokenizer
        self._temperature = rollout_config.temperature
        how = Sampling(
            temperature=rollout_config.temperature,
            top_p=rollout_config.top_p or 1.0,
            top_k=max(rollout_config.top_k or 0, 0),
        )
        loaded: Loaded = tokenizer.loaded
        self._stops = np.array(sorted(loaded.stop_ids))
        self._generator = loaded.generator(how)
        self._calls, self._seed = 0, rollout_config.seed or 0

    def generate(
        self, prompts: Sequence[str], rollout_config: base_rollout.RolloutConfig, **_: Any
    ) -> base_rollout.RolloutOutput:
        """An answer to each prompt.

        Raises:
          UserError: a prompt has more tokens than max_prompt_length.
        """
        rows = [self._texts.encode(str(prompt)) for prompt in prompts]
        width, most = rollout_config.max_prompt_length, rollout_config.max_tokens_to_generate
        for prompt, ids in zip(prompts, rows, strict=True):
            if len(ids) > width:
                raise UserError(
                    f"the prompt {str(prompt)[:40]!r} has {len(ids)} tokens, which is more than "
                    f"max_prompt_length={width}"
                )
        words = np.random.SeedSequence((self._seed, self._calls)).generate_state(len(rows))
        self._calls += 1
        self._generator.renew(nnx.to_pure_dict(nnx.state(self._policy.decoder, nnx.Param)))
        drawn, ended = [], np.zeros(len(rows), bool)
        for one in self._generator.rows(rows, max_tokens=most, seeds=words.tolist()):
            drawn.append(one.tokens_B)
            ended |= np.isin(one.tokens_B, self._stops)
            if ended.all():
                break
        answers = [self._whole(row) for row in np.stack(drawn, axis=1)]
        padding = self._texts.pad_id()
        padded = np.full((len(rows), width), padding, np.int32)
        for row, ids in enumerate(rows):
            padded[row, width - len(ids) :] = ids
        texts = [self._texts.decode(answer.tolist()) for answer in answers]
        return base_rollout.RolloutOutput(texts, [], answers, padded, None)

    def _whole(self, row: np.ndarray) -> np.ndarray:
        """What was drawn up to the first id that ends a text, that id included."""
        at = np.flatnonzero(np.isin(row, self._stops))
        return row[: at[0] + 1] if len(at) else row

    def get_per_token_logps(
        self, prompt_tokens: jax.Array, completion_tokens: jax.Array
    ) -> jax.Array:
        """Log-probabilities of the answers' tokens [B, T], as they were drawn."""
        definition, state = nnx.split(self._policy)
        found: jax.Array = common.compute_per_token_logps(
            definition,
            state,
            prompt_tokens,
            completion_tokens,
            self.pad_id(),
            self.eos_id(),
            temperature=self._temperature,
        )
        return found

    def update_params(self, params: Any, filter_types: Any = None) -> None:
        """Takes other parameters; with one mesh they are the trainer's own."""
        nnx.update(self._policy, params)

    def pad_id(self) -> int:
        return int(self._texts.pad_id())

    def eos_id(self) -> int:
        return int(self._texts.eos_id())

    def model(self) -> Policy:
        return self._policy
