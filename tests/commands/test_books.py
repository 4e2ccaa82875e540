import json
import os
from pathlib import Path

import pytest

from tests.running import Commands, metrics


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("PODIUM_ASSETS"), reason="PODIUM_ASSETS is unset: no books to train on"
)
def test_a_few_steps_on_books(podium: Commands, tmp_path: Path) -> None:
    """Ten real books, eight to train on, through `files:`, to a checkpoint and a report."""
    source = f"files:{os.environ['PODIUM_ASSETS']}/books/valid.jsonl.gz"
    workdir = tmp_path / "run"
    done = podium(
        "train.py",
        "--config=configs/books.py",
        f"--workdir={workdir}",
        f"--config.data.source={source}",
        "--config.data.train_split=train[:80%]+validation[:80%]",
        "--config.data.eval_split=train[80%:]+validation[80%:]",
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
