"""--config and its overrides, parsed as a command parses them."""

import sys

import pytest
from absl import flags as absl_flags
from ml_collections import ConfigDict

from configs import flags
from errors import UserError


@pytest.fixture
def parsed(monkeypatch):
    """Parses arguments with flags of its own, and gives the config."""
    values = absl_flags.FlagValues()
    monkeypatch.setattr(absl_flags, "FLAGS", values)
    monkeypatch.setattr("ml_collections.config_flags.config_flags.FLAGS", values)

    def parse(*arguments: str) -> ConfigDict:
        argv = ["train.py", *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        flags.define(values)
        values(argv)
        return values["config"].value

    return parse


def test_overrides_arrive(parsed):
    config = parsed(
        "--config=configs/tiny.py",
        "--config.train.steps=7",
        "--config.report.prompts=('a','b')",
        "--config.model.bias",
        "--noconfig.model.qk_norm",
    )
    assert (config.train.steps, config.report.prompts) == (7, ("a", "b"))
    assert (config.model.bias, config.model.qk_norm) == (True, False)


def test_what_must_be_given_can_be_given(parsed):
    config = parsed("--config=configs/gpt2_124m.py", "--config.data.tokenizer=byte")
    assert config.data.tokenizer == "byte"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config.trian.steps=3"], "unknown config key trian.steps: did you mean train.steps?"),
        (["--config.train.step=3"], "unknown config key train.step: did you mean train.steps?"),
        (["-config.train.step", "3"], "did you mean train.steps?"),
        (["--noconfig.model.biass"], "did you mean model.bias?"),
        (["--config.report.prompt[0]=x"], "did you mean report.prompts?"),
    ],
)
def test_unknown_keys_are_one_line(parsed, arguments, says):
    with pytest.raises(UserError, match=f"{says.replace('?', '[?]')}$") as error:
        parsed("--config=configs/tiny.py", *arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("configs/tiney.py", r"no config file configs/tiney.py: did you mean configs/tiny.py\?"),
        ("configs/llama.py", r"did you mean configs/llama_1b.py\?"),
        ("zzz", "no config file zzz: there are books, chat, continued, deepseek_moe_16b, "),
        ("configs", "no config file configs: there are"),
    ],
)
def test_no_such_file(parsed, path, says):
    with pytest.raises(UserError, match=says):
        parsed(f"--config={path}")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("config.train.steps = 'many'", "steps"),
        ("config.trian.steps = 3", "trian"),
        ("open('nowhere')", "nowhere"),
        ("int('x')", "invalid literal"),
    ],
)
def test_a_file_that_is_wrong_is_named(parsed, tmp_path, line, says):
    path = tmp_path / "mine.py"
    path.write_text(
        f"from configs.base import base\ndef get_config():\n  config = base()\n  {line}\n"
        "  return config\n"
    )
    with pytest.raises(UserError, match=rf"mine\.py: .*{says}") as error:
        parsed(f"--config={path}", "--config.train.steps=3")
    assert "\n" not in str(error.value)


def test_the_runs_are_those_that_can_be_run():
    for name in flags.runs():
        module = __import__(f"configs.{name}", fromlist=["get_config"])
        assert isinstance(module.get_config(), ConfigDict)
    assert "tiny" in flags.runs()
