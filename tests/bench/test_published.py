"""Published results: what a row says twice agrees, and with the shape it has in our terms."""

import pytest

from bench.published import ROWS
from planning.topology import parse


def test_there_are_enough():
    dense = [row for row in ROWS if row.config is not None]
    assert len(dense) >= 8
    assert {parse(row.topology).chip.name for row in ROWS} >= {"v5e", "v5p", "v6e"}
    for name, topology, mfu in (
        ("Llama2-70B", "v5p:8x8x8", 65.4),
        ("16B", "v5e:16x16", 61.10),
        ("32B", "v5e:16x16", 66.86),
        ("Llama3.1-8B", "v6e:16x16", 45.47),
    ):
        assert any((r.name, r.topology, r.mfu) == (name, topology, mfu) for r in ROWS), name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name} {row.topology}")
def test_a_row_agrees_with_itself(row):
    chip = parse(row.topology).chip
    if row.tflops and row.mfu:
        assert row.tflops * 1e12 / chip.bf16 * 100 == pytest.approx(row.mfu, rel=0.01)
    if row.step_s and row.tokens_per_s:
        assert row.rows * row.length / row.tokens_per_s == pytest.approx(row.step_s, rel=0.002)
    assert " at " in row.of and (" at " in row.recipe or row.recipe.startswith("the same"))


BOTH = [row for row in ROWS if row.config is not None and row.tflops and row.tokens_per_s]


@pytest.mark.parametrize("row", BOTH, ids=lambda row: f"{row.name} {row.topology}")
def test_flops_are_counted_as_the_authors_did(row):
    """TFLOP/s over tokens/s are FLOPs a token: of the shape, and of all of the square or half."""
    published = row.tflops * 1e12 / row.tokens_per_s
    assert row.flops_per_token() == pytest.approx(published, rel=0.002)


def test_sizes_are_those_in_the_names():
    for row in ROWS:
        if row.name.endswith("B") and row.name[:-1].isdigit():
            assert row.config.num_params() == pytest.approx(int(row.name[:-1]) * 1e9, rel=0.02)


def test_a_published_mfu_in_our_way_of_counting():
    """Llama3.1-8B on Trillium: 45.5 % with the whole square of attention are 40.4 % with half."""
    row = next(r for r in ROWS if (r.name, r.topology) == ("Llama3.1-8B", "v6e:16x16"))
    assert row.causal_mfu() == pytest.approx(40.4, abs=0.1)
