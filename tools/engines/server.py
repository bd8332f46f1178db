"""A vLLM server of our own on loopback, for as long as it is needed and never longer.

It dies with the process that started it, also where that is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from self_pruner.memory.errors import EngineError
from self_pruner.memory.no_links import open_to_write
from self_pruner.tools.engines.leashed import leashed
from self_pruner.tools.engines.share import Share, cache_space

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy is asked for this machine

# Replies without a space that nobody reads: a vector of a width a layer would be twice as long.
STRUCTURED = '{"backend": "guidance", "disable_any_whitespace": true}'
KEYS = ("SELF_PRUNER_BRAIN_KEY", "VLLM_API_KEY")  # for others: the first is a stranger's, the second would lock us out
LONGEST = 8192  # tokens of context that a brain is given, at most: prompts are shorter
START_SECONDS = 1800.0  # a large model is read from disk first


@contextmanager
def served(
    python: Path,
    model: str,
    log: Path,
    *,
    dtype: str,
    max_model_len: int,
    share: Share | None = None,
    cache: int = 0,
    timeout: float = START_SECONDS,
) -> Iterator[str]:
    """Serve a dense model with the vLLM of `python`; gives the address, up to and with /v1.

    Args:
        python: of an environment that has vLLM.
        model: a folder of safetensors, or a hub id.
        log: what the server says; written anew.
        dtype: of its weights.
        max_model_len: tokens of its context.
        share: the GPUs that it gets, and how much of them; None on a CPU.
        cache: bytes of keys and values of its longest request, which it must have room for on a CPU.
        timeout: seconds that it may take to start.

    Raises:
        EngineError: it did not start; the sentence ends with the last error it named.
    """
    port = _free_port()
    command = [
        *(str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", "target"),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", dtype, "--max-model-len", str(max_model_len)),
        *("--structured-outputs-config", STRUCTURED, "--enable-prefix-caching"),
        *("--enable-prompt-tokens-details", "--enforce-eager"),
        *(
            "--generation-config",
            "vllm",
        ),  # else a checkpoint's own top-k and penalties come on top of what is asked for
    ]
    others = {name: value for name, value in os.environ.items() if name not in KEYS}
    environment = {"VLLM_CPU_KVCACHE_SPACE": str(cache_space(cache)), "VLLM_NO_USAGE_STATS": "1"} | others
    if share is not None:
        command += options_of(share)
        environment["CUDA_VISIBLE_DEVICES"] = visible(share, others.get("CUDA_VISIBLE_DEVICES"))
    with leashed(command) as start:
        with os.fdopen(open_to_write(log, os.O_WRONLY | os.O_TRUNC), "w", encoding="utf-8") as said:
            server = subprocess.Popen(
                **start,
                env=environment,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait(server, port, log, timeout)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _end(server)


def options_of(share: Share) -> list[str]:
    """The options of vLLM that keep it to its share."""
    options = ["--gpu-memory-utilization", f"{share.fraction:.2f}", "--tensor-parallel-size", str(len(share.gpus))]
    return [*options, *(["--quantization", share.quantization] if share.quantization else [])]


def visible(share: Share, seen: str | None) -> str:
    """CUDA_VISIBLE_DEVICES of a process that sees the share's GPUs alone; `seen` is this process's own."""
    numbers = [int(gpu.partition(":")[2] or 0) for gpu in share.gpus]
    return ",".join(seen.split(",")[number].strip() if seen else str(number) for number in numbers)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], port: int, log: Path, timeout: float) -> None:
    """Until it answers."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if server.poll() is not None:
            reason = last_error(log.read_text(encoding="utf-8", errors="replace"))
            raise EngineError(f"vLLM did not start: {reason} ({log})")
        if _answers(port):
            return
        time.sleep(0.5)
    raise EngineError(f"vLLM did not answer within {timeout:.0f} s ({log})")


def _answers(port: int) -> bool:
    try:
        with DIRECT.open(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask it to go, then make whatever of it is left go."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def last_error(text: str) -> str:
    """The last line that names an error; vLLM buries it under those of its other processes."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line and "Engine core initialization failed" not in line]
    return (named or lines or ["it said nothing"])[-1]
