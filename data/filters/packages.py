"""The packages that some filters are made of."""

import importlib
from types import ModuleType

from errors import UserError


def needed(name: str, key: str) -> ModuleType:
    """The package `name`.

    Args:
      key: of the config, that asks for it.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"config.data.filters.{key} needs the package {name}: `make setup FILTERS=1`"
        ) from error
