"""The mutation score: which share of small faults, put into a module one at a time, its own tests notice.

Heavy libraries are imported once; every mutant is tried in a forked process on a copy of the tree, so that processes
which a test starts see the fault too. What survives is printed: a missing test, or a change of no effect.

    python -m benchmarks.mutation                                     # every module below, a line each
    python -m benchmarks.mutation memory/store.py agent/run_files/trace.py      # these, and what survives
"""

from __future__ import annotations

import argparse
import compileall
import gc
import importlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mutation.mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
EXPORT = ["-m", "not slow", "tests/tools/export/test_verdict.py", "tests/tools/export/test_verify.py"]
TESTS = {
    "memory/database.py": ["tests/memory"],
    "memory/profile.py": ["tests/memory"],
    "memory/records.py": ["tests/memory"],
    "memory/store.py": ["tests/memory"],
    "agent/run_files/trace.py": ["tests/agent/run_files/test_trace.py"],
    "agent/run_files/run_directory.py": [
        "tests/agent/run_files/test_run_identity.py",
        "tests/agent/run_files/test_run_directory.py",
    ],
    "agent/run_files/run_lock.py": [
        "tests/agent/run_files/test_run_lock.py",
        "tests/agent/run_files/test_run_directory.py",
    ],
    "agent/search/legal_calls.py": ["tests/agent/search/test_legal_calls.py"],
    "agent/search/planning/quotas.py": ["tests/agent/search/test_quotas.py"],
    "tools/profiles/selection.py": ["tests/tools/profiles/test_selection.py"],
    "tools/evaluation/staged.py": ["tests/tools/evaluation/test_staged.py"],
    "tools/profiles/space.py": ["tests/tools/profiles/test_space.py"],
    "tools/profiles/budget.py": ["tests/tools/profiles/test_budget.py", "tests/tools/profiles/test_budget_targets.py"],
    "tools/profiles/uniform_budget.py": ["tests/tools/profiles/test_uniform_budget.py"],
    "tools/export/reload.py": ["tests/tools/export/test_reload.py"],
    "tools/export/verify.py": EXPORT,
    "tools/export/publish.py": EXPORT,
}
COPIED = ["memory", "tools", "agent", "prompts", "self_pruner", "tests", "main.py", "pyproject.toml"]
HEAVY = ["torch", "transformers", "safetensors.torch", "pydantic", "numpy", "pytest", "hypothesis"]
OPTIONS = ["-xq", "-p", "no:cacheprovider", "-p", "no:unraisableexception", "-o", "addopts=--import-mode=importlib"]


def start(tree: Path, tests: list[str]) -> int:
    """The process id of a fork that runs `tests` in `tree`; its status says whether they passed."""
    if process := os.fork():
        return process
    os.setsid()  # with all that the tests start it is one group, to be ended as one
    os.chdir(tree)
    sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]
    sys.dont_write_bytecode = True  # two mutants of one size and second would share their bytecode
    os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    quiet = os.open(tree / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    status = 1
    try:
        import pytest
        from hypothesis import Phase, settings

        settings.register_profile("mutation", phases=[Phase.explicit, Phase.generate], database=None)
        settings.load_profile("mutation")  # a failure is enough, it need not be made small
        status = int(pytest.main([*OPTIONS, f"--basetemp={tree}/tmp", *tests]))
    finally:
        os._exit(status)


@dataclass
class Trial:
    """A mutant that is being tried."""

    process: int
    tree: Path
    mutant: Mutant | None
    deadline: float

    def passed(self) -> bool | None:
        """Whether the tests passed; a fault that makes them hang is noticed. None while they run."""
        done, status = os.waitpid(self.process, os.WNOHANG)
        if not done and time.monotonic() < self.deadline:
            return None
        with suppress(ProcessLookupError):  # also what a test that failed has left running
            os.killpg(self.process, signal.SIGKILL)
        if not done:
            os.waitpid(self.process, 0)
        return bool(done) and status == 0


def survivors(module: str, every: list[Mutant], trees: list[Path]) -> list[Mutant]:
    """The mutants of `module` that its tests pass with."""
    source = (ROOT / module).read_text(encoding="utf-8")
    began = time.monotonic()
    whole = Trial(start(trees[0], TESTS[module]), trees[0], None, began + 600)
    while (passed := whole.passed()) is None:
        time.sleep(0.02)
    if not passed:
        raise SystemExit(f"{module}: its tests fail as it is\n{(trees[0] / 'output.txt').read_text()[-2000:]}")
    seconds = 5 + 4 * len(trees) * (time.monotonic() - began)
    for tree in trees:
        Path(importlib.util.cache_from_source(str(tree / module))).unlink(missing_ok=True)
    waiting, free, found, running = list(reversed(every)), list(trees), [], list[Trial]()
    while waiting or running:
        while waiting and free:
            mutant, tree = waiting.pop(), free.pop()
            (tree / module).write_text(mutant.source, encoding="utf-8")
            running.append(Trial(start(tree, TESTS[module]), tree, mutant, time.monotonic() + seconds))
        time.sleep(0.01)
        for trial in list(running):
            if (passed := trial.passed()) is not None:
                running.remove(trial)
                free.append(trial.tree)
                (trial.tree / module).write_text(source, encoding="utf-8")
                found += [trial.mutant] if passed and trial.mutant else []
    return sorted(found, key=lambda mutant: mutant.line)


def main() -> None:
    """Print a score a module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help=f"some of {', '.join(TESTS)}")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if unknown := set(options.modules) - set(TESTS):
        parser.error(f"no tests are known of {', '.join(sorted(unknown))}: name some of {', '.join(TESTS)}")
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        trees = [Path(folder) / str(number) for number in range(options.processes)]
        for tree in trees:
            for name in COPIED:
                tree.mkdir(exist_ok=True)
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, tree / name, symlinks=True)
                else:
                    shutil.copy(ROOT / name, tree / name)
            compileall.compile_dir(tree, quiet=2)
        gc.freeze()
        for module in options.modules or TESTS:
            every = mutants((ROOT / module).read_text(encoding="utf-8"))
            found = survivors(module, every, trees)
            killed = len(every) - len(found)
            print(f"{module}: {killed} of {len(every)} mutants are noticed, {killed / len(every):.1%}", flush=True)
            for mutant in found if options.modules else ():
                print(f"    {mutant.line}: {mutant.change}", flush=True)


if __name__ == "__main__":
    main()
