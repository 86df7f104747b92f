"""How fast this machine multiplies fp32 matrices, and how many products a step is worth.

The share of the limit is F_useful / (seconds x R): F_useful counts what one step over these
conversations needs when nothing is wasted, R is the best rate of five products, three of them the
model's own layers. It can pass 100 % only where work is shared between conversations, because
F_useful counts each of them in full.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.spec import Row


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Of a decoder with grouped-query attention and a gated MLP (Llama, Qwen, Mistral, SmolLM2)."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    query_size: int
    key_value_size: int
    vocab_size: int

    @staticmethod
    def read(model_directory: Path) -> Dimensions:
        """From config.json."""
        config = json.loads((model_directory / "config.json").read_text(encoding="utf-8"))
        heads = config["num_attention_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        return Dimensions(
            num_layers=config["num_hidden_layers"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            query_size=heads * head_dim,
            key_value_size=(config.get("num_key_value_heads") or heads) * head_dim,
            vocab_size=config["vocab_size"],
        )

    @property
    def layer_linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of the seven linear weights of a layer."""
        h, f, q, kv = (
            self.hidden_size,
            self.intermediate_size,
            self.query_size,
            self.key_value_size,
        )
        return ((h, q), (h, kv), (h, kv), (q, h), (h, f), (h, f), (f, h))


def useful_flops(rows: Sequence[Row], dimensions: Dimensions, lora_r: int) -> float:
    """Floating-point operations that one LoRA step over these rows needs, counted once each.

    4 P + 3 A + 6 r sum(in + out) per token: forward and the gradient of the inputs through frozen
    weights P (embedding not counted, the head only where there is a label), causal attention A = 2
    L H d s over the row's own length s forward and twice that backward, and all three products of
    the adapters.
    """
    tokens = sum(len(row.input_ids) for row in rows)
    squares = sum(len(row.input_ids) ** 2 for row in rows)
    labels = sum(row.num_trained for row in rows)
    linears = dimensions.layer_linears
    weights = dimensions.num_layers * sum(i * o for i, o in linears)
    adapters = dimensions.num_layers * lora_r * sum(i + o for i, o in linears)
    head = dimensions.vocab_size * dimensions.hidden_size
    attention = 2 * dimensions.num_layers * dimensions.query_size * squares
    return 4 * (weights * tokens + head * labels) + 3 * attention + 6 * adapters * tokens


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """Products [m, k] x [k, n] to time."""

    shapes: tuple[tuple[int, int, int], ...]
    threads: int
    seconds_each: float = 2.0

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def probe_shapes(
    dimensions: Dimensions, tokens: int, labels: int
) -> tuple[tuple[int, int, int], ...]:
    """The model's attention, MLP and head products for a step of this size, and two squares."""
    h, f = dimensions.hidden_size, dimensions.intermediate_size
    return (
        (tokens, h, dimensions.query_size),
        (tokens, h, f),
        (labels, h, dimensions.vocab_size),
        (1024, 1024, 1024),
        (2048, 2048, 2048),
    )


def best_rate(spec: ProbeSpec) -> float:
    """Best rate in FLOP/s over all shapes."""
    import torch

    torch.set_num_threads(spec.threads)
    return max(
        2 * m * k * n / shortest_product(m, k, n, spec.seconds_each) for m, k, n in spec.shapes
    )


def shortest_product(m: int, k: int, n: int, seconds: float) -> float:
    """Shortest time of [m, k] x [k, n] seen in so many seconds: random data, written in place."""
    import torch

    a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    torch.mm(a, b, out=out)
    times: list[float] = []
    until = time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    shapes = tuple((m, k, n) for m, k, n in given.pop("shapes"))
    print(json.dumps(best_rate(ProbeSpec(shapes, **given))))
