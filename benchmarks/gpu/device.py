"""The device that is measured: what it is, its clock, its peaks, its graphs.

On the CPU, where toy shapes run, the clock is the processor's, graphs are plain calls and peaks of memory are unknown.
"""

from __future__ import annotations

import gc
import platform
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from self_pruner.tools.latency.static_decoder import captured

PRODUCT = 8192  # rows and columns of the matrices whose product gives the peak
COPY_BYTES = 4 << 30  # far more than any cache


class Device:
    """One CUDA device, or the CPU."""

    def __init__(self, name: str) -> None:
        """`cuda` or `cpu`."""
        self.torch = torch.device(name)
        self.is_cuda = self.torch.type == "cuda"
        self._held = 0  # bytes at the last `forget_peak`

    def synchronize(self) -> None:
        """Wait until the device has done all it was asked to."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def seconds(self, action: Callable[[], object]) -> float:
        """Seconds of one `action`, from an idle device to an idle device."""
        self.synchronize()
        start = time.perf_counter()
        action()
        self.synchronize()
        return time.perf_counter() - start

    def repeat(self, action: Callable[[], object], repeats: int, warmup: int = 1) -> list[float]:
        """Seconds of every one of `repeats` actions, after `warmup` that do not count."""
        for _ in range(warmup):
            action()
        return [self.seconds(action) for _ in range(repeats)]

    def laps(self, step: Callable[[], object], count: int) -> list[float]:
        """Seconds of each of `count` steps in a row, the host running ahead as it does while a model generates."""
        if not self.is_cuda:
            return [self.seconds(step) for _ in range(count)]
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        self.synchronize()
        marks[0].record()
        for mark in marks[1:]:
            step()
            mark.record()
        self.synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in zip(marks, marks[1:], strict=False)]

    def captured(self, step: Callable[[], object]) -> Callable[[], object]:
        """`step` as a CUDA graph, as the product makes one."""
        return captured(step, self.torch)

    def forget_peak(self) -> None:
        """Let a new peak of memory begin."""
        if self.is_cuda:
            self.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._held = torch.cuda.memory_allocated()

    def peak_bytes(self) -> int | None:
        """Most bytes of tensors since `forget_peak`; None on the CPU."""
        return torch.cuda.max_memory_allocated() if self.is_cuda else None

    def peak_above_bytes(self) -> int | None:
        """The same, less what was held at `forget_peak`."""
        return torch.cuda.max_memory_allocated() - self._held if self.is_cuda else None

    def free_bytes(self) -> int | None:
        """Bytes of memory that nobody holds; None on the CPU."""
        return torch.cuda.mem_get_info()[0] if self.is_cuda else None

    def release(self) -> None:
        """Give memory of tensors that are gone back to the device."""
        if self.is_cuda:
            gc.collect()
            torch.cuda.empty_cache()

    def generator(self, seed: int) -> torch.Generator:
        """Random numbers on the device."""
        return torch.Generator(self.torch).manual_seed(seed)

    def describe(self) -> dict[str, Any]:
        """What the figures are of: device, driver, versions."""
        facts: dict[str, Any] = {
            "name": torch.cuda.get_device_name() if self.is_cuda else platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "transformers": _version("transformers"),
            "python": platform.python_version(),
        }
        if self.is_cuda:
            properties: Any = torch.cuda.get_device_properties(0)
            facts |= {
                "memory_bytes": properties.total_memory,
                "multiprocessors": properties.multi_processor_count,
                "capability": f"{properties.major}.{properties.minor}",
                "nvidia_smi": _nvidia_smi(),
            }
        return facts

    def matrix_peak(self, dtype: torch.dtype, size: int = PRODUCT) -> float:
        """Operations a second of the product of two square matrices of random numbers."""
        size = size if self.is_cuda else 256
        left, right = (torch.randn(size, size, device=self.torch).to(dtype) for _ in range(2))
        out = torch.empty_like(left)
        best = min(self.repeat(lambda: torch.mm(left, right, out=out), 10, warmup=3))
        return 2 * size**3 / best

    def copy_rate(self, size: int = COPY_BYTES) -> float:
        """Bytes a second of a copy within the device's memory, those read and those written."""
        source = torch.empty(size if self.is_cuda else 1 << 22, dtype=torch.uint8, device=self.torch)
        source.random_(0, 255)
        target = torch.empty_like(source)
        best = min(self.repeat(lambda: target.copy_(source), 10, warmup=2))
        return 2 * source.nbytes / best


def reason(error: BaseException) -> str:
    """An error in one line."""
    text = (str(error).strip().splitlines() or [""])[0].partition(". ")[0]
    return f"{type(error).__name__}: {text}"[:200]


def random_numbers(device: Device, dtype: torch.dtype, count: int, seed: int = 0) -> Tensor:
    """Uniform numbers between -0.02 and 0.02, [count]: a model's weights repeat them (`tools.latency.shapes.fill`)."""
    some = torch.empty(count, dtype=dtype, device=device.torch)
    return some.uniform_(-0.02, 0.02, generator=device.generator(seed))


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _nvidia_smi() -> str | None:
    """Driver, clocks and power as nvidia-smi prints them, None where there is no such program."""
    fields = "driver_version,memory.total,clocks.sm,clocks.mem,power.draw,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
