"""The time of small programs whose parts are known, and what is true of the time of any program."""

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from planning import attention
from planning.chips import CHIPS
from planning.exchanges import Exchange
from planning.hlo import HOST
from planning.kernels import PRODUCTS, Attention, Kernel
from planning.prediction import Clock, Time
from planning.program import Memory, Program
from planning.sources import Source
from planning.steps import Begun, Computed, Ended, Loop, Step, exchanges
from planning.topology import parse
from planning.traffic import Transfer
from planning.work import Work
from sharding.config import AXES

V5E = CHIPS["v5e"]
HERTZ = V5E.clock or 0.0
MS = 1e-3
# On 16 x 16 chips an axis of 16 is a ring, with two links of 45 GB/s.
CLOCK = Clock(parse("v5e:16x16"), dict.fromkeys(AXES, 1) | {"fsdp": 16, "tensor": 16})


def time_of(*taken: Step, clock: Clock = CLOCK) -> Time:
    # Something that takes a cycle, so that there are cycles at all.
    memory, work = Memory(0, 0, 0, 0), Work(other_cycles=1)
    found = clock.predicted(Program(work, exchanges(taken), memory, (), (), taken))
    assert found is not None
    return found


def moving(seconds: float) -> Computed:
    """Something that moves bytes for so long."""
    return Computed(Work(other_cycles=1, bytes=round(seconds * V5E.hbm_rate)))


def exchange(seconds: float, axis: str = "fsdp", name: str = "", **options: Any) -> Exchange:
    rate = 45e9 if options.get("kind") == "collective-permute" else 90e9
    given: dict[str, Any] = (
        dict(kind="all-gather", between_slices=False, ahead=0, asynchronous=True) | options
    )
    return Exchange(
        name=name or axis,
        axes=(axis,),
        devices=16,
        sent=round(seconds * rate),
        times=1,
        source=Source("", ()),
        **given,
    )


def test_of_what_the_compiler_adds_to_a_product_a_share_counts() -> None:
    flops = 1e12
    least = flops / 197e12
    told = Computed(Work(product_cycles=round(1.2 * least * HERTZ), flops=round(flops)))
    assert 0 < V5E.shown < 1
    assert time_of(told).products == pytest.approx(least * (1 + 0.2 * V5E.shown))
    # A product of 8,192^3 takes as long as it was measured to take.
    large = 2 * 8192**3
    cycles = round(large / V5E.bf16 / V5E.estimated * HERTZ)
    measured = time_of(Computed(Work(product_cycles=cycles, flops=large))).products
    assert measured == pytest.approx(large / V5E.bf16 / V5E.product, rel=1e-6)


def test_where_nothing_was_measured_the_compiler_is_believed() -> None:
    clock = Clock(parse("v5p:4x4x4"), dict.fromkeys(AXES, 1) | {"fsdp": 64})
    v5p = CHIPS["v5p"]
    assert v5p.shown == 1 and v5p.clock
    step = Computed(Work(product_cycles=10**9, flops=10**14))
    assert time_of(step, clock=clock).products == pytest.approx(1e9 / v5p.clock)


def test_products_in_int8_may_be_faster_than_the_peak_in_bfloat16() -> None:
    step = Computed(Work(product_cycles=10**6, flops=10**12))
    assert time_of(step).products == pytest.approx(1e6 / HERTZ)


def test_other_fusions_take_the_time_of_their_bytes() -> None:
    assert time_of(moving(MS)).other == pytest.approx(MS)
    assert time_of(Computed(Work(other_cycles=3000))).other == pytest.approx(3000 / HERTZ)


def test_kernels_take_the_time_of_their_products_or_bytes() -> None:
    for flops, bytes in ((10**12, 10**6), (10**6, 10**9)):
        step = Computed(Work(bytes=bytes, kernels={"gmm": Kernel(1, flops, bytes)}))
        expected = max(flops / (197e12 * V5E.product), bytes / 819e9)
        assert time_of(step).kernels == pytest.approx(expected)


@pytest.mark.parametrize(("works", "waits"), [(0.0, 3.0), (2.0, 1.0), (5.0, 0.0)])
def test_an_exchange_goes_on_beside_what_is_computed(works: float, waits: float) -> None:
    one = exchange(3 * MS, name="one")
    found = time_of(Begun("a", one), moving(works * MS), Ended("a"), moving(MS))
    assert found.waited.get("one", 0.0) == pytest.approx(waits * MS, abs=1e-9)
    assert found.exchanges == pytest.approx(3 * MS)
    assert found.step == pytest.approx((works + waits + 1) * MS)


def test_exchanges_on_the_same_links_follow_each_other() -> None:
    first, second = exchange(3 * MS, name="first"), exchange(2 * MS, name="second")
    begun = Begun("a", first), Begun("b", second)
    assert time_of(*begun, Ended("a"), Ended("b")).step == pytest.approx(5 * MS)
    # Those along another axis have links of their own.
    other = Begun("b", exchange(2 * MS, "tensor"))
    assert time_of(begun[0], other, Ended("a"), Ended("b")).step == pytest.approx(3 * MS)


def test_neighbours_send_both_ways_at_once() -> None:
    def ring(ahead: int) -> Exchange:
        return exchange(2 * MS, name=str(ahead), kind="collective-permute", ahead=ahead)

    for second, takes in ((-1, 2), (2, 4)):
        found = time_of(Begun("a", ring(1)), Begun("b", ring(second)), Ended("a"), Ended("b"))
        assert found.step == pytest.approx(takes * MS)


def test_an_all_to_all_crosses_the_middle() -> None:
    """How to Scale Your Model: it takes a quarter of the time of an all-gather of the same bytes,
    of those that all devices have together."""
    whole = 16 * 90e6  # 16 devices with 90 MB each
    one = exchange(0, kind="all-to-all")._replace(sent=round(90e6 * 15 / 16))
    assert time_of(Begun("a", one), Ended("a")).step == pytest.approx(whole / 90e9 / 4)


def test_copies_to_the_host_and_back() -> None:
    """15 GB/s each way, at once."""
    there, back = (Transfer(round(15e9 * MS), *spaces) for spaces in ((0, HOST), (HOST, 0)))
    taken = Begun("a", there), Begun("b", back), moving(0.4 * MS), Ended("a"), Ended("b")
    found = time_of(*taken)
    assert found.copies == pytest.approx(0.6 * MS) and found.step == pytest.approx(MS)
    twice = time_of(Begun("a", there), Begun("b", there), Ended("b"))
    assert twice.step == pytest.approx(2 * MS)


def test_between_slices_the_network_is_used() -> None:
    sizes = dict.fromkeys(AXES, 1) | {"data": 2, "fsdp": 256}
    clock = Clock(parse("v5e:16x16", 2), sizes)
    one = exchange(0, "data", between_slices=True)._replace(sent=10**9, devices=2)
    # 100 Gb/s of a host with four chips.
    assert time_of(Begun("a", one), Ended("a"), clock=clock).step == pytest.approx(1 / 12.5 * 4)


def test_a_program_without_cycles_has_no_time() -> None:
    empty = Program(Work(), (), Memory(0, 0, 0, 0), (), (), ())
    assert CLOCK.predicted(empty) is None


def unrolled(taken: Sequence[Step]) -> list[Step]:
    found: list[Step] = []
    for step in taken:
        found += unrolled(step.steps) * step.times if isinstance(step, Loop) else [step]
    return found


def some(luck: random.Random, depth: int = 0) -> list[Step]:
    """A program with exchanges over two axes, work beside them, and loops in loops."""
    taken: list[Step] = []
    going: list[str] = []
    for n in range(luck.randint(3, 8)):
        what = luck.random()
        key = f"{depth} {n} {luck.random()}"
        if what < 0.4:
            taken.append(moving(luck.random() * MS))
        elif what < 0.7:
            axis = luck.choice(("fsdp", "tensor"))
            taken.append(Begun(key, exchange(luck.random() * MS, axis, name=key)))
            going.append(key)
        elif depth < 2:
            taken.append(Loop(luck.choice((0, 1, 2, 30)), tuple(some(luck, depth + 1))))
        if going and luck.random() < 0.5:
            taken.append(Ended(going.pop(0)))
    return taken + [Ended(key) for key in going]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_true_of_every_program(seed: int) -> None:
    taken = some(random.Random(seed))
    found, flat = time_of(*taken), time_of(*unrolled(taken))
    # Loops are what they would be, written out.
    for name in ("step", "other", "exposed", "exchanges"):
        assert getattr(found, name) == pytest.approx(getattr(flat, name), rel=1e-3, abs=1e-9), name
    # No faster than what is computed, or than the links; no slower than all in a row.
    assert found.step >= found.other * (1 - 1e-9)
    for axis in ("fsdp", "tensor"):
        busy = sum(
            one.times * CLOCK.exchange(one) for one in exchanges(taken) if one.axes == (axis,)
        )
        assert found.step >= busy * (1 - 1e-3)
    assert found.step <= (found.other + found.exchanges) * (1 + 1e-9)
    assert 0 <= found.exposed <= found.exchanges * (1 + 1e-9)


def blocks(phase: str, size: int, length: int, side: int = 512) -> Attention:
    """Of one head and row."""
    n = length // side
    return Attention(phase, size, side, n * (n + 1) // 2, n, n * n)


@pytest.mark.parametrize("name", list(attention.CYCLES))
@pytest.mark.parametrize("phase", list(PRODUCTS))
@pytest.mark.parametrize("size", [64, 128, 192, 256])
def test_attention_takes_longer_than_its_products_at_the_peak(
    name: str, phase: str, size: int
) -> None:
    chip, length = CHIPS[name], 8192
    took = attention.seconds(chip, blocks(phase, size, length))
    half = PRODUCTS[phase] * length**2 * size  # FLOPs of the visible half
    assert took is not None
    least = half / (chip.bf16 / chip.devices)
    assert least < took < 12 * least
    # Longer rows leave less to the blocks on the diagonal and to lines' ends.
    longer = attention.seconds(chip, blocks(phase, size, 4 * length))
    assert longer is not None and longer < 16 * took


def test_attention_by_hand() -> None:
    """Heads of 128 at 1,024 tokens: three blocks, two lines and four steps."""
    step, line, block = attention.CYCLES["v5e"]["fwd"][0]
    took = attention.seconds(V5E, blocks("fwd", 128, 1024))
    assert took == pytest.approx((4 * step + 2 * line + 3 * block) / HERTZ)
    # Of a chip with two cores each does half.
    v5p = CHIPS["v5p"]
    step, line, block = attention.CYCLES["v5p"]["fwd"][0]
    took = attention.seconds(v5p, blocks("fwd", 128, 1024))
    assert v5p.clock
    assert took == pytest.approx((4 * step + 2 * line + 3 * block) / 2 / v5p.clock)
    # Matrix units that a block does not leave time for are waited for.
    fast = dataclasses.replace(V5E, units=1)
    took = attention.seconds(fast, blocks("fwd", 128, 512))
    assert took is not None and fast.clock
    step, line, _ = attention.CYCLES["v5e"]["fwd"][0]
    assert took * fast.clock == pytest.approx(step + line + 2 * 512 * 512 * 128 / 128**2)


def test_the_schedules_are_those_of_the_file() -> None:
    recorded = json.loads(Path("bench/results/kernels_tpu_aot.json").read_text())
    assert recorded["side"] == attention.SIDE
    for name, phases in attention.CYCLES.items():
        for phase, sizes in phases.items():
            for size, cycles in zip(attention.SIZES, sizes, strict=True):
                assert cycles._asdict() == recorded["chips"][name][str(size)][phase]


def test_attention_of_a_chip_without_a_schedule() -> None:
    assert attention.seconds(CHIPS["h100"], blocks("fwd", 128, 1024)) is None
