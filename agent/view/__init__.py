"""What a command says, and to whom: people at a terminal or a log, scripts that want one line, programs that read JSON.

All commands speak to a `View` and do not know which of the three listens.
"""

from self_pruner.agent.view.events import JsonView
from self_pruner.agent.view.quiet import QuietView
from self_pruner.agent.view.terminal import Report, Screen, View

__all__ = ["JsonView", "QuietView", "Report", "Screen", "View"]
