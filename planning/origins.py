"""Which instruction computes what a buffer holds.

A buffer may be named after a loop that carries it, or after the update of a part of it: the line of
such an instruction is that of the loop. What is looked for is what was put into it.
"""

from planning.hlo import Computation, Instruction, Module, root

_HANDED_ON = frozenset(
    "bitcast copy copy-done copy-start get-tuple-element opt-barrier reshape tuple".split()
)
_STACKED = "dynamic_update_index_in_dim"  # what a scan puts into its results has this in its name


class Origins:
    """Of the instructions of a program."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._home = {
            name: computation
            for computation in module.computations.values()
            for name in computation
        }
        self._loop = {
            one.attribute(r"\bbody=%?([\w.-]+)"): one
            for computation in module.computations.values()
            for one in computation.values()
            if one.op == "while"
        }
        self._called = {id(one): name for name, one in module.computations.items()}

    def find(self, name: str, index: str = "") -> Instruction | None:
        """Follows a result of an instruction to where it is computed.

        Args:
          name: of the instruction.
          index: of a part of its result, as "2", or "2,0" of a tuple in a tuple.

        Returns:
          The instruction there: of an argument of the program its parameter. None where the name is
          not one of the program's, or a loop hands the result around and nothing else.
        """
        parts = tuple(int(n) for n in index.split(",") if n)
        seen: set[tuple[str, tuple[int, ...]]] = set()
        while name in self._home and (name, parts) not in seen:
            seen.add((name, parts))
            one = self._home[name]
            if one[name].op == "parameter":
                outside = self._from_outside(one[name], one, parts)
                if outside is None:
                    return (
                        one[name] if one is self._module.computations[self._module.entry] else None
                    )
                name, parts = outside
                continue
            step = self._step(one[name], parts)
            if isinstance(step, Instruction):
                return step
            name, parts = step
        return None

    def _step(
        self, one: Instruction, parts: tuple[int, ...]
    ) -> Instruction | tuple[str, tuple[int, ...]]:
        """Where a result of an instruction comes from, if it does not compute it itself."""
        if one.op == "while":
            return root(self._module.computations[one.attribute(r"\bbody=%?([\w.-]+)")]).name, parts
        if one.op == "fusion":
            within = self._put_in(self._module.computations.get(one.calls, {}), parts)
            if within is None or within.op != "parameter":
                return within if within and within.attributes else one
            return one.operands[int(within.inside)], ()
        if one.op == "dynamic-update-slice":
            return one.operands[1], ()
        return _behind(one, parts) if _hands_on(one) else one

    def _put_in(self, inner: Computation, parts: tuple[int, ...]) -> Instruction | None:
        """What a fusion puts into an array, or hands on; None if it computes something itself."""
        one, updated = root(inner) if inner else None, False
        while one and (one.op == "dynamic-update-slice" or _hands_on(one)):
            if one.op == "dynamic-update-slice":
                updated, name = True, one.operands[1]
            else:
                name, parts = _behind(one, parts)
            one = inner.get(name)
        return one if updated or (one and one.op == "parameter") else None

    def _from_outside(
        self, parameter: Instruction, body: Computation, parts: tuple[int, ...]
    ) -> tuple[str, tuple[int, ...]] | None:
        """Where a loop takes what it is given: from its last round, or what it began with."""
        loop = self._loop.get(self._called[id(body)])
        end = root(body)
        if loop is None or not parts or end.op != "tuple":
            return None
        last = body[end.operands[parts[0]]]
        same = last.operands == [parameter.name] and last.attribute(r"index=(\d+)") == str(parts[0])
        return (loop.operands[0], parts) if same else (last.name, parts[1:])


def _hands_on(one: Instruction) -> bool:
    """Also a change of precision, if the compiler made it of itself or for a scan's result."""
    if one.op == "convert":
        return "op_name=" not in one.attributes or _STACKED in one.attributes
    return one.op in _HANDED_ON


def _behind(one: Instruction, parts: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The operand that an instruction hands on, and which part of it."""
    if one.op == "get-tuple-element":
        return one.operands[0], (int(one.attribute(r"index=(\d+)")), *parts)
    if one.op == "tuple":
        first, *rest = parts or (0,)
        return one.operands[first], tuple(rest)
    return one.operands[0], parts
