"""The estimate of a step, against its parts worked out by hand and against what was published."""

import dataclasses
import statistics

import pytest

from bench.published import ROWS
from errors import UserError
from planning.analytic import estimate, layout, work
from planning.analytic.exchanges import exchanges, links_of
from planning.topology import parse
from tests.planning.runs import LLAMA, SMALL, run_of


def test_rooflines_by_hand():
    """Llama 3 8B, a row of 8,192 tokens on each chip of v5e:16x16, everything computed again."""
    found = estimate.estimate(run_of(LLAMA, 256, 8192), parse("v5e:16x16"))
    # 8, less the last product of each MLP, of 6,979,321,856 weights; 6 of the head's; attention.
    weights, last = 6_979_321_856, 32 * 4096 * 14336
    flops = 8192 * (8 * weights - 2 * last + 6 * 128256 * 4096)
    flops += 11 * 2 * 32 * 32 * 128 * 136 * 512 * 512
    assert found.flops == pytest.approx(flops)
    assert found.timing.rooflines.matrix == pytest.approx(flops / 197e12)
    # Weights thrice, in bfloat16; the head's table in bfloat16, its gradient in float32; the
    # embedded tokens and their gradient over the longer way of two.
    links = (3 * 2 * weights + (2 + 4) * 128256 * 4096) * 255 / 256 / 180e9
    links += 8192 * 4096 * (2 + 4) * 16 / 4 / 90e9
    assert found.timing.rooflines.links == pytest.approx(links, rel=1e-3)
    model = 8192 * (6 * 7_504_658_432 + 6 * 32 * 4096 * 8192)
    assert found.model_flops == model
    step = found.timing.step_s
    assert found.timing.mfu == pytest.approx(model / step / 197e12)
    assert found.timing.tokens_per_s_chip == pytest.approx(8192 / step)


@pytest.mark.parametrize("topology", ["v5e:16x16", "v5p:4x8x8", "v6e:16x16", "h100:256"])
@pytest.mark.parametrize("mesh", [{}, dict(tensor=8), dict(data=16, tensor=4)])
def test_no_step_is_shorter_than_its_rooflines(topology, mesh):
    timing = estimate.estimate(run_of(LLAMA, 256, 8192, **mesh), parse(topology)).timing
    roofs = timing.rooflines
    assert timing.step_s > max(roofs.matrix, roofs.hbm, roofs.links)
    assert timing.step_s == pytest.approx(sum(timing.phases.values()))
    assert 0 <= timing.waited < timing.step_s and 0 < timing.mfu < 1


def phase(laid, name, over=None):
    """Seconds of the work of a phase, and of what it exchanges along some axes."""
    works = [line for line in work.work(laid) if line.phase in name]
    lines = [line for line in exchanges(laid) if line.phase in name]
    links = links_of(laid, lines)
    by_axes = dict.fromkeys(links, 0.0)
    for line in lines:
        by_axes[line.axes] += line.seconds(links[line.axes])
    return sum(estimate.seconds(laid, line) for line in works), by_axes


def test_weights_are_waited_for_if_they_take_longer_than_the_work():
    topology = parse("v5e:16x16")
    for length, waits in ((8192, False), (256, True)):
        run = run_of(dataclasses.replace(LLAMA, remat="full"), 256, length)
        laid, timing = layout.of(run, topology), estimate.estimate(run, topology).timing
        computing, exchanging = phase(laid, ("forward",))
        assert (exchanging[("fsdp",)] > computing) == waits
        assert timing.phases["forward"] == pytest.approx(max(computing, exchanging[("fsdp",)]))


def test_activations_hide_behind_the_products_of_their_half():
    """Of a half with products of p seconds and exchanges of e, over 8 devices: max + min / 8."""
    run, topology = run_of(LLAMA, 32, 8192, tensor=8), parse("v5p:4x8x8")
    laid, timing = layout.of(run, topology), estimate.estimate(run, topology).timing
    lines = [line for line in exchanges(laid) if line.phase == "forward" and line.half]
    links = links_of(laid, lines)
    expected = 0.0
    for half in ("attention", "mlp", ""):
        own = sum(
            estimate.seconds(laid, line)
            for line in work.work(laid)
            if line.phase == "forward" and line.half == half
        )
        time = sum(line.seconds(links[line.axes]) for line in lines if line.half == half)
        expected += max(own, time) + min(own, time) / 8
    assert timing.phases["forward"] == pytest.approx(expected)


def test_quantized_products_run_at_their_own_peak():
    model = dataclasses.replace(LLAMA, quantization="int8")
    topology = parse("v5e:16x16")
    plain, int8 = (estimate.estimate(run_of(m, 256, 8192), topology).timing for m in (LLAMA, model))
    assert plain.rooflines.matrix / 2 < int8.rooflines.matrix < 0.65 * plain.rooflines.matrix


def test_a_device_of_a_chip_that_has_two_has_half_of_it():
    found = estimate.estimate(run_of(LLAMA, 128, 8192), parse("tpu7x:4x4x4"))
    assert found.sizes["fsdp"] == 128
    assert found.usable == pytest.approx(94.74 * 2**30)
    assert found.timing.mfu == pytest.approx(
        found.model_flops * 128 / found.timing.step_s / (64 * 2307e12)
    )


def test_simulated_devices_have_memory_and_no_time():
    found = estimate.estimate(run_of(SMALL, 16, 32), parse("cpu:8"))
    assert found.timing is None and found.peak > 0 and found.fits


def test_what_does_not_fit():
    assert not estimate.estimate(run_of(LLAMA, 8, 8192), parse("v5e:2x4")).fits
    assert estimate.estimate(run_of(LLAMA, 8, 8192), parse("v6e:2x4")).fits


def test_a_mesh_that_does_not_fit_the_devices():
    with pytest.raises(UserError, match=r"config\.mesh: "):
        estimate.estimate(run_of(LLAMA, 16, 8192, fsdp=3), parse("v5e:4x4"))


def test_near_what_was_published():
    """The dense results, in their recipes: all are predicted too fast (see ASSUMPTIONS), half of
    them by less than 15 %, none by more than 30 %. No constant comes from these rows."""
    ratios = []
    for row in ROWS:
        if row.config is None:
            continue
        model = dataclasses.replace(row.config, logits_mb=512)
        run = run_of(model, row.rows * row.chips, row.length, **dict(row.mesh))
        timing = estimate.estimate(run, parse(row.topology, row.slices)).timing
        ratios.append(timing.step_s / row.seconds())
    assert len(ratios) >= 8
    assert min(ratios) > 0.7 and max(ratios) < 1.0
    assert statistics.median(ratios) > 0.85
