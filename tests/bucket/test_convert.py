"""A converted model in a bucket: made there, trained from, talked to and written from there."""

import json

import pytest
from safetensors.numpy import load_file

from data.tokenizer import train_bpe
from tests.bucket.conftest import BUCKET
from tests.conversion.models import LLAMA, weights, write
from tests.running import Commands

TEXT = ["rose thorn née moon sea def return import\n" * 20]
SMALL = ("--config.train.steps=2", "--config.train.batch_size=4", "--config.report.max_tokens=2")


@pytest.mark.slow
def test_there_and_back(cloud: Commands, tmp_path):
    model = write(tmp_path / "model", LLAMA, weights())
    train_bpe(TEXT, 300).save(model / "tokenizer.json")
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    first, second = f"gs://{BUCKET}/converted", f"gs://{BUCKET}/continued"
    done = cloud("convert.py", "from-hf", str(model), f"--workdir={first}")
    assert done.returncode == 0, done.stderr
    again = cloud("convert.py", "from-hf", str(model), f"--workdir={first}")
    assert again.returncode == 2
    assert f"{first} has checkpoints already" in again.stderr

    source = (f"--config.train.start_from={first}", "--config.data.source=tfds:verses")
    data = (
        f"--config.data.data_dir={cloud.data}",
        "--config.data.train_split=train",
        "--config.data.eval_split=validation",
        "--config.data.sequence_length=32",
    )
    config = ("train.py", "--config=configs/continued.py", f"--workdir={second}")
    done = cloud(*config, *source, *data, *SMALL)
    assert done.returncode == 0, done.stderr

    chat = ("--chat", "--prompt=rose thorn", "--max_tokens=2")
    done = cloud("generate.py", f"--workdir={first}", *chat)
    assert done.returncode == 0, done.stderr

    for workdir, name in ((first, "first"), (second, "second")):
        out = tmp_path / name
        done = cloud("convert.py", "to-hf", f"--workdir={workdir}", f"--out={out}")
        assert done.returncode == 0, done.stderr
        assert json.loads((out / "config.json").read_text())["hidden_size"] == 32
        assert (out / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    read = load_file(tmp_path / "first" / "model.safetensors")
    for key, tensor in weights().items():
        assert read[key].tobytes() == tensor.tobytes()
