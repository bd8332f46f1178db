"""The script as it runs where torch, transformers, safetensors, accelerate and a checkout are, and nothing else."""

import json
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks.gpu.__main__ import PARTS

ROOT = Path(__file__).parents[3]
ALLOWED = ("torch", "transformers", "safetensors", "accelerate")
FORBIDDEN = ("langgraph", "langchain_core", "llguidance", "lm_eval", "datasets", "cma", "gguf", "pytest")


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """A folder of links to the allowed packages and what they themselves need."""
    folder, seen, waiting = tmp_path_factory.mktemp("packages"), set(), list(ALLOWED)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        for file in found.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
        for text in found.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return folder


def run(packages, *arguments, code=None):
    code = code or "import runpy; runpy.run_module('benchmarks.gpu', run_name='__main__', alter_sys=True)"
    paths = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(packages)!r}]; "
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-S", "-c", paths + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=packages,
        timeout=1500,
    )


def test_the_other_packages_are_really_hidden(packages):
    tried = f"import importlib.util; print([name for name in {FORBIDDEN} if importlib.util.find_spec(name)])"
    assert run(packages, code=tried).stdout.strip() == "[]"


@pytest.fixture(scope="session")
def results(packages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    return folder, run(packages, "--tiny", "--output", folder, "--minutes", "25")


def test_every_part_runs_to_its_end_with_few_packages(results):
    folder, done = results
    assert done.returncode == 0, done.stdout + done.stderr
    for part in PARTS:
        content = json.loads((folder / f"{part.name}.json").read_text())
        assert content["status"] == "done", content["why"]
        assert content["device"]["torch"] and content["device"]["transformers"]
        assert content["settings"]["tiny"] is True
        assert content["rows"]
        # bfloat16 products with float32 sums are there on GPUs alone
        failed = [row for row in content["rows"] if "error" in row and not row.get("way", "").startswith("bfloat16")]
        assert failed == []


def test_the_headline_has_every_model_in_every_batch_and_mode(results):
    content = json.loads((results[0] / "headline.json").read_text())
    rows = [row for row in content["rows"] if row["model"] != "dense again"]
    assert len(rows) == 7 * 2 * 4
    assert {row["mode"] for row in rows} == {"graph", "eager", "product", "transformers"}
    assert all(row["decode_ms"] > 0 for row in rows)
    assert all(len(row["decode_seconds"]["repeats"]) > 1 for row in rows if row["mode"] in ("graph", "eager"))
    assert len(content["speedups"]) == 6 * 2 * 4
    assert len(content["losses"]) == 6 * 2
    assert content["rows"][-1]["model"] == "dense again"


def test_streamed_scores_are_those_in_memory_to_the_bit(results):
    content = json.loads((results[0] / "streamed.json").read_text())
    difference = next(one for one in content["targets"] if "difference" in one["figure"])
    assert difference["value"] == 0.0 and difference["met"] is True
    by_phase = {row["phase"]: row for row in content["rows"]}
    assert by_phase["a pass over the layers alone"]["passes"] == 1
    assert by_phase["targets and walk, streamed"]["passes"] >= 2


def test_every_part_holds_its_figures_against_what_is_to_be_reached(results):
    for part, figures in (("headline", 2), ("refits", 2), ("walk", 1), ("streamed", 3), ("seven-billion", 1)):
        targets = json.loads((results[0] / f"{part}.json").read_text())["targets"]
        assert len(targets) == figures
        assert all(one["value"] is not None for one in targets if "peak bytes" not in one["figure"])
    assert "what is to be reached, of no account for toy shapes" in results[1].stdout


def test_the_walk_counts_factorisations_and_the_dense_model_differs_from_itself_by_rounding_alone(results):
    rows = json.loads((results[0] / "walk.json").read_text())["rows"]
    by_phase = {(row["layers"], row["phase"]): row for row in rows}
    assert by_phase[2, "walk of the parents' generation, refits made"]["factorisations"] == 4  # two places a layer
    assert by_phase[3, "walk again, refits known, no kept states"]["factorisations"] == 0
    assert by_phase[3, "KL(dense || dense), other batching"]["kl_largest"] < 1e-5


def test_the_seven_billion_reach_a_checkpoint_that_was_loaded_again(results):
    content = json.loads((results[0] / "seven-billion.json").read_text())
    assert content["breaks_at"] is None
    assert content["rows"][-1]["phase"].startswith("export, reload")


def test_the_table_is_printed_and_printed_again_from_the_files(results, packages):
    folder, done = results
    shown = run(packages, "--show", folder)
    assert shown.returncode == 0
    table = shown.stdout.strip()
    assert done.stdout.strip().endswith(table)
    for words in ("49B", "70% unequal", "host to device, pinned", "one by one, without sharing", "share of copy"):
        assert (words in table) is (words != "49B")


def test_what_there_is_no_time_for_is_said(packages, tmp_path):
    done = run(packages, "--tiny", "--part", "bandwidth", "--part", "brain", "--output", tmp_path, "--minutes", "0.01")
    assert done.returncode == 0
    assert "bandwidth: not begun, the 0.01 minutes are over" in done.stdout
    assert "headline" not in done.stdout
    assert list(tmp_path.iterdir()) == []


FAULTS = """
import os, time
from benchmarks.gpu import __main__ as script, bandwidth, refits, walk
script.GRACE, script.PATIENCE = 0.5, 1
names = ("bandwidth", "refits", "walk")
script.PARTS = (*(script.Part(name, name, 10) for name in names), script.Part("brain", "brain", 600))
def broken(fault):
    def run(record, device, shapes, deadline):
        record.row(copy="kept")
        fault()
    return run
bandwidth.run = broken(lambda: [].pop())
refits.run = broken(lambda: time.sleep(600))
walk.run = broken(lambda: os._exit(9))
sys.exit(script.main())
"""


def test_a_part_that_fails_hangs_or_dies_keeps_what_it_had_and_the_next_one_goes_on(packages, tmp_path):
    done = run(packages, "--tiny", "--output", tmp_path, "--minutes", "20", code=FAULTS)
    assert done.returncode == 1
    for part, status, why in (
        ("bandwidth", "failed", "IndexError: pop from empty list"),
        ("refits", "cut off", "after 10 s, after 1 rows"),
        ("walk", "failed", "its process ended with status 9, after 1 rows"),
    ):
        content = json.loads((tmp_path / f"{part}.json").read_text())
        assert (content["status"], content["why"]) == (status, why)
        assert content["rows"] == [{"copy": "kept"}]
        assert why in done.stdout
    assert json.loads((tmp_path / "brain.json").read_text())["status"] == "done"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--part", "nothing"), "invalid choice: 'nothing'"),
        (("--minutes", "0"), "'0' is no number of minutes above 0"),
        (("--minutes", "soon"), "invalid _minutes value: 'soon'"),
        (("--streamed-layers", "81"), "'81' is no number of layers from 2 to 80"),
        (("--show", "/nowhere"), "holds no results"),
        (("--tiny", "--output", "/dev/null/x"), "results cannot be written to /dev/null/x"),
    ],
)
def test_bad_arguments_get_a_sentence(packages, arguments, sentence):
    done = run(packages, *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_gpu_the_script_says_what_runs_there(packages):
    import torch

    if torch.backends.cuda.is_built():
        pytest.skip("this torch is built for CUDA")
    done = run(packages, "--minutes", "1")
    assert done.returncode == 2
    assert "--tiny" in done.stderr
