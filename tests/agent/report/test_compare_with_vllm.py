"""The command `verify`: what it says of two engines, and what it refuses before either is started."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from main import main
from self_pruner.agent.command_line.commands import command_line
from self_pruner.agent.report.compare_with_vllm import verdict
from self_pruner.tools.export.checkpoint import MODELING_FILE
from self_pruner.tools.export.same_tokens import Comparison, Difference, EngineError, ask, vllm_options
from self_pruner.tools.models.foreign_code import ForeignCodeError, check_code
from tests.tiny import tiny_folder


def comparison(*differences: Difference) -> Comparison:
    return Comparison("vllm 0.32.0", "transformers 5.19.0", 8, 16, differences)


def test_equal_tokens_are_a_sentence_with_both_versions():
    assert verdict(comparison()) == [
        "The same tokens from vllm 0.32.0 and transformers 5.19.0, float32, 8 prompts of 16 greedy tokens each."
    ]


def test_a_tie_passes_and_is_shown():
    found = comparison(Difference(2, 5, 1e-5))
    assert found.ok
    assert "Prompt 3 " in verdict(found)[0] and "from token 6 on: a tie" in verdict(found)[0]
    assert verdict(found)[-1].startswith("The same tokens but for ties")


def test_a_difference_that_is_no_tie_fails():
    found = comparison(Difference(2, 5, 1e-5), Difference(7, 0, 0.25))
    assert not found.ok
    assert "0.250 apart" in verdict(found)[1]
    assert verdict(found)[-1].startswith("Not the same tokens")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tiny_folder(tmp_path / "model")
    shutil.copyfile(MODELING_FILE, folder / MODELING_FILE.name)
    return folder


def test_our_own_code_passes_and_any_other_is_refused_unless_trusted(checkpoint):
    check_code(checkpoint)
    (checkpoint / MODELING_FILE.name).write_text("import os\n")
    with pytest.raises(ForeignCodeError, match=f"brings code that is not .*{MODELING_FILE.name}"):
        check_code(checkpoint)
    check_code(checkpoint, trusted=True)


def test_further_code_is_refused_too(checkpoint):
    (checkpoint / "tokenization_x.py").write_text("")
    with pytest.raises(ForeignCodeError, match="tokenization_x.py"):
        check_code(checkpoint)


def test_a_stock_checkpoint_is_left_to_vllms_own_class(checkpoint):
    assert vllm_options(checkpoint) == {}
    assert vllm_options(checkpoint, tensor_parallel=2) == {"tensor_parallel_size": 2}


def test_an_engine_that_fails_is_quoted(tmp_path):
    import sys

    request = {"folder": str(tmp_path / "none"), "prompts": [[1]], "new_tokens": 1, "dtype": "float32"}
    with pytest.raises(EngineError, match="transformers does not run .*none"):
        ask("transformers", Path(sys.executable), request)
    with pytest.raises(EngineError, match="cannot be run"):
        ask("vllm", tmp_path / "no-python", request)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["none"], "none is no folder"),
        (["."], "is no checkpoint: it has no config.json"),
        (["model", "--vllm-python", "no-python"], "no-python' is no file"),
        (["model", "--tensor-parallel", "0"], "--tensor-parallel"),
    ],
)
def test_mistakes_are_one_sentence_and_an_exit_status(checkpoint, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(checkpoint.parent)
    assert main(["verify", *arguments]) != 0
    printed = capsys.readouterr().err
    assert sentence in printed and "Traceback" not in printed


def test_the_exit_status_is_that_of_the_comparison(checkpoint, monkeypatch, capsys):
    from self_pruner.agent.report import compare_with_vllm as verify

    monkeypatch.setattr(verify, "vllm_python", lambda path: Path("python"))
    for found, status in ((comparison(), 0), (comparison(Difference(0, 0, 1.0)), 1)):
        monkeypatch.setattr(verify, "compare_tokens", lambda *args, found=found, **options: found)
        assert command_line.carry_out(["verify", str(checkpoint)]) == status
