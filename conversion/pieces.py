"""A family's names brought together with a decoder's parameters, and with what a checkpoint has."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from conversion.safetensors_files import listed
from errors import UserError
from model import parameters
from model.config import ModelConfig
from model.decoder import Decoder
from model.families import Family
from model.families.weights import Names, Weight, to_theirs
from training.fields import flat

_WRAPPERS = ("model.language_model.", "language_model.")
_BUFFERS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|attn\.bias|attn\.masked_bias)$")
"""What some versions of `transformers` saved besides weights: frequencies, and GPT-2's masks."""
FURTHER = "num_nextn_predict_layers"
"""The key of config.json for layers that predict further tokens, which Podium does not have."""
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


class Piece(NamedTuple):
    """One weight of a checkpoint, and where its numbers are in the parameters.

    Attributes:
      theirs: its whole name.
      weight: which it is.
      paths: dotted, of our parameters.
      at: index of them along their first dimensions: its layer, its expert.
      shapes: of each of ours at that index, without the padding of the vocabulary.
      shape: of theirs.
    """

    theirs: str
    weight: Weight
    paths: tuple[str, ...]
    at: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]


class Matched(NamedTuple):
    """What of a checkpoint is which weight.

    Attributes:
      names: of the checkpoint, by the whole names of the weights.
      twice: names of the checkpoint that say once more what another says, and whose it is.
      notes: what was left out, a line each.
    """

    names: Mapping[str, str]
    twice: Mapping[str, str]
    notes: tuple[str, ...]


def pieces(family: Family, outline: Decoder) -> list[Piece]:
    """Every weight that a family's checkpoint of this decoder has, in the order of its layers.

    Raises:
      UserError: the family has no name for a parameter, or the decoder none of that name.
    """
    config, names = outline.config, family.names(outline.config)
    axes = flat(parameters.logical_axes(outline))
    shapes = {
        path: _unpadded(config, axes[path], leaf.shape)
        for path, leaf in flat(parameters.shapes(outline)).items()
    }
    made: list[Piece] = []
    for weight in names.outside:
        made += _pieces(family, weight, weight.paths, shapes, (), {})
    for stack, first, layers, weights in _stacks(config, names):
        for layer in range(layers):
            for weight in weights:
                paths = tuple(f"{stack}.{path}" for path in weight.paths)
                numbers = {"layer": first + layer}
                if "{expert}" not in weight.theirs:
                    made += _pieces(family, weight, paths, shapes, (layer,), numbers)
                    continue
                for expert in range(config.moe.num_experts):
                    each = numbers | {"expert": expert}
                    made += _pieces(family, weight, paths, shapes, (layer, expert), each)
    named = {path for piece in made for path in piece.paths}
    if nameless := sorted(shapes.keys() - named):
        raise UserError(f"a checkpoint of {family.MODEL_TYPE!r} has no {listed(nameless)}")
    return made


def match(
    wanted: Sequence[Piece],
    found: Mapping[str, tuple[int, ...]],
    hf: Mapping[str, Any],
    prefix: str,
) -> Matched:
    """Finds every weight in a checkpoint.

    Args:
      wanted: the weights.
      found: names and shapes of the checkpoint's.
      hf: its config.json.
      prefix: that names of its family begin with; some checkpoints leave it out.

    Raises:
      UserError: by name, weights that are missing, unknown, or of another shape.
    """
    shapes = {piece.theirs: piece.shape for piece in wanted}
    tables = {piece.paths: piece.theirs for piece in wanted}
    names: dict[str, str] = {}
    twice: dict[str, str] = {}
    beyond: list[str] = []
    beside: list[str] = []
    unknown: list[str] = []
    for name in found:
        plain = _without_wrapper(name) if "text_config" in hf else name
        whole = next((one for one in (plain, prefix + plain) if one in shapes), None)
        if whole is not None and whole not in names:
            names[whole] = name
        elif plain == "lm_head.weight" and ("unembedding",) not in tables:
            twice[name] = tables[("embedding",)]
        elif _BUFFERS.search(plain):
            continue
        elif _is_beyond(plain, hf):
            beyond.append(name)
        elif "text_config" in hf and plain == name:
            beside.append(name)
        else:
            unknown.append(name)
    missing = [piece.theirs for piece in wanted if piece.theirs not in names]
    odd = [
        f"{names[whole]} is {found[names[whole]]} and should be {shape}"
        for whole, shape in shapes.items()
        if whole in names and found[names[whole]] != shape
    ]
    said = [f"it lacks {listed(missing)}"] if missing else []
    said += [f"it has {listed(unknown)}, which config.json does not account for"] if unknown else []
    said += [listed(odd)] if odd else []
    if said:
        raise UserError(f"the weights do not belong to config.json: {'; '.join(said)}")
    notes = []
    if beyond:
        notes.append(
            f"{len(beyond)} tensors that predict further tokens are left out ({listed(beyond, 1)})"
        )
    if beside:
        notes.append(
            f"{len(beside)} tensors that are not of the text part are left out "
            f"({listed(beside, 1)})"
        )
    return Matched(names, twice, tuple(notes))


def like(tree: Mapping[str, Any], leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts of the form of `tree` with other leaves, given by dotted paths."""

    def made(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {
            key: made(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else leaves[prefix + key]
            for key, value in tree.items()
        }

    return made(tree, "")


def _stacks(config: ModelConfig, names: Names) -> list[tuple[str, int, int, tuple[Weight, ...]]]:
    """Name, first layer, number of layers and weights of each stack."""
    dense, all_layers = config.dense_layers, config.num_layers
    if not config.moe.num_experts:
        return [("blocks", 0, all_layers, names.layers + names.dense)]
    stacks = [("blocks", dense, all_layers - dense, names.layers + names.experts)]
    if dense:
        stacks.insert(0, ("dense_blocks", 0, dense, names.layers + names.dense))
    return stacks


def _pieces(
    family: Family,
    weight: Weight,
    paths: tuple[str, ...],
    shapes: Mapping[str, tuple[int, ...]],
    index: tuple[int, ...],
    numbers: Mapping[str, int],
) -> list[Piece]:
    if lost := [path for path in paths if path not in shapes]:
        raise UserError(f"{family.MODEL_TYPE!r} has {lost[0]}, which this decoder does not have")
    ours = tuple(shapes[path][len(index) :] for path in paths)
    name = weight.theirs.format(**numbers)
    name = name[1:] if name.startswith("/") else family.PREFIX + name
    return [Piece(name, weight, paths, index, ours, _shape(weight, ours))]


def _unpadded(config: ModelConfig, axes: Sequence[str], shape: tuple[int, ...]) -> tuple[int, ...]:
    pairs = zip(axes, shape, strict=True)
    return tuple(config.vocab_size if name == "vocab" else size for name, size in pairs)


_SHAPES: dict[tuple[Weight, tuple[tuple[int, ...], ...]], tuple[int, ...]] = {}


def _shape(weight: Weight, ours: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """The shape of theirs, found out on bytes: as many as it has entries."""
    if (weight, ours) not in _SHAPES:
        theirs = to_theirs(weight, [np.zeros(shape, np.int8) for shape in ours])
        _SHAPES[weight, ours] = theirs.shape
    return _SHAPES[weight, ours]


def _without_wrapper(name: str) -> str:
    """The name in the text part of a multimodal model; the same if it is of another part."""
    for wrapper in _WRAPPERS:
        if name.startswith(wrapper):
            return name.removeprefix(wrapper)
    return name


def _is_beyond(name: str, hf: Mapping[str, Any]) -> bool:
    """Whether a tensor is of the layers that predict further tokens (DeepSeek-V3)."""
    text = hf.get("text_config", hf)
    found, further = _LAYER.search(name), text.get(FURTHER)
    if not found or not further:
        return False
    return 0 <= int(found[1]) - int(text["num_hidden_layers"]) < further
