"""One run on different hardware: what each kind of it changes in a config.

    config.layouts = {"v5e-256": {"mesh": {"fsdp": 32, "tensor": 8}, "train": {"accumulation": 2}}}

A layout may change speed and memory, never the result. config.layout says which: "auto", that of
the hardware at hand, if there is one; a name; or "none", the config as it stands. What the command
line gives stays as given.
"""

import importlib
from collections.abc import Collection

from ml_collections import ConfigDict

from checkpointing.continuation import FREE, rule
from configs import keys
from errors import UserError
from training.fields import flat

AUTO, NONE = "auto", "none"


def layouts_of(name: str) -> list[str]:
    """The hardware that a shipped run has layouts for."""
    config: ConfigDict = importlib.import_module(f"configs.{name}").get_config()
    return list(config.layouts)


def applied(
    config: ConfigDict, hardware: str, given: Collection[str] = ()
) -> tuple[ConfigDict, str | None]:
    """The config for some hardware, without its other layouts.

    Args:
      config: as a file in configs/ makes it, with all that the command line changed.
      hardware: its name (see planning/chips.py).
      given: the keys that the command line sets.

    Returns:
      the config; and the layout that was applied, for people, or None.

    Raises:
      UserError: there is no such layout, or one that would change more than it may.
    """
    plain = config.to_dict()
    layouts, asked = plain.pop("layouts", {}), plain.pop("layout", NONE)
    if asked not in (AUTO, NONE) and asked not in layouts:
        have = ", ".join((AUTO, NONE, *layouts))
        raise UserError(f"config.layout={asked!r}: this config has {have}")
    name = hardware if asked == AUTO else asked
    changes = flat(layouts.get(name, {}))
    made = ConfigDict(plain, convert_dict=True)
    told = []
    for key, value in changes.items():
        if unknown := keys.unknown(key, plain):
            raise UserError(f"config.layouts.{name}: {unknown}")
        if rule(key) != FREE:
            raise UserError(
                f"config.layouts.{name}: {key} would make it another run: set it in the config"
            )
        if key not in given:
            section, _, last = key.rpartition(".")
            (made[section] if section else made)[last] = value
            told.append(f"{key}={value}")
    return made, f"layout {name}: {', '.join(told)}" if told else None
