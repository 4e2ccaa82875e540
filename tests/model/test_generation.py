"""Generation: the cache changes nothing, and sampling keeps to its rules."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model import parameters
from model.generation import Generator, Sampling
from sharding.config import decoding_mesh
from sharding.means import means
from sharding.mesh import make_mesh
from sharding.table import sharding
from tests.model.conftest import KINDS, LONG, lively, runner, small_config
from training.state import abstract_params, shardings_of


def _generator(kind, how, **options):
    model = lively(small_config(kind))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return model, Generator(parameters.outline(model.config), params, how, **options)


PLATFORMS = [
    # Layers lie apart on CPUs, and are stacked elsewhere: both run anywhere.
    *(
        pytest.param(
            kind, "accelerator", marks=pytest.mark.slow if kind in (*LONG, "latent") else []
        )
        for kind in KINDS
    ),
    *(("llama", "cpu"), ("deepseek", "cpu")),
    *(pytest.param(kind, "cpu", marks=pytest.mark.slow) for kind in KINDS),
]


@pytest.mark.parametrize(("kind", "platform"), PLATFORMS)
def test_with_cache_equals_without(kind, platform):
    model, generator = _generator(kind, Sampling(temperature=0), platform=platform)
    run = runner(model.config)
    ones = np.ones((1, 24), np.int32)
    for prompt in ([5], list(range(10))):
        want = list(prompt)
        for _ in range(12):
            padded = np.array([want + [0] * (24 - len(want))], np.int32)
            logits = run(padded, np.arange(24)[None], ones)  # causal: padding is not seen
            want.append(int(logits[0, len(want) - 1].argmax()))
        assert list(generator(prompt, max_tokens=12, seed=0)) == want[len(prompt) :]


@pytest.mark.slow  # the texts of test_with_cache_equals_without are ordinary
def test_logits_with_cache_equal_logits_without(kind):
    model = lively(small_config(kind))
    tokens = jax.random.randint(jax.random.key(0), (2, 16), 0, 61)
    positions, ones = jnp.broadcast_to(jnp.arange(16), (2, 16)), jnp.ones_like(tokens)
    want = runner(model.config)(tokens, positions, ones)
    cache, got = model.empty_cache(2, 20), []
    for part in (slice(0, 7), slice(7, 8), slice(8, 16)):
        arguments = tokens[:, part], positions[:, part], ones[:, part], cache
        x, cache, _ = model.features(*arguments, jnp.int32(part.start) if part.start else 0)
        got.append(model.unembed(x))
    np.testing.assert_allclose(
        jnp.concatenate(got, 1)[..., :61], want[..., :61], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("kind", "devices"),
    [
        ("gpt2", 2),
        ("llama", 8),
        pytest.param("multi_query", 3, marks=pytest.mark.slow),
        pytest.param("mixtral", 8, marks=pytest.mark.slow),
        pytest.param("gpt2", 1, marks=pytest.mark.slow),
        pytest.param("deepseek", 2, marks=pytest.mark.slow),
    ],
)
def test_same_text_on_the_mesh_made_for_decoding(kind, devices):
    config = small_config(kind)
    sizes = config.num_heads, *config.mlp_widths, config.padded_vocab_size
    mesh = make_mesh(decoding_mesh(devices, *sizes), jax.devices()[:devices])
    assert (mesh.shape["tensor"], mesh.shape["fsdp"]) == (math.gcd(devices, 4), 1)
    outline = parameters.outline(config, means(mesh, config))
    values = nnx.to_pure_dict(nnx.state(lively(config), nnx.Param))
    params = jax.device_put(values, shardings_of(abstract_params(outline, mesh)))
    how = Sampling(temperature=1.5, top_p=0.95)
    _, alone = _generator(kind, how)
    want = list(alone.rows(PROMPTS, max_tokens=12, seeds=range(5)))
    for platform in ("cpu", "accelerator"):
        spread = Generator(outline, params, how, sharding(mesh, ()), platform=platform)
        got = list(spread.rows(PROMPTS, max_tokens=12, seeds=range(5)))
        assert len(got) == len(want) == 12
        for a, b in zip(got, want, strict=True):
            assert a.tokens_B.tolist() == b.tokens_B.tolist()
            np.testing.assert_allclose(a.logprobs_B, b.logprobs_B, atol=2e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_weights_are_cast_once_and_give_the_same_logits(kind):
    config = small_config(kind, dtype="bfloat16")
    model = lively(config)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    cast = parameters.in_compute_dtype(parameters.outline(config), params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(cast):
        name = path[-1].key
        keeps = "norm" in str(path) or name in ("out_bias", "down_bias", "position_embedding")
        assert leaf.dtype == (jnp.float32 if keeps else jnp.bfloat16), path
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(cast), strict=True):
        assert before.dtype == jnp.float32 and after.sharding == before.sharding
    tokens = jnp.arange(16)[None]
    arguments = tokens, tokens, jnp.ones_like(tokens)
    run = jax.jit(lambda p: parameters.bind(parameters.outline(config), p)(*arguments))
    # Only the embedding differs where learned positions are added to it.
    exact = config.positions == "rope"
    want, got = run(params)[..., :61], run(cast)[..., :61]
    np.testing.assert_allclose(got, want, rtol=0, atol=0 if exact else 0.05 * np.abs(want).max())
    full = lively(small_config(kind))
    same = nnx.to_pure_dict(nnx.state(full, nnx.Param))
    assert parameters.in_compute_dtype(full, same) is same


def test_same_seed_same_text_and_stop():
    _, generator = _generator("llama", Sampling(temperature=1.5))
    first = list(generator([3, 4], max_tokens=20, seed=7))
    assert first == list(generator([3, 4], max_tokens=20, seed=7))
    assert first != list(generator([3, 4], max_tokens=20, seed=8))
    assert (
        list(generator([3, 4], max_tokens=20, seed=7, stop=first[5]))
        == first[: first.index(first[5])]
    )


PROMPTS = [[5], [3, 4, 5, 6, 7, 8, 9], [9, 2], list(range(1, 12)), [7, 7, 7]]


_GREEDY = Sampling(temperature=0)
_BY_ALL_RULES = Sampling(1.5, top_k=20, top_p=0.95, min_p=0.01, repetition_penalty=1.3)


@pytest.mark.parametrize(
    ("kind", "platform", "how"),
    [
        ("llama", "cpu", _GREEDY),
        ("llama", "accelerator", _BY_ALL_RULES),
        ("gpt2", "cpu", _BY_ALL_RULES),
        ("gemma", "cpu", _BY_ALL_RULES),
        ("deepseek", "accelerator", _BY_ALL_RULES),
        *(
            pytest.param(kind, platform, _BY_ALL_RULES, marks=pytest.mark.slow)
            for kind in KINDS
            for platform in ("cpu", "accelerator")
        ),
    ],
)
def test_rows_of_unequal_length_equal_those_alone(kind, platform, how):
    """The text, and the log-probabilities: what stands beside a row changes nothing."""
    _, generator = _generator(kind, how, platform=platform, top=3)
    seeds = [7, 8, 7, 1, 0]
    together = list(generator.rows(PROMPTS, max_tokens=10, seeds=seeds))
    texts = set()
    for row, (prompt, seed) in enumerate(zip(PROMPTS, seeds, strict=True)):
        alone = list(generator.rows([prompt], max_tokens=10, seeds=[seed]))
        assert len(alone) == len(together) == 10
        texts.add(tuple(one.tokens_B.item() for one in alone))
        for one, all_rows in zip(alone, together, strict=True):
            assert one.tokens_B[0] == all_rows.tokens_B[row]
            np.testing.assert_allclose(one.logprobs_B[0], all_rows.logprobs_B[row], atol=2e-4)
            np.testing.assert_allclose(
                one.top_logprobs_BR[0], all_rows.top_logprobs_BR[row], atol=2e-4
            )
    assert len(texts) > len(PROMPTS) // 2  # they could have differed


@pytest.mark.parametrize("platform", ["cpu", "accelerator"])
@pytest.mark.parametrize("kind", ["llama", "everything", "mixtral"])
def test_log_probabilities_are_those_of_the_whole_text(kind, platform):
    model, generator = _generator(kind, Sampling(temperature=2.0), platform=platform, top=2)
    prompt = [3, 4, 5]
    drawn = list(generator.rows([[1], prompt], max_tokens=9, seeds=[0, 1]))
    text = [*prompt, *(one.tokens_B[1].item() for one in drawn)]
    padded = np.array([text + [0] * (24 - len(text))], np.int32)
    logits = runner(model.config)(padded, np.arange(24)[None], np.ones((1, 24), np.int32))
    logprobs = np.asarray(jax.nn.log_softmax(logits[0, :, :61], axis=-1))
    for at, one in enumerate(drawn, start=len(prompt)):
        row = logprobs[at - 1]
        np.testing.assert_allclose(one.logprobs_B[1], row[text[at]], atol=1e-3)
        np.testing.assert_allclose(one.top_logprobs_BR[1], np.sort(row)[:-3:-1], atol=1e-3)
        np.testing.assert_allclose(row[one.top_ids_BR[1]], one.top_logprobs_BR[1], atol=1e-3)


def test_the_penalty_is_of_prompt_and_text_alone():
    """So large that no token comes twice, and padding, which is zeros, counts for nothing."""
    how = Sampling(temperature=0, repetition_penalty=1e9)
    _, generator = _generator("llama", how)
    prompts = [[37], [3, 4, 5, 6, 7, 8, 9], [60]]
    drawn = list(generator.rows(prompts, max_tokens=12, seeds=[0, 0, 0]))
    model = lively(small_config("llama"))
    run = runner(model.config)
    for row, prompt in enumerate(prompts):
        text = list(prompt)
        for one in drawn:
            padded = np.array([text + [0] * (24 - len(text))], np.int32)
            logits = run(padded, np.arange(24)[None], np.ones((1, 24), np.int32))
            logits = np.asarray(logits[0, len(text) - 1, :61], np.float64)
            seen = np.isin(np.arange(61), text)
            by = np.where(logits < 0, 1e9, 1e-9)
            text.append(int(np.where(seen, logits * by, logits).argmax()))
            assert text[-1] == one.tokens_B[row]
    assert [0 in [one.tokens_B[row] for one in drawn] for row in range(3)] != [False] * 3


@pytest.mark.parametrize("platform", ["cpu", "accelerator"])
def test_a_cache_in_bfloat16(platform):
    """It is what it says, and changes log-probabilities by its rounding alone."""
    _, full = _generator("llama", Sampling(temperature=0), platform=platform)
    _, half = _generator("llama", Sampling(0), platform=platform, cache_dtype="bfloat16")
    kept = [leaf.dtype for leaf in jax.tree.leaves(half._empty(2, 8).layers)]
    assert set(kept) == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(full._empty(2, 8).layers)} == {
        jnp.dtype("float32")
    }
    want = np.array([one.logprobs_B for one in full.rows([[5, 6]], max_tokens=1, seeds=[0])])
    got = np.array([one.logprobs_B for one in half.rows([[5, 6]], max_tokens=1, seeds=[0])])
    np.testing.assert_array_equal(got, want)  # the prompt itself is not read from it
    for a, b in zip(
        full.rows([[5, 6, 7]], max_tokens=2, seeds=[0]),
        half.rows([[5, 6, 7]], max_tokens=2, seeds=[0]),
        strict=True,
    ):
        np.testing.assert_allclose(a.logprobs_B, b.logprobs_B, atol=0.1)


@pytest.mark.parametrize("kind", ["gpt2", pytest.param("mixtral", marks=pytest.mark.slow)])
def test_a_bfloat16_model_on_a_cpu_is_computed_in_float32(kind):
    """With its weights rounded: the text is that of a float32 model that has those weights."""
    config = small_config(kind, dtype="bfloat16")
    params = nnx.to_pure_dict(nnx.state(lively(config), nnx.Param))
    rounded = jax.tree.map(
        lambda x: x.astype(jnp.float32),
        parameters.in_compute_dtype(parameters.outline(config), params),
    )
    how = Sampling(temperature=0)
    half = Generator(parameters.outline(config), params, how, cache_dtype="float32")
    full = Generator(parameters.outline(small_config(kind)), rounded, how)
    assert {leaf.dtype for leaf in jax.tree.leaves(half._empty(1, 8).layers)} == {
        jnp.dtype("float32")
    }
    for a, b in zip(
        half.rows([[3, 4]], max_tokens=8, seeds=[0]),
        full.rows([[3, 4]], max_tokens=8, seeds=[0]),
        strict=True,
    ):
        assert a.tokens_B == b.tokens_B
        np.testing.assert_allclose(a.logprobs_B, b.logprobs_B, atol=1e-5)
    default = Generator(parameters.outline(config), params, how)
    assert {leaf.dtype for leaf in jax.tree.leaves(default._empty(1, 8).layers)} == {
        jnp.dtype("bfloat16")
    }


def test_the_cache_is_split_like_keys_and_values():
    config = small_config("llama", num_kv_heads=4)
    mesh = make_mesh(decoding_mesh(8, 4, 48, 64), jax.devices())
    outline = parameters.outline(config, means(mesh, config))
    values = nnx.to_pure_dict(nnx.state(lively(config), nnx.Param))
    params = jax.device_put(values, shardings_of(abstract_params(outline, mesh)))
    for platform, layers in (("cpu", ()), ("accelerator", (3,))):
        generator = Generator(outline, params, Sampling(), sharding(mesh, ()), platform=platform)
        leaves = jax.tree.leaves(generator._empty(4, 16).layers)
        assert len(leaves) == (2 if layers else 6)
        for leaf in leaves:  # rows over data=2, heads over tensor=4
            assert leaf.shape == (*layers, 4, 16, 4, 8)
            assert leaf.addressable_shards[0].data.shape == (*layers, 2, 16, 1, 8)


def test_too_long_and_empty_are_refused():
    _, generator = _generator("llama", Sampling())
    assert len(list(generator([1] * 20, max_tokens=4, seed=0))) == 4
    with pytest.raises(ValueError, match="together exceed the model's max_length=24"):
        generator([1] * 20, max_tokens=5, seed=0)
    with pytest.raises(ValueError, match="the prompt is empty"):
        generator([], max_tokens=5, seed=0)
    with pytest.raises(ValueError, match="the prompt is empty"):
        generator.rows([[1], []], max_tokens=5, seeds=[0, 0])
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        generator.rows([[1], [2]], max_tokens=5, seeds=[0])
    with pytest.raises(ValueError, match="together exceed"):
        generator.rows([[1], [2] * 20], max_tokens=5, seeds=[0, 0])
    assert list(generator.rows([[1], [2]], max_tokens=0, seeds=[0, 0])) == []


@pytest.mark.parametrize("platform", ["cpu", pytest.param("accelerator", marks=pytest.mark.slow)])
def test_renewed_parameters_are_those_that_draw(platform):
    config = small_config(dtype="bfloat16")
    first, other = (nnx.to_pure_dict(nnx.state(lively(config, seed), nnx.Param)) for seed in (0, 7))

    def generator(params):
        how = Sampling(temperature=0)
        return Generator(parameters.outline(config), params, how, platform=platform)

    def texts(generator):
        return list(generator([5, 6], max_tokens=12, seed=0))

    renewed, fresh = generator(first), generator(other)
    before = texts(renewed)
    renewed.take(other)
    assert texts(renewed) == texts(fresh) != before
    assert renewed._go_on._cache_size() == fresh._go_on._cache_size() == 1
    renewed.take(first)
    assert texts(renewed) == before
