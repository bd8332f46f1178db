"""The streamed run of a 7B shape, as a toy: every phase is measured, and nothing is left of it."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import seven_billion
from self_pruner.agent.prepare import workbench


@pytest.mark.usefixtures("believed")
def test_a_toy_of_the_shape_goes_all_the_way_and_every_phase_is_measured(tmp_path, monkeypatch, capsys):
    words = ["--layers", "2", "--hidden", "64", "--folder", str(tmp_path / "work"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(workbench, "StreamedLayers", workbench.StreamedLayers)  # which is put back afterwards
    monkeypatch.setattr(sys, "argv", ["seven_billion", *words])
    seven_billion.main()
    found = json.loads((tmp_path / "out").read_text())
    assert (found["layers"], found["hidden_size"], found["candidates"]) == (2, 64, 3)
    assert found["recalibrated"] and found["verified"] == 0.0 and found["passes"] > 5
    read = {name: row["bytes_read"] for name, row in found["phases"].items()}
    assert {"Calibration", "Dense targets, fitness", "Recalibration", "Export and verification"} <= read.keys()
    assert sum(read.values()) > found["layer_bytes_read"] > 0
    assert found["phases"]["Calibration"]["passes"] == 1.0
    assert found["peak_bytes"] == max(row["peak_bytes"] for row in found["phases"].values()) > 0
    assert "By phase" in capsys.readouterr().out and not (tmp_path / "work").exists()


def test_the_shape_is_that_of_llama_2_7b_unless_it_is_told_otherwise():
    whole = seven_billion.config_of(32, 4096)
    assert (whole.num_attention_heads, whole.intermediate_size, whole.vocab_size) == (32, 11008, 32000)
    assert whole.max_position_embeddings == 4096 and not whole.tie_word_embeddings
