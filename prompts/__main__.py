"""`python -m prompts SET KIND [DIR]` prints the prompt of a made-up turn, for whoever writes prompts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.prompts.sample import sample_variables
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.variables import Kind
from self_pruner.tools.text.printable import printable


def main(arguments: list[str]) -> int:
    """Print system and turn; returns the exit code."""
    kinds = get_args(Kind)
    if len(arguments) not in (2, 3) or arguments[1] not in kinds:
        print(f"usage: python -m prompts SET {'|'.join(kinds)} [DIR]", file=sys.stderr)
        return 2
    try:
        prompts = PromptSet(arguments[0], Path(arguments[2]) if len(arguments) == 3 else None)
        prompts.check()
        messages = prompts.render(sample_variables(arguments[1], prompts.actions))  # type: ignore[arg-type]
    except SelfPrunerError as error:
        print(printable(str(error)), file=sys.stderr)
        return error.exit_code
    print(printable(f"{messages.system}\n\n{messages.turn}"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
