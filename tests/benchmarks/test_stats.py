import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitask_benchmarks.stats import brackets, estimate, ratio, round_stats
from multitask_core.errors import ConfigError

LATENCIES = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=50)


def test_a_round():
    stats = round_stats([float(number) for number in range(1, 101)], texts=800, seconds=4)
    assert (stats.calls, stats.texts_per_s, stats.mean_ms) == (100, 200, 50.5)
    assert (stats.p50_ms, stats.p95_ms, stats.p99_ms) == (50, 95, 99)


@given(LATENCIES)
def test_percentiles_are_latencies_that_occurred(latencies_ms):
    stats = round_stats(latencies_ms, 1, 1)
    assert {stats.p50_ms, stats.p95_ms, stats.p99_ms} <= set(latencies_ms)
    assert stats.p50_ms <= stats.p95_ms <= stats.p99_ms <= max(latencies_ms)


def test_a_round_without_calls_is_refused():
    with pytest.raises(ConfigError, match="--seconds"):
        round_stats([], 0, 1)


def test_estimate_brackets_the_median_and_repeats():
    value = estimate([10, 11, 12, 13, 14])
    assert value == estimate([10, 11, 12, 13, 14])
    assert value.median == 12
    assert 10 <= value.low < 12 < value.high <= 14
    assert value.spread == pytest.approx(4 / 12)
    assert value.noisy


def test_equal_rounds_leave_no_doubt():
    value = estimate([5.0] * 5)
    assert (value.low, value.median, value.high, value.spread) == (5, 5, 5, 0)
    assert not value.noisy


def test_few_rounds_have_no_interval():
    assert [brackets(rounds) for rounds in (3, 4, 5, 9)] == [
        *["[lowest, highest]"] * 2,
        *["[95 % interval]"] * 2,
    ]
    three = estimate([1.0, 2.0, 3.0])
    assert (three.low, three.high) == (1.0, 3.0)


def test_noise_begins_above_15_percent():
    assert not estimate([100, 100, 114]).noisy
    assert estimate([100, 100, 116]).noisy


def test_a_median_of_nothing_hides_no_noise():
    assert estimate([0.0, 0.0, 0.0, 200.0, 300.0]).noisy
    assert estimate([0.0] * 5).spread == 0


def test_ratio_is_formed_within_rounds():
    slow_minutes = [1.0, 2.0, 4.0]
    value = ratio([3 * one for one in slow_minutes], slow_minutes)
    assert (value.median, value.spread) == (3, 0)
    with pytest.raises(ValueError, match="zip"):
        ratio([1, 2], [1])
