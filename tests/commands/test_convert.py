"""convert.py as a user runs it: there and back, killed, and what is made of it."""

import functools
import json
import shutil
import signal
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file

from data import tokenizer as T
from data.tokenizer import ByteTokenizer, train_bpe
from tests.conversion.models import LLAMA, weights, write
from tests.running import Commands, assert_same_run, saved, wait_for
from training.fields import flat

HF = LLAMA | {"vocab_size": 300, "tie_word_embeddings": True, "eos_token_id": [1, 0]}
WEIGHTS = {  # norms in another dtype than the rest, as some are published
    name: tensor.astype(np.float32) if "layernorm" in name else tensor
    for name, tensor in weights(HF).items()
}
TEXT = ["rose thorn née moon sea def return import\n" * 20, "tale of a moon and a sea " * 9]
EIGHT = {"JAX_NUM_CPU_DEVICES": "8"}
GENERATION = {"temperature": 0.6, "eos_token_id": [1, 0]}
KEYS = [
    "--config.train.steps=6",
    "--config.train.batch_size=8",
    "--config.checkpoint.every=2",
    "--config.checkpoint.keep=9",
    "--config.evaluation.every=3",
    "--config.evaluation.batch_size=8",
    "--config.data.sequence_length=32",
    "--config.data.train_split=train",
    "--config.data.eval_split=validation",
    "--config.data.source=tfds:verses",
    "--config.report.max_tokens=4",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A checkpoint as others publish it, whose documents begin and end with the second id."""
    folder = write(tmp_path_factory.mktemp("published") / "model", HF, WEIGHTS, files=2)
    train_bpe(TEXT, 300).save(folder / "tokenizer.json")
    named = {"bos_token": {"content": "<|eos|>"}, "eos_token": "<|eos|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "training_args.bin").write_bytes(b"pickle")
    return folder


@pytest.fixture(scope="module")
def converted(podium: Commands, model, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("converted") / "run"
    args = (f"--workdir={workdir}", "--mesh=data=2,fsdp=2,tensor=2")
    done = podium("convert.py", "from-hf", str(model), *args, env=EIGHT)
    assert done.returncode == 0, done.stderr
    # The table has 384 rows, and a layer 2 x 32 + 32 x 8 x 2 x (4 + 2) + 3 x 32 x 64 numbers.
    assert done.stdout == f"{workdir}: 49,440 parameters of {model}\n"
    return workdir


def refused(done) -> str:
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    return last.removeprefix("error: ")


def start(workdir: Path, source: Path, data: Path, *args: str) -> list[str]:
    return [
        "train.py",
        "--config=configs/continued.py",
        f"--workdir={workdir}",
        f"--config.train.start_from={source}",
        f"--config.data.data_dir={data}",
        *KEYS,
        *args,
    ]


@pytest.fixture(scope="module")
def continued(podium: Commands, converted, tmp_path_factory) -> Path:
    """The workdir of an uninterrupted run that starts from the converted model."""
    workdir = tmp_path_factory.mktemp("continued") / "run"
    done = podium(*start(workdir, converted, podium.data))
    assert done.returncode == 0, done.stderr
    assert f"model of {converted}, and its tokenizer" in done.stderr
    assert f"starting from step 0 of {converted}, with a fresh optimizer" in done.stderr
    return workdir


def test_back_again_it_is_the_same_to_the_bit(podium: Commands, model, converted, tmp_path):
    out = tmp_path / "out"
    done = podium("convert.py", "to-hf", f"--workdir={converted}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    read, expected = load_file(out / "model.safetensors"), WEIGHTS
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].tobytes() == tensor.tobytes(), name
    config = json.loads((out / "config.json").read_text())
    assert config == HF | {"torch_dtype": "bfloat16"}
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (model / name).read_bytes()
    assert json.loads((out / "generation_config.json").read_text()) == GENERATION
    assert not (converted / "hf" / "training_args.bin").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]

    again = podium("convert.py", "to-hf", f"--workdir={converted}", f"--out={out}")
    assert refused(again) == f"--out={out} is there already: choose another"


def test_several_files_of_another_dtype(podium: Commands, converted, tmp_path):
    args = ("--dtype=float32", "--max_shard_gb=2e-5", "--mesh=fsdp=2,tensor=4")
    out = tmp_path / "out"
    done = podium("convert.py", "to-hf", f"--workdir={converted}", f"--out={out}", *args, env=EIGHT)
    assert done.returncode == 0, done.stderr
    files = sorted(out.glob("*.safetensors"))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert len(files) > 2
    assert set(index["weight_map"].values()) == {file.name for file in files}
    read = {name: tensor for file in files for name, tensor in load_file(file).items()}
    expected = WEIGHTS
    assert read.keys() == expected.keys() == index["weight_map"].keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(read[name], tensor.astype(np.float32))
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in read.values())


def test_what_a_workdir_is_refused_for(podium: Commands, model, converted):
    again = podium("convert.py", "from-hf", str(model), f"--workdir={converted}")
    assert refused(again) == f"{converted} has checkpoints already: choose another --workdir"
    train = podium(*podium.train(converted))
    assert refused(train) == (
        f"{converted} has a converted model: train from it by "
        f"--config.train.start_from={converted} and another --workdir"
    )
    evaluated = podium("eval.py", f"--workdir={converted}")
    assert refused(evaluated) == (
        f"{converted} has a converted model, which knows of no data: give --source (such as "
        "files:PATTERN), --split and --sequence_length (at most 128)"
    )


def test_it_is_evaluated_and_generates(podium: Commands, converted, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT[1])
    args = (f"--source=files:{tmp_path}/*.txt", "--split=text.txt", "--sequence_length=64")
    done = podium("eval.py", f"--workdir={converted}", *args)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["step"], result["bytes"]) == (0, len(TEXT[1]))
    assert 3 < result["loss"] < 9  # noise
    long = podium("eval.py", f"--workdir={converted}", *args[:2], "--sequence_length=129")
    assert refused(long) == "--sequence_length=129: the model takes 128 at most"
    drawn = podium("generate.py", f"--workdir={converted}", "--prompt=moon", "--max_tokens=3")
    assert drawn.returncode == 0, drawn.stderr


WHEN = {
    "at its start": lambda workdir: (workdir / ".converting").exists(),
    "reading": lambda workdir: (workdir / "hf").exists(),
    "saving": lambda workdir: any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")),
}


@pytest.mark.parametrize(
    "when",
    [
        pytest.param("at its start", marks=pytest.mark.slow),
        pytest.param("reading", marks=pytest.mark.slow),
        "saving",
    ],
)
def test_killed_it_leaves_nothing_that_looks_complete(
    podium: Commands, model, converted, tmp_path, when
):
    for attempt in range(8):  # all of it takes milliseconds here
        workdir = tmp_path / f"run{attempt}"
        command = ("convert.py", "from-hf", str(model), f"--workdir={workdir}")
        process = podium.start(*command)
        wait_for(functools.partial(WHEN[when], workdir), process)
        process.kill()
        process.communicate()
        if process.returncode == -signal.SIGKILL and not (workdir / "checkpoints" / "0").exists():
            break
    else:
        raise AssertionError("no kill was in time")
    assert refused(podium("eval.py", f"--workdir={workdir}")).startswith("no checkpoint in")
    train = refused(podium(*podium.train(workdir)))
    assert train.startswith(f"a conversion to {workdir} was interrupted: give its command again")
    again = podium(*command)
    assert again.returncode == 0, again.stderr
    assert not (workdir / ".converting").exists()
    for path, tensor in leaves(workdir, 0).items():
        np.testing.assert_array_equal(tensor, leaves(converted, 0)[path])
    assert {p.name for p in workdir.iterdir()} == {p.name for p in converted.iterdir()}


def leaves(workdir: Path, step: int) -> dict[str, np.ndarray]:
    return flat(saved(workdir, step, ("params",))["params"])


@pytest.mark.slow
def test_a_run_that_started_from_it_goes_on_without_it(
    podium: Commands, converted, continued, tmp_path
):
    """Killed after a checkpoint, and what it started from is gone: as if neither had been."""
    source, workdir = tmp_path / "source", tmp_path / "run"
    shutil.copytree(converted, source)
    command = start(workdir, source, podium.data)
    process = podium.start(*command)
    wait_for(lambda: (workdir / "checkpoints" / "2").exists(), process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "killed too late"
    assert not (workdir / "report.html").exists()
    source.rename(tmp_path / "gone")
    again = podium(*command)
    assert again.returncode == 0, again.stderr
    assert_same_run(workdir, continued, step=6)


@pytest.mark.slow
def test_before_its_first_checkpoint_it_needs_the_same_source(
    podium: Commands, converted, continued, tmp_path
):
    source, workdir = tmp_path / "source", tmp_path / "run"
    shutil.copytree(converted, source)
    command = start(workdir, source, podium.data)
    process = podium.start(*command)
    wait_for(lambda: (workdir / "run.json").exists(), process)
    process.kill()
    process.communicate()
    assert not (workdir / "checkpoints" / "2").exists(), "killed too late"
    shutil.rmtree(source)
    shutil.copytree(continued, source)
    assert refused(podium(*command)) == (
        f"{workdir} has no checkpoint yet, and what config.train.start_from leads to has changed "
        "since it began: choose another --workdir"
    )
    shutil.rmtree(source)
    shutil.copytree(converted, source)
    again = podium(*command)
    assert again.returncode == 0, again.stderr
    assert_same_run(workdir, continued, step=6)


def test_what_was_trained_is_written_as_what_it_was(podium: Commands, model, continued, tmp_path):
    """The names and forms of Llama's weights, by hand."""
    out = tmp_path / "out"
    done = podium("convert.py", "to-hf", f"--workdir={continued}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    read, params = load_file(out / "model.safetensors"), leaves(continued, 6)
    assert read.keys() == WEIGHTS.keys()
    key = params["blocks.attention.key"][2].transpose(1, 2, 0).reshape(16, 32)
    expected = {
        "model.embed_tokens.weight": params["embedding"][:300],
        "model.layers.2.self_attn.k_proj.weight": key,
        "model.layers.3.mlp.down_proj.weight": params["blocks.mlp.down"][3].T,
    }
    for name, tensor in expected.items():
        assert read[name].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(read[name], tensor.astype(ml_dtypes.bfloat16))
        assert not np.array_equal(read[name], WEIGHTS[name]), "it was not trained"
    assert (out / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()


@pytest.mark.slow
def test_a_run_of_its_own_is_written_with_its_tokenizer(podium: Commands, tmp_path):
    """Trained from nothing, by a tokenizer of Podium's."""
    workdir, out = tmp_path / "run", tmp_path / "out"
    args = ("--config.data.tokenizer=bpe", "--config.data.tokenizer_vocab_size=280")
    steps = ("--config.train.steps=1", "--config.optimizer.warmup_steps=1")
    assert podium(*podium.train(workdir, *args, *steps)).returncode == 0
    done = podium("convert.py", "to-hf", f"--workdir={workdir}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["model_type"], config["torch_dtype"]) == ("llama", "float32")
    assert (config["bos_token_id"], config["eos_token_id"]) == (0, 1)
    assert load_file(out / "model.safetensors")["model.norm.weight"].dtype == np.float32
    named = json.loads((out / "tokenizer_config.json").read_text())
    assert (named["bos_token"], named["eos_token"]) == ("<|bos|>", "<|eos|>")
    reader = tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))
    (ours,) = T.load(workdir / "tokenizer.json").encode_batch(["rose moon"])
    assert reader.encode("rose moon").ids == [0, *ours]  # as documents began
    # And in again: the same model.
    back = tmp_path / "back"
    done = podium("convert.py", "from-hf", str(out), f"--workdir={back}")
    assert done.returncode == 0, done.stderr
    found = leaves(back, 0)
    for path, tensor in leaves(workdir, 1).items():
        rows = slice(280 if path in ("embedding", "unembedding") else None)  # the rest is padding
        np.testing.assert_array_equal(tensor[rows], found[path][rows])


@pytest.mark.slow
def test_a_run_with_another_tokenizer_than_it_starts_from(podium: Commands, converted, tmp_path):
    """Of what was published it has config.json alone, and draws texts all the same."""
    workdir = tmp_path / "run"
    args = ["--config.data.tokenizer=byte", "--config.train.steps=1", "--config.report.prompts=()"]
    done = podium(*start(workdir, converted, podium.data, *args))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (workdir / "hf").iterdir()] == ["config.json"]
    prompt = "--prompt=rose", "--max_tokens=4"
    text = podium("generate.py", f"--workdir={workdir}", *prompt)
    assert text.returncode == 0, text.stderr
    assert text.stdout.startswith("rose")
    chat = podium("generate.py", f"--workdir={workdir}", "--chat", *prompt)
    assert "this model has no chat template" in refused(chat)
    done = podium("convert.py", "to-hf", f"--workdir={workdir}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0 and "the tokenizer is not written" in done.stderr
    ids = {"bos_token_id": ByteTokenizer.bos_id, "eos_token_id": ByteTokenizer.eos_id}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == HF | ids | {"pad_token_id": None, "torch_dtype": "bfloat16"}


def test_another_model_than_it_starts_from(podium: Commands, converted, tmp_path):
    command = start(tmp_path / "run", converted, podium.data, "--config.model.num_layers=3")
    assert refused(podium(*command)) == (
        f"config.train.start_from={converted} is another model: config.model.num_layers=3, where "
        "it has 4; leave these keys out"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "say from-hf or to-hf first: see --help"),
        (("from-here", "x"), "say from-hf or to-hf first, not 'from-here': see --help"),
        (("from-hf",), "from-hf takes one folder or id of the hub: none was given"),
        (("from-hf", "a", "b"), "from-hf takes one folder or id of the hub: a b"),
        (("from-hf", "a", "--out=b"), "--out is for to-hf"),
        (("to-hf",), "--out is missing: the folder to make"),
        (("to-hf", "--out=gs://a/b"), "--out=gs://a/b: give a folder of this machine, and copy"),
        (("to-hf", "a", "--out=b"), "to-hf takes no argument but flags: a"),
        (("from-hf", "no/such/place"), "no/such/place: give a folder with config.json, or an id"),
        (("to-hf", "--out=b"), "no run in runs/none: there is no such directory"),
    ],
)
def test_bad_arguments(podium: Commands, arguments, says):
    assert says in refused(podium("convert.py", *arguments, "--workdir=runs/none"))
    assert not Path("runs/none").exists()


@pytest.mark.slow
def test_two_processes_convert_together(podium: Commands, model, converted, tmp_path):
    """Each reads what its devices need; what they save together is what one saves."""
    workdir = tmp_path / "run"
    args = ("convert.py", "from-hf", str(model), f"--workdir={workdir}", "--mesh=fsdp=2,tensor=2")
    ends = podium.pair(args, env=[{"JAX_NUM_CPU_DEVICES": "2"}] * 2).wait(180)
    assert [end.code for end in ends] == [0, 0], ends[0].err + ends[1].err
    found = leaves(workdir, 0)
    for path, tensor in leaves(converted, 0).items():
        np.testing.assert_array_equal(found[path], tensor)
    assert json.loads((workdir / "run.json").read_text())["imported"]


def test_a_plan_of_a_run_that_starts_from_it(podium: Commands, converted):
    args = [f"--config.train.start_from={converted}", "--config.data.source=files:none"]
    args += ["--config.data.sequence_length=64"]
    topology = ("--topology=cpu:1", "--nocompile", "--json")
    done = podium("plan.py", "--config=configs/continued.py", *args, *topology)
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)["config"]["model"]
    assert (model["num_layers"], model["vocab_size"], model["embed_dim"]) == (4, 300, 32)
