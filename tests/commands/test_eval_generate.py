"""eval.py and generate.py on a finished run."""

import json
import shutil

import pytest

from data.tokenizer import train_bpe
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
    assert "[step 12: prompts " in first.stderr


def lines(done) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.removesuffix("\n").split("\n")]


def test_generate_several(podium: Commands, finished, tmp_path):
    """Batches, samples, files of prompts: each text is what it would be alone."""
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "moon sea def"}\n{"prompt": "a\u2028"}\n')
    args = ("generate.py", f"--workdir={finished}", "--max_tokens=12", "--output=json")
    every = lines(
        podium(
            *args,
            "--prompt=rose né",
            f"--prompts_file={file}",
            "--num_samples=2",
            "--seed=4",
            "--batch_size=4",
            "--top_logprobs=2",
        )
    )
    prompts = ["rose né", "moon sea def", "a\u2028"]
    assert [(one["prompt"], one["sample"]) for one in every] == [
        (prompt, sample) for prompt in prompts for sample in (0, 1)
    ]
    (alone,) = lines(podium(*args, "--prompt=moon sea def", "--seed=5"))
    same = every[3]
    assert alone["ids"] == same["ids"] and alone["text"] == same["text"]
    assert alone["logprobs"] == pytest.approx(same["logprobs"], abs=1e-3)
    for one in every:
        assert one["finish"] in ("stop", "length")
        assert len(one["ids"]) == len(one["logprobs"]) == len(one["top_logprobs"])
        for mine, token, top in zip(one["logprobs"], one["ids"], one["top_logprobs"], strict=True):
            assert len(top) == 2 and top[0][1] >= top[1][1] and mine <= top[0][1] + 1e-5
            assert dict(map(tuple, top)).get(token, mine) == pytest.approx(mine, abs=1e-5)

    # A text ends before a string; what came before it stays.
    text = next(one["text"] for one in every if len(one["text"]) > 3)
    of = next(one for one in every if one["text"] == text)
    stop = text[2:4]
    (cut,) = lines(
        podium(*args, f"--prompt={of['prompt']}", f"--seed={4 + of['sample']}", f"--stop={stop}")
    )
    assert (cut["text"], cut["finish"]) == (text[: text.index(stop)], "stop")


def test_chat(podium: Commands, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    refused = podium("generate.py", f"--workdir={run}", "--chat", "--prompt=a")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --chat: this model has no chat template")
    (run / "hf").mkdir()
    train_bpe(["rose moon"], 258).save(run / "hf" / "tokenizer.json")  # bytes, BOS 0 and EOS 1
    template = "{% for m in messages %}<|bos|>{{ m.content }}<|eos|>{% endfor %}<|bos|>"
    (run / "hf" / "chat_template.jinja").write_text(template)
    (run / "hf" / "generation_config.json").write_text('{"eos_token_id": [1, 65]}')
    args = ("generate.py", f"--workdir={run}", "--max_tokens=6", "--chat", "--output=json")
    (once,) = lines(podium(*args, "--prompt=rose", "--seed=3"))
    talk = podium.start(*args, "--seed=3")
    long = "rose " * 400  # is refused, and the chat goes on
    out, err = talk.communicate(f"rose\nmoon\n{long}\n/reset\n\nrose\n", timeout=180)
    assert talk.returncode == 0, err
    first, second, third = (json.loads(line) for line in out.splitlines() if line)
    assert first == once
    assert second["prompt"] == "moon" and third["prompt"] == "rose"
    assert "[step 12: prompts " in err
    assert (
        err.count("note: the prompt's ") == 1 and "shorten one, or forget all turns: /reset" in err
    )


def test_bad_prompts(podium: Commands, finished, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a"}\n{"text": "b"}\n')
    for flag, want in (
        (f"--prompts_file={bad}", "line 2: give {"),
        (f"--prompts_file={tmp_path / 'none.txt'}", "cannot be read as text"),
        ("--min_p=2", "--min_p=2.0: must lie in [0, 1]"),
        ("--stop=", "--stop=''"),
    ):
        done = podium("generate.py", f"--workdir={finished}", flag)
        assert done.returncode == 2 and want in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1


def test_generate_longer_than_the_model(podium: Commands, finished):
    done = podium("generate.py", f"--workdir={finished}", "--prompt=a", "--max_tokens=1000")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the prompt's ")
    assert done.stderr.count("\n") == 1
