"""Main memory under the limit of a container, whose files stand in a folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from self_pruner.agent.prepare import devices
from self_pruner.agent.settings.settings import Settings
from self_pruner.tools.evaluation import shortage
from self_pruner.tools.evaluation.main_memory import MainMemory, main_memory

SECOND = "31 23 0:28 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate\n"
FIRST = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """One of 1,000 bytes, 800 of them free."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1000, available=800, free=10))


def system(root: Path, groups: str, mounts: str, **files: str) -> Path:
    """The files that Linux would show at `root`."""
    written = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts}
    written |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in written.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def second(folder: str, limit: str, used: int, inactive: int = 0, active: int = 0) -> dict[str, str]:
    stat = f"anon 5\ninactive_file {inactive}\nactive_file {active}\n"
    return {f"{folder}memory.max": limit, f"{folder}memory.current": str(used), f"{folder}memory.stat": stat}


def first(folder: str, limit: int, used: int, inactive: int = 0, active: int = 0) -> dict[str, str]:
    stat = f"inactive_file 1\ntotal_inactive_file {inactive}\ntotal_active_file {active}\n"
    files = {"limit_in_bytes": str(limit), "usage_in_bytes": str(used), "stat": stat}
    return {f"memory/{folder}memory.{name}": text for name, text in files.items()}


def test_without_limits_it_is_what_the_machine_has(tmp_path):
    assert main_memory(tmp_path) == MainMemory(1000, 800)
    root = system(tmp_path, "0::/a\n", SECOND.format(top="/"), **second("a/", "max\n", 50))
    assert main_memory(root) == MainMemory(1000, 800)
    huge = 9223372036854771712
    root = system(tmp_path, "4:memory:/a\n0::/\n", FIRST.format(top="/"), **first("a/", huge, 50))
    assert main_memory(root) == MainMemory(1000, 800)


@pytest.mark.parametrize("top, path", [("/", "/"), ("/a/b", "/a/b"), ("/", "/../elsewhere"), ("/a/b", "/")])
def test_a_limit_of_the_second_version_counts_and_its_file_caches_can_be_had(tmp_path, top, path):
    root = system(tmp_path, f"0::{path}\n", SECOND.format(top=top), **second("", "400\n", 150, 10, 20))
    assert main_memory(root) == MainMemory(400, 280)


def test_a_parents_limit_counts_too(tmp_path):
    files = second("a/", "300\n", 250) | second("a/b/", "600\n", 20) | second("a/b/c/", "max\n", 20)
    root = system(tmp_path, "0::/a/b/c\n", SECOND.format(top="/"), **files)
    assert main_memory(root) == MainMemory(300, 50)


@pytest.mark.parametrize("top, folder", [("/", "docker/1/"), ("/docker/1", "")])
def test_a_limit_of_the_first_version_counts(tmp_path, top, folder):
    root = system(tmp_path, "4:memory:/docker/1\n0::/\n", FIRST.format(top=top), **first(folder, 500, 480, 30, 70))
    assert main_memory(root) == MainMemory(500, 120)


def test_more_than_the_limit_leaves_nothing_and_what_cannot_be_read_is_no_limit(tmp_path):
    root = system(tmp_path, "0::/\n", SECOND.format(top="/"), **second("", "400\n", 450))
    assert main_memory(root) == MainMemory(400, 0)
    (root / "sys/fs/cgroup/memory.current").write_text("many")
    assert main_memory(root) == MainMemory(1000, 800)
    (root / "proc/self/mountinfo").write_text("31 23 - cgroup2\n")
    assert main_memory(root) == MainMemory(1000, 800)


def test_what_is_free_and_what_there_is_are_told_by_it(monkeypatch):
    for module in (shortage, devices):
        monkeypatch.setattr(module, "main_memory", lambda: MainMemory(400, 50))
    assert shortage.free_memory("cpu") == 50
    memory = devices.this_machine(Settings(device="cpu")).memory
    assert (memory.total, memory.free) == (400, 50)
