import json
import sys

import pytest

from benchmarks import summary
from tests.agent.compare.invented import results, run_result


def test_an_arm_is_a_row_and_a_sparsity_a_column_the_best_first_and_recalibration_beside_it():
    runs = [
        *(run_result("evolution", ppl, sparsity=share) for share, ppl in ((0.2, 40.0), (0.5, 90.0))),
        *(run_result("hybrid", ppl, sparsity=share, recalibrated=30.0) for share, ppl in ((0.2, 36.0), (0.5, 64.0))),
        run_result("self", 50.0, sparsity=0.5),
    ]
    head, _, dense, *rows = summary.short_table(results(runs))
    assert head == "| arm | seeds | 20% | 50% | all |"
    assert dense.startswith("| dense | - | ")
    assert rows == [
        "| `hybrid` | 1 | 36.00 | 64.00 | 48.00 |",
        "| `hybrid`, recalibrated | 1 | 30.00 | 30.00 | 30.00 |",
        "| `evolution` | 1 | 40.00 | 90.00 | 60.00 |",
        "| `self` | 1 | - | 50.00 | - |",
    ]


def test_seeds_give_an_interval():
    runs = [run_result("hybrid", ppl, seed=seed) for seed, ppl in enumerate((30.0, 31.0, 32.0))]
    assert summary.short_table(results(runs))[3].startswith("| `hybrid` | 3 | 30.99 ± 2.4")


def test_a_folder_without_results_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["summary", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"holds no results\.json of a comparison$"):
        summary.main()
    (tmp_path / "results.json").write_text(json.dumps({"runs": []}))
    with pytest.raises(SystemExit, match=r"holds no results\.json of a comparison$"):
        summary.main()
