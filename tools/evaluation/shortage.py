"""Memory that is free, and allocations that failed for want of it."""

from __future__ import annotations

import torch

from self_pruner.tools.evaluation.main_memory import main_memory

# Libraries on a GPU allocate their work space themselves, and where they cannot they say so in a RuntimeError of their
# own; a handle that cannot be made is a failed allocation too.
FAILED_ALLOCATIONS = (
    "can't allocate memory",  # PyTorch on a CPU
    "out of memory",  # CUDA
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is a failed allocation."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in FAILED_ALLOCATIONS)


def free_memory(device: str | torch.device) -> int:
    """Bytes to be had on `device`: main memory with what file caches give back, or a GPU's with PyTorch's own cache.

    Of main memory no more than the limit of a container leaves.
    """
    if torch.device(device).type != "cuda":
        return main_memory().free
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + cached
