"""What a run is and how far it has come: the `run` item of a checkpoint, and run.json."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from data.preparation import Prepared
from data.stream import Stream
from errors import UserError
from training.config import RunConfig
from training.fields import build

_FREE = ("mesh", "evaluation", "checkpoint", "report", "watch")
"""Sections of which no key changes what a step does: an old value need not be kept."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """The published checkpoint that parameters came from, once, by way of convert.py.

    Attributes:
      family: its `model_type`.
      source: folder or hub id.
      dtype: of most of its weights, as `transformers` names it.
      dtypes: of the others, by their names with {layer} and {expert}.
      fingerprint: of its config.json and weights.
    """

    family: str
    source: str
    dtype: str
    dtypes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fingerprint: str = ""

    def identity(self) -> str:
        """A name for these parameters as they were converted, whatever converted them; "" where
        the files are not known.
        """
        if not self.fingerprint:
            return ""
        return _hashed({"family": self.family, "files": self.fingerprint})


@dataclasses.dataclass(frozen=True)
class Record:
    """Attributes:
    config: of the run.
    stream: fingerprint of the batches trained on, up to `step`.
    dataset: fingerprint of the dataset that they are taken from.
    eval_store: fingerprint of the held-out tokens; "" in a record of before it was kept.
    versions: name -> version, of all that a step's numbers may depend on; empty likewise.
    commit: of the code, for people; "" where it is not known.
    step, rows, tokens: finished steps, rows taken from the stream, tokens predicted.
    evaluated: whether the evaluation due after `step` is in the metrics.
    imported: it is no run, but a converted model: its data and training mean nothing.
    bare: the checkpoint has parameters alone, made of a run by what is no run of Podium
      (reinforcement/): train.py starts from it, and does not go on.
    parameters: fingerprint of them, where nothing else here tells them from others; else "".
    origin: what was converted, here or where train.start_from led in the end.
    began: identity of the checkpoint that train.start_from, or what is bare, began with; "" without
      one.
    teacher: identity of the checkpoint that config.objective asks; "" without one.
    """

    config: RunConfig
    stream: str
    dataset: str
    eval_store: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    commit: str = ""
    step: int = 0
    rows: int = 0
    tokens: int = 0
    evaluated: bool = False
    imported: bool = False
    bare: bool = False
    parameters: str = ""
    origin: Origin | None = None
    began: str = ""
    teacher: str = ""

    def after(self, step: int, stream: Stream, tokens: int, evaluated: bool) -> "Record":
        """The record of the same run after `step` steps of a stream."""
        return dataclasses.replace(
            self,
            step=step,
            stream=stream.fingerprint(step),
            rows=stream.rows(step),
            tokens=tokens,
            evaluated=evaluated,
        )

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for JSON; `read` makes the record of them again."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        origin = self.origin and dataclasses.asdict(self.origin)
        more = {"config": self.config.to_dict(), "versions": dict(self.versions)}
        return plain | more | {"origin": origin}

    def identity(self) -> str:
        """A name for the parameters that this is the record of: 32 hexadecimal digits.

        Of what was converted it is of the files alone, whatever converted them. Else it is of all
        that is not as it is by default, so a later version that has more keys comes to the same.
        """
        as_converted = self.imported and not self.bare and self.config.tuning.everything
        of_files = self.origin.identity() if as_converted and self.origin else ""
        return of_files or _hashed(_said(self))


def _hashed(said: Any) -> str:
    text = json.dumps(said, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _said(value: Any) -> Any:
    """Nested plain values, without what a dataclass has by default."""
    if dataclasses.is_dataclass(value):
        pairs = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {field.name: _said(own) for field, own in pairs if own != _default(field)}
    if isinstance(value, Mapping):
        return {key: _said(one) for key, one in value.items()}
    return value


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def make(
    config: RunConfig, stream: Stream, data: Prepared, versions: Mapping[str, str], commit: str
) -> Record:
    """The record of a run before its first step."""
    return Record(
        config=config,
        stream=stream.fingerprint(0),
        dataset=data.fingerprint,
        eval_store=data.eval_fingerprint,
        versions=dict(versions),
        commit=commit,
    )


def read(saved: Mapping[str, Any], where: object) -> tuple[Record, list[str]]:
    """Reads a record that any version of Podium saved. Nothing else reads a saved config.

    A key that the saved config does not have takes its default: what it does by default is what
    was done before it was there.

    Args:
      saved: as JSON gave it.
      where: it was saved, for messages.

    Returns:
      the record, and a line for each saved key that this version does not have.

    Raises:
      UserError: it is no record of a run.
    """
    known = {field.name for field in dataclasses.fields(Record)} - {"config"}
    values = {name: value for name, value in saved.items() if name in known}
    if "stream" not in saved:
        # At first "dataset" was the stream's fingerprint, and "data" the dataset's.
        values |= {"stream": saved.get("dataset"), "dataset": saved.get("data")}
    missing = [name for name in ("stream", "dataset") if not values.get(name)]
    if missing or "config" not in saved:
        lacks = missing[0] if missing else "config"
        raise UserError(f"the record of the run in {where} has no {lacks}: it is damaged")
    plain, notes = saved["config"], []
    plain = dict(plain) if isinstance(plain, Mapping) else plain
    for section in dataclasses.fields(RunConfig):
        given = plain.get(section.name) if isinstance(plain, dict) else None
        if section.name in _FREE and isinstance(given, Mapping):
            try:
                build(type(section.default), given, section.name)
            except ValueError as error:  # a bound that is tighter than it was
                del plain[section.name]
                notes.append(f"{where} was saved with {error}: its section takes its defaults")
    if isinstance(origin := values.get("origin"), Mapping):
        keys = {field.name for field in dataclasses.fields(Origin)}
        values["origin"] = Origin(**{key: origin[key] for key in keys & origin.keys()})
    try:
        config, unknown = build(RunConfig, plain)
    except ValueError as error:
        raise UserError(f"the config saved in {where} cannot be read: {error}") from None
    notes += [
        f"{where} was saved with {key}={value!r}, which this version does not have: ignored"
        for key, value in unknown.items()
    ]
    return Record(config=config, **values), notes
