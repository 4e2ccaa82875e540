"""Packages that only some sources and filters need, imported when they are needed."""

import importlib
from typing import Any

from errors import UserError


def needed(module: str, package: str, why: str, install: str = "make setup") -> Any:
    """Imports `module`.

    Args:
      module: as it is imported.
      package: as it is installed.
      why: what cannot be done without it, for the message.
      install: the command that brings it.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{why} needs the package {package}, which is not installed: `{install}`"
        ) from error
