"""What a refusal looks like on each device."""

from __future__ import annotations

import pytest
import torch

from llamafarm.hardware.out_of_memory import is_out_of_memory, release_memory

REFUSALS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1 GB)"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("std::bad_alloc"),
]
OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 4x3)"),
    RuntimeError("CUDA error: device-side assert triggered"),
    ValueError("out of memory"),
    OSError(28, "No space left on device"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", REFUSALS, ids=str)
def test_every_allocator_is_understood(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_no_other_error_is_taken_for_a_refusal(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_torch_itself_says_it_so() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)


def test_numpy_says_it_so() -> None:
    import numpy as np

    with pytest.raises(MemoryError) as refused:
        np.empty(2**60, dtype=np.uint8)
    assert is_out_of_memory(refused.value)


def test_what_only_a_cycle_holds_is_given_back() -> None:
    import gc
    import weakref

    class Holder:
        itself: Holder

    gc.disable()
    try:
        holder = Holder()
        holder.itself = holder
        reference = weakref.ref(holder)
        del holder
        assert reference() is not None
        release_memory()
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_gives_its_cache_back(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[str] = []
    for name, module in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        monkeypatch.setattr(module, "is_available", lambda name=name: name == device)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("cuda"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append("mps"))
    release_memory()
    assert emptied == [device]
