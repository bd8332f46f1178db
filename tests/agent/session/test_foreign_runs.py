"""A run that this user did not make here says what it would use, and uses it only where that was allowed."""

import json
import sys

import pytest

from main import main
from self_pruner.agent import session
from self_pruner.agent.command_line.foreign_runs import consent
from self_pruner.agent.compare.folder import DEFAULTS, PLAN, ComparisonFolder
from self_pruner.agent.run_files import seal as seals
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import RunDirectoryError


@pytest.fixture
def made(tmp_path):
    """Makes a run of this user's own with these settings."""

    def made(**settings):
        values = make_settings({"memory": tmp_path / "runs" / "memory.sqlite", **settings}).to_toml()
        with RunDirectory.create(tmp_path / "runs", "tiny", values, device="cpu", seed=0) as run:
            return run.path

    return made


@pytest.fixture(autouse=True)
def _nobody_to_ask(monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)


def edited(path, added):
    file = path / "settings.toml"
    file.write_text(file.read_text() + added + "\n")


def test_ones_own_run_is_not_asked_about_wherever_it_is_moved(made, tmp_path, capfd):
    path = made(trust_remote_code=True, brain_url="http://localhost:8000/v1")
    consent(path, False, View())
    consent(path.rename(tmp_path / "moved"), False, View())
    assert capfd.readouterr().out == ""


WISHES = {
    "a program": ('vllm_python = "/tmp/evil/python"', "run the program /tmp/evil/python"),
    "code": ("trust_remote_code = true", "run code that comes with the model smollm2-135m"),
    "an endpoint": (
        'brain_url = "http://evil.example/v1"\nbrain = "vllm"',
        "send its prompts to http://evil.example/v1",
    ),
    "a cluster": (
        'ray_address = "evil.example:6379"',
        "send its model and texts to the Ray cluster at evil.example:6379",
    ),
    "a collector": ("otel = true", "send its steps to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names"),
    "a tracker": ('track = "wandb"', "send its settings and figures to wandb"),
    "a cache": ('cache = "/home/someone"', "write to /home/someone"),
    "a text": ('calibration = "/etc/hostname"', "read /etc/hostname"),
}


@pytest.mark.parametrize("case", WISHES)
@pytest.mark.parametrize("command", ["resume", "tasks", "export"])
def test_what_an_edited_run_would_use_is_said_and_refused(made, tmp_path, monkeypatch, capfd, case, command):
    monkeypatch.delattr(session, "prepare")
    added, said = WISHES[case]
    path = made()
    file = path / "settings.toml"
    names = [line.partition(" ")[0] for line in added.splitlines()]
    kept = [line for line in file.read_text().splitlines() if line.partition(" ")[0] not in names]
    file.write_text("\n".join([*kept, added]) + "\n")
    words = [command, str(path), *(["--output", str(tmp_path / "out")] if command == "export" else [])]
    assert main(words) == 2
    error = capfd.readouterr().err
    assert said in error and "--yes says that it may" in error and error.count("\n") == 1


def test_a_key_that_an_endpoint_would_get_is_mentioned(made, monkeypatch):
    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", "secret-value")
    path = made(brain_url="http://evil.example/v1")
    monkeypatch.setattr(seals, "_machine", lambda: "another")
    with pytest.raises(RunDirectoryError, match="with the key in SELF_PRUNER_BRAIN_KEY") as caught:
        consent(path, False, View())
    assert "secret-value" not in str(caught.value)


@pytest.mark.parametrize("what", ["machine", "user", "owner", "none", "another run's"])
def test_another_machine_another_user_and_a_forged_seal_are_noticed(made, monkeypatch, what):
    path = made()
    if what == "machine":
        monkeypatch.setattr(seals, "_machine", lambda: "another")
    elif what == "user":
        monkeypatch.setattr(seals.os, "getuid", lambda: 12345)
    elif what == "owner":
        monkeypatch.setattr("self_pruner.agent.command_line.foreign_runs.os.geteuid", lambda: 12345)
    else:
        file = path / "environment.json"
        content = json.loads(file.read_text())
        own = content.pop("seal")
        if what == "another run's":
            content |= {"seal": own, "run": "other-20260101-000000-abcdef01"}
        file.write_text(json.dumps(content))
    with pytest.raises(RunDirectoryError, match=r"another machine or by another user.*write to .*memory\.sqlite"):
        consent(path, False, View())


def test_yes_says_what_is_used_and_goes_on(made, capfd):
    path = made()
    edited(path, 'cache = "/elsewhere"')
    consent(path, True, View())
    assert "write to /elsewhere" in capfd.readouterr().out


@pytest.mark.parametrize(("answer", "may"), [("y", True), ("YES ", True), ("", False), ("n", False), (None, False)])
def test_in_a_terminal_the_user_is_asked(made, monkeypatch, answer, may):
    def asked(prompt):
        if answer is None:
            raise EOFError
        return answer

    path = made()
    edited(path, 'cache = "/elsewhere"')
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", asked)
    if may:
        consent(path, False, View())
    else:
        with pytest.raises(RunDirectoryError, match="nothing was done"):
            consent(path, False, View())


def test_a_link_to_a_place_outside_is_a_place_outside(made, tmp_path, monkeypatch):
    path = made()
    (path / "inside").symlink_to(tmp_path)
    edited(path, f'cache = "{path / "inside" / "cache"}"')
    with pytest.raises(RunDirectoryError, match="write to .*inside/cache"):
        consent(path, False, View())


def test_what_is_called_like_a_known_text_or_model_is_not_read(made, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for name in ("papers", "smollm2-135m"):
        (tmp_path / name).write_text("something")
    path = made(memory=None, runs=tmp_path / "runs")
    edited(path, 'cache = "/elsewhere"')
    consent(path, True, View())
    assert "read " not in capfd.readouterr().out


def test_a_seal_tells_nothing_of_the_user_and_the_machine():
    assert seals.seal("run", "content") != seals.seal("run", "other") != seals.seal("other", "content")
    assert len(seals.seal("run", "content")) == 32 and seals.holds(seals.seal("run", "a"), "run", "a")
    assert not seals.holds(None, "run", "a") and not seals.holds("é", "run", "a")


@pytest.mark.parametrize("command", ["resume", "compare"])
def test_a_comparison_from_elsewhere_is_asked_about_too(tmp_path, capfd, command):
    settings = make_settings({**DEFAULTS, "memory": tmp_path / "memory.sqlite"})
    comparison = ComparisonFolder(tmp_path / "compared", ("uniform",), (0.3,), (0,), settings)
    comparison.save()
    consent(comparison.path, False, View())
    plan = comparison.path / PLAN
    plan.write_text(plan.read_text().replace('"uniform"', '"uniform", "hybrid+vllm_python=/tmp/evil/python"', 1))
    words = {
        "resume": ["resume", str(comparison.path)],
        "compare": ["compare", "--arms", "random", "--into", str(comparison.path)],
    }[command]
    assert main(words) == 2
    error = capfd.readouterr().err
    assert "run the program /tmp/evil/python" in error and error.count("\n") == 1
