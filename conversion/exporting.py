"""A folder that `transformers` reads, made of a checkpoint of Podium."""

import dataclasses
import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import commands
from checkpointing.continuation import FREE, TRAINING_ONLY, rule
from checkpointing.record import Record
from checkpointing.workdir import PUBLISHED, TOKENIZER, Workdir
from conversion import adapters, formats, pieces
from conversion.pieces import Piece
from conversion.safetensors_files import INDEX, SINGLE, Writer, listed
from conversion.tokenizer_files import write as write_tokenizer
from data import tokenizer as tokenizers
from data.tokenizer import Tokenizer
from errors import UserError
from evaluation.trained import Trained
from model.config import ModelConfig
from model.families import FAMILIES, Family
from model.families.hf_config import HfConfig, HfConfigError
from model.families.weights import to_theirs
from model.parameters import Params
from reporting.progress import Progress
from training.fields import flat


def family_of(record: Record, asked: str) -> Family:
    """The family to write a model as: the one asked for, or its own, or the first that has it.

    Raises:
      UserError: none can say what the model is.
    """
    if asked and asked not in FAMILIES:
        raise UserError(f"--family={asked}: Podium has {', '.join(FAMILIES)}")
    names = [asked] if asked else list(FAMILIES)
    if not asked and record.origin is not None and record.origin.family in FAMILIES:
        names = [record.origin.family, *names]
    differ: dict[str, list[str]] = {}
    errors: dict[str, str] = {}
    for name in names:
        try:
            keys = differences(FAMILIES[name], record.config.model.plain)
        except (HfConfigError, ValueError, TypeError, KeyError) as error:
            errors[name] = str(error)
            continue
        if not keys:
            return FAMILIES[name]
        differ[name] = keys
    if not differ:
        raise UserError(
            f"config.model cannot be said by {listed(list(errors))}: {errors[names[0]]}"
        )
    nearest = min(differ, key=lambda name: len(differ[name]))
    wanted = _with_values(record.config.model, differ[nearest])
    who = f"--family={asked}" if asked else f"no family that Podium has (the nearest is {nearest})"
    raise UserError(f"{who} can say config.model with {wanted}")


def _with_values(config: ModelConfig, keys: Sequence[str]) -> str:
    """Keys with their values, for a message."""
    values = flat(dataclasses.asdict(config))
    return listed([f"{key}={values[key]!r}" if key in values else key for key in keys])


def differences(family: Family, config: ModelConfig) -> list[str]:
    """The keys of a model that are lost on the way through a family's config.json and back.

    Raises:
      HfConfigError, ValueError, TypeError, KeyError: there is no way back.
    """
    again = family.from_hf(HfConfig(family.to_hf(config)))
    ours, theirs = _what_matters(config), _what_matters(again)
    return [key for key in ours if ours[key] != theirs.get(key)]


def _what_matters(config: ModelConfig) -> dict[str, Any]:
    values = flat(dataclasses.asdict(config))
    unused = {key for key in values if rule(f"model.{key}") == FREE}
    unused |= TRAINING_ONLY | {"vocab_multiple"}  # padding is not written
    if not config.moe.num_experts:
        unused |= {key for key in values if key.startswith("moe.")}
    elif not config.dense_layers:
        unused.add("mlp_dim")
    if not config.latent.kv_rank:
        unused |= {key for key in values if key.startswith("latent.")}
    return {key: value for key, value in values.items() if key not in unused}


def export(
    job: commands.Job,
    trained: Trained,
    workdir: Workdir,
    out: Path,
    family: Family,
    dtype: str,
    shard_bytes: float,
) -> None:
    """Writes the folder, which appears when it is complete.

    Args:
      job: one process.
      trained: what is written.
      workdir: that it is of.
      out: the folder; there is none, or an empty one.
      family: that can say what the model is.
      dtype: of all weights, "float32", "float16" or "bfloat16"; "" is what was imported, weight by
        weight, else float32.
      shard_bytes: of a file of weights, at most, but for a weight that is larger.

    Raises:
      UserError: the folder cannot be made.
    """
    job.watch.at("writing weights", job.watch.bounds.save)
    partial = _begun(out)
    origin = trained.record.origin
    most = dtype or (origin.dtype if origin else "float32")
    others = {} if dtype or origin is None else origin.dtypes
    _write_weights(job, trained, family, partial, most, others, shard_bytes)
    workdir.fetch(PUBLISHED, TOKENIZER)
    tokenizer = None
    if (workdir.local / TOKENIZER).exists():
        tokenizer = tokenizers.load(workdir.local / TOKENIZER)
    published = workdir.local / PUBLISHED
    config = _config(family, trained.config.model, published, tokenizer, most)
    _write_json(partial / "config.json", config)
    notes = _carry(published, partial, tokenizer)
    _publish(partial, out)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def export_adapters(trained: Trained, out: Path, family: Family, dtype: str) -> None:
    """Writes a folder that `peft` reads, which appears when it is complete.

    Args:
      trained: what is written.
      out: the folder; there is none, or an empty one.
      family: that can say what the model is.
      dtype: of all weights; "" is float32.

    Raises:
      UserError: there are no adapters, they cannot be written so, or the folder cannot be made.
    """
    if trained.config.model.adapter.kind == "none":
        raise UserError("--adapter: the run has no adapters: leave it out to have all weights")
    adapters.tensors(family, trained.config.model)
    partial = _begun(out)
    adapters.write(trained, family, partial, formats.NUMPY[dtype or "float32"])
    _publish(partial, out)
    if adapters.base_of(trained.record) is None:
        print(
            f"note: {adapters.CONFIG} names no base: these adapters are for what "
            f"{trained.config.train.start_from} had, not known to be a published model; "
            "write that by to-hf, too",
            file=sys.stderr,
        )


def _begun(out: Path) -> Path:
    """The folder that `out` is made in."""
    partial = out.with_name(f".{out.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)  # of one that was killed
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write --out={out}: {error.strerror}") from None
    return partial


def _publish(partial: Path, out: Path) -> None:
    if out.exists():
        out.rmdir()
    partial.rename(out)


def _write_weights(
    job: commands.Job,
    trained: Trained,
    family: Family,
    folder: Path,
    most: str,
    others: Mapping[str, str],
    shard_bytes: float,
) -> None:
    wanted = pieces.pieces(family, trained.outline)
    dtypes = [formats.NUMPY[others.get(piece.weight.theirs, most)] for piece in wanted]
    sizes = [
        math.prod(piece.shape) * dtype.itemsize for piece, dtype in zip(wanted, dtypes, strict=True)
    ]
    shards = list(_shards(sizes, shard_bytes))
    progress = Progress(len(wanted), unit="weight")
    files: dict[str, str] = {}
    params, done = flat(trained.params), 0
    for number, shard in enumerate(shards):
        name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        name = SINGLE if len(shards) == 1 else name
        tensors = [(wanted[i].theirs, dtypes[i], wanted[i].shape) for i in shard]
        writer = Writer(folder / name, tensors)
        for i in shard:
            job.watch.at(f"writing {wanted[i].theirs}", job.watch.bounds.step)
            writer.write(wanted[i].theirs, _theirs(wanted[i], params, dtypes[i]))
            files[wanted[i].theirs] = name
            done += 1
            progress.update(done)
        writer.close()
    progress.close()
    if len(shards) > 1:
        _write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes)}, "weight_map": files})


def _shards(sizes: Sequence[int], most: float) -> Iterator[list[int]]:
    """Which weights go into one file, in order."""
    shard: list[int] = []
    held = 0
    for i, size in enumerate(sizes):
        if shard and held + size > most:
            yield shard
            shard, held = [], 0
        shard.append(i)
        held += size
    yield shard


def _theirs(piece: Piece, params: Params, dtype: np.dtype[Any]) -> np.ndarray:
    """One of their weights, on the host."""
    ours = []
    for path, shape in zip(piece.paths, piece.shapes, strict=True):
        one = _entry(params[path], tuple(np.int32(i) for i in piece.at))
        on_host = np.asarray(one.astype(dtype))
        ours.append(on_host[tuple(slice(size) for size in shape)])
    return to_theirs(piece.weight, ours)


@jax.jit
def _entry(x: jax.Array, index: Sequence[jax.Array]) -> jax.Array:
    """What is at an index along the first dimensions."""
    for i in index:
        x = jax.lax.dynamic_index_in_dim(x, i, keepdims=False)
    return jnp.asarray(x)


def _config(
    family: Family,
    model: ModelConfig,
    published: Path,
    tokenizer: Tokenizer | None,
    dtype: str,
) -> dict[str, Any]:
    """config.json: the published one, where it still says what the model is."""
    made: dict[str, Any] = family.to_hf(model)
    ids: dict[str, int | None] = {}
    if tokenizer is not None:
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
        ids |= {"pad_token_id": None}
    path = published / "config.json"
    if path.is_file():
        original = json.loads(path.read_text(encoding="utf-8"))
        original = original.get("text_config") or original
        if original.get("model_type") == family.MODEL_TYPE and _says(family, original, model):
            made = original
            if _has_tokenizer(published):  # so the ids of the original are of this one
                ids = {}
    if made.get(pieces.FURTHER):
        made[pieces.FURTHER] = 0
    for key in ("quantization_config", "torch_dtype", "dtype", "_name_or_path"):
        made.pop(key, None)
    head = {"architectures": [family.ARCHITECTURE], "model_type": family.MODEL_TYPE}
    # Under its old name every version of transformers reads it.
    return {**made, **ids, **head, "torch_dtype": dtype}


def _says(family: Family, hf: Mapping[str, Any], model: ModelConfig) -> bool:
    try:
        again = family.from_hf(HfConfig(hf))
    except (HfConfigError, ValueError, TypeError):
        return False
    return _what_matters(again) == _what_matters(model)


def _carry(published: Path, folder: Path, tokenizer: Tokenizer | None) -> list[str]:
    """What goes along with the weights; returns what to know of it."""
    there = sorted(published.iterdir()) if published.is_dir() else []
    for file in there:
        if not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)
    if not (folder / "generation_config.json").exists() and tokenizer is not None:
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
        _write_json(folder / "generation_config.json", ids)
    if _has_tokenizer(published):
        return []
    if tokenizer is None:
        return ["the workdir has no tokenizer, so none is written"]
    return write_tokenizer(tokenizer, folder)


def _has_tokenizer(published: Path) -> bool:
    """Whether what was published with the model has its tokenizer: not where a run that started
    from it has another.
    """
    return any(published.glob("tokenizer.*")) or any(published.glob("vocab.*"))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
