"""What is in a jaxpr."""

from collections.abc import Iterator
from typing import Any


def equations(value: Any, *names: str) -> Iterator[Any]:
    """The equations of these primitives in a jaxpr, and in those inside other equations.

    One without results is dead: XLA leaves it out, and so does this.
    """
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from equations(part, *names)
    elif hasattr(value, "eqns"):  # in newer versions of JAX it also is its own `jaxpr`
        for equation in value.eqns:
            if equation.primitive.name in names:
                yield equation
            elif equation.outvars:
                yield from equations(list(equation.params.values()), *names)
    elif hasattr(value, "jaxpr"):
        yield from equations(value.jaxpr, *names)
