"""Frozen dataclasses from plain values: the one place where types and choices are checked."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

_KINDS: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
}


def build(kind: type[T], values: Any, name: str = "") -> tuple[T, dict[str, Any]]:
    """Makes a dataclass of nested mappings; what it has no field for is returned, not dropped.

    Args:
      kind: a dataclass; its fields are dataclasses, int, float, bool, str, Literal of text,
        tuple[X, ...], or Mapping[str, X], where X may be a dataclass too.
      values: by field; a field that is not there takes its default.
      name: of the dataclass itself, dotted, for messages.

    Returns:
      the dataclass, and the values that it has no field for, by their dotted names.

    Raises:
      ValueError: one line that names the field.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}={values!r}: must be a section with keys")
    prefix = f"{name}." if name else ""
    hints = get_type_hints(kind)
    unknown = {f"{prefix}{key}": value for key, value in values.items() if key not in hints}
    made: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        full, hint = prefix + field.name, hints[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            made[field.name], more = build(hint, values.get(field.name, {}), full)
            unknown |= more
        elif get_origin(hint) is Mapping and field.name in values:
            made[field.name], more = _mapping(get_args(hint)[1], values[field.name], full)
            unknown |= more
        elif field.name in values:
            made[field.name] = checked(hint, values[field.name], full)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{full} is missing, and has no default")
    try:
        return kind(**made), unknown
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None


def _mapping(hint: Any, values: Any, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A section whose keys are names that its user gives."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}={values!r}: must be a section with keys")
    made: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hint):
            made[key], more = build(hint, value, f"{name}.{key}")  # type: ignore[arg-type]
            unknown |= more
        else:
            made[key] = checked(hint, value, f"{name}.{key}")
    return made, unknown


def checked(hint: Any, value: Any, name: str) -> Any:
    """`value` as the annotation has it: lists become tuples, whole numbers floats.

    Raises:
      ValueError: it is of another type, or none of the choices.
    """
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name}={value!r}: choose one of {', '.join(get_args(hint))}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name}={value!r}: must be a list")
        return tuple(checked(get_args(hint)[0], item, name) for item in value)
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise ValueError(f"{name}={value!r}: must be {_KINDS[hint]}")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"{name}={value!r}: must be finite")
    return value


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What is in nested mappings, by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
