"""How far a run came, for whoever looks at it from outside and must not disturb it."""

from __future__ import annotations

from pathlib import Path

import psutil

from self_pruner.agent.run_files.run_directory import STOPPED_BY_USER, RunDirectory
from self_pruner.agent.run_files.run_lock import is_held
from self_pruner.agent.run_files.steering import comparison_of, requested
from self_pruner.agent.view.to_copy import own_command
from self_pruner.memory.errors import RunDirectoryError

SECONDS = 5.0  # between a process and its lock, at which two clocks agree about which was first


def run_state(run: RunDirectory) -> dict[str, str]:
    """`state` and its `reason`.

    The state is running, paused, stopping, finished, stopped (by the user), failed, interrupted (it says running, and
    its process is gone) or unknown. The lock of a run that may begin at that moment is not tried: it would be held.
    """
    try:
        status, reason = run.status, run.reason
    except RunDirectoryError as error:
        return {"state": "unknown", "reason": str(error)}
    if status == "stopped" and reason != STOPPED_BY_USER:
        return {"state": "failed", "reason": reason}
    if status == "running" and not alive(run.path):
        again = own_command("resume", comparison_of(run.path) or run.path)
        return {"state": "interrupted", "reason": f"its process is gone: {again}"}
    if status == "running" and (asked := requested(run.path)):
        what = "it stops after the step in hand" if asked == "stop" else "it waits before its next turn"
        return {"state": "stopping" if asked == "stop" else "paused", "reason": f"as it was asked to, {what}"}
    return {"state": status, "reason": reason}


def alive(folder: Path) -> bool:
    """Whether the process is there that took the lock of the run in `folder`; one on another machine cannot be seen.

    Numbers are given again, in a container soon: of a process that is younger than its lock, the lock itself is asked.
    """
    lock = folder / ".lock"
    try:
        process = psutil.Process(int(lock.read_text(encoding="utf-8")))
        if process.status() == psutil.STATUS_ZOMBIE:  # dead, and nobody has asked how it ended
            return False
        younger = process.create_time() > lock.stat().st_mtime + SECONDS
    except (OSError, ValueError, OverflowError, psutil.Error):
        return False
    return not younger or is_held(folder)
