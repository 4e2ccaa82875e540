"""--config=configs/NAME.py and --config.key=value, with one line for what cannot be meant."""

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from configs import keys
from errors import UserError

_NOT_RUNS = (
    "__init__",
    "base",
    "door",
    "flags",
    "keys",
    "layouts",
    "start_from",
)  # the other files of configs/


def define(values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder[Any]:
    """Defines --config, and --config.key=value for each of its keys, among `values`."""
    about = "The run: a file in configs/. Change a key by --config.section.key=value."
    holder = config_flags.DEFINE_config_file("config", None, about, flag_values=values)
    values["config"].parser = _Parser("config")
    return holder


class _Parser(ConfigFileFlagParser):
    """Looks at the overrides as soon as the config is there: ml_collections names no near key."""

    def parse(self, path: str) -> ConfigDict:
        check_file(path)
        try:
            config = super().parse(path)
            check_overrides(given(), config)
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            # The library puts a whole traceback into the message; its last line says what is wrong.
            raise UserError(f"{path}: {str(error).strip().splitlines()[-1]}") from error
        return config


def check_file(path: str) -> None:
    """Raises UserError, with the nearest name, if there is no such config file."""
    if Path(path.partition(":")[0]).is_file():
        return
    known = runs()
    near = difflib.get_close_matches(Path(path).stem, known, n=1)
    hint = f"did you mean configs/{near[0]}.py?" if near else f"there are {', '.join(known)}"
    raise UserError(f"no config file {path}: {hint}")


def runs() -> list[str]:
    """The names of the shipped runs."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(file.stem for file in files if file.stem not in _NOT_RUNS)


def given() -> list[str]:
    """The keys that the command line sets, as --config.key."""
    argv = flags.FLAGS.read_flags_from_files(sys.argv, force_gnu=False)
    found = (re.match(r"--?(?:no)?config\.([^=\[]+)", argument) for argument in argv)
    return [match[1] for match in found if match]


def check_overrides(given: Sequence[str], config: ConfigDict) -> None:
    """Raises UserError for the first key of `given` that the config does not have."""
    for key in given:
        if line := keys.unknown(key, config.to_dict()):
            raise UserError(line)
