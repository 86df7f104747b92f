"""The base of a QLoRA run as a source of weights: each linear one as bitsandbytes had held it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from llamafarm.export.contents import Floats
from llamafarm.export.merge import EMBEDDING, HEAD, language_model_name
from llamafarm.export.weights import WeightSource
from llamafarm.models.quantised_base import dequantised, require_bitsandbytes


class QuantisedBase:
    """A WeightSource. The one part of a merge that needs torch, and a whole tensor at a time: the
    scales of several blocks are quantised together.

    quantization, dtype: as models/quantised_base.py takes them. Raises UserError where bitsandbytes
    is not installed.
    """

    def __init__(self, base: WeightSource, quantization: Mapping[str, Any], dtype: str) -> None:
        require_bitsandbytes()
        self._base = base
        self._quantization = quantization
        self._dtype = dtype
        self._lock = threading.Lock()
        self._held: tuple[str, Floats] | None = None

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor."""
        return self._base.shapes

    @property
    def dtypes(self) -> Mapping[str, str]:
        """Stored type of every tensor."""
        return self._base.dtypes

    def read_rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows start to stop as the run's base had them."""
        if not self._is_linear(name):
            return self._base.read_rows(name, start, stop)
        with self._lock:
            if self._held is None or self._held[0] != name:
                self._held = (name, self._whole(name))
            return self._held[1][start:stop]

    def _is_linear(self, name: str) -> bool:
        """In the models that are written here every matrix is one, but for embedding and head."""
        apart = (EMBEDDING, HEAD)
        return len(self._base.shapes[name]) == 2 and language_model_name(name) not in apart

    def _whole(self, name: str) -> Floats:
        import torch

        weight = torch.from_numpy(self._base.read_rows(name, 0, self._base.shapes[name][0]).copy())
        values: Floats = dequantised(weight, self._quantization, self._dtype).numpy()
        return np.ascontiguousarray(values)
