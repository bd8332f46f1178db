"""Fixtures shared by all tests. Models here are shared too: a test that changes one makes its own copy."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.warm import WarmServer

# Ray reads these once a process, whoever imports it first: its instances here admit nobody else. Beside other work its
# workers have their turn as everybody has, and of a process that has ended it waits to hear that it has.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
os.environ.update(RAY_worker_niceness="0", RAY_timeout_ms_task_wait_for_death_info="120000")

# Properties hold on a slow machine too, and are tried on the same examples.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

if TYPE_CHECKING:
    from self_pruner.tools.models.source import LoadedModel


# Files are shared out whole and in order, so the longest go first: none of them is left to one process at the end.
LONGEST = (
    "export/test_vllm.py",
    "latency/test_in_vllm.py",
    "session/test_remote_runs.py",
    "prepare/test_workers.py",
    "campaign/test_campaign.py",
    "decisions/test_laboratory.py",
    "run_files/test_run_memory.py",
    "gpu/test_script.py",
    "tasks/test_real.py",
    "brain/test_real.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the longest files come first."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is timed: what LangChain's tests would benchmark runs once."""
    config.option.benchmark_disable = True


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors gain nothing from threads, and results do not depend on how many cores there are."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> Iterator[None]:
    """SIGHUP and SIGINT are heard by what tests start, also where `nohup`, `&` or a script has them ignored.

    That would be inherited.
    """
    before = {one: signal.getsignal(one) for one in (signal.SIGHUP, signal.SIGINT)}
    ignored = [one for one, handler in before.items() if handler is signal.SIG_IGN]
    for one in ignored:
        signal.signal(one, signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL)
    yield
    for one in ignored:
        signal.signal(one, before[one])


@pytest.fixture(scope="session")
def bundled_folder() -> Path:
    """The bundled model as a folder of safetensors, fetched by the product's own code."""
    from self_pruner.tools.models.bundled import bundled_model

    return bundled_model()


@pytest.fixture(scope="session")
def bundled() -> LoadedModel:
    """The bundled model, loaded once; nobody may change it."""
    from self_pruner.tools.models.source import load, resolve

    return load(resolve("smollm2-135m"), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model that has a tokenizer; modules whose model is another say so themselves."""
    from tests.tiny import tiny_folder

    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the runs of a module share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def believed() -> Iterator[None]:
    """Exports are believed without the new process that verifies them, which tests/tools/export starts."""
    from self_pruner.tools.export import publish

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "verify", lambda *_folder, **_device: 0.0)
        yield


@pytest.fixture(scope="session")
def warm_server() -> Iterator[WarmServer]:
    """Has everything imported by the time the first process is started."""
    server = WarmServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def warm(warm_server: WarmServer) -> Iterator[None]:
    """Scripts that are started are forks of a process that has everything imported, and new processes all the same.

    For tests whose claim is not what a new interpreter does.
    """
    with warm_server.starts():
        yield


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder in which this process is an ordinary user, who can be forbidden things, also where root tests."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    if user == 0:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)
