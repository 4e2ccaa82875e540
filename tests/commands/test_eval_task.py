"""eval.py --task on a finished run."""

import gzip
import json
import shutil

import pytest

from data.tasks.clinc150 import INTENTS
from reporting.metrics import read_metrics
from tests.commands.test_bad_input import check
from tests.running import Commands


def write(path, records) -> None:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    records = [{"text": f"rose {i}", "intent": INTENTS[i % 7]} for i in range(30)]
    for name in ("train", "val"):
        write(folder / f"{name}.jsonl.gz", records)
    return folder


def test_labels(podium: Commands, finished, folder, tmp_path):
    args = (
        "eval.py",
        f"--workdir={finished}",
        "--task=clinc150",
        f"--source=files:{folder}/*.jsonl.gz",
        "--examples=10",
    )
    done = podium(*args, f"--out={tmp_path / 'one'}")
    assert done.returncode == 0, done.stderr
    one = json.loads(done.stdout.splitlines()[-1])
    about = {"task": "clinc150", "split": "val.jsonl.gz", "examples": 10, "labels": 150, "step": 12}
    assert one.items() >= about.items()
    low, high = one["accuracy_95"]
    assert 0 <= low <= one["accuracy"] <= high <= 100
    answers = [json.loads(line) for line in (tmp_path / "one").read_text().splitlines()]
    assert len(answers) == 10
    assert {answer["targets"] for answer in answers} == {
        " " + intent.replace("_", " ") for intent in INTENTS[:7]
    }
    right = sum(answer["right"] for answer in answers)
    assert one["accuracy"] == pytest.approx(100 * right / 10)
    for answer in answers:
        assert answer["logprob"] <= answer["likeliest_logprob"] < 0
        assert (answer["targets"] == answer["likeliest"]) == (answer["right"] > 0)

    mesh = ("--mesh=data=2,fsdp=2,tensor=2", "--batch_size=4", f"--out={tmp_path / 'eight'}")
    eight = podium(*args, *mesh, env={"JAX_NUM_CPU_DEVICES": "8"})
    assert eight.returncode == 0, eight.stderr
    for answer, line in zip(answers, (tmp_path / "eight").read_text().splitlines(), strict=True):
        other = json.loads(line)
        assert other["id"] == answer["id"]
        assert other["logprob"] == pytest.approx(answer["logprob"], rel=1e-4)


@pytest.mark.slow
def test_drawn_answers(podium: Commands, finished, tmp_path):
    """GSM8K's answers are longer than the model takes; captions are not."""
    words = [{"question": f"rose {i}", "answer": f"moon #### {i}"} for i in range(3)]
    write(tmp_path / "test.jsonl.gz", words)
    args = ("eval.py", f"--workdir={finished}", "--batch_size=2")
    long = (*args, "--task=gsm8k", f"--source=files:{tmp_path}/t*.gz", "--split=test.jsonl.gz")
    check(podium(*long), "is too long (its ")
    check(podium(*long, "--too_long=drop"), "all 3 examples of task 'gsm8k' are too long")
    captions = [{"en": f"rose {i}", "de": f"Rose {i}", "fr": "x"} for i in range(3)]
    write(tmp_path / "val.jsonl.gz", captions)
    out = tmp_path / "out"
    source = f"--source=files:{tmp_path}/v*.gz"
    done = podium(*args, "--task=multi30k:en-de", source, f"--out={out}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0 <= found["bleu"] <= 100 and 0 <= found["chrf"] <= 100
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [answer["targets"].strip() for answer in answers] == ["Rose 0", "Rose 1", "Rose 2"]
    assert all(isinstance(answer["answer"], str) for answer in answers)


def test_pairs(podium: Commands, finished, tmp_path):
    """Beside itself a model has gone nowhere; alone it has likelihoods."""
    records = [
        {"prompt": f"q{i % 4}", "chosen": "rose " * (1 + i % 3), "rejected": "né " * (1 + i % 4)}
        for i in range(10)
    ]
    write(tmp_path / "preferences_val.jsonl.gz", records)
    args = ("eval.py", f"--workdir={finished}", "--task=gsm8k_preferences", "--batch_size=4")
    source = f"--source=files:{tmp_path}/*.jsonl.gz"
    done = podium(*args, source, f"--reference={finished}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    expected = {"examples": 10, "questions": 4, "accuracy": 50.0, "kl": 0.0, "margin": 0.0}
    assert found.items() >= expected.items()
    answers = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [one["inputs"] for one in answers] == [f"Question: q{i % 4}\nAnswer:" for i in range(10)]
    assert (found["objective"], found["beta"]) == ("dpo", 0.1)
    alone = podium(*args, source, "--examples=6")
    assert alone.returncode == 0, alone.stderr
    found = json.loads(alone.stdout.splitlines()[-1])
    assert found["examples"] == 6 and "kl" not in found
    likelier = found["log_prob_chosen"] - found["log_prob_rejected"]
    assert found["margin"] == pytest.approx(0.1 * likelier, rel=1e-4)


@pytest.mark.slow
def test_pairs_on_two_processes(podium: Commands, finished, tmp_path):
    """With a reference of other numbers, on one device, on eight, and on two processes."""
    records = [
        {"prompt": f"q{i % 4}", "chosen": "rose " * (1 + i % 3), "rejected": "moon " * (1 + i % 4)}
        for i in range(10)
    ]
    write(tmp_path / "preferences_val.jsonl.gz", records)
    other = tmp_path / "other"
    assert podium(*podium.train(other, "--config.train.seed=7")).returncode == 0
    args = ["eval.py", f"--workdir={finished}", "--task=gsm8k_preferences", "--batch_size=4"]
    args += [f"--source=files:{tmp_path}/*.jsonl.gz", f"--reference={other}"]
    one = json.loads(podium(*args).stdout.splitlines()[-1])
    assert one["kl"] > 1e-3
    eight = podium(*args, "--mesh=data=2,context=2,tensor=2", env={"JAX_NUM_CPU_DEVICES": "8"})
    ended = podium.pair(args).wait(240)
    assert eight.returncode == 0 and all(each.code == 0 for each in ended), eight.stderr
    for out in (eight.stdout, ended[0].out):
        found = json.loads(out.splitlines()[-1])
        for name in ("kl", "margin", "log_prob_chosen"):
            assert found[name] == pytest.approx(one[name], rel=1e-3, abs=1e-4), name


@pytest.mark.slow
def test_several_tasks(podium: Commands, finished, folder, tmp_path):
    """One after the other as each alone; two processes as one."""
    records = [{"en": f"rose {i}", "de": f"Rose {i}", "fr": "x"} for i in range(4)]
    write(tmp_path / "val.jsonl.gz", records)
    source = f"--source=files:{tmp_path}/*.jsonl.gz"
    args = ("eval.py", f"--workdir={finished}", "--batch_size=2", "--split=val.jsonl.gz", source)
    names = ("--task=multi30k:en-de", "--task=multi30k:de-en")
    done = podium(*args, *names)
    assert done.returncode == 0, done.stderr
    *lines, last = map(json.loads, done.stdout.splitlines())
    for name, line in zip(names, lines, strict=True):
        alone = json.loads(podium(*args, name).stdout.splitlines()[-1])
        assert {**alone, "seconds": 0} == {**line, "seconds": 0}
    assert last == {"tasks": 2, "mean": pytest.approx(sum(one["bleu"] for one in lines) / 2)}
    check(podium(*args, *names, "--out=x"), "--out is of one task, and 2 are given")
    check(podium(*args, *names, "--task=line_order"), "tasks of pairs are judged apart")

    ended = podium.pair((*args, *names)).wait(240)
    for each in ended:
        assert each.code == 0, each.err
    two = [json.loads(line) for line in ended[0].out.splitlines() if line.startswith("{")]
    for line, other in zip(lines, two[:2], strict=True):
        assert {**line, "seconds": 0} == {**other, "seconds": 0}
    assert two[2] == last and "{" not in ended[1].out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--task=clinc15"], "--task='clinc15': no such task; there is clinc150"),
        (["--task=clinc150:x"], "it takes no argument"),
        (["--examples=3"], "--examples is of a task: give --task too"),
        (["--too_long=refuse"], "--too_long is of a task: give --task too"),
        (["--task=clinc150", "--stride=3"], "--stride is of plain text"),
        (["--task=clinc150", "--source=files:{}/none*.gz"], "none*.gz"),
        (["--task=clinc150", "--source=files:{}/*.gz", "--split=x*"], "no file of "),
        (["--task=clinc150", "--source=wiki"], "--source='wiki': use one of"),
        (["--task=chat", "--source=files:{}/*.gz"], "names no metric to be judged by"),
        (["--reference=x"], "--reference is of a task: give --task too"),
        (["--task=clinc150", "--reference=x"], "--reference is of pairs, and 'clinc150' has none"),
        (["--task=line_order", "--reference=none"], "--reference=none: there is no such directory"),
        (["--task=multi30k:en-de", "--source=files:{}/*.gz"], "is no example of task"),
    ],
)
@pytest.mark.slow
def test_bad_input(podium: Commands, finished, folder, args, says):
    done = podium("eval.py", f"--workdir={finished}", *(one.format(folder) for one in args))
    check(done, says)


@pytest.mark.slow
def test_a_model_without_tokenizer(podium: Commands, finished, folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "tokenizer.json").unlink()
    source = f"--source=files:{folder}/*.gz"
    done = podium("eval.py", f"--workdir={run}", "--task=clinc150", source)
    check(done, "has no tokenizer")


@pytest.mark.slow
def test_during_a_run(podium: Commands, folder, tmp_path):
    config = {
        "data.source": f"files:{folder}/*.jsonl.gz",
        "data.train_split": "train.jsonl.gz",
        "data.eval_split": "val.jsonl.gz",
        "data.task": "clinc150",
        "data.packing": "best_fit",
        "train.steps": 4,
        "train.batch_size": 2,
        "evaluation.every": 2,
        "evaluation.examples": 7,
    }
    run = tmp_path / "run"
    args = ("train.py", "--config=configs/tiny.py", f"--workdir={run}")
    done = podium(*args, *(f"--config.{key}={value}" for key, value in config.items()))
    assert done.returncode == 0, done.stderr
    lines = [(step, line) for step, line in read_metrics(run) if "task/clinc150/accuracy" in line]
    assert [step for step, _ in lines] == [2, 4]
    line = lines[-1][1]
    keys = (f"task/clinc150/accuracy{end}" for end in ("", "/low", "/high"))
    value, low, high = (float(line[key] or 0) for key in keys)
    assert 0 <= low <= value <= high <= 100
    assert f"step 4: clinc150: accuracy {value:.1f} ({low:.1f} to {high:.1f})" in done.stderr
    assert f"clinc150: accuracy {value:.1f}" in done.stdout
    report = (run / "report.html").read_text()
    assert "Tasks, from 0 to 100, with intervals of 95 %" in report and "7 examples" in report
    # By eval.py the same, from where the run learned it.
    again = podium("eval.py", f"--workdir={run}", "--task=clinc150", "--examples=7")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["accuracy"] == pytest.approx(value, abs=1e-3)
