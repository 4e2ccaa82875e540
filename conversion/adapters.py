"""Adapters in the format of `peft`: adapter_config.json, and two or three tensors for each weight.

Theirs are A [rank, inputs] and B [outputs, rank] beside a weight [outputs, inputs], and of DoRA a
vector of lengths [outputs]: each lies as the weight's own outputs or inputs do.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from einops import rearrange

from checkpointing.record import Record
from conversion import pieces
from conversion.pieces import Piece
from conversion.safetensors_files import Stored, Writer, header, listed
from errors import UserError
from evaluation.trained import Trained
from model import parameters
from model.adapter_config import AdapterConfig, Adapters
from model.adapters import SUFFIX
from model.config import PRODUCTS, ModelConfig
from model.families import Family
from model.parameters import Params
from training.fields import flat

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_BEFORE, _AFTER = "base_model.model.", ".weight"
_ENDINGS = {"a": "lora_A.weight", "b": "lora_B.weight", "magnitude": "lora_magnitude_vector"}
_WITHOUT_EFFECT: Mapping[str, Any] = {
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "use_qalora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "layers_to_transform": None,
    "layer_replication": None,
    "lora_bias": False,
    "target_parameters": None,
    "trainable_token_indices": None,
}
"""Keys that have to be as they are by default, or not be there: others compute something else."""

_SAID = frozenset(
    "peft_type task_type auto_mapping peft_version base_model_name_or_path revision inference_mode "
    "r lora_alpha lora_dropout use_dora init_lora_weights target_modules exclude_modules "
    "layers_pattern megatron_config megatron_core runtime_config qalora_group_size "
    "loftq_config eva_config corda_config lora_ga_config".split()
)
"""Keys that are read, or that say how adapters were made and not what they compute."""

_INIT = (True, False, None, "gaussian", "eva", "orthogonal")
"""Beginnings that leave the weights beside adapters as they are."""


class Tensor(NamedTuple):
    """One of theirs.

    Attributes:
      name: of theirs.
      path: dotted, of ours.
      at: its layer there.
      forms: from ours to theirs and back, in the notation of einops.
      shape: of ours, of one layer.
    """

    name: str
    path: str
    at: tuple[int, ...]
    forms: tuple[str, str]
    shape: tuple[int, ...]

    def theirs(self, ours: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(rearrange(ours, self.forms[0]))

    def ours(self, theirs: np.ndarray) -> np.ndarray:
        letters = self.forms[0].partition("->")[0].split()
        found: np.ndarray = rearrange(
            theirs, self.forms[1], **dict(zip(letters, self.shape, strict=True))
        )
        return found


def tensors(family: Family, config: ModelConfig) -> list[Tensor]:
    """Every tensor of the adapters that a model has.

    Raises:
      UserError: the family has several of our weights in one, or a weight with its inputs first.
    """
    plain = parameters.outline(config.plain)
    shapes = flat(parameters.shapes(parameters.outline(config)))
    found: list[Tensor] = []
    for piece in pieces.pieces(family, plain):
        for path in piece.paths:
            own = {part: f"{path}{SUFFIX}.{part}" for part in _ENDINGS}
            if own["a"] not in shapes:
                continue
            if len(piece.paths) > 1 or piece.weight.order or not piece.weight.form:
                raise UserError(
                    f"{family.MODEL_TYPE!r} keeps {listed(piece.paths)} in {piece.theirs}, beside "
                    "which these adapters cannot lie: leave --adapter out, to have them merged"
                )
            inputs = len(shapes[own["a"]].shape) - 2
            found += [
                Tensor(name, own[part], piece.at, forms, shapes[own[part]].shape[1:])
                for part, name, forms in _of(piece, inputs)
                if own[part] in shapes
            ]
    return found


def _of(piece: Piece, inputs: int) -> Iterator[tuple[str, str, tuple[str, str]]]:
    theirs, _, ours = piece.weight.form.partition("->")
    letters = ours.split()
    into, out = " ".join(letters[:inputs]), " ".join(letters[inputs:])
    assert theirs.replace("(", "").replace(")", "").split() == (out + " " + into).split(), theirs
    forms = {
        "a": (f"{into} r", f"r ({into})"),
        "b": (f"r {out}", f"({out}) r"),
        "magnitude": (out, f"({out})"),
    }
    name = _BEFORE + piece.theirs.removesuffix(_AFTER)
    for part, (own, other) in forms.items():
        yield part, f"{name}.{_ENDINGS[part]}", (f"{own} -> {other}", f"{other} -> {own}")


def write(trained: Trained, family: Family, folder: Path, dtype: np.dtype[Any]) -> None:
    """Writes the two files.

    Args:
      trained: of a run that trained adapters.
      family: of its model.
      folder: is there.
      dtype: of all tensors.

    Raises:
      UserError: see `tensors`.
    """
    config, params = trained.config.model, flat(trained.params)
    wanted, adapter = tensors(family, config), config.adapter
    modules = {one.name.removeprefix(_BEFORE).rsplit(".lora_", 1)[0] for one in wanted}
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_of(trained.record),
        "inference_mode": True,
        "init_lora_weights": True,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "use_dora": adapter.kind == "dora",
        "target_modules": sorted({module.rsplit(".", 1)[1] for module in modules}),
        **_WITHOUT_EFFECT,
    }
    text = json.dumps(said, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    values = ((one.name, one.theirs(np.asarray(params[one.path][one.at]))) for one in wanted)
    ready = [(name, value.astype(dtype)) for name, value in values]
    writer = Writer(folder / WEIGHTS, [(name, dtype, value.shape) for name, value in ready])
    for name, value in ready:
        writer.write(name, value)
    writer.close()


def base_of(record: Record) -> str | None:
    """The published model that adapters are for; None where their model is no published one, but
    was trained here after it.
    """
    origin = record.origin
    if origin is None or not record.began or record.began != origin.identity():
        return None
    return origin.source


class Found(NamedTuple):
    """Adapters as `peft` saved them.

    Attributes:
      folder: that has them.
      config: what they are.
      stored: their tensors.
    """

    folder: Path
    config: AdapterConfig
    stored: Mapping[str, Stored]


def find(folder: Path, family: Family, model: ModelConfig) -> Found:
    """Looks at adapters that are there.

    Args:
      folder: with the two files.
      family: of the model that they are for.
      model: that one.

    Raises:
      UserError: they compute what ours do not, or are damaged.
    """
    try:
        said = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / CONFIG} cannot be read: {error}") from None
    if said.get("peft_type") != "LORA":
        raise UserError(f"{folder / CONFIG} has peft_type={said.get('peft_type')!r}, not 'LORA'")
    odd = {
        key: said[key]
        for key, usual in _WITHOUT_EFFECT.items()
        if said.get(key, usual) not in (usual, None)
        and not (key == "use_rslora" and said[key] is True)
    }
    odd |= {
        key: value
        for key, value in said.items()
        if key not in _SAID | _WITHOUT_EFFECT.keys() and value not in (None, False, {}, [])
    }
    if said.get("init_lora_weights") not in _INIT:
        raise UserError(
            f"{folder / CONFIG} has init_lora_weights={said['init_lora_weights']!r}, which changes "
            "the weights that adapters are beside: save them for the model itself, by peft's "
            "path_initial_model_for_weight_conversion"
        )
    if odd:
        told = listed([f"{key}={value!r}" for key, value in odd.items()])
        raise UserError(f"{folder / CONFIG} has {told}, which Podium does not have")
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} has no {WEIGHTS}")
    stored, rank = header(folder / WEIGHTS), int(said["r"])
    alpha = float(said["lora_alpha"]) * (rank**0.5 if said.get("use_rslora") else 1.0)
    kind: Adapters = "dora" if said.get("use_dora") else "lora"
    every = _possible(family, model, AdapterConfig(kind, rank, alpha))
    there = {target for target, names in every.items() if names & stored.keys()}
    targets = tuple(name for name in PRODUCTS if name in there)
    if not targets:
        raise UserError(f"{folder / WEIGHTS} has no adapter for a weight of a {family.MODEL_TYPE}")
    config = AdapterConfig(kind, rank, alpha, targets)
    wanted = set().union(*(every[target] for target in targets))
    if strange := sorted(stored.keys() - wanted):
        raise UserError(f"{folder / WEIGHTS} has {listed(strange)}, which have no place here")
    if missing := sorted(wanted - stored.keys()):
        raise UserError(f"{folder / WEIGHTS} lacks {listed(missing)}: every layer has to have them")
    return Found(folder, config, stored)


def _possible(family: Family, model: ModelConfig, adapter: AdapterConfig) -> dict[str, set[str]]:
    """The names of all tensors that adapters beside weights of each kind have."""
    found: dict[str, set[str]] = {}
    for target in PRODUCTS:
        try:
            of = dataclasses.replace(adapter, targets=(target,))
            names = {one.name for one in tensors(family, dataclasses.replace(model, adapter=of))}
        except (ValueError, UserError):
            continue
        found[target] = names
    return found


def read(found: Found, family: Family, model: ModelConfig) -> Params:
    """The parameters of adapters, float32, on the host.

    Args:
      found: the adapters.
      family: of the model.
      model: with them.

    Raises:
      UserError: one is of another shape, or a file is damaged.
    """
    shapes = flat(parameters.shapes(parameters.outline(model)))
    made: dict[str, np.ndarray] = {}
    for one in tensors(family, model):
        values = found.stored[one.name].read().astype(np.float32)
        expected = one.theirs(np.zeros(one.shape, np.int8)).shape
        if values.shape != expected:
            raise UserError(
                f"{found.folder / WEIGHTS}: {one.name} is {values.shape} and should be {expected}: "
                "these adapters are for another model"
            )
        whole = made.setdefault(one.path, np.zeros(shapes[one.path].shape, np.float32))
        whole[one.at] = one.ours(values)
    outline = parameters.shapes(parameters.outline(model))
    return pieces.like(parameters.part(outline, made.keys()), made)
