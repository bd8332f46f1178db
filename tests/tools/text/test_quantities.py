"""Bytes and seconds in words."""

import pytest

from self_pruner.tools.text.quantities import duration, size


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 KB"), (93e6, "93 MB"), (4.04e9, "4.0 GB"), (2.5e12, "2.5 TB")],
)
def test_bytes_have_two_digits_at_least(count, said):
    assert size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (89, "89 s"), (90, "1.5 min"), (7200, "2.0 h"), (259_200, "3 days")],
)
def test_seconds_become_minutes_hours_and_days(seconds, said):
    assert duration(seconds) == said
