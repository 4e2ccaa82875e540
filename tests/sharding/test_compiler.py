"""Options of the compiler: this version of XLA has them, and XLA_FLAGS goes before them."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sharding import compiler


def mesh(platform: str) -> Any:
    return SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)]))


def compile_with(options: dict[str, bool]) -> None:
    """XLA knows the options of all platforms on each of them."""
    jax.jit(lambda x: x + 1, compiler_options=options).lower(jnp.ones(2)).compile()


def test_xla_has_them() -> None:
    assert compiler.OPTIONS["gpu"]
    compile_with(compiler.options(mesh("gpu")))


def test_where_there_are_none() -> None:
    assert compiler.options(mesh("cpu")) == {}


def test_xla_refuses_others() -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_gpu_enable_nothing"):
        compile_with({"xla_gpu_enable_nothing": True})


def test_what_the_user_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "xla_gpu_enable_latency_hiding_scheduler"
    assert compiler.options(mesh("gpu"))[name]
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to=/x --{name}=false")
    assert name not in compiler.options(mesh("gpu"))
