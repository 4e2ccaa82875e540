"""Runs with a teacher, and on preferences: a kill changes nothing, nor do two processes, and what
cannot be is one line."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.running import Commands, assert_same_run, metrics, saved, wait_for

NAMES = ["distilled", "live", "preferred", "adapted"]
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def arguments(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The flags of each kind of run, which learns from the finished one."""
    folder = tmp_path_factory.mktemp("pairs")
    for name, n in (("train", 120), ("val", 12)):
        records = (
            {"prompt": f"{i}", "chosen": "rose " * (1 + i % 3), "rejected": "née " * (1 + i % 4)}
            for i in range(n)
        )
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(lines)
    jsd = "--config.objective.divergence=jsd"
    distilled = [f"--config.objective.teacher={finished}", "--config.objective.name=distill"]
    preferred = [
        f"--config.train.start_from={finished}",
        "--config.objective.name=dpo",
        "--config.data.task=gsm8k_preferences",
        "--config.data.packing=best_fit",
        f"--config.data.source=files:{folder}/*.jsonl",
        "--config.data.train_split=train.jsonl",
        "--config.data.eval_split=val.jsonl",
        "--config.data.sequence_length=128",
        "--config.train.batch_size=4",
        "--config.evaluation.batch_size=4",
    ]
    return {
        "distilled": [*distilled, "--config.objective.top_k=16", "--config.model.embed_dim=32"],
        "live": [*distilled, "--config.objective.stored=False", jsd],
        "preferred": preferred,
        "adapted": [*preferred, "--config.tuning.method=lora", "--config.tuning.rank=4"],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_kill_changes_nothing(
    podium: Commands, arguments: dict[str, list[str]], name: str, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    done = podium(*podium.train(whole, *arguments[name]))
    assert done.returncode == 0, done.stderr
    line = metrics(whole)[11]
    if "objective.name=dpo" in " ".join(arguments[name]):
        assert "of 12 pairs" in done.stderr and line["preference_loss"] != line["loss"]
        assert all("eval/accuracy" in line for line in metrics(whole) if "eval/loss" in line)
    else:
        assert 0 < line["distill_loss"] < metrics(whole)[0]["distill_loss"]
    elsewhere = podium.with_env({"PODIUM_CACHE": str(tmp_path / "cache")})
    for moment in ("annotations/.*.building/*.npz", "run/checkpoints/6"):
        process = elsewhere.start(*podium.train(tmp_path / "run", *arguments[name]))
        if name == "live" and moment.startswith("annotations"):
            moment = "run/metrics.jsonl"
        where = tmp_path / "cache" if moment.startswith("annotations") else tmp_path

        def reached(where: Path = where, moment: str = moment) -> bool:
            return any(where.glob(moment))

        wait_for(reached, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "killed too late"
    again = elsewhere(*podium.train(tmp_path / "run", *arguments[name]))
    assert again.returncode == 0, again.stderr
    assert_same_run(tmp_path / "run", whole)
    if name in ("preferred", "adapted"):  # eval.py finds the reference, and comes to the same
        judged = podium("eval.py", f"--workdir={whole}", "--task=gsm8k_preferences")
        assert judged.returncode == 0, judged.stderr
        found, line = json.loads(judged.stdout.splitlines()[-1]), metrics(whole)[-1]
        assert found["accuracy"] == pytest.approx(100 * line["eval/accuracy"])
        assert found["margin"] == pytest.approx(line["eval/margin"], abs=1e-4)
        assert found["kl"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_are_one(
    podium: Commands, arguments: dict[str, list[str]], name: str, tmp_path: Path
) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    own = podium.with_env({"PODIUM_CACHE": str(tmp_path / "cache")})
    pair = own.pair(podium.train(two, *arguments[name], "--config.mesh.fsdp=2"))
    for ended in pair.wait(300):
        assert ended.code == 0, ended.err
    done = podium(*podium.train(one, *arguments[name]))
    assert done.returncode == 0, done.stderr
    for a, b in zip(metrics(two), metrics(one), strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            if key not in ("accuracy", "eval/accuracy"):  # a margin near nothing has either sign
                assert value == pytest.approx(b[key], rel=2e-3, abs=2e-4), key
    for x, y in zip(_leaves(saved(two, 12)), _leaves(saved(one, 12)), strict=True):
        np.testing.assert_allclose(x, y, atol=5e-3)


def _leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree["params"])


BAD = {
    "no such teacher": (["--config.objective.teacher=nowhere"], "there is no such directory"),
    "no teacher": (["--config.objective.teacher="], "distillation needs a teacher"),
    "another vocabulary": (["--config.data.tokenizer=bpe"], "has vocab_size=258"),
    "no pairs": (["--config.objective.name=dpo"], "has no pairs of answers"),
    "too many": (["--config.objective.top_k=258"], "top_k=258 leaves nothing"),
}


@pytest.mark.parametrize(
    "case", ["no pairs", *(pytest.param(name, marks=SLOW) for name in BAD if name != "no pairs")]
)
def test_what_cannot_be_is_one_line(
    podium: Commands, arguments: dict[str, list[str]], case: str, tmp_path: Path
) -> None:
    flags, says = BAD[case]
    done = podium(*podium.train(tmp_path / "run", *arguments["distilled"], *flags))
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error:"))
    assert says in line


@pytest.mark.slow
def test_another_teacher_is_refused(
    podium: Commands, arguments: dict[str, list[str]], finished: Path, tmp_path: Path
) -> None:
    """A run goes on from what was said, and not from what other parameters would say."""
    teacher = tmp_path / "teacher"
    shutil.copytree(finished, teacher)
    flags = [*arguments["distilled"], f"--config.objective.teacher={teacher}"]
    flags.append("--config.optimizer.schedule=constant")
    done = podium(*podium.train(tmp_path / "run", *flags))
    assert done.returncode == 0, done.stderr
    shutil.rmtree(teacher / "checkpoints" / "12")
    longer = podium.train(tmp_path / "run", *flags, "--config.train.steps=15")
    elsewhere = podium.with_env({"PODIUM_CACHE": str(tmp_path / "cache")})
    again = elsewhere(*longer)
    assert again.returncode == 2 and "what the run began with is not there any more" in again.stderr
    again = podium(*longer)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_live_teacher_beside_a_pipeline(
    podium: Commands, arguments: dict[str, list[str]], tmp_path: Path
) -> None:
    """Of two stages: what one device comes to."""
    staged, one = tmp_path / "staged", tmp_path / "one"
    mesh = ("--config.mesh.pipeline=2", "--config.mesh.microbatches=2")
    two = {"JAX_NUM_CPU_DEVICES": "2"}
    for workdir, flags, env in ((staged, mesh, two), (one, (), {})):
        done = podium(*podium.train(workdir, *arguments["live"], *flags), env=env)
        assert done.returncode == 0, done.stderr
    for a, b in zip(metrics(staged), metrics(one), strict=True):
        assert a == pytest.approx(b, rel=2e-3, abs=2e-4)
    assert metrics(one)[0]["distill_loss"] > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["preferred", "adapted"])
def test_it_goes_on_when_its_reference_has_been_trained_on(
    podium: Commands, arguments: dict[str, list[str]], finished: Path, name: str, tmp_path: Path
) -> None:
    """What it began with is not the newest there any more; and where all that the reference said is
    kept, and all parameters are in the checkpoint, it need not be there at all."""
    base, run, whole = tmp_path / "base", tmp_path / "run", tmp_path / "whole"
    shutil.copytree(finished, base)
    shutil.rmtree(base / "checkpoints" / "12")
    constant = "--config.optimizer.schedule=constant"
    flags = [*arguments[name], f"--config.train.start_from={base}", constant]
    for workdir, steps in ((whole, 12), (run, 6)):
        done = podium(*podium.train(workdir, *flags, f"--config.train.steps={steps}"))
        assert done.returncode == 0, done.stderr
    on = podium(*podium.train(base))
    assert on.returncode == 0 and (base / "checkpoints" / "12").exists(), on.stderr
    if name == "preferred":
        shutil.rmtree(base)
        going_on = podium
    else:  # which is asked again
        going_on = podium.with_env({"PODIUM_CACHE": str(tmp_path / "cache")})
    again = going_on(*podium.train(run, *flags))
    assert again.returncode == 0, again.stderr
    says = "what it said is to be in the cache" if name == "preferred" else "step 9 of"
    assert says in again.stderr
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(saved(run, 12)),
        jax.tree.leaves(saved(whole, 12)),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y, err_msg=str(path))
    done = going_on(*podium.train(run, *flags))
    assert done.returncode == 0 and "all 12 steps are done" in done.stderr
    judged = podium("eval.py", f"--workdir={run}", "--task=gsm8k_preferences")
    if name == "preferred":
        assert judged.returncode == 2 and "has no more what the run was compared" in judged.stderr
    else:  # the one that it began with, though it is not the newest
        margin = metrics(run)[-1]["eval/margin"]
        assert judged.returncode == 0, judged.stderr
        found = json.loads(judged.stdout.splitlines()[-1])
        assert found["margin"] == pytest.approx(margin, abs=1e-4)


@pytest.mark.slow
def test_a_quantized_policy_begins_as_its_reference(
    podium: Commands, arguments: dict[str, list[str]], tmp_path: Path
) -> None:
    """Both are computed in int8: what that changes is in both probabilities, not in their ratio."""
    quantized = "--config.model.quantization=int8"
    ways = {
        "plain": [],
        "stored": [quantized],
        "live": [quantized, "--config.objective.stored=False"],
    }
    found = {}
    for name, flags in ways.items():
        one_step = [*arguments["adapted"], "--config.train.steps=1", *flags]
        done = podium(*podium.train(tmp_path / name, *one_step))
        assert done.returncode == 0, done.stderr
        found[name] = metrics(tmp_path / name)[0]
    for name in ("stored", "live"):
        changed = 0.1 * abs(found[name]["log_prob_chosen"] - found["plain"]["log_prob_chosen"])
        assert abs(found[name]["reward_chosen"]) < changed / 20
    # Without adapters, which eval.py would merge into what is quantized.
    whole = tmp_path / "whole"
    done = podium(
        *podium.train(whole, *arguments["preferred"], "--config.train.steps=1", quantized)
    )
    assert done.returncode == 0, done.stderr
    judged = podium("eval.py", f"--workdir={whole}", "--task=gsm8k_preferences")
    assert judged.returncode == 0, judged.stderr
    ours, theirs = json.loads(judged.stdout.splitlines()[-1]), metrics(whole)[-1]
    assert abs(ours["margin"] - theirs["eval/margin"]) < changed / 20
