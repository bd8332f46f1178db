"""What the new process is asked, and what is made of its answer; the process itself is not started."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from self_pruner.memory.profile import Profile
from self_pruner.tools.engines.leashed import LEASH
from self_pruner.tools.export import publish as publish_module
from self_pruner.tools.export import verify as verify_module
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.naming import UNFINISHED
from self_pruner.tools.export.publish import BESIDE_WEIGHTS, publish
from self_pruner.tools.export.verify import VerificationError, record_expected, verify
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from tests.tiny import MLP_UNIT, tiny_model

PROFILE = Profile((3, 1, 4), (5, 12, 1))
CARD = CardFacts("tiny", "llama", 0.3, (), "random text", "python main.py")
INPUT_IDS = torch.randint(0, 512, (2, 16), generator=torch.Generator().manual_seed(1))
ANSWER = {
    "max_abs": 2e-5,
    "cached_max_abs": 3e-5,
    "scale": 0.5,
    "dtype": "float32",
    "wrong_keys": [],
}


@pytest.fixture(scope="module")
def elastic() -> ElasticModel:
    model = tiny_model("llama")
    return ElasticModel(model, calibrate(model, INPUT_IDS), mlp_unit=MLP_UNIT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config and nothing else."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    return path


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the new process answers, to be changed by a test; "command" and "options" are what it was started with."""
    told: dict[str, Any] = {"returncode": 0, "stderr": "", "answer": dict(ANSWER)}

    def run(args: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        command = args[args.index(str(LEASH)) + 2 :]  # it is started so that it ends with this process
        told.update({"command": command, "options": options, "cwd was there": Path(options["cwd"]).is_dir()})
        stdout = "said by a library\n" + json.dumps(told["answer"]) + "\n"
        return subprocess.CompletedProcess(command, told["returncode"], stdout, told["stderr"])

    monkeypatch.setattr(verify_module.subprocess, "run", run)
    return told


def test_a_verification_is_what_the_new_process_measured(child, folder, tmp_path):
    assert verify(folder, tmp_path / "expected.safetensors") == 2e-5


@pytest.mark.parametrize(
    ("dtype", "share"), [("float64", 1e-4), ("float32", 1e-4), ("float16", 0.01), ("bfloat16", 0.05)]
)
@pytest.mark.parametrize(("scale", "factor"), [(0.001, 1.0), (1.0, 1.0), (20.0, 20.0)])
@pytest.mark.parametrize("which", ["max_abs", "cached_max_abs"])
def test_what_a_type_may_differ_by_is_a_share_of_the_largest_logit(
    child, folder, tmp_path, dtype, share, scale, factor, which
):
    child["answer"] |= {"dtype": dtype, "scale": scale, "max_abs": 0.0, "cached_max_abs": 0.0}
    child["answer"][which] = 0.999 * share * factor
    verify(folder, tmp_path / "expected")
    child["answer"][which] = share * factor  # as much as is allowed
    verify(folder, tmp_path / "expected")
    for wrong in (1.001 * share * factor, math.nan):
        child["answer"][which] = wrong
        with pytest.raises(VerificationError, match=f"{share * factor:.3g} is allowed"):
            verify(folder, tmp_path / "expected")


def test_code_that_no_export_writes_is_refused_before_any_process_is_started(child, folder, tmp_path):
    (folder / "payload.py").write_text("raise SystemExit\n")
    with pytest.raises(VerificationError, match="payload.py"):
        verify(folder, tmp_path / "expected.safetensors")
    assert "command" not in child


def test_both_differences_are_named(child, folder, tmp_path):
    child["answer"] |= {"max_abs": 0.5, "cached_max_abs": 0.25}
    with pytest.raises(VerificationError, match="differ by up to 0.5, with the KV cache by up to 0.25, and 0.0001"):
        verify(folder, tmp_path / "expected")


def test_the_new_process_hears_of_the_folder_wherever_it_starts(child, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verify(Path("model"), Path("expected.safetensors"), device="cuda:1", layers="disk")
    places = [str(tmp_path / "model"), str(tmp_path / "expected.safetensors")]
    assert child["command"][-4:] == [*places, "cuda:1", "disk"]
    verify(Path("model"), Path("expected.safetensors"), device="cuda:1")
    assert child["command"][-4:] == [*places, "cuda:1", "cuda:1"]
    assert "-I" in child["command"]  # this project is out of its reach


def test_it_reaches_no_hub_and_finds_no_code_of_an_earlier_load(child, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", "/earlier")
    verify(folder, tmp_path / "expected")
    environment = child["options"]["env"]
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["HF_MODULES_CACHE"] == child["options"]["cwd"] != "/earlier"
    assert child["cwd was there"] and not Path(child["options"]["cwd"]).exists()


def test_a_process_that_dies_without_a_word_is_named_by_its_status(child, folder, tmp_path):
    child["returncode"] = -9
    with pytest.raises(VerificationError, match="does not load in a new process: exit status -9"):
        verify(folder, tmp_path / "expected")


def test_only_the_last_of_many_words_is_passed_on(child, folder, tmp_path):
    child |= {"returncode": 1, "stderr": "Traceback\n  File\nValueError: no such model type\n\n"}
    with pytest.raises(VerificationError) as caught:
        verify(folder, tmp_path / "expected")
    assert str(caught.value) == f"{str(folder)!r} does not load in a new process: ValueError: no such model type"


def test_the_first_few_of_many_misfits_are_named(child, folder, tmp_path):
    child["answer"]["wrong_keys"] = ["a", "b", "c", "d"]
    with pytest.raises(VerificationError, match=r"do not fit its config: \['a', 'b', 'c'\]"):
        verify(folder, tmp_path / "expected")


def test_expected_logits_are_those_of_every_row_at_the_profile(elastic, tmp_path):
    path = record_expected(elastic, PROFILE, INPUT_IDS, tmp_path / "expected.safetensors")
    saved = load_file(path)
    assert path == tmp_path / "expected.safetensors"
    assert torch.equal(saved["input_ids"], INPUT_IDS)
    assert saved["logits"].dtype == torch.float32 and saved["logits"].shape == (2, 16, 512)
    torch.testing.assert_close(saved["logits"], elastic.logits(INPUT_IDS, PROFILE), rtol=1e-4, atol=1e-4)


def test_publishing_says_how_far_it_is_and_keeps_layers_on_the_disk_where_memory_is_short(
    elastic, child, tmp_path, monkeypatch
):
    steps: list[tuple[int, int]] = []
    publish(elastic, PROFILE, None, tmp_path / "a", CARD, INPUT_IDS, progress=lambda *step: steps.append(step))
    assert steps and steps[-1][0] == steps[-1][1] > 0
    assert child["command"][-2:] == ["cpu", "cpu"]
    monkeypatch.setattr(publish_module, "free_memory", lambda device: BESIDE_WEIGHTS)
    publish(elastic, PROFILE, None, tmp_path / "b", CARD, INPUT_IDS)
    assert child["command"][-2:] == ["cpu", "disk"]


def test_publishing_replaces_only_where_it_is_told(elastic, child, tmp_path):
    publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS)
    with pytest.raises(publish_module.ExportError, match="model"):
        publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS)
    (tmp_path / "model" / "old.txt").write_text("old")
    publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS, replace=True)
    assert not (tmp_path / "model" / "old.txt").exists()


def test_publishing_for_an_engine_writes_what_that_engine_reads(elastic, child, tmp_path, monkeypatch):
    asked: list[Any] = []
    real = publish_module.export

    def watch(*words: Any, serving: str, **options: Any) -> Any:
        asked.append(serving)
        return real(*words, serving="transformers", **options)

    monkeypatch.setattr(publish_module, "export", watch)
    publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS, serving="vllm")
    publish(elastic, PROFILE, None, tmp_path / "other", CARD, INPUT_IDS)
    assert asked == ["vllm", "transformers"]


def test_a_failed_folder_takes_the_place_of_an_earlier_one_with_all_it_held(elastic, child, tmp_path):
    (tmp_path / "model.failed").mkdir()
    (tmp_path / "model.failed" / "earlier.txt").write_text("earlier")
    (tmp_path / "model.failed" / UNFINISHED).touch()  # an export left it; a stranger's would stay
    child["answer"]["max_abs"] = 1.0
    with pytest.raises(VerificationError, match=r"1 .*is allowed\. It was renamed to .*model\.failed"):
        publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS)
    assert [path.name for path in tmp_path.iterdir()] == ["model.failed"]
    assert not (tmp_path / "model.failed" / "earlier.txt").exists()
