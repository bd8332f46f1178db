"""What follows the choice may fail or be killed at any point: the result so far is there, and only the rest is done."""

from __future__ import annotations

import errno
import json

import pytest
import torch

from main import main
from self_pruner.agent import session
from self_pruner.agent.result import finish, recalibration
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.tools.export.verify import VerificationError
from tests.stopped import copied

FULL = OSError(errno.ENOSPC, "No space left on device")
FAILURES = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    FULL,
    VerificationError("The folder computes something else."),
)


def result(run):
    """The content of `result.json` without what differs between any two runs."""
    found = json.loads((run / "result.json").read_text())
    return {name: value for name, value in found.items() if name != "spent"}


def state_on_page(run):
    """How far the run is by its page."""
    return json.loads((run / "report.html").read_text().partition('id="data">')[2].partition("</script>")[0])["state"]


def resumed(run, capfd):
    """Exit status, output and errors of `resume`."""
    status = main(["resume", str(run)])
    said = capfd.readouterr()
    return status, " ".join(said.out.split()), said.err


def raising(error):
    def fails(*arguments, **options):
        raise error

    return fails


@pytest.fixture
def made(monkeypatch):
    """What was done again, counted: searches, choices and recalibrations."""
    done = {"run_search": 0, "choose": 0, "recalibrate": 0}

    def counted(name, real):
        def count(*arguments, **options):
            done[name] += 1
            return real(*arguments, **options)

        return count

    for place, name in ((session, "run_search"), (session, "choose"), (recalibration, "recalibrate")):
        if hasattr(place, name):
            monkeypatch.setattr(place, name, counted(name, getattr(place, name)))
    return done


def check_unfinished(run, status, error, step):
    """One sentence with the way on, and the result and its page as far as they are known."""
    assert status == 2 and error.count("\n") == 1 and "Traceback" not in error
    assert f"the {step} failed: " in error and f"python main.py resume {run}" in error
    assert RunDirectory.open(run).status == "stopped"
    known = result(run)
    assert known["verified"] is None and known["holdout"] and {row["name"] for row in known["rows"]} >= {"found"}
    assert not (run / "model").exists()
    assert "export still to do" in (run / "report.html").read_text()
    state = state_on_page(run)
    assert state["state"] == "failed" and f"the {step} failed: " in state["reason"]
    return known


def test_an_export_that_fails_leaves_the_result_and_is_all_that_is_done_again(
    chosen, undisturbed, made, tmp_path, monkeypatch, capfd
):
    run = copied(chosen, tmp_path)
    for failure in FAILURES:
        with monkeypatch.context() as patch:
            patch.setattr(finish, "publish", raising(failure))
            status, _, error = resumed(run, capfd)
        known = check_unfinished(run, status, error, "export")
        assert f"or: python main.py export {run} --output FOLDER" in error
        assert known | {"verified": 0.0} == result(undisturbed)
        assert (run / "refits.safetensors").is_file()
    assert main(["report", str(run)]) == 0
    assert "export still to do: python main.py resume" in " ".join(capfd.readouterr().out.split())

    folder = tmp_path / "elsewhere"  # where there is room
    assert main(["export", str(run), "--output", str(folder)]) == 0
    status, _, error = resumed(run, capfd)
    assert status == 0, error
    assert made == {"run_search": 1, "choose": 1, "recalibrate": 1}
    assert result(run) == result(undisturbed)
    for name in ("model.safetensors", "config.json"):
        content = (undisturbed / "model" / name).read_bytes()
        assert (run / "model" / name).read_bytes() == content == (folder / name).read_bytes()
    assert not (run / "refits.safetensors").exists()


def test_a_recalibration_that_fails_leaves_the_result_of_the_search(
    chosen, undisturbed, made, tmp_path, monkeypatch, capfd
):
    run = copied(chosen, tmp_path)
    for failure in (MemoryError(), FULL, RuntimeError("can't allocate memory")):
        with monkeypatch.context() as patch:
            patch.setattr(recalibration, "recalibrate", raising(failure))
            status, _, error = resumed(run, capfd)
        known = check_unfinished(run, status, error, "recalibration")
        assert known["recalibration"] is None
        assert f"or end the run without it: python main.py resume {run} --without-recalibration\n" in error
        assert "recalibration, export still to do" in (run / "report.html").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(finish, "publish", lambda *arguments, **options: 0.0)
        status, _, error = resumed(run, capfd)
    assert status == 0, error
    assert made == {"run_search": 1, "choose": 1, "recalibrate": 1}
    assert result(run) == result(undisturbed)


def test_a_run_that_cannot_recalibrate_is_ended_without_it_by_its_user_and_says_so(
    chosen, undisturbed, made, tmp_path, monkeypatch, capfd
):
    run = copied(chosen, tmp_path)
    without = ["resume", str(run), "--without-recalibration"]
    (run / "result.json").unlink(missing_ok=True)
    assert main(without) == 2  # nothing to give up yet
    assert capfd.readouterr().err.startswith("error: --without-recalibration is for a run that has chosen its result")
    assert made["choose"] == 0 and RunDirectory.open(run).status == "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(recalibration, "recalibrate", raising(MemoryError()))
        assert resumed(run, capfd)[0] == 2
        assert main(without) == 0
    said = " ".join(capfd.readouterr().out.split())
    facts, before = result(run)["recalibration"], result(undisturbed)["recalibration"]
    assert (facts["recalibrated"], facts["given_up"]) == (None, True) and facts["searched"] == before["searched"]
    sentence = " was not recalibrated (it was asked for, and given up by the user)"
    card = " ".join((run / "model" / "README.md").read_text().split())
    assert sentence in said and sentence in card and sentence in (run / "report.html").read_text()
    assert RunDirectory.open(run).status == "finished" and result(run)["verified"] is not None
    assert [row["name"] for row in result(run)["rows"]][-1] == "found"


def test_nothing_is_given_up_where_the_recalibration_is_done(chosen, tmp_path, monkeypatch, capfd):
    run = copied(chosen, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(finish, "publish", raising(FULL))
        assert resumed(run, capfd)[0] == 2
    known = result(run)
    assert known["recalibration"] is not None
    assert main(["resume", str(run), "--without-recalibration"]) == 2
    assert "this run has no recalibration left to do" in capfd.readouterr().err
    assert result(run) == known and RunDirectory.open(run).status == "stopped"


@pytest.mark.parametrize("moment", ["recalibrate", "row_of", "save", "publish", "write_report"])
def test_a_run_ended_between_two_steps_repeats_the_step_in_hand_only(
    chosen, undisturbed, made, tmp_path, monkeypatch, capfd, moment
):
    run = copied(chosen, tmp_path)
    ended = raising(KeyboardInterrupt)
    with monkeypatch.context() as patch:
        # in the recalibration; its refits kept and not measured; chosen and nothing written; written and no page made
        place = {"recalibrate": recalibration, "row_of": recalibration, "publish": finish}.get(moment, session)
        patch.setattr(place, moment, ended)
        assert resumed(run, capfd)[0] == 130
    assert moment == "save" or state_on_page(run) == {"state": "stopped", "reason": "stopped by the user"}
    monkeypatch.setattr(finish, "publish", lambda *arguments, **options: 0.0)
    status, _, error = resumed(run, capfd)
    assert status == 0, error
    assert made["recalibrate"] == 1 and result(run) == result(undisturbed)
    assert made["choose"] == (2 if moment == "save" else 1)


def test_the_card_of_another_candidate_says_which_it_is_and_how_it_is_made_again(undisturbed, tmp_path):
    run, folder = copied(undisturbed, tmp_path), tmp_path / "other"
    other = next(name for name in ("c1", "c2") if name != result(run)["candidate"])
    assert main(["export", str(run), "--candidate", other, "--output", str(folder)]) == 0
    card = (folder / "README.md").read_text()
    assert f"\npython main.py export RUN --candidate {other} --output FOLDER\n```" in card
    assert f"| candidate {other} |" in card and "| found" not in card and "*found" not in card
    assert "the second the same bytes of this one" in " ".join(card.split())
    assert "--candidate" not in (run / "model" / "README.md").read_text()


def test_refits_that_are_damaged_are_made_anew(chosen, undisturbed, made, tmp_path, monkeypatch, capfd):
    run = copied(chosen, tmp_path)
    (run / "refits.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr(finish, "publish", lambda *arguments, **options: 0.0)
    status, said, _ = resumed(run, capfd)
    assert status == 0 and "it is made anew" in said and made["recalibrate"] == 1
    assert result(run) == result(undisturbed)


def test_the_page_that_a_run_leaves_says_that_it_is_finished(undisturbed):
    known = json.loads((undisturbed / "status.json").read_text())
    assert state_on_page(undisturbed) == {"state": known["status"], "reason": known["reason"]}
    assert known["status"] == "finished"


def test_the_table_has_every_baseline_once(undisturbed):
    known = result(undisturbed)
    names = [row["name"] for row in known["rows"]]
    assert names[:2] == ["dense", "uniform"] and len(set(names)) == len(names)
    assert {"uniform-mlp", "closed form", "found"} <= set(names)  # of so few layers these are what `ends` gives as well
    assert {one["against"] for one in known["differences"]} == set(names) - {"dense", "found", "found, recalibrated"}
