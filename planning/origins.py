"""Which instruction computes what a buffer holds.

A buffer may be named after a loop that carries it, or after the update of a part of it: the line of
such an instruction is that of the loop. What is looked for is what was put into it.
"""

from planning.hlo import Computation, Instruction, Module, root

_HANDED_ON = frozenset(
    "bitcast copy copy-done copy-start get-tuple-element opt-barrier reshape tuple".split()
)


class Origins:
    """Of the instructions of a program."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._home = {
            name: computation
            for computation in module.computations.values()
            for name in computation
        }

    def find(self, name: str, index: str = "") -> Instruction | None:
        """Follows a result of an instruction to where it is computed.

        Args:
          name: of the instruction.
          index: of a part of its result, as "2", or "2,0" of a tuple in a tuple.

        Returns:
          The instruction there; None where the name is not one of the program's, or the result is
          handed to the program or to a loop from outside.
        """
        parts = [int(n) for n in index.split(",") if n]
        seen: set[tuple[str, int]] = set()
        home = self._home.get(name)
        while home is not None and (name, len(parts)) not in seen:
            seen.add((name, len(parts)))
            one = home[name]
            if one.op == "while":
                home = self._module.computations[one.attribute(r"\bbody=%?([\w.-]+)")]
                name = root(home).name
            elif one.op == "fusion":
                inner = self._module.computations.get(one.calls, {})
                within = self._put_in(inner, parts)
                if within is None:
                    return one
                if within.op != "parameter":
                    return within if within.attributes else one
                name, parts = one.operands[int(within.inside)], []
            elif one.op == "dynamic-update-slice":
                name, parts = one.operands[1], []
            elif _hands_on(one):
                name, parts = _behind(one, parts)
            elif one.op == "parameter":
                return None
            else:
                return one
        return None

    def _put_in(self, inner: Computation, parts: list[int]) -> Instruction | None:
        """What a fusion that updates a part of an array puts there; None if it updates nothing."""
        one, updated = root(inner) if inner else None, False
        while one and (one.op == "dynamic-update-slice" or _hands_on(one)):
            if one.op == "dynamic-update-slice":
                updated, name = True, one.operands[1]
            else:
                name, parts = _behind(one, parts)
            one = inner.get(name)
        return one if updated else None


def _hands_on(one: Instruction) -> bool:
    """Also a change of precision that the compiler made of itself."""
    return one.op in _HANDED_ON or (one.op == "convert" and "op_name=" not in one.attributes)


def _behind(one: Instruction, parts: list[int]) -> tuple[str, list[int]]:
    """The operand that an instruction hands on, and which part of it."""
    if one.op == "get-tuple-element":
        return one.operands[0], [int(one.attribute(r"index=(\d+)")), *parts]
    if one.op == "tuple":
        first, *rest = parts or [0]
        return one.operands[first], rest
    return one.operands[0], parts
