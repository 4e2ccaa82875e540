"""A workdir made of a checkpoint of Hugging Face."""

import dataclasses
import hashlib
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

import commands
from checkpointing import imported, record, starting
from checkpointing.workdir import CONVERTING, PUBLISHED, TOKENIZER, Workdir
from conversion import adapters, formats, pieces, reading, safetensors_files
from conversion.source import CARRIED, Source
from data import tokenizer as tokenizers
from data.config import DataConfig
from data.tokenizer import Tokenizer
from errors import UserError
from model import parameters
from model.adapter_config import AdapterConfig
from model.config import ModelConfig
from model.decoder import Decoder
from model.families import FAMILIES, Family
from model.families.hf_config import HfConfig, HfConfigError
from model.parameters import Params
from reporting import environment
from reporting.progress import Progress
from sharding.config import MeshConfig
from sharding.means import means
from sharding.mesh import make_mesh
from sharding.table import validate
from training.config import RunConfig, TrainConfig
from training.state import abstract_params
from training.tuning import TuningConfig

_PLACEHOLDER = "python_stdlib"


class Imported(NamedTuple):
    """Attributes:
    outline: the decoder without values.
    params: its parameters.
    """

    outline: Decoder
    params: Params


def family_of(source: Source, asked: str) -> Family:
    """The family of a checkpoint: that of its model_type, or the one that was asked for.

    Raises:
      UserError: there is no such family.
    """
    name = asked or str(source.text.get("model_type"))
    if name not in FAMILIES:
        raise UserError(
            f"{source.name} has model_type {name!r}, which Podium does not have: it has "
            f"{', '.join(FAMILIES)}; --family=NAME takes it for one of these"
        )
    return FAMILIES[name]


def config_of(source: Source, family: Family) -> tuple[ModelConfig, list[str]]:
    """The decoder that config.json describes, and a line on what of it had no effect.

    Raises:
      UserError: the decoder cannot be described so.
    """
    hf = HfConfig(source.text)
    try:
        config = family.from_hf(hf)
    except (HfConfigError, ValueError, TypeError) as error:
        raise UserError(f"{source.name}: {error}") from None
    unread = [f"{key}={value!r}" for key, value in hf.unread().items() if value is not None]
    return config, [f"config.json: no effect has {', '.join(unread)}"] if unread else []


def convert(
    job: commands.Job, source: Source, workdir: Workdir, mesh_config: MeshConfig, asked: str
) -> Imported:
    """Makes the workdir.

    The checkpoint appears last, and whole. Until then the workdir is marked, so that a conversion
    that was killed is begun again by the same command, and nothing else takes it for a run.

    Args:
      job: the processes.
      source: the checkpoint.
      workdir: is held by process 0, and empty, or of a conversion that was killed.
      mesh_config: the mesh.
      asked: the name of the family, or "".

    Raises:
      UserError: the checkpoint is none that Podium reads, or the workdir is in use.
    """
    watch, first = job.watch, job.others.index == 0
    watch.at("reading what there is", watch.bounds.start)
    family = family_of(source, asked)
    config, notes = config_of(source, family)
    stored = safetensors_files.find(source.folder)
    tensors = formats.weights(stored, source.quantization)
    try:
        mesh = make_mesh(mesh_config)
        outline = parameters.outline(config, means(mesh, config, mesh_config))
        notes += validate(mesh, parameters.logical_axes(outline), parameters.shapes(outline), {})
    except ValueError as error:
        raise UserError(f"--mesh: {error}") from None
    wanted = pieces.pieces(family, outline)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    matched = pieces.match(wanted, shapes, source.hf, family.PREFIX)
    formats.unreadable({name: tensors[name] for name in matched.names.values()})
    notes += matched.notes
    dtypes = {p.weight.theirs: tensors[matched.names[p.theirs]].dtype for p in wanted}
    origin = _origin(source, family, wanted, dtypes, source.fingerprint(stored))
    seen = {"the checkpoint": origin.fingerprint, "the model": repr(config)}
    commands.compare(job, "what to convert", seen)
    if first:
        _begin(workdir)
    tokenizer, more = _tokenizer(source, config)
    for note in (*notes, *more) if first else ():
        print(f"note: {note}", file=sys.stderr)

    progress: list[Progress] = []

    def show(done: int, total: int) -> None:
        watch.at("reading weights", watch.bounds.step)
        if first and not progress:
            progress.append(Progress(total, unit="million weights"))
        for one in progress:
            one.update(done)

    params = reading.read(wanted, matched, tensors, abstract_params(outline, mesh), show)
    for one in progress:
        one.close()
    saved = record.Record(
        config=RunConfig(config, DataConfig(_PLACEHOLDER, config.max_length)),
        stream="none",
        dataset="none",
        versions=environment.versions(),
        commit=environment.commit(),
        imported=True,
        origin=origin,
    )
    if first:
        _write(workdir, source, tokenizer, saved)
    commands.compare(job, "what to save", {"the workdir": workdir.proof(job.others)})
    watch.at("saving the checkpoint", watch.bounds.save)
    with workdir.reached():
        imported.publish(workdir.path, params, saved.to_dict())
        if first:
            (workdir.path / CONVERTING).unlink()
    return Imported(outline, params)


def convert_adapters(job: commands.Job, folder: Path, workdir: Workdir, base: str) -> AdapterConfig:
    """Makes a workdir of adapters that `peft` saved: they alone are in its checkpoint.

    Args:
      job: one process.
      folder: with them.
      workdir: is held, and empty, or of a conversion that was killed.
      base: the workdir of the model that they are for.

    Raises:
      UserError: they are none that Podium reads, or not for that model.
    """
    job.watch.at("reading adapters", job.watch.bounds.start)
    start = starting.find(base, "--base")
    run, origin = start.record.config, start.record.origin
    if run.model.adapter.kind != "none":
        raise UserError(f"--base={base} has adapters itself: give the model that they are beside")
    name = origin.family if origin and origin.family in FAMILIES else "llama"
    found = adapters.find(folder, FAMILIES[name], run.model)
    model = dataclasses.replace(run.model, adapter=found.config)
    params = adapters.read(found, FAMILIES[name], model)
    kind, rank, alpha, targets = dataclasses.astuple(found.config)
    saved = dataclasses.replace(
        start.record,
        config=RunConfig(
            model,
            DataConfig(_PLACEHOLDER, model.max_length),
            train=TrainConfig(start_from=base),
            tuning=TuningConfig(kind, rank, alpha, targets),
        ),
        stream="none",
        dataset=hashlib.sha256((folder / adapters.WEIGHTS).read_bytes()).hexdigest()[:32],
        versions=environment.versions(),
        commit=environment.commit(),
        step=0,
        imported=True,
        began=start.record.identity(),
    )
    _begin(workdir)
    starting.carry(start, workdir, same_tokenizer=True)
    if (start.workdir.path / TOKENIZER).exists():
        tokenizers.load(start.workdir.path / TOKENIZER).save(workdir.local / TOKENIZER)
        workdir.publish(TOKENIZER)
    workdir.write_run(saved.to_dict())
    job.watch.at("saving the checkpoint", job.watch.bounds.save)
    with workdir.reached():
        imported.publish(workdir.path, jax.tree.map(jnp.asarray, params), saved.to_dict())
        (workdir.path / CONVERTING).unlink()
    return found.config


def _origin(
    source: Source,
    family: Family,
    wanted: Sequence[pieces.Piece],
    dtypes: Mapping[str, str],
    fingerprint: str,
) -> record.Origin:
    named = {name: formats.NAMES[dtype] for name, dtype in dtypes.items()}
    counted = Counter(named[piece.weight.theirs] for piece in wanted)
    most = counted.most_common(1)[0][0]
    others = {name: dtype for name, dtype in named.items() if dtype != most}
    return record.Origin(family.MODEL_TYPE, source.name, most, others, fingerprint)


def _begin(workdir: Workdir) -> None:
    """Marks the workdir; what a conversion that was killed has left goes."""
    there = workdir.names()
    if there and CONVERTING not in there:
        raise UserError(f"{workdir} has {there[0]} already: choose another --workdir")
    workdir.clear()
    with workdir.reached():
        (workdir.path / CONVERTING).write_text("")


def _tokenizer(source: Source, config: ModelConfig) -> tuple[Tokenizer | None, list[str]]:
    """The tokenizer of a checkpoint, if it is one that Podium reads, and what to know of it."""
    # Two files as GPT-2's do not say all that one of today does, such as how text is split.
    first = "tokenizer.json" if (source.folder / "tokenizer.json").is_file() else "vocab.json"
    paths = [source.folder / name for name in (first, "tokenizer.model")]
    found = [path for path in paths if path.is_file()]
    reason = "there is none"
    for path in found:
        try:
            tokenizer = tokenizers.load(path)
        except UserError as error:
            reason = str(error)
            continue
        if tokenizer.vocab_size > config.vocab_size:
            reason = f"{path.name} has {tokenizer.vocab_size} ids, the model {config.vocab_size}"
            continue
        return tokenizer, []
    return None, [f"the workdir has no tokenizer ({reason})"]


def _write(
    workdir: Workdir, source: Source, tokenizer: Tokenizer | None, saved: record.Record
) -> None:
    """All of the workdir but its checkpoint."""
    published = workdir.local / PUBLISHED
    published.mkdir()
    for name in CARRIED:
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, published / name)
    if tokenizer is not None:
        tokenizer.save(workdir.local / TOKENIZER)
    workdir.publish(PUBLISHED, TOKENIZER)
    workdir.write_run(saved.to_dict())
