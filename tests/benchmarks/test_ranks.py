from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from benchmarks import ranks
from benchmarks.ranks import kendall


def test_kendall_counts_pairs_in_the_same_order():
    assert kendall([1, 2, 3, 4], [10, 20, 30, 40]) == 1
    assert kendall([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert kendall([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall([1, 2], [5, 5]) == 0


@pytest.mark.parametrize("few", [0, 1, 2, -3])
def test_too_few_candidates_are_refused_before_anything_is_measured(few, monkeypatch, capsys):
    monkeypatch.setattr(ranks, "prepare", lambda *_: pytest.fail("a model is loaded"))
    monkeypatch.setattr("sys.argv", ["ranks", "runs/none", "--candidates", str(few)])
    with pytest.raises(SystemExit) as refused:
        ranks.main()
    assert refused.value.code == 2 and f"--candidates: at least 3, got {few}" in capsys.readouterr().err


def test_a_run_that_measured_too_few_is_refused_before_they_are_measured_again(tmp_path, monkeypatch):
    known = [SimpleNamespace(profile=name, kl=0.5) for name in "ab"]
    memory = SimpleNamespace(recall=lambda kind, **_: known, close=lambda: None)
    prepared = Mock(return_value=SimpleNamespace(bench=SimpleNamespace(memory=memory)))
    run = SimpleNamespace(settings={}, id="r", name="mine")
    monkeypatch.setattr(ranks, "prepare", prepared)
    monkeypatch.setattr(ranks.RunDirectory, "open", lambda _: run)
    monkeypatch.setattr("sys.argv", ["ranks", str(tmp_path)])
    with pytest.raises(SystemExit, match="mine has 2 candidates that were measured, and at least 3 are needed"):
        ranks.main()
    assert prepared.call_count == 1


def test_a_single_candidate_has_no_rank():
    with pytest.raises(SystemExit, match="at least two"):
        kendall([1], [1])
