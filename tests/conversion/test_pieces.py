"""Which weight of a checkpoint is which parameter, and what does not belong there."""

import dataclasses

import jax
import numpy as np
import pytest

from conversion import pieces
from errors import UserError
from model import parameters
from model.families import FAMILIES
from model.families.hf_config import HfConfig
from tests.conversion.models import LLAMA, shapes
from training.fields import flat

FAMILY = FAMILIES["llama"]
TIED = LLAMA | {"tie_word_embeddings": True}


def wanted(hf=LLAMA):
    return pieces.pieces(FAMILY, parameters.outline(FAMILY.from_hf(HfConfig(hf))))


def match(found, hf=LLAMA):
    return pieces.match(wanted(hf), found, hf, FAMILY.PREFIX)


def test_every_weight_has_its_shape_and_place():
    made = wanted()
    assert {piece.theirs: piece.shape for piece in made} == shapes()
    one = next(p for p in made if p.theirs == "model.layers.3.self_attn.k_proj.weight")
    assert (one.paths, one.at, one.shapes) == (("blocks.attention.key",), (3,), ((32, 2, 8),))
    table = next(p for p in made if p.theirs == "lm_head.weight")
    assert table.shapes == ((300, 32),)  # of 384 rows


def test_all_is_there():
    found = match(shapes())
    assert found.names == {name: name for name in shapes()}
    assert (found.twice, found.notes) == ({}, ())


def test_names_without_their_prefix():
    """As GPT-2 was first published."""
    bare = {name.removeprefix("model."): shape for name, shape in shapes().items()}
    assert match(bare).names == {name: name.removeprefix("model.") for name in shapes()}


def test_buffers_are_no_weights():
    buffers = ("model.layers.0.self_attn.rotary_emb.inv_freq", "h.0.attn.bias", "attn.masked_bias")
    assert match(shapes() | dict.fromkeys(buffers, (4,))).notes == ()


def test_a_table_that_is_there_twice():
    found = match(shapes(TIED) | {"lm_head.weight": (300, 32)}, TIED)
    assert found.twice == {"lm_head.weight": "model.embed_tokens.weight"}


@pytest.mark.parametrize("form", ["language_model.{}", "model.language_model.{bare}"])
def test_the_text_part_of_a_multimodal_model(form):
    hf = {"model_type": "seeing", "text_config": LLAMA}
    names = {form.format(n, bare=n.removeprefix("model.")): s for n, s in shapes().items()}
    names |= {"vision_tower.patch.weight": (3,), "projector.weight": (2,)}
    found = pieces.match(wanted(), names, hf, FAMILY.PREFIX)
    assert found.names.keys() == shapes().keys()
    assert found.notes == (
        "2 tensors that are not of the text part are left out (vision_tower.patch.weight and 1 "
        "more)",
    )


def test_layers_that_predict_further_tokens():
    hf = LLAMA | {"num_nextn_predict_layers": 1}
    more = {"model.layers.4.eh_proj.weight": (3,), "model.layers.4.embed_tokens.weight": (3,)}
    assert (
        "2 tensors that predict further tokens are left out" in match(shapes() | more, hf).notes[0]
    )
    with pytest.raises(UserError, match=r"it has model.layers.5.eh_proj.weight, which config.json"):
        match(shapes() | {"model.layers.5.eh_proj.weight": (3,)}, hf)


def test_what_does_not_belong_together():
    found = shapes() | {"model.layers.0.self_attn.q_norm.weight": (8,)}
    del found["model.norm.weight"]
    found["lm_head.weight"] = (300, 31)
    with pytest.raises(UserError) as error:
        match(found)
    assert str(error.value) == (
        "the weights do not belong to config.json: it lacks model.norm.weight; it has "
        "model.layers.0.self_attn.q_norm.weight, which config.json does not account for; "
        "lm_head.weight is (300, 31) and should be (300, 32)"
    )


def test_many_names_are_counted():
    with pytest.raises(UserError, match=r"it lacks (\S+, ){3}\S+ and 35 more$"):
        match({})


def test_parameters_that_a_family_has_no_name_for():
    config = FAMILY.from_hf(HfConfig(LLAMA))
    config = dataclasses.replace(config, qk_norm=True)
    with pytest.raises(UserError, match=r"of 'llama' has no blocks.attention.key_norm"):
        pieces.pieces(FAMILY, parameters.outline(config))


def test_trees_by_paths():
    tree = {"b": {"c": 1, "a": 2}, "a": 3}
    assert flat(tree) == {"b.c": 1, "b.a": 2, "a": 3}
    doubled = pieces.like(tree, {path: 2 * x for path, x in flat(tree).items()})
    assert doubled == jax.tree.map(lambda x: 2 * x, tree)
    assert np.all(list(doubled) == list(tree))
