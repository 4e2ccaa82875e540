"""Runs on examples: what is learned is shown, what cannot be is one line, and a kill changes
nothing."""

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.running import Commands, assert_same_run, metrics, wait_for

CONFIG = "--config=tests/commands/examples.py"


def write(folder: Path, **files: Sequence[Any]) -> str:
    """The flag of a folder with such files of records."""
    folder.mkdir()
    for name, records in files.items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name.replace('_', '-')}.jsonl").write_text(lines)
    return f"--config.data.source=files:{folder}/*.jsonl"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    sums = [{"question": f"{i} + {i % 7}", "answer": str(i + i % 7)} for i in range(440)]
    captions = [{"en": f"{i} dogs", "de": f"{i} Hunde", "fr": f"{i} chiens"} for i in range(120)]
    folder = tmp_path_factory.mktemp("records") / "some"
    files = {"sums_train": sums[:400], "sums_val": sums[400:]}
    return write(folder, **files, captions_train=captions[:100], captions_val=captions[100:])


def test_what_is_learned_is_marked(podium: Commands, source: str) -> None:
    done = podium("-m", "data.inspect", CONFIG, source, "--step=1")
    assert done.returncode == 0, done.stderr
    learned = re.findall(r"^row \d+: (\d+) tokens predicted", done.stdout, re.M)
    parts = re.findall(r"^  \[\d+:\d+\] (\w+), .*, (\d+) learned$", done.stdout, re.M)
    assert len(learned) == 16 and sum(map(int, learned)) == sum(int(n) for _, n in parts)
    answers = re.findall(r"^    \| (?:Answer|German):\[\[ (.*)<EOS>\]\]$", done.stdout, re.M)
    assert len(answers) == len(parts) and done.stdout.count("[[") == len(parts)
    assert {name for name, _ in parts} == {"sums", "captions"}
    for answer, (name, n) in zip(answers, parts, strict=True):
        assert int(n) == len(answer) + 2  # a space before it, EOS after it
        assert answer.endswith("Hunde") == (name == "captions")


RECORDS: dict[str, tuple[str, str, Any, str]] = {
    # The file, the line of the flags that matter, a record, and what is said of it.
    "field": ("sums_train", "", {"answer": "3"}, "it has no 'question', but answer"),
    "answer": ("sums_val", "", {"question": "1", "answer": " "}, "its targets is empty"),
    "label": (
        "sums_train",
        "--config.data.mixture.sums.task=clinc150",
        {"text": "hi", "intent": "hullo"},
        "its answer ' hullo' is none of the 150 labels",
    ),
    "template": (
        "sums_train",
        "--config.data.mixture.sums.task=chat",
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        "the chat template refuses these messages: only answers",
    ),
}


def one_line(podium: Commands, arguments: Sequence[str], says: str) -> None:
    done = podium("-m", "data.prepare", CONFIG, *arguments)
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert done.returncode == 2 and len(errors) == 1, done.stderr
    assert errors[0].startswith("error: ") and says in errors[0]
    assert "Traceback" not in done.stderr


def with_record(tmp_path: Path, name: str) -> tuple[list[str], str]:
    """The arguments of a run with one bad record, and what is said."""
    file, flag, record, says = RECORDS[name]
    good = [{"question": "1", "answer": "1"}]
    captions = [{"en": "a", "de": "b"}]
    files: dict[str, Sequence[Any]] = {"sums_train": good, "sums_val": good}
    files |= {"captions_train": captions, "captions_val": captions, file: [record]}
    (tmp_path / f"{name}.jinja").write_text("{{ raise_exception('only answers') }}")
    flags = [write(tmp_path / name, **files), *filter(None, [flag])]
    if name == "template":
        flags += ["--config.data.tokenizer=bpe", "--config.data.tokenizer_vocab_size=258"]
        flags.append(f"--config.data.chat_template={tmp_path}/template.jinja")
    return flags, says


def test_a_bad_record_is_one_line(podium: Commands, tmp_path: Path) -> None:
    one_line(podium, *with_record(tmp_path, "field"))


@pytest.mark.slow
def test_bad_records_and_keys_are_one_line(podium: Commands, source: str, tmp_path: Path) -> None:
    cases = [with_record(tmp_path, name) for name in ("answer", "label", "template")]
    cases += [
        (["--config.data.packing=concatenate", source], "config.data.packing='concatenate'"),
        (["--config.data.mixture.sums.task=gsm", source], "task='gsm': no such task"),
        (["--config.data.rates.temperature=0.5", source], "config.data.rates.temperature=0.5"),
        (["--config.data.too_long=keep", source], "config.data.too_long='keep': choose one of"),
    ]
    check: Callable[..., None] = one_line
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda case: check(podium, *case), cases))


@pytest.mark.slow
def test_a_run_is_the_same_after_a_kill_and_on_two_processes(
    podium: Commands, source: str, tmp_path: Path
) -> None:
    run = ("train.py", CONFIG, source)
    whole = podium(*run, f"--workdir={tmp_path}/whole")
    assert whole.returncode == 0, whole.stderr
    assert "tokens of them learned (gsm8k)" in whole.stderr
    assert re.search(r"^step 12/12  loss .* bits/byte  tasks \d\.\d+  ", whole.stderr, re.M)
    assert re.search(r"held-out loss [\d.]+, mean over 2 tasks [\d.]+,", whole.stderr)
    process = podium.start(*run, f"--workdir={tmp_path}/killed")
    path = tmp_path / "killed" / "metrics.jsonl"
    wait_for(lambda: path.exists() and path.read_text().count("\n") > 4, process)
    process.kill()
    process.communicate()
    again = podium(*run, f"--workdir={tmp_path}/killed")
    assert again.returncode == 0, again.stderr
    assert_same_run(tmp_path / "killed", tmp_path / "whole")

    two = podium.pair([*run, f"--workdir={tmp_path}/two", "--config.mesh.data=2"])
    for ended in two.wait(180):
        assert ended.code == 0, ended.err
    for one, other in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "two"), strict=True):
        assert one.keys() == other.keys() and one["step"] == other["step"]
        for name, value in one.items():
            if value is not None:
                assert other[name] == pytest.approx(value, rel=2e-3), name

    result = podium("eval.py", f"--workdir={tmp_path}/whole")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    final = [line for line in metrics(tmp_path / "whole") if "eval/loss" in line][-1]
    assert found["loss"] == pytest.approx(final["eval/loss"], rel=1e-5)
    assert set(found["corpora"]) == {"sums", "captions"}
    refused = podium(*run, f"--workdir={tmp_path}/whole", "--config.data.limit=200")
    assert refused.returncode == 2 and "data.limit was 300, now 200" in refused.stderr


@pytest.mark.slow
def test_what_learned_dialogues_can_be_chatted_with(podium: Commands, tmp_path: Path) -> None:
    """With the template that it learned them by, also where that is no published one."""
    base, run = tmp_path / "base", tmp_path / "run"
    of_base = ("--config.data.tokenizer=bpe", "--config.data.tokenizer_vocab_size=258")
    few = ("--config.train.steps=2", "--config.model.max_length=512")
    done = podium("train.py", "--config=configs/tiny.py", f"--workdir={base}", *of_base, *few)
    assert done.returncode == 0, done.stderr
    done = podium(
        "train.py",
        "--config=configs/chat.py:tiny",
        f"--workdir={run}",
        f"--config.train.start_from={base}",
        "--config.train.steps=2",
    )
    assert done.returncode == 0, done.stderr
    said = podium(
        *("generate.py", f"--workdir={run}", "--chat", "--prompt=hello", "--max_tokens=4"),
        *("--output=json", "--temperature=0"),
    )
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["prompt"] == "hello"
    refused = podium("generate.py", f"--workdir={base}", "--chat", "--prompt=hello")
    assert refused.returncode == 2 and "no chat template" in refused.stderr


@pytest.mark.slow
def test_dialogues_are_resumed_and_judged_as_the_run_wrote_them(
    podium: Commands, tmp_path: Path
) -> None:
    """By a template of its own, which is gone when it is judged again; only adapters move."""
    base, template = tmp_path / "base", tmp_path / "t.jinja"
    template.write_text(Path("data/examples/turns.jinja").read_text())
    of_base = ("--config.data.tokenizer=bpe", "--config.data.tokenizer_vocab_size=258")
    few = ("--config.train.steps=2", "--config.model.max_length=512")
    done = podium("train.py", "--config=configs/tiny.py", f"--workdir={base}", *of_base, *few)
    assert done.returncode == 0, done.stderr
    records = [
        {"instruction": f"Say {i}.", "instances": [{"input": "", "output": f"{i} {i}"}]}
        for i in range(60)
    ]
    source = write(tmp_path / "records", train=records[:50], val=records[50:])
    run = (
        *("train.py", "--config=configs/chat.py:tiny", source),
        *(f"--config.train.start_from={base}", f"--config.data.chat_template={template}"),
        *("--config.data.task=instructions:chat", "--config.data.train_split=train.jsonl"),
        *("--config.data.eval_split=val.jsonl", "--config.checkpoint.every=2"),
        *(
            "--config.evaluation.examples=2",
            "--config.train.steps=6",
            "--config.evaluation.every=3",
        ),
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = podium(*run, f"--workdir={whole}")
    assert done.returncode == 0, done.stderr
    process = podium.start(*run, f"--workdir={killed}")
    path = killed / "metrics.jsonl"
    wait_for(lambda: path.exists() and path.read_text().count("\n") > 3, process)
    process.kill()
    process.communicate()
    again = podium(*run, f"--workdir={killed}")
    assert again.returncode == 0, again.stderr
    assert_same_run(killed, whole, step=6)

    template.unlink()
    judge = ("eval.py", f"--workdir={whole}", "--task=instructions:chat", "--examples=2")
    judged = podium(*judge, f"--out={tmp_path / 'answers'}")
    assert judged.returncode == 0, judged.stderr
    found = json.loads(judged.stdout.splitlines()[-1])
    lines = [line for line in metrics(whole) if "task/instructions:chat/rouge1" in line]
    assert [line["step"] for line in lines] == [3, 6]
    for name in ("rouge1", "rougeL"):
        assert found[name] == pytest.approx(lines[-1][f"task/instructions:chat/{name}"], abs=1e-3)
    answers = [json.loads(text) for text in (tmp_path / "answers").read_text().splitlines()]
    assert all(one["inputs"].endswith("\nassistant:") for one in answers) and len(answers) == 2
