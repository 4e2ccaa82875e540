"""plan.py as a user runs it."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.running import ROOT

# As if libtpu were not installed, whether it is or not.
WITHOUT_LIBTPU = """
import importlib.util as util, runpy, sys
find = util.find_spec
util.find_spec = lambda name, *more: None if name == "libtpu" else find(name, *more)
sys.argv = sys.argv[1:]
runpy.run_path("plan.py", run_name="__main__")
"""
TINY = ["--config=configs/tiny.py", "--config.mesh.data=-1"]
CASES = {
    "cpu": ["--topology=cpu:8", *TINY, "--json"],
    "cpu, told": ["--topology=cpu:2", *TINY],
    "no compiler": ["--topology=v5e:4x4", *TINY],
    "too large": ["--topology=v5e:2x4", "--config=configs/llama3_405b.py", "--nocompile"],
    "mended": ["--topology=v5e:4x4", "--config=configs/llama3_8b.py", "--nocompile"],
    "layout": ["--topology=v5e:16x16", "--config=configs/llama3_8b.py", "--nocompile"],
    "no topology": [*TINY],
    "no such chip": ["--topology=v5x:4x4", *TINY],
    "mesh": ["--topology=v5e:4x4", *TINY, "--config.mesh.tensor=3"],
    "rows": ["--topology=v5e:16x16", *TINY],
    "search without rates": ["--topology=cpu:8", *TINY, "--search"],
}


@pytest.fixture(scope="module")
def ended():
    def run(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", WITHOUT_LIBTPU, "plan.py", *CASES[name]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(run, CASES), strict=True))


def test_json(ended):
    done = ended["cpu"]
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["fits"] and plan["sizes"]["data"] == 8
    assert plan["needed"] >= sum(one["bytes"] for one in plan["tensors"])


def test_tables(ended):
    done = ended["cpu, told"]
    assert done.returncode == 0, done.stderr
    assert "memory of a device" in done.stdout and "all-reduce" in done.stdout


def test_without_libtpu_all_that_needs_no_compiler_is_told(ended):
    done = ended["no compiler"]
    assert done.returncode == 0, done.stderr
    assert "not compiled: libtpu is not installed: `make setup EXTRA=tpu`" in done.stdout
    assert "blocks.mlp.up" in done.stdout


def test_what_does_not_fit_has_an_exit_code_of_its_own(ended):
    done = ended["too large"]
    assert done.returncode == 3, done.stderr
    assert "IT DOES NOT FIT" in done.stdout
    assert "no change of layout mends it" in done.stdout


def test_what_would_mend_it_is_told_as_flags(ended):
    done = ended["mended"]
    assert done.returncode == 3, done.stderr
    assert "what would mend it" in done.stdout
    (more_chips,) = (line for line in done.stdout.splitlines() if "--topology=" in line)
    assert more_chips.endswith(
        "--topology=v5e:8x16 --slices=1 --config.layout=none --config.mesh.fsdp=128"
    )


def test_the_layout_is_told(ended):
    done = ended["layout"]
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("layout v5e-256: model.remat=save_attention, ")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no topology", "error: --topology is missing: give v5e:16x16"),
        ("no such chip", "error: --topology=v5x:4x4: no chip v5x; did you mean v5"),
        ("mesh", "error: config.mesh: "),
        ("rows", "error: config.mesh: mesh data=256 does not divide 64, the batch dimension of"),
        ("search without rates", "error: --search needs chips whose rates are known"),
    ],
)
def test_mistakes_are_told_in_a_line(ended, name, says):
    done = ended[name]
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(says) and done.stderr.count("\n") == 1
