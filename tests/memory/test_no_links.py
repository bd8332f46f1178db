"""A link that somebody planted is never written through: the file that it points to stays as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from self_pruner.agent.result.evaluate_checkpoint import folder_of
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.run_lock import RunLock
from self_pruner.agent.run_files.run_memory import memory_of
from self_pruner.agent.run_files.trace import TraceWriter
from self_pruner.agent.session import checkpoints
from self_pruner.agent.view import View
from self_pruner.memory.database import connect
from self_pruner.memory.no_links import LinkError, open_to_write, refuse_link
from self_pruner.memory.partials import owner
from self_pruner.tools.engines.server import served
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.latency.measure import LatencyReport
from self_pruner.tools.latency.table import Timed, measure_table
from self_pruner.tools.profiles.space import Space


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file of the user's that has nothing to do with a run."""
    path = tmp_path / "outside.txt"
    path.write_text("precious", encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory as a stranger may hand it on."""
    base = tmp_path / "runs"
    with RunDirectory.create(base, "tiny", {"seed": 0}, device="cpu", seed=0, now=datetime(2026, 1, 1)) as made:
        return made.path


def plant(link: Path, target: Path) -> Path:
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    return link


def test_a_plain_file_is_made_and_opened(tmp_path):
    for _ in range(2):
        descriptor = open_to_write(tmp_path / "file", os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, b"x")
        os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"xx"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_refused_also_one_that_leads_nowhere(tmp_path, outside, there):
    link = plant(tmp_path / "link", outside if there else tmp_path / "nowhere")
    with pytest.raises(LinkError, match=f"{link} is a symbolic link, which is not written to"):
        open_to_write(link, os.O_WRONLY | os.O_TRUNC)
    with pytest.raises(LinkError, match="is a symbolic link"):
        refuse_link(link)
    assert outside.read_text() == "precious" and not (tmp_path / "nowhere").exists()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LinkError, match="is no plain file"):
        open_to_write(tmp_path / "pipe", os.O_RDWR)


def test_the_lock_of_a_foreign_run_is_not_written_through_a_link(run, outside):
    plant(run / ".lock", outside)
    with pytest.raises(LinkError, match=r"\.lock is a symbolic link"):
        RunDirectory.open(run, exclusive=True)
    assert outside.read_text() == "precious"


def test_the_lock_of_a_run_of_a_comparison_is_not_written_through_a_link(tmp_path, outside):
    plant(tmp_path / ".lock", outside)
    with pytest.raises(LinkError):
        RunLock(tmp_path)
    assert outside.read_text() == "precious"


def test_the_trace_of_a_foreign_run_is_not_written_through_a_link(run, outside):
    with pytest.raises(LinkError, match="trace.jsonl is a symbolic link"):
        TraceWriter(plant(run / "trace.jsonl", outside))
    assert outside.read_text() == "precious"


def test_the_checkpoints_of_a_foreign_run_are_not_written_through_a_link(run, outside):
    outside.unlink()
    plant(run / "checkpoint.sqlite", outside)
    with pytest.raises(LinkError, match="is a symbolic link"), checkpoints(run / "checkpoint.sqlite"):
        pass
    assert not outside.exists()


def test_a_runs_own_records_are_not_written_through_a_link_but_the_memory_may_be_one_of_the_users(run, tmp_path):
    view = View(Console(file=StringIO()))
    connect(tmp_path / "real.sqlite").close()
    memory = plant(tmp_path / "memory.sqlite", tmp_path / "real.sqlite")
    connect(tmp_path / "other.sqlite").close()
    before = (tmp_path / "other.sqlite").read_bytes()
    records = plant(run / "records.sqlite", tmp_path / "other.sqlite")
    with pytest.raises(LinkError, match="records.sqlite is a symbolic link"):
        memory_of(memory, "run", records, "context", {}, view)
    assert (tmp_path / "other.sqlite").read_bytes() == before
    records.unlink()
    memory_of(memory, "run", records, "context", {}, view).close()
    assert memory.is_symlink()


def test_a_file_that_is_written_aside_is_not_written_through_a_link(run, outside):
    plant(run / f".status.json.{owner(os.getpid())}.partial", outside)
    plant(run / "status.json", outside)
    atomic_write(run / "status.json", "{}")
    assert outside.read_text() == "precious"
    assert (run / "status.json").read_text() == "{}" and not (run / "status.json").is_symlink()


def test_the_servers_log_is_not_written_through_a_link(run, outside):
    log = plant(run / "vllm.log", outside)
    with pytest.raises(LinkError), served(Path(sys.executable), "x", log, dtype="float32", max_model_len=8):
        pass
    assert outside.read_text() == "precious"


def test_notes_of_a_latency_table_are_not_written_through_a_link(tmp_path, outside):
    notes = plant(tmp_path / "table.lines", outside)
    space = Space(n_layers=1, n_groups=2, n_blocks=2, group_params=1, block_params=1, fixed_params=1, mlp_unit=1)
    report = LatencyReport(*[1.0] * 13, prompt_tokens=1, decode_tokens=1, batch=1, repeats=1)
    timed = Timed("tiny", 1, {"attention": 2, "mlp": 2}, 1, 1, "transformers", "cpu", "float32", 1, 1, 1)
    with pytest.raises(LinkError):
        measure_table(space, timed, lambda profile: report, notes=notes)
    assert outside.read_text() == "precious"


def test_measurements_kept_in_the_cache_are_not_written_through_a_link(tmp_path, outside):
    import torch

    ids = torch.zeros(1, 2, dtype=torch.long)
    targets = DenseTargets(ids, torch.zeros(1, 2, 1, dtype=torch.long), torch.zeros(1, 2, 1), torch.zeros(1, 2), (0.0,))
    plant(tmp_path / f".targets.{owner(os.getpid())}.partial", outside)
    targets.save(tmp_path / "targets")
    assert outside.read_text() == "precious" and DenseTargets.load(tmp_path / "targets").nll == (0.0,)


def test_the_card_of_a_runs_checkpoint_is_not_looked_for_behind_a_link(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LinkError, match="model is a symbolic link"):
        folder_of(run)


def test_on_the_command_line_a_planted_link_is_one_sentence(run, outside):
    plant(run / ".lock", outside)
    main = Path(__file__).parents[2] / "main.py"
    done = subprocess.run([sys.executable, main, "resume", run], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and ".lock is a symbolic link" in done.stderr
