"""GRPO by Tunix on our decoder, beside the formula written out. `make reinforcement` runs it."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tunix.generate import tokenizer_adapter
from tunix.rl.rollout import base_rollout

from errors import UserError
from evaluation.trained import parse_mesh
from inference.loading import Loaded, load_run
from model import parameters
from reinforcement.grpo import Settings, learn
from reinforcement.policy import Policy
from reinforcement.rollout import Rollout, Texts

PROMPTS = ("rose", "the moon = ", "x")
SETTINGS = Settings(
    steps=2,
    prompts=2,
    answers=4,
    max_prompt=16,
    max_tokens=6,
    temperature=0.7,
    learning_rate=3e-3,
    clip_norm=0.5,
    beta=0.5,
    seed=3,
)


def reward(prompt, answer):
    return answer.count("e") + 0.25 * len(answer)


def step_by_hand(outline, reference, params, state, drawn, optimizer):
    """One update of Shao et al. 2024, equations 3 and 4. Rows begin with their prompt: what stands
    after an answer is not seen."""
    rows = np.zeros((len(drawn), SETTINGS.max_prompt + SETTINGS.max_tokens), np.int32)
    answers = np.zeros(rows.shape, bool)  # [n, t]: token t of row n is of its answer
    for row, (prompt, answer, _) in enumerate(drawn):
        end = len(prompt) + len(answer)
        rows[row, :end] = prompt + answer
        answers[row, len(prompt) : end] = True
    advantages = []
    for begin in range(0, len(drawn), SETTINGS.answers):
        group = [one for _, _, one in drawn[begin : begin + SETTINGS.answers]]
        mean = sum(group) / len(group)
        spread = math.sqrt(sum((one - mean) ** 2 for one in group) / (len(group) - 1))
        advantages += [(one - mean) / (spread + 1e-6) for one in group]

    def logprobs(params):
        at = jnp.broadcast_to(jnp.arange(rows.shape[1]), rows.shape)
        logits = parameters.bind(outline, params)(jnp.asarray(rows), at, jnp.ones_like(at))[:, :-1]
        table = jax.nn.log_softmax(logits / SETTINGS.temperature)
        return jnp.take_along_axis(table, jnp.asarray(rows)[:, 1:, None], axis=-1)[..., 0]

    def loss(params):
        now, mask = logprobs(params), answers[:, 1:]
        ratio = jnp.exp(now - jax.lax.stop_gradient(now))  # one update of each draw
        apart = logprobs(reference) - now
        divergence = jnp.exp(apart) - apart - 1
        each = SETTINGS.beta * divergence - jnp.array(advantages)[:, None] * ratio
        return (jnp.where(mask, each, 0).sum(axis=1) / mask.sum(axis=1)).mean()

    updates, state = optimizer.update(jax.jit(jax.grad(loss))(params), state, params)
    return optax.apply_updates(params, updates), state


@pytest.mark.parametrize("mesh", ["fsdp=8", "data=2,fsdp=2,tensor=2"])
def test_the_parameters_are_those_of_the_formula(finished, monkeypatch, mesh):
    monkeypatch.setattr(Loaded, "stop_ids", frozenset({257, ord("e")}))  # what ends is learned
    draws = []
    generate = Rollout.generate

    def recorded(self, prompts, config, **others):
        made = generate(self, prompts, config, **others)
        padding = self.pad_id()
        rows = zip(made.left_padded_prompt_tokens, made.tokens, prompts, made.text, strict=True)
        draws.append(
            [
                ([int(i) for i in ids if i != padding], answer.tolist(), reward(prompt, text))
                for ids, answer, prompt, text in rows
            ]
        )
        return made

    monkeypatch.setattr(Rollout, "generate", recorded)
    loaded = load_run(str(finished), mesh=parse_mesh(mesh))
    began = jax.tree.map(np.asarray, loaded.trained.params)
    told = []
    got = learn(loaded, PROMPTS, reward, SETTINGS, lambda *said: told.append(said))

    assert len(draws) == SETTINGS.steps
    assert [step for step, _ in told] == [1, 2]
    for (_, mean), drawn in zip(told, draws, strict=True):
        assert mean == pytest.approx(np.mean([one for _, _, one in drawn]))
    lengths = [len(answer) for drawn in draws for _, answer, _ in drawn]
    assert min(lengths) < max(lengths) == SETTINGS.max_tokens  # some are padded
    optimizer = optax.chain(
        optax.clip_by_global_norm(SETTINGS.clip_norm), optax.adam(SETTINGS.learning_rate)
    )
    outline = parameters.outline(loaded.trained.config.model)
    want, state = began, optimizer.init(began)
    for drawn in draws:
        want, state = step_by_hand(outline, began, want, state, drawn, optimizer)
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), want, began)
    assert min(jax.tree.leaves(moved)) > 1e-3
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), got, want)
    jax.tree.map(np.testing.assert_array_equal, loaded.trained.params, began)
    where = jax.tree.map(lambda x: x.sharding, loaded.trained.params)
    jax.tree.map(lambda x, s: s.is_equivalent_to(x.sharding, x.ndim) or pytest.fail(), got, where)


def test_endings_belong_to_answers_and_draws_are_fresh(finished, monkeypatch):
    stops = frozenset({257, ord("e"), ord("o")})
    monkeypatch.setattr(Loaded, "stop_ids", stops)
    loaded = load_run(str(finished), mesh=parse_mesh("fsdp=8"))
    policy = Policy(parameters.bind(loaded.trained.outline, loaded.trained.params))
    config = base_rollout.RolloutConfig(
        max_tokens_to_generate=12, max_prompt_length=16, temperature=1.0
    )

    def rollout():
        texts = tokenizer_adapter.TokenizerAdapter(Texts(loaded, policy.padding_id))
        return Rollout(policy, texts, loaded.trained.mesh, config)

    one = rollout()
    first, second = (one.generate(["rose"] * 16, config) for _ in range(2))
    assert {tuple(ids) for ids in first.tokens} != {tuple(ids) for ids in second.tokens}
    assert len({tuple(ids) for ids in first.tokens}) > 8  # rows differ too
    again = rollout().generate(["rose"] * 16, config)
    assert [ids.tolist() for ids in again.tokens] == [ids.tolist() for ids in first.tokens]
    ended = [ids for ids in first.tokens if len(ids) < 12]
    assert ended and all(int(ids[-1]) in stops for ids in ended)
    assert all(not stops & set(ids[:-1].tolist()) for ids in first.tokens)


def test_example(podium, finished, tmp_path):
    """The reward rises, and what was written is what eval.py and generate.py read."""
    target = tmp_path / "target"
    args = (f"--workdir={finished}", f"--to={target}", "--steps=30", "--learning_rate=3e-3")
    done = podium("-m", "reinforcement.example", *args)
    assert done.returncode == 0, done.stderr
    assert "step 30/30  reward" in done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["after"] > found["before"] + 0.2
    judged = podium("eval.py", f"--workdir={target}")
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout.splitlines()[-1])["step"] == 0
    written = podium("generate.py", f"--workdir={target}", "--prompt=rose", "--max_tokens=4")
    assert written.returncode == 0, written.stderr
    refused = podium("-m", "reinforcement.example", *args)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == f"error: {target} has checkpoints already: choose another --to\n"


def test_a_prompt_that_is_too_long(finished):
    loaded = load_run(str(finished), mesh=parse_mesh("fsdp=8"))
    with pytest.raises(UserError, match=r"^the prompt 'xxxx.*' has 31 tokens, which is more than"):
        learn(loaded, ["x" * 30], reward, SETTINGS)
