"""Weights by counts are those of the formula, and a mixture keeps them exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.examples.rates import PARTS, Counts, RatesConfig, weights
from data.mixture import Mixture

COUNTS = st.lists(
    st.tuples(st.integers(1, 10**6), st.integers(1, 40)).map(
        lambda pair: Counts(pair[0], -(-pair[0] // pair[1]))
    ),
    min_size=1,
    max_size=20,
)


@given(COUNTS, st.floats(1, 8), st.integers(0, 10**5))
def test_rates_are_of_examples(counts: list[Counts], temperature: float, cap: int) -> None:
    found = weights(counts, RatesConfig(temperature, cap))
    rates = [min(n, cap or n) ** (1 / temperature) for n, _ in counts]
    rows = [rate * of.rows / of.examples for rate, of in zip(rates, counts, strict=True)]
    assert sum(found) == PARTS and min(found) >= 1
    raised = sum(PARTS * one < sum(rows) for one in rows)  # those that would have had none
    for part, one in zip(found, rows, strict=True):
        assert abs(part - PARTS * one / sum(rows)) <= 1 + raised
    mixture = Mixture([float(part) for part in found])
    for i, part in enumerate(found):
        assert mixture.count(i, PARTS) == part


def test_proportional_equal_and_capped() -> None:
    counts = [Counts(900, 90), Counts(100, 10)]
    assert weights(counts, RatesConfig(1)) == [9000, 1000]
    assert weights(counts, RatesConfig(2)) == [7500, 2500]  # 30 : 10
    assert weights(counts, RatesConfig(1, cap=100)) == [5000, 5000]
    longer = [Counts(900, 90), Counts(100, 100)]  # an example of the second takes a row
    assert weights(longer, RatesConfig(1, cap=100)) == [909, 9091]


@given(COUNTS, st.lists(st.sampled_from([0.0, 0.05, 0.25, 1.0, 3.0]), min_size=1, max_size=3))
def test_text_has_the_rows_that_its_weight_says(counts: list[Counts], given: list[float]) -> None:
    alone = weights(counts, RatesConfig(2))
    found = weights([*given, *counts], RatesConfig(2))
    of_text, of_tasks = found[: len(given)], found[len(given) :]
    assert sum(found) == PARTS
    for part, weight in zip(of_text, given, strict=True):
        assert (part == 0) == (weight == 0)
        assert abs(part - PARTS * weight / (1 + sum(given))) <= 1 + len(counts)
    for part, before in zip(of_tasks, alone, strict=True):
        assert abs(part - before / (1 + sum(given))) <= 2 + len(counts)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"temperature": 0.5}, "temperature=0.5: use 1 or more"),
        ({"cap": -1}, "cap=-1: must not"),
        ({"cap": 9}, "cap=9: give a temperature too"),
    ],
)
def test_what_cannot_be(values: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RatesConfig(**values)  # type: ignore[arg-type]
