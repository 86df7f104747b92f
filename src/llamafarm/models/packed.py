"""Several conversations in one row without padding, and the head computed only where there is a
label.

A packed row is [prefix][document 1][document 2]…: the prefix is the start that all its
conversations share (a system
prompt, say), computed once; position ids go on from the prefix in every document. Attention stays
inside
prefix + own document, so every token sees exactly what it would see alone. Which architectures this
holds for is
measured by `packing_probe`, not assumed.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from llamafarm.data.tokenized import TokenRows

PACKED_ATTENTION = "llamafarm_packed"


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One forward pass. T tokens computed, K labels.

    input_ids, position_ids: int64 [1, T]; documents: (start, end) of each document in the row,
    prefix not included;
    label_positions: int64 [K], where in the row a prediction is scored; labels: int64 [K], the
    token that follows;
    label_counts: labels of each document, in order;
    num_tokens: tokens of the conversations as written, so the shared prefix counts once for each of
    them.
    """

    input_ids: Tensor
    position_ids: Tensor
    prefix_length: int
    documents: tuple[tuple[int, int], ...]
    label_positions: Tensor
    labels: Tensor
    label_counts: tuple[int, ...]
    num_tokens: int

    @property
    def num_labels(self) -> int:
        """Number of scored predictions."""
        return int(self.labels.numel())

    @property
    def num_computed(self) -> int:
        """Tokens that go through the model: T."""
        return int(self.input_ids.numel())

    def to(self, device: torch.device | str) -> PackedRow:
        """The same row on another device."""
        return PackedRow(
            self.input_ids.to(device, non_blocking=True),
            self.position_ids.to(device, non_blocking=True),
            self.prefix_length,
            self.documents,
            self.label_positions.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.label_counts,
            self.num_tokens,
        )


def shared_prefix_length(ids: Sequence[np.ndarray], first_trained: Sequence[int]) -> int:
    """Tokens that all rows start with, stopping so that every scored prediction stays inside its
    own document.
    """
    if len(ids) < 2:
        return 0
    limit = min(*(max(first - 1, 0) for first in first_trained), *(len(row) - 1 for row in ids))
    length = limit
    for row in ids[1:]:
        different = np.flatnonzero(row[:length] != ids[0][:length])
        if different.size:
            length = int(different[0])
    return length


def pack(rows: TokenRows, indices: Sequence[int], *, share_prefix: bool = True) -> PackedRow:
    """Lay the given rows end to end."""
    ids = [np.asarray(rows.input_ids(i)) for i in indices]
    trained = [np.asarray(rows.trained(i)) for i in indices]
    first_trained = [int(np.argmax(mask)) if mask.any() else len(mask) for mask in trained]
    prefix = shared_prefix_length(ids, first_trained) if share_prefix else 0
    pieces, positions, documents, label_positions, labels = (
        [ids[0][:prefix]],
        [np.arange(prefix)],
        [],
        [],
        [],
    )
    start = prefix
    for row, mask in zip(ids, trained, strict=True):
        length = len(row) - prefix
        pieces.append(row[prefix:])
        positions.append(np.arange(prefix, len(row)))
        scored = np.flatnonzero(mask)
        scored = scored[scored > 0]
        label_positions.append(scored - 1 - prefix + start)
        labels.append(row[scored])
        documents.append((start, start + length))
        start += length
    return PackedRow(
        input_ids=_int64(pieces)[None],
        position_ids=_int64(positions)[None],
        prefix_length=prefix,
        documents=tuple(documents),
        label_positions=_int64(label_positions),
        labels=_int64(labels),
        label_counts=tuple(len(part) for part in labels),
        num_tokens=sum(len(row) for row in ids),
    )


def _int64(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def use_packed_attention(model: nn.Module) -> None:
    """Switch a transformers model to attention that stays inside documents."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED_ATTENTION, packed_attention)
    model.set_attn_implementation(PACKED_ATTENTION)  # type: ignore[operator]  # a method of PreTrainedModel


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed_documents: tuple[tuple[int, int], ...] = (),
    packed_prefix: int = 0,
    **other: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each document (and the shared prefix). query [1, H, T, D]; key, value
    [1, H_kv, T, D].

    Raises ValueError on anything else that would change attention: sinks, position bias, a mask.
    """
    changed = [
        name for name in ("s_aux", "position_bias", "head_mask") if other.get(name) is not None
    ]
    if (
        attention_mask is not None
        or changed
        or other.get("is_causal") is False
        or query.shape[0] != 1
    ):
        raise ValueError(
            f"packed attention cannot obey {changed or 'a mask, a batch or two-way attention'}"
        )
    lengths = [end - start for start, end in packed_documents] or [query.shape[2]]
    documents = zip(*(_pieces(x, packed_prefix, lengths) for x in (query, key, value)), strict=True)
    outputs = []
    for number, (q, k, v) in enumerate(documents):
        attended = _causal_attention(q, k, v, scaling, dropout, sliding_window, softcap)
        outputs.append(attended if number == 0 else attended[:, :, packed_prefix:])
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _pieces(x: Tensor, prefix: int, lengths: list[int]) -> Sequence[Tensor]:
    """Prefix + document, for each document. One split has one backward; slices would have many."""
    if prefix == 0:
        return torch.split(x, lengths, dim=2)
    start, *documents = torch.split(x, [prefix, *lengths], dim=2)
    return [torch.cat([start, document], dim=2) for document in documents]


def _causal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    length, groups = query.shape[2], query.shape[1] // key.shape[1]
    grouped = groups > 1
    window = sliding_window if sliding_window is not None else length
    attend = partial(
        F.scaled_dot_product_attention, scale=scaling, dropout_p=dropout, enable_gqa=grouped
    )
    if softcap is None and window >= length:
        return attend(query, key, value, is_causal=True)
    distance = torch.arange(length, device=query.device)
    distance = distance[:, None] - distance[None, :]
    visible = (distance >= 0) & (distance < window)
    if softcap is None:
        return attend(query, key, value, attn_mask=visible)
    if grouped:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    scores = torch.tanh((query @ key.transpose(2, 3)) * (scale / softcap)) * softcap
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return F.dropout(weights, p=dropout) @ value


def label_logits(model: nn.Module, row: PackedRow, *, packed: bool) -> Tensor:
    """Logits [K, V] at the scored positions only.

    packed False: the row must hold one document, and the model's own attention is used.
    """
    arguments: dict[str, Any] = {"input_ids": row.input_ids, "use_cache": False}
    if packed:
        arguments["position_ids"] = row.position_ids
        arguments["packed_documents"] = row.documents
        arguments["packed_prefix"] = row.prefix_length
    elif len(row.documents) != 1:
        raise ValueError("an unpacked row holds exactly one conversation")
    if _keeps_logits(model):
        logits: Tensor = model(**arguments, logits_to_keep=row.label_positions).logits[0]
        return logits
    everywhere: Tensor = model(**arguments).logits[0]
    return everywhere[row.label_positions]


def _keeps_logits(model: nn.Module) -> bool:
    """Whether the model's forward can compute the head at chosen positions."""
    inner: Any = getattr(model, "module", model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    return "logits_to_keep" in inspect.signature(inner.forward).parameters


def token_losses(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each scored prediction, in fp32: [K]."""
    return F.cross_entropy(
        logits.float(), labels, reduction="none", label_smoothing=label_smoothing
    )
