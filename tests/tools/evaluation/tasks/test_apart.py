"""What a measuring process says, line by line; the process itself is tested with the command that starts it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from self_pruner.memory.errors import MeasurementError
from self_pruner.tools.evaluation.tasks import apart
from self_pruner.tools.evaluation.tasks.apart import TaskFigures, _read, text_figures


def test_progress_tasks_and_noise_are_told_apart():
    assert _read('{"progress": [3, 7]}') == (3, 7)
    found = _read('{"task": "piqa", "metrics": {"acc": [0.5, 0.1], "acc_norm": [0.25, null]}}')
    assert found == TaskFigures("piqa", {"acc": (0.5, 0.1), "acc_norm": (0.25, None)})
    for noise in ("Loading weights: 100%", "[1, 2]", "{}", ""):
        assert _read(noise) is None


def test_a_task_without_its_metrics_is_refused():
    with pytest.raises(MeasurementError, match=r"boolq came with the metrics \['f1'\]"):
        _read('{"task": "boolq", "metrics": {"f1": [0.5, 0.1]}}')


def test_perplexity_has_the_error_that_the_spread_of_windows_gives():
    found = text_figures([2.0, 3.0, 4.0])
    assert found.perplexity == pytest.approx(math.exp(3.0)) and found.windows == 3
    assert found.standard_error == pytest.approx(math.exp(3.0) / math.sqrt(3))
    assert text_figures([2.0]).standard_error is None
    assert text_figures([800.0, 900.0]).perplexity == math.inf  # as in every other table
    for nll in ([math.nan, 1.0], [math.nan], [1.0, math.inf]):
        with pytest.raises(MeasurementError, match="not finite on the perplexity text: try --dtype float32"):
            text_figures(nll)


def test_the_measuring_process_finds_the_package_and_no_part_of_it_under_a_name_of_its_own():
    root = apart.ROOT
    assert (root / "self_pruner" / "__init__.py").is_file() and root.name != "self_pruner"
    assert (root / "self_pruner" / "tools" / "evaluation").samefile(Path(apart.__file__).parents[1])
