"""Parameters of a checkpoint: every number where it belongs, on any mesh, in parts of any size."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest

from conversion import formats, pieces, reading, safetensors_files
from errors import UserError
from model import parameters
from model.families import FAMILIES, common
from model.families.hf_config import HfConfig
from model.families.weights import Weight, to_ours
from model.moe_config import MoeConfig
from sharding.config import MeshConfig
from sharding.mesh import make_mesh
from tests.conversion.models import LLAMA, weights, write
from training.fields import flat
from training.state import abstract_params

FAMILY = FAMILIES["llama"]


ONE = MeshConfig(data=1)
EIGHT = MeshConfig(data=2, fsdp=2, tensor=2)
STAGES = MeshConfig(data=1, pipeline=2, fsdp=2, tensor=2)


def read(folder, hf, mesh_config):
    config = FAMILY.from_hf(HfConfig(hf))
    outline = parameters.outline(config)
    mesh = make_mesh(mesh_config, jax.devices()[: 1 if mesh_config == ONE else 8])
    wanted = pieces.pieces(FAMILY, outline)
    tensors = formats.weights(safetensors_files.find(folder), {})
    found = {name: tensor.shape for name, tensor in tensors.items()}
    matched = pieces.match(wanted, found, hf, FAMILY.PREFIX)
    told = []
    abstract = abstract_params(outline, mesh)
    params = reading.read(wanted, matched, tensors, abstract, lambda *at: told.append(at))
    return params, abstract, told


@pytest.mark.parametrize("mesh", [ONE, EIGHT, STAGES], ids=["one", "eight", "stages"])
@pytest.mark.parametrize("part", [700, 1 << 26])
def test_every_number_is_where_it_belongs(tmp_path, monkeypatch, mesh, part):
    monkeypatch.setattr(reading, "PART_BYTES", part)
    tensors = weights()
    params, abstract, told = read(write(tmp_path, LLAMA, tensors, files=2), LLAMA, mesh)
    assert jax.tree.map(lambda x: x.sharding, params) == jax.tree.map(
        lambda x: x.sharding, abstract
    )
    found = {path: np.asarray(x) for path, x in flat(params).items()}
    floats = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    for i in range(4):
        layer = f"model.layers.{i}."
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v")):
            w = floats[f"{layer}self_attn.{theirs}_proj.weight"]
            expected = w.reshape(-1, 8, 32).transpose(2, 0, 1)
            np.testing.assert_array_equal(found[f"blocks.attention.{ours}"][i], expected)
        out = floats[f"{layer}self_attn.o_proj.weight"].T.reshape(4, 8, 32)
        np.testing.assert_array_equal(found["blocks.attention.out"][i], out)
        for name in ("gate", "up", "down"):
            w = floats[f"{layer}mlp.{name}_proj.weight"].T
            np.testing.assert_array_equal(found[f"blocks.mlp.{name}"][i], w)
        norm = floats[f"{layer}input_layernorm.weight"]
        np.testing.assert_array_equal(found["blocks.attention_norm.scale"][i], norm)
    for ours, theirs in (("embedding", "model.embed_tokens"), ("unembedding", "lm_head")):
        assert found[ours].shape == (384, 32)
        np.testing.assert_array_equal(found[ours][:300], floats[f"{theirs}.weight"])
        assert not found[ours][300:].any()
    assert all(x.dtype == np.float32 for x in found.values())
    assert told[-1][0] == told[-1][1] or told[-1][1] == 1


def test_a_second_table_has_to_be_the_first_one(tmp_path):
    hf = LLAMA | {"tie_word_embeddings": True}
    tensors = weights(hf)
    table = tensors["model.embed_tokens.weight"]
    read(write(tmp_path / "same", hf, tensors | {"lm_head.weight": table.copy()}), hf, ONE)
    other = table.copy()
    other[299, 31] += ml_dtypes.bfloat16(1)
    with pytest.raises(UserError, match=r"lm_head.weight is not model.embed_tokens.weight"):
        read(write(tmp_path / "other", hf, tensors | {"lm_head.weight": other}), hf, ONE)


WEIGHTS = [
    (Weight("a", "t"), [(6, 4)]),
    (Weight("a", "t", axis=1, order=(3, 1, 0, 2)), [(6, 4)]),
    (Weight("a", "t", axis=0, order=(3, 1, 0, 2)), [(4, 6)]),
    (Weight("a", "t", "(n h) d -> d n h"), [(5, 3, 2)]),
    (Weight("a", "t", "d (n h) -> n h d"), [(3, 2, 5)]),
    (Weight(("a", "b"), "t", "f d -> d f", axis=1), [(4, 3), (4, 5)]),
    (Weight(("a", "b"), "t", axis=-1), [(2, 4, 3), (2, 4, 3)]),
    (Weight(("a", "b"), "t", "e f d -> e d f", axis=2, order=(0, 2, 4, 1, 3, 5)), [(2, 4, 3)] * 2),
    (Weight(("a", "b", "c"), "t", "(n h) d -> d n h", axis=1), [(4, 2, 3), (4, 1, 3), (4, 1, 3)]),
    (Weight(("a", "b"), "t", "(n h) d -> d n h", axis=2), [(4, 2, 3), (4, 2, 1)]),
    (Weight("a", "t", "f d -> d f", axis=0, order=(2, 0, 1)), [(3, 4)]),
]


@pytest.mark.parametrize(("weight", "shapes"), WEIGHTS, ids=range(len(WEIGHTS)))
@pytest.mark.parametrize("part", [1, 40, 1 << 20])
def test_parts_make_the_whole(monkeypatch, weight, shapes, part):
    """Each part as it is read by itself, and all of them together, whatever the form."""
    monkeypatch.setattr(reading, "PART_BYTES", part)
    shapes = tuple(map(tuple, shapes))
    shape = pieces._shape(weight, shapes)
    theirs = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    piece = pieces.Piece("t", weight, weight.paths, (7,), shapes, shape)
    made = [np.full(one, np.nan, np.float32) for one in shapes]
    seen = list(reading.parts(piece, theirs[0].nbytes))
    for one in seen:
        values = to_ours(weight, theirs[one.first : one.last], one.shapes)
        for into, value, start in zip(made, values, one.starts, strict=True):
            assert start[0] == 7
            into[tuple(slice(a, a + n) for a, n in zip(start[1:], value.shape, strict=True))] = (
                value
            )
    for value, expected in zip(made, to_ours(weight, theirs, shapes), strict=True):
        np.testing.assert_array_equal(value, expected)
    if part == 1 << 20:
        assert len(seen) == 1


def test_large_weights_are_read_in_parts():
    piece = pieces.Piece("t", WEIGHTS[3][0], ("a",), (), ((5, 3, 2),), (6, 5))
    assert [(p.first, p.last) for p in reading.parts(piece, reading.PART_BYTES // 4)] == [
        (0, 4),
        (4, 6),
    ]


class Mixed:
    """A family with a dense layer before those of experts, which it has apart, or all in one."""

    MODEL_TYPE, ARCHITECTURE, PREFIX = "mixed", "Mixed", "model."

    def names(self, config):
        return common.names(
            config,
            layers=(*common.PRE_NORMS, *common.ATTENTION),
            dense=common.GATED_MLP,
            experts=(
                Weight("mlp.router", "layers.{layer}.router.weight", "e d -> d e"),
                Weight("mlp.down", "layers.{layer}.experts.{expert}.down.weight"),
                Weight(("mlp.gate", "mlp.up"), "layers.{layer}.gate_up", axis=2),
            ),
        )


def test_experts_apart_and_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "PART_BYTES", 5000)
    moe = MoeConfig(num_experts=4, expert_mlp_dim=24, first_dense=1)
    config = dataclasses.replace(FAMILY.from_hf(HfConfig(LLAMA)), num_layers=3, moe=moe)
    outline = parameters.outline(config)
    wanted = pieces.pieces(Mixed(), outline)
    random = np.random.default_rng(0)
    theirs = {piece.theirs: random.standard_normal(piece.shape, np.float32) for piece in wanted}
    write(tmp_path, LLAMA, theirs)
    tensors = formats.weights(safetensors_files.find(tmp_path), {})
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, expert=2, tensor=2))
    shapes = {name: tensor.shape for name, tensor in theirs.items()}
    matched = pieces.match(wanted, shapes, LLAMA, "model.")
    abstract = abstract_params(outline, mesh)
    params = flat(reading.read(wanted, matched, tensors, abstract, lambda *at: None))
    for layer in (1, 2):
        name = f"model.layers.{layer}."
        both = theirs[f"{name}gate_up"]
        assert both.shape == (4, 32, 48)
        expected = {
            "blocks.mlp.gate": both[:, :, :24],
            "blocks.mlp.up": both[:, :, 24:],
            "blocks.mlp.down": [theirs[f"{name}experts.{e}.down.weight"] for e in range(4)],
            "blocks.mlp.router": theirs[f"{name}router.weight"].T,
            "blocks.mlp_norm.scale": theirs[f"{name}post_attention_layernorm.weight"],
        }
        for path, tensor in expected.items():
            np.testing.assert_array_equal(np.asarray(params[path][layer - 1]), tensor)
    first = theirs["model.layers.0.mlp.up_proj.weight"].T
    np.testing.assert_array_equal(np.asarray(params["dense_blocks.mlp.up"][0]), first)
    assert params["blocks.mlp.up"].shape == (2, 4, 32, 24)
