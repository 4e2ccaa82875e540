"""Real weights, SmolLM2-135M: perplexity, texts, and what training makes of them.

Needs $PODIUM_ASSETS, and its tool that makes a folder of Hugging Face's form of the model.
"""

import gzip
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from checkpointing.workdir import TOKENIZER, Workdir
from data import tokenizer as tokenizers
from data.config import DataConfig
from data.preparation import prepare_split
from data.windows import Windows
from evaluation.trained import Trained, load, parse_mesh
from model import parameters
from model.generation import Generator, Sampling

ASSETS = os.environ.get("PODIUM_ASSETS", "")
ROOT = Path(__file__).parents[2]
PROMPTS = (
    "The capital of France is",
    "Once upon a time",
    "def fibonacci(n):\n",
    "The three laws of thermodynamics are",
    "To make bread you need",
    "In 1969,",
    "Dear Sir or Madam,",
    "The best way to learn a language is",
    "Q: What is the largest planet?\nA:",
    "Photosynthesis is the process by which",
)
TOKENS = 64
STEPS, LENGTH = 50, 256

pytestmark = [
    pytest.mark.skipif(not ASSETS, reason="PODIUM_ASSETS is not set: there is no real model"),
    pytest.mark.xdist_group("smollm2"),  # one process converts it once
]


def run(*arguments: Any) -> str:
    """What a command of Podium prints, on one device."""
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("smollm2") / "hf"
    run(Path(ASSETS).parent / "tools" / "smollm2_to_hf.py", made, "--dtype", "float32")
    return made


@pytest.fixture(scope="session")
def workdir(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("smollm2") / "workdir"
    run("convert.py", "from-hf", folder, f"--workdir={made}")
    return made


@pytest.fixture(scope="session")
def ours(workdir: Path) -> Trained:
    return load(Workdir(str(workdir)), None, parse_mesh("fsdp=-1"), rows=None)


@pytest.fixture(scope="session")
def theirs(folder: Path) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="session")
def read(folder: Path) -> Any:
    """Their tokenizer."""
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_perplexity_of_the_reference_text(ours, theirs, read, record_property):
    """16.276 with float32 weights, as the tool that made the folder says."""
    text = (Path(ASSETS) / "wikitext-2" / "test.txt").read_text()[2:6000]
    ids = np.array(read(text)["input_ids"][:512], np.int32)
    logits = parameters.bind(ours.outline, ours.params)(
        ids[None], np.arange(ids.size)[None], np.ones((1, ids.size), np.int32)
    )
    of_ours = float(np.mean(nats(np.asarray(logits)[0], ids)))
    with torch.no_grad():
        of_theirs = theirs(input_ids=torch.from_numpy(ids[None]).long()).logits[0].numpy()
    expected = float(np.mean(nats(of_theirs, ids)))
    assert math.exp(expected) == pytest.approx(16.276, abs=1e-3)
    record_property("perplexity, part", abs(math.exp(of_ours - expected) - 1))
    assert of_ours == pytest.approx(expected, abs=1e-3)


def test_greedy_texts(ours, theirs, read):
    """Of prompts of unequal length all at once, and of some by themselves."""
    prompts = [read(prompt)["input_ids"] for prompt in PROMPTS]
    assert len({len(prompt) for prompt in prompts}) > 3
    generator = Generator(ours.outline, ours.params, Sampling(temperature=0))
    seeds = range(len(prompts))
    drawn = np.stack(
        [one.tokens_B for one in generator.rows(prompts, max_tokens=TOKENS, seeds=seeds)], axis=1
    )
    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            found = theirs.generate(
                torch.tensor([prompt]),
                do_sample=False,
                max_new_tokens=TOKENS,
                eos_token_id=-1,  # goes on for all of them
                pad_token_id=0,
            )
        expected = found[0, len(prompt) :].tolist()
        assert drawn[row].tolist() == expected, PROMPTS[row]
        if row < 2:
            assert list(generator(prompt, max_tokens=TOKENS, seed=0)) == expected


def nats(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Of every token but the first."""
    of = torch.from_numpy(logits[:-1].astype(np.float64))
    targets = torch.from_numpy(ids[1:]).long()
    return torch.nn.functional.cross_entropy(of, targets, reduction="none").numpy()


def windows(workdir: Path, source: str, split: str, stride: int) -> Windows:
    """What eval.py scores."""
    data = DataConfig(source=source, sequence_length=LENGTH)
    tokenizer = tokenizers.load(workdir / TOKENIZER)
    stores, _ = prepare_split(data, split, tokenizer, lambda *_: None)
    (store,) = stores.values()
    return Windows(store, LENGTH, 1, stride)


def scored(model: Any, some: Windows) -> Iterator[float]:
    """The nats of every token that windows score, by `transformers`, row by row."""
    for index in range(some.n_batches):
        batch = {name: rows[0] for name, rows in some.batch(index).items()}
        for segment in range(1, batch["segments"].max() + 1):
            mine = batch["segments"] == segment
            with torch.no_grad():
                ids = torch.from_numpy(batch["tokens"][mine][None]).long()
                logits = model(input_ids=ids).logits[0].double()
            targets = torch.from_numpy(batch["targets"][mine]).long()
            of_all = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
            yield from of_all[torch.from_numpy(batch["weights"][mine]) > 0].tolist()


def test_perplexity_by_windows(workdir, theirs, tmp_path, record_property):
    """eval.py beside `transformers` on the same windows, of a part of WikiText-2 (python -m
    bench.perplexity does the whole of it)."""
    text = (Path(ASSETS) / "wikitext-2" / "test.txt").read_text()
    (tmp_path / "part.txt").write_text(text[:30_000])
    source, stride = f"files:{tmp_path}/*.txt", 192
    printed = run(
        "eval.py",
        f"--workdir={workdir}",
        f"--source={source}",
        "--split=part.txt",
        f"--sequence_length={LENGTH}",
        f"--stride={stride}",
        "--batch_size=8",
    )
    found = json.loads(printed.splitlines()[-1])
    each = list(scored(theirs, windows(workdir, source, "part.txt", stride)))
    assert len(each) == found["tokens"] > 5000
    record_property("perplexity by windows, part", abs(math.exp(found["loss"] - np.mean(each)) - 1))
    assert found["loss"] == pytest.approx(float(np.mean(each)), abs=1e-3)


def test_goes_on_learning(workdir, tmp_path, record_property):
    """50 steps on books: the held-out loss falls, and what is exported has it in `transformers`."""
    excerpts(tmp_path / "train.jsonl", "train-00000-of-00008.jsonl.gz", 400_000)
    excerpts(tmp_path / "valid.jsonl", "valid.jsonl.gz", 8_000)
    source, stride = f"files:{tmp_path}/*.jsonl", LENGTH // 2

    def evaluated(model: Path) -> float:
        of = f"--source={source}", "--split=valid.jsonl", f"--sequence_length={LENGTH}"
        printed = run("eval.py", f"--workdir={model}", *of, f"--stride={stride}", "--batch_size=8")
        return float(json.loads(printed.splitlines()[-1])["loss"])

    run(
        "train.py",
        "--config=configs/continued.py",
        f"--workdir={tmp_path / 'run'}",
        f"--config.train.start_from={workdir}",
        f"--config.data.source={source}",
        "--config.data.train_split=train.jsonl",
        "--config.data.eval_split=valid.jsonl",
        f"--config.data.sequence_length={LENGTH}",
        f"--config.train.steps={STEPS}",
        "--config.train.batch_size=2",
        "--config.optimizer.learning_rate=3e-5",
        "--config.evaluation.every=0",
        "--config.report.prompts=()",
    )
    before, after = evaluated(workdir), evaluated(tmp_path / "run")
    print(f"held-out loss {before:.4f} -> {after:.4f}")
    assert after < before - 0.01
    run("convert.py", "to-hf", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'hf'}")
    exported = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", dtype=torch.float32
    )
    each = list(scored(exported.eval(), windows(workdir, source, "valid.jsonl", stride)))
    record_property("loss of the export", abs(float(np.mean(each)) - after))
    assert after == pytest.approx(float(np.mean(each)), abs=1e-4)


def excerpts(path: Path, of: str, size: int) -> None:
    """The first characters of the first books of a file."""
    with gzip.open(Path(ASSETS) / "books" / of, "rt") as lines, path.open("w") as out:
        for line in itertools.islice(lines, 5):
            book = json.loads(line)
            out.write(json.dumps({"id": book["id"], "text": book["text"][: size // 5]}) + "\n")
