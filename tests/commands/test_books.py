import json
import os
from pathlib import Path

import pytest

from tests.running import Commands, metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("PODIUM_ASSETS"), reason="PODIUM_ASSETS is unset: no books to train on"
    ),
]


def test_a_few_steps_on_books(podium: Commands, tmp_path: Path) -> None:
    """Ten real books, six to train on, through `files:`, to a checkpoint and a report."""
    source = f"files:{os.environ['PODIUM_ASSETS']}/books/valid.jsonl.gz"
    workdir = tmp_path / "run"
    done = podium(
        "train.py",
        "--config=configs/books.py",
        f"--workdir={workdir}",
        f"--config.data.source={source}",
        "--config.data.train_split=train[:60%]",
        "--config.data.eval_split=train[60%:]+validation",
        "--config.data.tokenizer=byte",
        "--config.data.sequence_length=128",
        "--config.model.num_layers=2",
        "--config.model.embed_dim=64",
        "--config.optimizer.warmup_steps=4",
        "--config.optimizer.decay_steps=4",
        "--config.train.steps=20",
        "--config.evaluation.every=10",
        "--config.evaluation.max_tokens=2048",
        "--config.report.max_tokens=4",
    )
    assert done.returncode == 0, done.stderr
    losses = [line["loss"] for line in metrics(workdir) if "loss" in line]
    assert len(losses) == 20
    assert losses[0] > 5 and losses[-1] < 4.5  # nats a byte: it began to learn
    run = json.loads((workdir / "run.json").read_text())
    assert run["config"]["data"]["source"] == source
    assert (workdir / "report.html").is_file()


def test_books_and_code_with_the_tokenizer_of_gpt2(podium: Commands, tmp_path: Path) -> None:
    """The shipped mixture, smaller: stopped within its second stage, it goes on to the bit."""
    assets = os.environ["PODIUM_ASSETS"]
    args = (
        "train.py",
        "--config=configs/mixture.py",
        f"--config.data.mixture.books.source=files:{assets}/books/valid.jsonl.gz",
        "--config.data.mixture.books.train_split=train",
        "--config.data.mixture.books.eval_split=none",
        "--config.data.mixture.code.train_split=train[:5%]",
        "--config.data.mixture.code.eval_split=validation[:10%]",
        f"--config.data.tokenizer={assets}/gpt2",
        "--config.data.sequence_length=128",
        "--config.data.stages.even.after_step=3",
        "--config.data.stages.even.sequence_length=64",
        "--config.model.num_layers=1",
        "--config.model.embed_dim=48",
        "--config.model.head_dim=16",
        "--config.optimizer.schedule=constant",
        "--config.train.steps=6",
        "--config.evaluation.every=4",
        "--config.evaluation.max_tokens=1024",
        "--config.checkpoint.every=2",
        "--config.checkpoint.keep=9",
        "--config.report.max_tokens=4",
    )
    whole = podium(*args, f"--workdir={tmp_path}/whole")
    assert whole.returncode == 0, whole.stderr
    part = podium(*args, f"--workdir={tmp_path}/run", "--config.train.steps=4")
    assert part.returncode == 0, part.stderr
    rest = podium(*args, f"--workdir={tmp_path}/run")
    assert rest.returncode == 0, rest.stderr
    found, expected = (
        [line for line in metrics(tmp_path / name) if "loss" in line] for name in ("run", "whole")
    )
    assert found == expected and len(found) == 6
    for line in found:
        assert line["loss/books"] > 5 and line["loss/code"] > 5
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["config"]["model"]["vocab_size"]
        == 50257
    )
