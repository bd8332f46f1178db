"""Whole runs whose brain is behind an endpoint, and one in real vLLM."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from main import main
from self_pruner import prompts
from self_pruner.agent.result import evaluate_checkpoint as evaluate_module
from self_pruner.agent.view import View
from self_pruner.memory.errors import SettingsError
from self_pruner.tools.export.provenance import read_provenance
from tests.endpoint import completion, obedient, serving
from tests.processes import silent_port

PYTHON = os.environ.get("SELF_PRUNER_VLLM_PYTHON")
SHORT = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--final-tokens", "128"),
    *("--sensitivity-tokens", "64", "--reporting-tokens", "128", "--calibration-length", "64"),
]
SEARCH = [
    *("--calibration-sequences", "4", "--evaluations", "6", "--offspring", "3", "--initial", "2", "--population", "2"),
    *("--benchmarks", "0", "--sparsity", "0.3", "--no-recalibrate", "--no-export"),
    *("--arm", "self", "--prompt-set", "default"),
]
SMALL = [*SHORT, *SEARCH, "--call-tokens", "256"]


@pytest.fixture
def run(carried_out):
    return lambda *words: carried_out(*SMALL, *words)


def result_of(tmp_path: Path, name: str = "tiny") -> tuple[Path, dict]:
    (folder,) = (tmp_path / "runs").glob(f"{name}-*")
    return folder, json.loads((folder / "result.json").read_text())


def faults(folder: Path) -> list[str]:
    """What went wrong in turns of the brain; that it repeats itself in so small a space is no fault."""
    lines = map(json.loads, (folder / "trace.jsonl").read_text().splitlines())
    return [line["error"] for line in lines if line["kind"] == "think" and line["error"]]


@pytest.fixture
def down():
    """An address at which nobody answers."""
    with silent_port() as port:
        yield f"http://127.0.0.1:{port}/v1"


def test_an_endpoint_makes_every_decision_and_is_charged_for(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", "my-secret-key")
    with serving() as server:
        status, printed, errors = run("--brain-url", server.url)
    assert status == 0, errors
    folder, result = result_of(tmp_path)
    spent = result["spent"]
    assert spent["illegal"] == 0 and faults(folder) == []
    turns = [asked for asked in server.asked if "vermilion" not in json.dumps(asked)]
    assert len(turns) >= 3 and spent["brain_tokens"] >= 110 * len(turns)
    assert set(server.keys) == {"Bearer my-secret-key"}
    written = "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())
    assert "my-secret-key" not in written
    assert f'brain_url = "{server.url}"' in (folder / "settings.toml").read_text()


def test_an_endpoint_that_repeats_the_key_puts_it_nowhere(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", "no/usual-form")
    turns = iter(range(1000))

    def chat(body: dict):
        said = server.keys[-1] or ""
        turn = next(turns)
        if turn == 2:
            return 500, f"what is {said}?"
        answer = obedient(body)
        for choice in answer["choices"]:
            call = json.loads(choice["message"]["content"])
            hidden = base64.b64encode(said.encode()).decode()
            call["thought"] = f"{said} {quote(said, safe='')} {hidden}"[: 4 * 32] if "thought" in call else ""
            choice["message"]["content"] = json.dumps(call) if turn != 3 else f"no JSON, {said}"
        return answer

    with serving(chat) as server:
        status, printed, errors = run("--brain-url", server.url)
    assert status == 0, errors
    folder, _ = result_of(tmp_path)
    assert main(["trace", str(folder)]) == 0 and main(["report", str(folder)]) == 0
    kept = b"".join(path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert b"[redacted]" in kept
    for form in ("no/usual-form", "no%2Fusual-form", base64.b64encode(b"Bearer no/usual-form").decode()[12:-4]):
        assert form not in printed + errors and form.encode() not in kept


def test_a_checkpoint_says_neither_where_things_lie_nor_who_was_asked(run, tmp_path, model):
    (tmp_path / "mine").mkdir()
    shutil.copy(Path(prompts.__file__).parent / "default" / "system.j2", tmp_path / "mine")
    with serving() as server:
        status, printed, errors = run("--brain-url", server.url, "--export", "--prompts", str(tmp_path / "mine"))
    assert status == 0, errors
    folder, _ = result_of(tmp_path)
    card, provenance = ((folder / "model" / name).read_text() for name in ("README.md", "self_pruner.json"))
    for path in (folder / "model").iterdir():
        if path.suffix != ".safetensors":
            text = path.read_text(errors="replace")
            assert not any(place in text for place in (str(tmp_path), str(model), "127.0.0.1", "pytest-of")), path
    assert "--model tiny" in card and "--brain-url URL" in card and "--prompts mine" in card
    assert json.loads(provenance)["model"] is None and json.loads(provenance)["base_model"] == "tiny"
    assert evaluate_module._settings(read_provenance(folder / "model"), {}, folder / "model").model == str(model)
    moved = (folder / "model").rename(tmp_path / "moved")
    settings = evaluate_module._settings(read_provenance(moved), {}, moved)
    with pytest.raises(SettingsError, match="does not say where 'tiny' lies: name it with --model"):
        evaluate_module._dense(settings, read_provenance(moved), View())


@pytest.mark.parametrize("told", [-1_000_000, 0])
def test_an_endpoint_that_says_it_cost_nothing_does_not_outlast_a_limit_on_tokens(run, tmp_path, told):
    usage = {"prompt_tokens": told, "completion_tokens": told, "prompt_tokens_details": {"cached_tokens": told}}
    with serving(lambda body: {**obedient(body), "usage": usage}) as server:
        status, printed, errors = run("--brain-url", server.url, "--tokens", "4000", "--evaluations", "500")
    assert status == 0, errors
    _, result = result_of(tmp_path)
    assert result["spent"]["brain_tokens"] >= 4000 or "tokens" in result["stop"]
    assert result["spent"]["brain_tokens"] > 100 * sum("vermilion" not in json.dumps(one) for one in server.asked)


def test_nonsense_is_counted_and_the_tool_stands_in(run, tmp_path):
    with serving(lambda body: {"choices": [completion("I am a teapot.")] * body.get("n", 1)}) as server:
        status, printed, errors = run("--brain-url", server.url)
    assert status == 0, errors
    assert "takes schemas but does not keep to them" in printed
    _, result = result_of(tmp_path)
    assert result["spent"]["illegal"] > 0 and result["spent"]["fallbacks"] > 0


def test_an_endpoint_that_fails_in_between_is_a_failed_turn_and_no_more(run, tmp_path):
    calls = iter(range(1000))

    def chat(body: dict):
        return (500, "hiccup") if next(calls) == 2 else obedient(body)

    with serving(chat) as server:
        status, printed, errors = run("--brain-url", server.url)
    assert status == 0, errors
    folder, result = result_of(tmp_path)
    (fault,) = faults(folder)
    assert "HTTP 500: hiccup" in fault and result["spent"]["failed_turns"] >= 1


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--brain-url", "localhost:8000"], "is no address of an endpoint"),
        (["--brain-url", "http://me:secret@host/v1"], "put the key into SELF_PRUNER_BRAIN_KEY"),
        (["--brain-url", "http://host/v1", "--brain", "self"], "--brain-url is where --brain vllm is asked"),
        (["--brain-model", "target"], "--brain-model is what --brain-url serves"),
        (["--brain", "vllm", "--vllm-python", "/no/python"], "is no file"),
        (["--brain", "vllm"], "there is no vLLM here"),
    ],
)
def test_what_cannot_be_asked_leaves_no_run_behind(run, tmp_path, words, sentence):
    status, printed, errors = run(*words)
    assert status == 2
    assert sentence in errors and errors.count("\n") == 1
    assert not list((tmp_path / "runs").glob("tiny-*"))


def test_an_endpoint_that_is_down_is_found_at_the_door(run, tmp_path, down):
    status, printed, errors = run("--brain-url", down)
    assert status == 2 and "cannot be reached" in errors
    assert not list((tmp_path / "runs").glob("tiny-*"))


def test_one_that_refuses_schemas_too(run, tmp_path):
    with serving(lambda body: (400, {"error": "no response_format here"})) as server:
        status, printed, errors = run("--brain-url", server.url)
    assert status == 2 and "no response_format here; the brain's replies need JSON schemas" in errors
    assert not list((tmp_path / "runs").glob("tiny-*"))


def test_an_arm_that_asks_nobody_needs_no_endpoint(run, tmp_path, down):
    status, printed, errors = run("--brain-url", down, "--arm", "evolution")
    assert status == 0, errors


def test_a_dry_run_counts_what_it_would_read(run):
    status, printed, errors = run("--brain-url", "http://host.invalid/v1", "--dry-run")
    assert status == 0, errors
    assert "Brain, " in printed and " turns" in printed


@pytest.mark.vllm
@pytest.mark.skipif(PYTHON is None, reason="SELF_PRUNER_VLLM_PYTHON names no Python with vLLM")
def test_the_bundled_model_in_a_vllm_of_its_own_prunes_itself(tmp_path, capfd, bundled_folder):
    words = ["--runs", str(tmp_path / "runs"), *SHORT, *SEARCH, "--samples", "3"]
    status = main([*words, "--brain", "vllm", "--vllm-python", str(PYTHON)])
    printed = capfd.readouterr()
    assert status == 0, printed.err
    assert "vLLM holds the dense weights a second time" in printed.out
    folder, result = result_of(tmp_path, "smollm2")
    spent = result["spent"]
    assert spent["illegal"] == spent["fallbacks"] == 0 and faults(folder) == []
    assert spent["brain_tokens"] > 0
    thoughts = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
    said = [reply["raw"] for line in thoughts for reply in line.get("replies", ())]
    assert len(said) >= 3 and all(json.loads(text, strict=False)["name"] for text in said)
    assert "vllm.entrypoints" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
