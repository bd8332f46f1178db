"""The command `evaluate`: what a folder is worth beside its dense model, from the files on the disk alone."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from main import main
from self_pruner.agent.result import evaluate_checkpoint as evaluate_module
from self_pruner.agent.result.checkpoint_figures import FILE, PRUNED, Evaluation, Figures, read_evaluation
from self_pruner.agent.result.evaluate_checkpoint import Wishes, _Asked, _check, _command, _kept, _tokenizer
from self_pruner.agent.run_files.run_directory import STOPPED_BY_USER
from self_pruner.agent.settings.settings import make_settings
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.tasks.harness import AskedModel, run_task
from self_pruner.tools.evaluation.tasks.rows import TASKS
from self_pruner.tools.evaluation.tasks.suite import TaskSuite
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.checkpoint import export
from self_pruner.tools.export.provenance import PROVENANCE_FILE
from self_pruner.tools.models.source import load, resolve
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.smaller_model import smaller_model
from self_pruner.tools.text.sources import whole_text
from tests.agent.report.page.made_up import finish, made_up
from tests.stopped import do
from tests.tiny import MLP_UNIT, tiny_folder
from tests.tools.evaluation.tasks.seven import write_tasks

PROFILE = Profile((3, 1, 4), (5, 12, 1))
TEXT = "\n = A title = \n \n One sentence stands here , and another one after it .\n" * 12


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def elastic(dense):
    loaded = load(resolve(str(dense)), device="cpu", dtype="float32")
    ids = torch.randint(0, 512, (2, 64), generator=torch.Generator().manual_seed(1))
    return ElasticModel(loaded.model, calibrate(loaded.model, ids), mlp_unit=MLP_UNIT), loaded.tokenizer


@pytest.fixture(scope="module")
def exported(elastic, dense, tmp_path_factory):
    """A checkpoint that knows its dense model."""
    card = CardFacts(
        str(dense), "llama", 0.3, (), "text", "python main.py", settings={"model": str(dense), "sequence_length": 32}
    )
    return export(elastic[0], PROFILE, elastic[1], tmp_path_factory.mktemp("export") / "model", card)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_tasks(tmp_path_factory.mktemp("tasks"), 5)
    (folder / "text.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def evaluated(exported, data, tmp_path_factory):
    """A folder that was evaluated, with the cache of its figures and what was printed; to be copied."""
    place = tmp_path_factory.mktemp("evaluated")
    folder = shutil.copytree(exported, place / "model")
    done = do("evaluate", folder, *options(data, place / "c"), "--perplexity-text", data / "text.txt")
    return place, done.stdout


@pytest.fixture
def folder(exported, tmp_path):
    """A copy that a test may write in."""
    return shutil.copytree(exported, tmp_path / "model")


def options(data, cache):
    return ["--task-data", data, "--task-rows", 5, "--dtype", "float32", "--cache", cache]


@pytest.fixture
def call(data, tmp_path, capfd):
    """`evaluate` on a folder; returns (status, standard output, standard error)."""

    def call(folder, *words):
        if "--perplexity-text" not in words:
            words += ("--perplexity-text", data / "text.txt")
        status = main(["evaluate", *map(str, (folder, *options(data, tmp_path / "c"), *words))])
        output = capfd.readouterr()
        return status, output.out, output.err

    return call


def test_the_figures_are_those_of_the_elastic_model_and_are_measured_once(
    call, evaluated, elastic, data, tmp_path, monkeypatch
):
    place, printed = evaluated
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "model"
    found = read_evaluation(folder)
    assert [one.name for one in found.models] == ["dense", "this checkpoint"]
    suite = TaskSuite(elastic[1], data, 5)
    ids = torch.tensor(elastic[1](whole_text(str(data / "text.txt"))).input_ids)
    windows = ids[: len(ids) // 32 * 32].view(-1, 32)
    for model, profile in zip(found.models, (elastic[0].space.dense(), PROFILE), strict=True):
        assert model.parameters == elastic[0].space.params(profile)
        asked = AskedModel(smaller_model(elastic[0], profile), tokenizer=elastic[1], batch_size=8)
        for task in TASKS:
            assert model.tasks[suite.digest(task)] == {
                metric: (pytest.approx(value), pytest.approx(error))
                for metric, (value, error) in run_task(asked, suite, task).items()
            }
        logs = torch.cat([elastic[0].logits(row[None], profile) for row in windows]).log_softmax(-1)
        nll = -logs[:, :-1].gather(-1, windows[:, 1:, None]).mean()
        (text,) = model.texts.values()
        assert text.windows == len(windows) > 2
        assert text.perplexity == pytest.approx(math.exp(nll), rel=1e-3)
    assert "text.txt, perplexity at 32" in printed and "mean of seven" in printed
    card = (folder / "README.md").read_text()
    assert card.count("## This folder beside the dense model") == 1 and "mean of seven" in card
    assert "task accuracy and" not in card and "safety behaviour was not measured again" in card
    assert card.index("beside the dense model") < card.index("## How to load it")

    monkeypatch.setattr(evaluate_module, "measured", None)  # it would fail if anything were measured again
    assert call(folder)[0] == 0
    (folder / FILE).unlink()
    assert call(folder)[0] == 0  # from the cache
    assert read_evaluation(folder) == found
    assert (folder / "README.md").read_text() == card
    shutil.rmtree(folder.parent / "c")
    assert call(folder)[0] == 0  # from the folder
    assert read_evaluation(folder) == found


def test_figures_are_of_their_tokenizer_device_and_versions(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    tokenizer = copy / "tokenizer_config.json"
    before = _tokenizer(copy)
    assert before == _tokenizer(folder)
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert _tokenizer(copy) != before
    how = dict(command="", harness="h", text=None, text_digest=None, length=64, models=[])
    how |= {"rows": dict.fromkeys(TASKS, 1), "data": dict.fromkeys(TASKS, "d")}
    wanted = Evaluation(**how, dtype="float32", device="cpu", versions={"torch": "2"})
    changed = [wanted.model_copy(update=one) for one in ({"device": "cuda"}, {"versions": {"torch": "3"}})]
    settings = make_settings({"cache": tmp_path})
    own = Figures(name=PRUNED, parameters=None, weights="w", tokenizer=before)
    asked = [(one, own) for one in (wanted, *changed)] + [(wanted, own.model_copy(update={"tokenizer": "other"}))]
    caches = [_Asked(settings, one, Wishes(), None, None).cache(figures) for one, figures in asked]
    assert len(set(caches)) == 4
    wanted.model_copy(update={"models": [own]}).write(copy)
    assert _kept(copy, wanted) == [own] and not any(_kept(copy, one) for one in changed)


def test_an_interrupted_evaluation_goes_on(call, folder, monkeypatch):
    real, asked = evaluate_module.measured, []

    def interrupted(request, progress):
        for count, one in enumerate(real(request, progress)):
            if count == 2:
                raise KeyboardInterrupt
            yield one

    def noted(request, progress):
        asked.append(request.tasks)
        yield from real(request, progress)

    monkeypatch.setattr(evaluate_module, "measured", interrupted)
    status, printed, _ = call(folder, "--no-dense")
    assert status == 130 and "goes on" in printed
    assert len(read_evaluation(folder).models[-1].tasks) == 2
    monkeypatch.setattr(evaluate_module, "measured", noted)
    assert call(folder, "--no-dense")[0] == 0
    assert asked == [TASKS[2:]]
    assert len(read_evaluation(folder).models[0].tasks) == len(TASKS)


def test_what_a_folder_does_not_say_must_be_given(call, folder, dense):
    (folder / PROVENANCE_FILE).unlink()
    status, _, error = call(folder)
    assert status == 2 and "does not say which model it was cut from: name it with --model" in error
    (folder / PROVENANCE_FILE).write_text("{")
    status, _, error = call(folder)
    assert status == 2 and "is damaged" in error
    (folder / PROVENANCE_FILE).write_text('{"format": 2}')
    status, _, error = call(folder)
    assert status == 2 and "is not what an export writes: format" in error
    (folder / PROVENANCE_FILE).write_text("[" * 100_000)
    status, _, error = call(folder)
    assert status == 2 and "is damaged: it is nested too deep" in error and error.count("\n") == 1


def test_the_command_of_a_table_names_all_that_it_was_asked_for(tmp_path):
    given = {"model": str(tmp_path), "device": "cpu", "dtype": "float32", "task_rows": 5}
    said = _command(make_settings(given), given, Wishes(text="a text.txt", batch=2, dense=False), 32)
    assert said == (
        f"python main.py evaluate FOLDER --model {tmp_path.name} --device cpu --dtype float32 --task-rows 5 "
        "--perplexity-text 'a text.txt' --perplexity-length 32 --batch 2 --no-dense"
    )
    known = {"model": str(tmp_path), "task_rows": 5}  # by the folder itself
    plain = "python main.py evaluate FOLDER --task-rows 5 --perplexity-length 32"
    assert _command(make_settings(known), {"task_rows": 5}, Wishes(), 32) == plain


@pytest.mark.parametrize("longest", [None, "many"])
def test_a_context_that_a_config_does_not_state_limits_no_window(folder, longest):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": longest}))
    _check(folder, Wishes(), 10**6)


def test_a_checkpoint_that_does_not_load_is_one_sentence(call, folder):
    config = json.loads((folder / "config.json").read_text())
    config["hidden_size"] = 60
    (folder / "config.json").write_text(json.dumps(config))
    status, _, error = call(folder, "--no-dense")
    assert status == 2 and "cannot be measured: " in error and error.count("\n") == 1
    (folder / "model.safetensors").write_bytes(b"broken")
    status, _, error = call(folder, "--no-dense")
    assert status == 2 and "model.safetensors" in error and "Traceback" not in error
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    status, _, error = call(folder, "--no-dense")
    assert status == 2 and "pickle" in error


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--perplexity-length", "1"], "--perplexity-length takes a whole number from 2 on, got 1"),
        (["--perplexity-length", "999999"], "--perplexity-length must be at most the model's context"),
        (["--batch", "0"], "--batch takes a whole number from 1 on, got 0"),
        (["--perplexity-text", "wikitxt"], "unknown text 'wikitxt'"),
        (["--perplexity-text", "nowhere.txt"], "does not exist"),
        (["--task-data", "nowhere"], "there is no such folder"),
        (["--model", "nowhere/"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(call, folder, words, sentence):
    before = sorted(path.name for path in folder.iterdir())
    status, _, error = call(folder, *words)
    assert status == 2 and sentence in error and error.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_text_shorter_than_a_window_is_said(call, folder, tmp_path):
    (tmp_path / "short.txt").write_text("Too short.")
    status, _, error = call(folder, "--no-dense", "--perplexity-text", tmp_path / "short.txt")
    assert status == 2 and "and a window takes 32" in error
    assert len(read_evaluation(folder).models[0].tasks) == len(TASKS)  # what was measured before is kept


def test_another_dense_model_than_the_one_it_was_cut_from_is_said(call, evaluated, tmp_path):
    shutil.copytree(evaluated[0], tmp_path, dirs_exist_ok=True)  # with figures that need not be measured again
    folder = tmp_path / "model"
    known = json.loads((folder / PROVENANCE_FILE).read_text())
    (folder / PROVENANCE_FILE).write_text(json.dumps({**known, "fingerprint": "another"}))
    status, printed, _ = call(folder)
    assert status == 0 and "has other weights than the model that this checkpoint was cut from" in printed


def test_foreign_code_needs_trust(call, folder):
    (folder / "modeling_self_pruner.py").write_text("import os\n")
    status, _, error = call(folder)
    assert status == 2 and "--trust-remote-code" in error


def test_no_folder_and_a_run_without_a_checkpoint(call, tmp_path):
    assert "is no folder" in call(tmp_path / "nothing")[2]
    run = finish(made_up(tmp_path / "my runs", "tiny"))
    command = f"python main.py export '{run.path}' --output FOLDER"
    assert f"the run {run.path} has no checkpoint: {command}\n" in call(run.path)[2]
    (run.path / "result.json").unlink()
    run.set_status("stopped", STOPPED_BY_USER)
    assert f"has no result yet; go on with: python main.py resume '{run.path}'\n" in call(run.path)[2]
