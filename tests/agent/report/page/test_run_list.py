"""The list of runs and comparisons, and what is looked up in it, also where other users have been."""

import os
import re
import shutil
import subprocess

from starlette.testclient import TestClient

from main import main
from self_pruner.agent.report.page.run_list import look
from self_pruner.agent.report.page.run_state import run_state
from self_pruner.agent.report.page.server import Watch
from self_pruner.agent.run_files.run_directory import RunDirectory


def client(base):
    return TestClient(Watch(base).app(), base_url="http://127.0.0.1:8765")


def test_a_folder_that_may_not_be_looked_into_hides_no_run(runs, unprivileged):
    os.seteuid(os.getuid())  # the copy is made by whoever may read the tests' own folders
    base = shutil.copytree(runs, unprivileged / "runs")
    (base / "private").mkdir()
    shutil.copy(base / "finished" / "settings.toml", base / "private")
    if os.geteuid() == 0:
        for folder, folders, files in os.walk(base):
            for name in (".", *folders, *files):
                os.chown(os.path.join(folder, name), 65534, 65534)
        os.seteuid(65534)
    (base / "private").chmod(0)
    try:
        browser = client(base)
        rows = browser.get("/runs.json").json()["runs"]
        assert {row["name"] for row in rows} == {"finished", "running", "failed", "begun"}
        assert browser.get("/run/finished/data.json").json()["run"] == "finished"
        assert browser.get("/run/private/data.json").status_code == 404
    finally:
        (base / "private").chmod(0o700)


def test_a_run_whose_process_is_gone_is_interrupted_though_another_has_its_number(runs, tmp_path):
    base = shutil.copytree(runs, tmp_path / "runs")
    lock = base / "running" / ".lock"  # it has the number of this very process
    os.utime(lock, (0, 0))

    def state():
        return client(base).get("/run/running/data.json").json()["state"]["state"]

    assert state() == "interrupted"
    with RunDirectory.open(base / "running", exclusive=True):
        os.utime(lock, (0, 0))  # by a clock that was set
        assert state() == "running"
    assert state() == "interrupted"


def test_a_run_whose_process_ended_unasked_is_interrupted(runs, tmp_path):
    base = shutil.copytree(runs, tmp_path / "runs")
    ended = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        (base / "running" / ".lock").write_text(str(ended.pid))
        assert client(base).get("/run/running/data.json").json()["state"]["state"] == "interrupted"
    finally:
        ended.wait()


def test_evaluated_candidates_are_of_no_number_that_is_far_from_the_limit(runs, tmp_path):
    base = shutil.copytree(runs, tmp_path / "runs")
    file = base / "finished" / "settings.toml"  # as a comparison has them
    limits = "evaluations = 1000000\ntokens = 150000"
    file.write_text(re.sub("(?m)^evaluations = .*", limits, file.read_text()))
    (row,) = [one for one in client(base).get("/runs.json").json()["runs"] if one["name"] == "finished"]
    assert (row["of"], row["evaluations"]) == (None, 12)


def test_the_list_is_new_when_a_comparison_is(runs, tmp_path):
    base = tmp_path / "runs"
    seen = [look(base)]
    (base / "compared" / "runs" / "arm" / "run").mkdir(parents=True)
    for file in ("plan.json", "runs/arm/comparison.json", "table.md"):
        (base / "compared" / file).write_text("{}")
        seen.append(look(base))
        assert seen[-1] == look(base) != seen[-2]


def test_a_run_of_a_comparison_goes_on_with_it(runs, tmp_path):
    (tmp_path / "compared" / "runs").mkdir(parents=True)
    (tmp_path / "compared" / "plan.json").write_text("{}")
    run = RunDirectory.open(shutil.copytree(runs / "running", tmp_path / "compared" / "runs" / "arm" / "run"))
    (run.path / ".lock").unlink()
    assert run_state(run)["reason"].endswith(f"python main.py resume {tmp_path / 'compared'}")


def test_a_folder_of_runs_that_may_not_be_looked_into_is_a_sentence(unprivileged, capfd):
    base = unprivileged / "runs"
    base.mkdir(mode=0o300)
    assert main(["watch", str(base), "--port", "0"]) == 2
    assert capfd.readouterr().err.startswith(f"error: no permission to look into {base}")
    base.chmod(0o700)
