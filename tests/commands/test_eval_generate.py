"""eval.py and generate.py on a finished run."""

import json

import pytest

from tests.running import Commands


def last(done) -> dict[str, float]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_eval(podium: Commands, finished):
    one = last(podium("eval.py", f"--workdir={finished}"))
    assert list(one) == ["loss", "perplexity", "bits_per_byte", "tokens", "bytes", "step"]
    assert one["step"] == 12
    eight = podium(
        "eval.py",
        f"--workdir={finished}",
        "--mesh=data=2,fsdp=2,tensor=2",
        "--batch_size=16",
        env={"JAX_NUM_CPU_DEVICES": "8"},
    )
    assert last(eight) == pytest.approx(one, rel=1e-6)
    other = last(podium("eval.py", f"--workdir={finished}", "--batch_size=3", "--step=3"))
    assert other["step"] == 3
    assert other["tokens"] == one["tokens"]
    assert other["loss"] > one["loss"]


def test_generate(podium: Commands, finished):
    args = ("generate.py", f"--workdir={finished}", "--prompt=rose né", "--max_tokens=12")
    first, same, other = (podium(*args, f"--seed={seed}") for seed in (1, 1, 2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == same.stdout != other.stdout
    assert first.stdout.startswith("rose né")
    assert "[step 12, " in first.stderr


def test_generate_longer_than_the_model(podium: Commands, finished):
    done = podium("generate.py", f"--workdir={finished}", "--prompt=a", "--max_tokens=1000")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
