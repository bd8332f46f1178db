"""The command that times every width, on a tiny model: what it prints and keeps."""

from __future__ import annotations

from dataclasses import replace

from main import main
from self_pruner.agent.prepare import latency_table as latency
from self_pruner.agent.prepare import latency_timer
from self_pruner.agent.settings.settings import make_settings
from self_pruner.tools.latency import measure
from self_pruner.tools.profiles.space import Space
from tests.tiny import tiny_config

SMALL = ["--latency-prompt", "8", "--latency-decode", "2", "--latency-repeats", "1", "--dtype", "float32"]


def test_a_table_is_of_the_devices_that_share_a_layer_and_of_the_biases(tmp_path):
    space = Space(n_layers=3, n_groups=4, n_blocks=4, group_params=1, block_params=1, fixed_params=1, mlp_unit=64)
    given = [{}, {"target": "vllm-native"}, {"target": "vllm-native", "tensor_parallel": 2}, {"compensation": "bias"}]
    paths = [
        latency.table_path(make_settings({"cache": tmp_path, **one}), tiny_config("llama"), space) for one in given
    ]
    assert paths[0] == paths[1] and len(set(paths)) == 3


def test_the_table_is_measured_once_and_checked_every_time(model, tmp_path, capfd, monkeypatch):
    words = ["latency-table", "--model", str(model), "--sparsity", "0.3", "--cache", str(tmp_path), *SMALL]
    assert main(words) == 0
    printed = capfd.readouterr().out
    assert "predicted speed-up" in printed and "Mean error" in printed and "unequal 3" in printed
    (kept,) = (tmp_path / "latency").glob("*.json")
    monkeypatch.setattr(latency, "measure_table", None)  # it would fail if it were measured again
    assert main(words) == 0
    monkeypatch.undo()
    kept.write_text("{")
    assert main(words) == 0
    assert "is damaged" in capfd.readouterr().out


def test_a_table_of_launches_says_so_when_it_is_measured_and_whenever_it_is_read(model, tmp_path, capfd, monkeypatch):
    def in_turn(*words):
        return replace(measure.in_turn(*words), graph_fault="no capture")

    monkeypatch.setattr(latency_timer, "in_turn", in_turn)
    words = ["latency-table", "--model", str(model), "--sparsity", "0.3", "--cache", str(tmp_path), *SMALL]
    for _ in range(2):
        assert main(words) == 0
        printed = " ".join(capfd.readouterr().out.split())
        assert printed.count("timed without CUDA graphs, so as launches one by one: no capture") == 2, printed
        monkeypatch.setattr(latency, "measure_table", None)


def test_a_cache_that_is_a_file_is_one_sentence_before_anything_is_measured(model, tmp_path, capfd, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(latency, "measure_table", None)
    words = ["--model", str(model), "--sparsity", "0.3", "--cache", str(tmp_path / "file"), *SMALL]
    assert main(["latency-table", *words]) == 2
    error = capfd.readouterr().err
    assert "no latency table can be kept in" in error and "name another folder with --cache" in error
    assert error.count("\n") == 1
