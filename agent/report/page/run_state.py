"""How far a run came, for whoever looks at it from outside and must not disturb it."""

from __future__ import annotations

from pathlib import Path

import psutil

from self_pruner.agent.run_files.run_directory import STOPPED_BY_USER, RunDirectory
from self_pruner.agent.run_files.steering import requested
from self_pruner.agent.view.to_copy import own_command
from self_pruner.memory.errors import RunDirectoryError


def run_state(run: RunDirectory) -> dict[str, str]:
    """`state` and its `reason`.

    The state is running, paused, stopping, finished, stopped (by the user), failed, interrupted (it says running, and
    its process is gone) or unknown. The lock is not tried, for a run that begins at that moment would find it held.
    """
    try:
        status, reason = run.status, run.reason
    except RunDirectoryError as error:
        return {"state": "unknown", "reason": str(error)}
    if status == "stopped" and reason != STOPPED_BY_USER:
        return {"state": "failed", "reason": reason}
    if status == "running" and not alive(run.path):
        return {"state": "interrupted", "reason": f"its process is gone: {own_command('resume', run.path)}"}
    if status == "running" and (asked := requested(run.path)):
        what = "it stops after the step in hand" if asked == "stop" else "it waits before its next turn"
        return {"state": "stopping" if asked == "stop" else "paused", "reason": f"as it was asked to, {what}"}
    return {"state": status, "reason": reason}


def alive(folder: Path) -> bool:
    """Whether the process is there that took the lock of the run in `folder`; one on another machine cannot be seen."""
    try:
        return psutil.pid_exists(int((folder / ".lock").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False
