"""The bench of steps, on models so small that they run at once; without PyTorch."""

import json
import math

import pytest

from tests.running import Commands


@pytest.mark.slow
def test_both_families_without_a_peer(podium: Commands, tmp_path) -> None:
    out = tmp_path / "step.json"
    done = podium(
        "-m", "bench", "step", "--hardware=smoke", "--rounds=2", f"--out={out}",
        "--torch_python=no-such-python",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "PyTorch did not start" in done.stderr
    result = json.loads(out.read_text())
    assert result["command"] == (
        "python -m bench step --hardware=smoke --rounds=2 --torch_python=TORCH_PYTHON"
    )
    for name, layers in (("gpt2", 12), ("llama", 12)):
        found = result["shapes"][name]
        assert found["sides"]["podium"]["tokens_per_s"] > 0
        assert found["sides"]["podium"]["last_loss"] == pytest.approx(math.log(384), rel=0.05)
        # 6 x weights and the scores of half the keys, written out.
        weights = {"gpt2": 64 * 64 * 4 + 2 * 64 * 256, "llama": 64 * 64 * 3 + 3 * 64 * 128}[name]
        a_token = 6 * (2 * weights + 384 * 64) + layers * 2 * 64 * 32
        assert found["flops_a_step"] == 2 * 64 * a_token


def test_an_unknown_shape_is_one_line(podium: Commands) -> None:
    done = podium("-m", "bench", "step", "--hardware=smoke", "--shapes=bert")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == "error: --shapes=bert: smoke has gpt2, llama"
