"""What an allocator's refusal looks like on each device, and how to give memory back after one."""

from __future__ import annotations

import gc

# In lower case. `bad_alloc` is C++'s own refusal, of small objects; the others say what they are.
_SAYINGS = (
    "out of memory",
    "defaultcpuallocator",
    "bad_alloc",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator refused: most of torch's allocators say so in words only."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(saying in text for saying in _SAYINGS)


def release_memory() -> None:
    """Give back what no tensor uses any more. To be called after the `except` block has ended: an
    error holds the frames that it went through, and they hold their tensors.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
