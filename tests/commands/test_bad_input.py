"""Bad input: one line that says what to do, exit code 2, no traceback."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.running import Commands

# The arguments after those of a good run, and what the line says.
TRAIN = {
    "unknown key": (["--config.train.step=3"], "did you mean train.steps?"),
    "unknown section": (["--config.trian.steps=3"], "did you mean train"),
    "wrong type": (["--config.train.steps=many"], "steps"),
    "unknown flag": (["--wrokdir=x"], "wrokdir"),
    "stray argument": (["steps=3"], "unexpected argument 'steps=3'"),
    "mesh": (["--config.mesh.tensor=3"], "config.mesh: "),
    "batch": (["--config.train.batch_size=12", "--config.mesh.data=8"], "batch_size"),
    "accumulation": (["--config.train.accumulation=3"], "does not divide batch_size=16"),
    "too long": (["--config.data.sequence_length=256"], "longer than config.model.max_length"),
    "vocabulary": (["--config.model.vocab_size=100"], "is smaller than the tokenizer's 258 ids"),
    "source": (["--config.data.source=wikipedia"], "error: config.data.source"),
    "no dataset": (["--config.data.source=tfds:no_such"], "no_such"),
    "empty split": (["--config.data.train_split=train[:0]"], "train[:0]"),
    "choice": (["--config.model.norm=batch"], "config.model.norm='batch': choose one of"),
    "profile": (["--profile=a:b"], "profile"),
}


def check(done, says: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if "error" in line]  # not progress
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: ")
    assert says in errors[0]


@pytest.fixture(scope="module")
def refused(podium: Commands, tmp_path_factory: pytest.TempPathFactory):
    """What every case of TRAIN ended with; two run at a time."""
    folder = tmp_path_factory.mktemp("bad")

    def run(name: str):
        env = {"JAX_NUM_CPU_DEVICES": "8" if name == "batch" else "1"}
        return podium(*podium.train(folder / name.replace(" ", "_"), *TRAIN[name][0]), env=env)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(TRAIN, pool.map(run, TRAIN), strict=True))


@pytest.mark.parametrize("name", TRAIN)
def test_train(refused, name):
    check(refused[name], TRAIN[name][1])


def test_missing_flags_and_files(podium: Commands, tmp_path):
    cases = [
        (["train.py", *podium.config], "--workdir is missing"),
        (["train.py", f"--workdir={tmp_path}"], "--config is missing"),
        (["train.py", "--config=configs/tiney.py"], "did you mean configs/tiny.py?"),
        (["eval.py"], "--workdir is missing"),
        (["eval.py", f"--workdir={tmp_path / 'nowhere'}"], "no run in"),
        (["generate.py", f"--workdir={tmp_path}"], "no checkpoint in"),
    ]
    with ThreadPoolExecutor(2) as pool:
        for done, (_, says) in zip(pool.map(lambda c: podium(*c[0]), cases), cases, strict=True):
            check(done, says)


def test_finished_run(podium: Commands, finished: Path):
    where = f"--workdir={finished}"
    cases = [
        (podium.train(finished, "--config.model.mlp_dim=128"), "model.mlp_dim was 256, now 128"),
        (podium.train(finished, "--config.train.seed=5"), "train.seed was 0, now 5"),
        (["eval.py", where, "--step=7"], "no checkpoint of step 7"),
        (["eval.py", where, "--mesh=tensor=3"], "--mesh"),
        (["eval.py", where, "--stride=1000"], "--stride=1000: give 1 to 64"),
        (["generate.py", where, "--top_p=2"], "top_p"),
    ]
    for args, says in cases:  # one after the other: the first two would find the workdir in use
        check(podium(*args), says)
