import pytest

from benchmarks.ranks import kendall


def test_kendall_counts_pairs_in_the_same_order():
    assert kendall([1, 2, 3, 4], [10, 20, 30, 40]) == 1
    assert kendall([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert kendall([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall([1, 2], [5, 5]) == 0


def test_a_single_candidate_has_no_rank():
    with pytest.raises(SystemExit, match="at least two"):
        kendall([1], [1])
