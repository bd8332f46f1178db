"""The Ray that workers live in: an instance of our own on this machine, or a cluster that is there.

Our own ends with this process, however that ends, and admits nobody else: it has a token. Ray is imported here and in
the workers only, and not before they are needed. Nothing of it is uploaded, drawn or reported.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import self_pruner
from self_pruner.memory.errors import EngineError
from self_pruner.tools.engines.child import child

REACH_SECONDS = 10.0  # for a cluster's address to accept a connection
ANSWER_SECONDS = 40.0  # for Ray to answer there
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # of what happens in the cluster we say ourselves what matters
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of a change to come
}
_ASK = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(int(ray.cluster_resources().get("GPU", 0)), sum(node["Alive"] for node in ray.nodes()))
"""


def installed() -> bool:
    """Whether Ray is, without importing it."""
    try:
        return bool(version("ray"))
    except PackageNotFoundError:
        return False


def check(address: str | None) -> tuple[int, int]:
    """The GPUs and machines of the cluster at `address`: `auto`, or host and port of its head; (0, 1) for None.

    Another process asks, because Ray ends the process that asks at a wrong address, after two minutes.

    Raises:
        EngineError: Ray is not installed, or does not answer there within a bound.
    """
    if not installed():
        raise EngineError('several workers need Ray, which is not installed: pip install "self-pruner[ray]"')
    if address is None:
        return 0, 1
    wanted = "give host:port of the head of a running Ray cluster, or leave --ray-address out for this machine alone"
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise EngineError(f"nothing answers at --ray-address {address} ({error}): {wanted}") from error
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK, address],
            env={**os.environ, **QUIET},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        reason = f"no Ray answers within {ANSWER_SECONDS:.0f} s"
    else:
        if not asked.returncode:
            gpus, machines = map(int, asked.stdout.split()[-2:])
            return gpus, machines
        reason = ([line for line in asked.stderr.splitlines() if "Error" in line] or ["Ray ended"])[-1].strip()[:300]
    raise EngineError(f"--ray-address {address} cannot be used, {reason}: {wanted}")


@contextmanager
def connected(address: str | None, workers: int, gpus: int) -> Iterator[Any]:
    """Ray, connected for as long as the block lasts.

    Args:
        address: of a cluster; None for an instance of our own.
        workers: places that our own has.
        gpus: those of them that have a GPU.

    Raises:
        EngineError: our own does not start, or the cluster does not take us.
    """
    os.environ.update(QUIET)
    with ExitStack() as stack:
        environment = None
        if address is None:
            # Ray reads these once a process
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            os.environ["RAY_AUTH_MODE"] = "token"
            address = stack.enter_context(_own_instance(workers, gpus))
        else:
            environment = {"env_vars": {"PYTHONPATH": _path(), **QUIET}}
        import ray

        kept = _kept_signals() if threading.current_thread() is threading.main_thread() else nullcontext()
        try:
            with kept:
                ray.init(address=address, runtime_env=environment, logging_level=logging.CRITICAL, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise EngineError(f"the Ray cluster at {address} cannot be used: {reason}") from error
        stack.callback(ray.shutdown)
        yield ray


@contextmanager
def _own_instance(workers: int, gpus: int) -> Iterator[str]:
    """The address of an instance of this machine; its files go with it."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, str(Path(__file__).with_name("own_instance.py")), str(workers), str(gpus), folder]
        with child(command, Path(folder), {**QUIET, "PYTHONPATH": _path()}) as instance:
            address = next(instance.lines(), "").strip()
            if not address:
                raise EngineError(f"Ray did not start on this machine: {instance.fault()}")
            yield address


def _path() -> str:
    """PYTHONPATH with which another Python finds this package, installed or not."""
    root = str(Path(self_pruner.__path__[0]).parent)
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Ray hears SIGTERM by itself, which ends the process in its own way: whoever heard it before does again."""
    import signal

    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
