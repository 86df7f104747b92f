from __future__ import annotations

import pytest
import torch

from llamafarm.training.backends.pytorch.device import device_utilisation


class NvmlError(Exception):
    """NVML's errors have no parent but Exception."""


def test_a_device_that_cannot_say_how_busy_it_is_costs_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(_: torch.device) -> int:
        raise NvmlError("Not Supported")

    monkeypatch.setattr(torch.cuda, "utilization", refuses)
    assert device_utilisation(torch.device("cuda", 0)) is None
    assert device_utilisation(torch.device("cpu")) is None
