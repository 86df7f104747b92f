"""What other libraries raise for files that are damaged or do not fit, as errors of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from llamafarm.errors import ModelError


@contextlib.contextmanager
def model_faults(summary: str, *, hint: str = "") -> Iterator[None]:
    """Around calls that read a model's files: their faults become a ModelError `summary: fault`."""
    try:
        yield
    except _reading_faults() as fault:
        raise ModelError(f"{summary}: {fault}", hint=hint) from fault
    except Exception as fault:
        # tokenizers raises the bare class for a tokenizer.json that it cannot read.
        if type(fault) is not Exception:
            raise
        raise ModelError(f"{summary}: {fault}", hint=hint) from fault


def _reading_faults() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    return (
        ArithmeticError,
        AttributeError,
        ImportError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        SafetensorError,
        StrictDataclassError,
    )
