"""What XLA's TPU compiler says of a program that it compiled: cycles, kernels, exchanges, memory.

Cycles are the compiler's own estimates, which it gives for fusions alone: kernels (custom calls)
and exchanges between chips carry none, and are counted beside them. What stands in a loop counts
as often as the loop is known to run.
"""

import math
import re
from collections import Counter
from typing import NamedTuple

EXCHANGES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4}
_BYTES |= {"f32": 4, "s64": 8, "u64": 8, "f64": 8, "f8e4m3fn": 1, "f8e5m2": 1}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\(")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_CONSTANT = re.compile(r"%?([\w.-]+) = [su]32\[\]\S* constant\((\d+)\)")
_CONDITION, _BODY = re.compile(r"condition=%?([\w.-]+)"), re.compile(r"body=%?([\w.-]+)")
_CALLED = re.compile(r"(?:to_apply|calls)=%?([\w.-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_PRODUCTS = {"_fwd_": 2, "_dkv_": 4, "_dq_": 3}  # of matrices, in the phases of attention


class Kernel(NamedTuple):
    """Calls of a kernel that is not XLA's own.

    Attributes:
      calls: in a run of the program.
      flops: of all of them, where they are of causal attention: its products of matrices, of which
        half is left out.
      bytes: of all of them, what goes in and what comes out.
    """

    calls: int
    flops: int
    bytes: int


class Summary(NamedTuple):
    """A compiled program, on one device.

    Attributes:
      cycles: of all fusions.
      kernels: by name.
      exchanges: bytes that come out of each kind, results counted.
      exchange_calls: how many there are.
    """

    cycles: int
    kernels: dict[str, Kernel]
    exchanges: dict[str, int]
    exchange_calls: dict[str, int]


def summarize(text: str) -> Summary:
    """Reads the text of a compiled program (`compiled.as_text()`)."""
    lines = _computations(text)
    entry = next(name for name, (is_entry, _) in lines.items() if is_entry)
    cycles = 0
    kernels: dict[str, Kernel] = {}
    exchanges: Counter[str] = Counter()
    calls: Counter[str] = Counter()

    def walk(computation: str, times: int) -> None:
        nonlocal cycles
        for line in lines.get(computation, (False, []))[1]:
            match = _INSTRUCTION.match(line)
            if not match:
                continue
            shape, op = match[2], match[3]
            if found := _CYCLES.search(line):
                cycles += times * int(found[1])
            kind = op.removesuffix("-start")
            if kind in EXCHANGES:
                exchanges[kind] += times * _size(shape, last=op.endswith("-start"))
                calls[kind] += times
            if op == "custom-call":
                _add_kernel(kernels, line, shape, times)
            if op == "while":
                condition, body = _CONDITION.search(line), _BODY.search(line)
                assert condition and body, line
                runs = _runs(lines[condition[1]][1], lines[body[1]][1])
                walk(body[1], times * runs)
            elif op in ("call", "async-start"):
                for name in _CALLED.findall(line):
                    walk(name, times)
            elif op == "conditional":
                raise ValueError(f"how often its branches run is not known: {line}")

    walk(entry, 1)
    return Summary(cycles, kernels, dict(exchanges), dict(calls))


def _computations(text: str) -> dict[str, tuple[bool, list[str]]]:
    found: dict[str, tuple[bool, list[str]]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = []
            found[match[2]] = (bool(match[1]), current)
        else:
            current.append(line)
    return found


def _runs(condition: list[str], body: list[str]) -> int:
    """How often a loop runs whose counter begins with 0, as those of scans and rings do."""
    constants = {m[1]: int(m[2]) for line in condition + body if (m := _CONSTANT.search(line))}
    compared = next((line for line in condition if " compare(" in line), "")
    if "direction=LT" not in compared:
        raise ValueError(f"a loop that does not end by counting: {condition}")
    counter, limit = re.findall(r"%([\w.-]+)", compared.split(" compare(")[1])[:2]
    got = next(line for line in condition if f"%{counter} = " in line)
    index = re.search(r"index=(\d+)", got)
    root = next(line for line in body if line.lstrip().startswith("ROOT"))
    inside = re.search(r" tuple\((.*?)\)(?:,|$)", root)
    assert index and inside, (got, root)
    after = re.findall(r"%([\w.-]+)", inside[1])[int(index[1])]
    added = next(line for line in body if f"%{after} = " in line)
    step = [constants[name] for name in re.findall(r"%([\w.-]+)", added) if name in constants]
    return -(-constants[limit] // (step[0] if step else 1))


def _size(shape: str, last: bool) -> int:
    """Bytes of a shape; of a tuple (what goes in, what comes out) the last part alone."""
    parts = [
        _BYTES.get(kind, 4) * math.prod(int(n) for n in dims.split(",") if n)
        for kind, dims in _SHAPE.findall(re.sub(r"\{[^}]*\}", "", shape))
    ]
    if not parts:
        return 0
    return max(parts) if last else sum(parts)


def _add_kernel(kernels: dict[str, Kernel], line: str, result: str, times: int) -> None:
    if 'custom_call_target="tpu_custom_call"' not in line:
        return
    match = _INSTRUCTION.match(line)
    assert match
    name = match[1].split(".")[0]
    operands = re.search(r"operand_layout_constraints=\{(.*?\})\}", line)
    moved = _size(result, last=False) + _size(operands[1] if operands else "", last=False)
    # The largest operand is [.., heads, T, H]; a causal product of such has T x heads x T x H.
    products = next((n for key, n in _PRODUCTS.items() if key in name), 0)
    shapes = (
        [[int(n) for n in dims.split(",") if n] for _, dims in _SHAPE.findall(operands[1])]
        if operands
        else [[0, 0]]
    )
    largest = max(shapes, key=math.prod)
    flops = products * math.prod(largest) * largest[-2]
    before = kernels.get(name, Kernel(0, 0, 0))
    kernels[name] = Kernel(
        before.calls + times, before.flops + times * flops, before.bytes + times * moved
    )
