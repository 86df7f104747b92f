"""The weights in a GGUF file against the trained ones: the layer of the certificate that needs no
engine.

The trained weights come from PEFT's own merge, not from ours, and are encoded as the file's type
asks. Nearly all bytes have to be equal: a value that the two merges round differently may fall to
the code next to it. So one tensor of another checkpoint is seen, even where quantisation hides it
from the predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from llamafarm.export.contents import Floats, TensorPlan
from llamafarm.export.encodings import encode
from llamafarm.export.ggml_types import type_number
from llamafarm.export.gguf_writer import TypedTensor
from llamafarm.export.merge import EMBEDDING, HEAD, language_model_name
from llamafarm.export.parity import Layer
from llamafarm.export.weights import row_ranges
from llamafarm.models.gguf_file import GgufTensor, read_gguf


def compare_weights(
    file: Path,
    tensors: Sequence[TypedTensor],
    trained: Mapping[str, Floats],
    *,
    differing_codes: float,
    on_tensor: Callable[[int], None] | None = None,
) -> Layer:
    """trained: the merged weights by their names in transformers; differing_codes: the share of a
    tensor's bytes that may differ. Raises ModelError when the file cannot be read.
    """
    findings: list[str] = []
    for number, (name, share) in enumerate(differing_shares(file, tensors, trained), start=1):
        if share is None:
            findings.append(f"{name}: is missing, or of another shape or type")
        elif share > differing_codes:
            findings.append(f"{name}: {share:.1%} of its bytes are other weights'")
        if on_tensor is not None:
            on_tensor(number)
    foreign = {tensor.name for tensor in read_gguf(file).tensors} - _names(tensors)
    findings += [f"{name}: stands in the file only" for name in sorted(foreign)]
    return Layer("weights", len(tensors), len(findings), findings[0] if findings else "")


def differing_shares(
    file: Path, tensors: Sequence[TypedTensor], trained: Mapping[str, Floats]
) -> Iterator[tuple[str, float | None]]:
    """Every tensor with the share of its bytes that are not the trained weights'; None where it is
    missing, or of another shape or type.
    """
    stored = {tensor.name: tensor for tensor in read_gguf(file).tensors}
    by_name = {language_model_name(name): weights for name, weights in trained.items()}
    for tensor in tensors:
        expected = _trained(tensor.plan, by_name)
        found = stored.get(tensor.plan.name)
        if found is None or expected is None or not _fit(found, tensor, expected):
            yield tensor.plan.name, None
        else:
            yield tensor.plan.name, _differing(file, found, tensor, expected)


def _fit(found: GgufTensor, tensor: TypedTensor, expected: Floats) -> bool:
    """Whether the two can be compared. A vocabulary may be padded in training and not in the
    file.
    """
    shape, trained = tensor.plan.shape, expected.shape
    enough = trained[0] >= shape[0] and trained[1:] == shape[1:]
    return enough and (found.shape, found.ggml_type) == (shape, type_number(tensor.type_name))


def _names(tensors: Sequence[TypedTensor]) -> set[str]:
    return {tensor.plan.name for tensor in tensors}


def _trained(plan: TensorPlan, trained: Mapping[str, Floats]) -> Floats | None:
    if plan.values is not None:
        return plan.values
    name = language_model_name(plan.source)
    found = trained.get(name)
    return trained.get(EMBEDDING) if found is None and name == HEAD else found


def _differing(file: Path, stored: GgufTensor, tensor: TypedTensor, expected: Floats) -> float:
    """Share of the bytes that differ, a part at a time."""
    plan, differing, at = tensor.plan, 0, stored.offset
    for start, stop in row_ranges(plan.shape, plan.rows_together):
        rows = np.ascontiguousarray(expected[start:stop])
        if plan.transform is not None:
            rows = plan.transform(rows)
        table = rows.reshape(1, -1) if rows.ndim == 1 else rows.reshape(len(rows), -1)
        encoded = encode(table, tensor.type_name, tensor=plan.name)
        found = np.fromfile(file, np.uint8, encoded.size, offset=at)
        at += encoded.size
        differing += int(np.count_nonzero(found != encoded))
    return differing / max(tensor.nbytes, 1)
