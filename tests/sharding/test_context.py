"""Attention of rows that lie along `context`, in both forms, against attention on one device."""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.attention import attend
from model.config import ModelConfig
from model.kernels import blockwise, splash, splash_parts
from sharding import attention as dispatch
from sharding.attention import Form, attention, described, kernel
from sharding.order import natural, spread
from sharding.table import sharding
from tests.jaxprs import equations
from tests.model.conftest import small_config
from tests.training.sharded import mesh_of

SLOW = pytest.mark.slow
Sizes = dict[str, int]


def arrays(length: int, config: ModelConfig, rows: int = 4) -> tuple[jax.Array, ...]:
    """Queries, keys, values and segments of several documents, some rows padded at the end."""
    rng = np.random.default_rng(length)
    heads = config.num_heads, config.num_kv_heads, config.num_kv_heads
    q, k, v = (
        jnp.asarray(rng.normal(size=(rows, length, n, config.head_dim)), jnp.float32) for n in heads
    )
    segments = np.cumsum(rng.random((rows, length)) < 3 / length, axis=1)
    segments[::2, length - length // 5 :] = 0
    return q, k, v, jnp.asarray(segments, jnp.int32)


def slopes(attended: Callable[..., jax.Array], *arrays: jax.Array) -> Any:
    """Attention, and the gradients of a function of it in queries, keys and values."""

    def total(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
        out = attended(q, k, v, arrays[3])
        return jnp.sum(jnp.sin(3 * out)), out

    return jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(*arrays[:3])


def spread_heads(mesh: Any, x: jax.Array) -> jax.Array:
    """`spread` of [B, T, ...]."""
    flat = x.reshape(*x.shape[:2], -1)
    columns = jax.vmap(lambda x_BT: spread(mesh, x_BT), in_axes=2, out_axes=2)(flat)
    return columns.reshape(x.shape)


def compare(
    sizes: Sizes, asked: Any, config: ModelConfig, length: int, reference: Any = None
) -> None:
    mesh, devices = mesh_of(**sizes), sizes["context"]
    on_mesh = attention(mesh, config, asked)

    def ours(*arrays: jax.Array) -> jax.Array:
        return natural(on_mesh(*(spread_heads(mesh, x) for x in arrays)), devices)

    def written_out(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        window, softcap = config.sliding_window, config.attention_softcap
        return attend(q, k, v, segments, segments, window=window, softcap=softcap)

    given = arrays(length, config)
    found, expected = slopes(ours, *given), slopes(reference or written_out, *given)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(np.abs(b).max() + 1))


def only(monkeypatch: pytest.MonkeyPatch, form: Form, attend: Any) -> None:
    """The kernel of a form, whatever the hardware."""
    alone = (dispatch.Kernel("", "", lambda config: True, attend),)
    monkeypatch.setattr(dispatch, "KERNELS", {form: alone})


BLOCKWISE: dict[Form, Any] = {"ring": blockwise.parts, "gather": blockwise.attend_part}
SPLASH: dict[Form, Any] = {"ring": splash_parts.parts, "gather": splash.attend_part}


@pytest.mark.parametrize("form", ["ring", "gather"])
@pytest.mark.parametrize(
    ("sizes", "kv_heads", "window", "softcap"),
    [
        (dict(context=8), 2, 0, 0.0),
        (dict(context=4, fsdp=2), 4, 37, 2.0),
        (dict(context=2, fsdp=2, tensor=2), 2, 0, 0.0),
        # Key-value heads lie whole on the devices along `tensor`.
        pytest.param(dict(context=2, tensor=4), 1, 5, 0.0, marks=SLOW),
        pytest.param(dict(context=2), 2, 100, 0.0, marks=SLOW),
        pytest.param(dict(context=8), 1, 7, 2.0, marks=SLOW),
        pytest.param(dict(context=4, tensor=2), 2, 0, 2.0, marks=SLOW),
        pytest.param(dict(context=4, data=2), 4, 1, 0.0, marks=SLOW),
    ],
    ids=str,
)
def test_forms(
    form: Any,
    sizes: Sizes,
    kv_heads: int,
    window: int,
    softcap: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chunks of 12 tokens in blocks of 8, the second of which is half padding."""
    only(monkeypatch, form, functools.partial(BLOCKWISE[form], block=8))
    config = small_config(
        num_kv_heads=kv_heads, sliding_window=window, attention_softcap=softcap, head_dim=6
    )
    compare(sizes, form, config, 24 * sizes["context"])


@pytest.mark.parametrize(
    ("form", "context", "chunk", "window", "softcap"),
    [
        ("ring", 2, 100, 0, 0.0),
        ("gather", 2, 100, 150, 0.0),
        pytest.param("ring", 4, 256, 0, 2.0, marks=SLOW),
        pytest.param("gather", 4, 256, 0, 2.0, marks=SLOW),
    ],
)
def test_splash(
    form: Any,
    context: int,
    chunk: int,
    window: int,
    softcap: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, form, functools.partial(SPLASH[form], interpret=True))
    config = small_config(sliding_window=window, attention_softcap=softcap, head_dim=32)
    compare(dict(context=context), form, config, 2 * context * chunk)


@pytest.mark.parametrize("form", ["ring", pytest.param("gather", marks=SLOW)])
def test_in_bfloat16(form: Any) -> None:
    """Gradients that travel are summed in float32: as near to the exact ones as on one device."""
    config = small_config(head_dim=32)
    exact = arrays(256, config)
    half = (*(x.astype(jnp.bfloat16) for x in exact[:3]), exact[3])

    def found(context: int, *given: jax.Array) -> Any:
        mesh = mesh_of(context=context)
        on_mesh = attention(mesh, config, form)

        def attended(*arrays: jax.Array) -> jax.Array:
            if context == 1:
                return on_mesh(*arrays)
            return natural(on_mesh(*(spread_heads(mesh, x) for x in arrays)), context)

        return slopes(attended, *given)

    expected = found(1, *exact)
    for context in (1, 4):
        values = found(context, *half)
        assert {leaf.dtype for leaf in jax.tree.leaves(values[1])} == {jnp.dtype(jnp.bfloat16)}
        for a, b in zip(jax.tree.leaves(values[1]), jax.tree.leaves(expected[1]), strict=True):
            assert np.linalg.norm(a.astype(np.float32) - b) < 0.01 * np.linalg.norm(b)


@pytest.mark.parametrize("form", ["ring", "gather"])
def test_what_is_kept_spares_attention(form: Any) -> None:
    """Where remat keeps "attention", the backward pass does not compute it again."""
    config, mesh = small_config(), mesh_of(context=4)
    q, k, v, segments = arrays(64, config)
    on_mesh = attention(mesh, config, form)

    def work(wrap: Callable[..., Any]) -> int:
        attended = wrap(lambda q, k, v: on_mesh(q, k, v, segments))
        total = jax.grad(lambda q, k, v: jnp.sum(jnp.square(attended(q, k, v))), (0, 1, 2))
        return len(list(equations(jax.make_jaxpr(total)(q, k, v), "dot_general")))

    def kept(*names: str) -> Any:
        policy = jax.checkpoint_policies.save_only_these_names(*names)
        return functools.partial(jax.checkpoint, policy=policy)

    plain = work(lambda function: function)
    assert work(kept("attention")) == plain
    assert work(kept()) > plain


def test_what_is_gathered_is_not_kept() -> None:
    """It is gathered again in the backward pass, also where remat is "none"."""
    config, mesh = small_config(), mesh_of(context=4)
    q, k, v, segments = arrays(64, config)
    on_mesh = attention(mesh, config, "gather")
    total = jax.grad(lambda q, k, v: jnp.sum(on_mesh(q, k, v, segments)), (0, 1, 2))
    gathers = list(equations(jax.make_jaxpr(total)(q, k, v), "all_gather"))
    assert len(gathers) == 6  # of keys, values and segments, twice


@pytest.mark.parametrize(
    ("platform", "options", "asked", "says"),
    [
        ("tpu", {}, "auto", "splash (Pallas), in a ring of context=4"),
        ("tpu", {}, "gather", "splash (Pallas), keys gathered over context=4"),
        ("tpu", {"sliding_window": 8}, "auto", "splash (Pallas), keys gathered over context=4"),
        ("tpu", {"sliding_window": 8}, "ring", "blockwise (XLA), in a ring of context=4"),
        ("tpu", {"dtype": "float32"}, "auto", "blockwise (XLA), in a ring of context=4"),
        ("gpu", {"head_dim": 64}, "auto", "blockwise (XLA), in a ring of context=4"),
        ("cpu", {"sliding_window": 8}, "auto", "blockwise (XLA), in a ring of context=4"),
        ("cpu", {}, "gather", "blockwise (XLA), keys gathered over context=4"),
    ],
)
def test_auto(platform: str, options: dict[str, Any], asked: Any, says: str) -> None:
    devices = np.array([SimpleNamespace(platform=platform)])
    mesh: Any = SimpleNamespace(devices=devices, shape={"context": 4})
    config = small_config(**{"dtype": "bfloat16"} | options)
    assert described(mesh, config, asked) == says
    mesh.shape["context"] = 1
    assert described(mesh, config, asked) == kernel(mesh, config, asked).name


@pytest.mark.slow
@pytest.mark.parametrize("form", ["ring", "gather"])
def test_32768_tokens(form: Any) -> None:
    """Over eight devices, against blockwise attention on one."""
    config = small_config(num_heads=2, num_kv_heads=1, head_dim=8)
    compare(dict(context=8), form, config, 32768, attention(mesh_of(), config))


def temporaries(context: int, length: int) -> int:
    """Bytes on a device beside arguments and results, of attention and its gradients."""
    config, mesh = small_config(num_heads=8, num_kv_heads=2, head_dim=16), mesh_of(context=context)
    on_mesh = attention(mesh, config)

    def like(*shape: int, dtype: Any = jnp.float32) -> Any:
        where = sharding(mesh, ("batch", "length", "heads", "head_dim")[: len(shape)], shape)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    q, k = like(1, length, 8, 16), like(1, length, 2, 16)
    segments = like(1, length, dtype=jnp.int32)

    def total(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(on_mesh(q, k, v, segments)))

    step = jax.jit(jax.grad(total, (0, 1, 2)))
    memory = step.lower(q, k, k, segments).compile().memory_analysis()
    assert memory is not None
    return int(memory.temp_size_in_bytes)


def test_memory_of_a_ring_is_that_of_a_devices_part() -> None:
    """What is in flight beside what is held keeps attention alone from falling by eight."""
    whole, part = temporaries(1, 131072), temporaries(8, 131072)
    assert part < whole / 4
    assert temporaries(8, 262144) < 2.1 * part


@pytest.mark.parametrize("form", ["ring", "gather"])
def test_tpus(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the compiler of TPUs, which needs none: in a ring, what travels does so meanwhile."""
    pytest.importorskip(
        "libtpu", reason="the compiler of TPUs is not here: make setup-dev EXTRA=tpu"
    )
    from jax.experimental import topologies

    from sharding.config import MeshConfig
    from sharding.mesh import make_mesh

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, context=4), devices)
    config = small_config(num_heads=4, num_kv_heads=2, head_dim=64, dtype="bfloat16")
    on_mesh = attention(mesh, config, form)

    def like(*shape: int, dtype: Any = jnp.bfloat16) -> Any:
        where = sharding(mesh, ("batch", "length", "heads", "head_dim")[: len(shape)], shape)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    q, k, segments = like(2, 8192, 4, 64), like(2, 8192, 2, 64), like(2, 8192, dtype=jnp.int32)

    def total(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        return jnp.sum(on_mesh(q, k, v, segments).astype(jnp.float32))

    step = jax.jit(jax.grad(total, (0, 1, 2)))
    lines = str(step.lower(q, k, k, segments).compile().as_text()).splitlines()
    kernels = [n for n, line in enumerate(lines) if "tpu_custom_call" in line]
    if form == "gather":
        assert len(kernels) >= 3
        return
    started = {}
    meanwhile = []
    for number, line in enumerate(lines):
        name, _, rest = line.strip().partition(" = ")
        if "collective-permute-start(" in rest:
            started[name] = number
        elif "collective-permute-done(" in rest:
            begun = started[rest.split("collective-permute-done(")[1].split(")")[0]]
            meanwhile.append(sum(begun < n < number for n in kernels))
    assert sum(n > 0 for n in meanwhile) >= 8  # keys and values, forward and backward, of 15
