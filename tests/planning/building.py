"""Models, data and plans made by hand: planning needs nothing real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamafarm.data.report import DataReport, LengthSummary
from llamafarm.data.request import DataRequest
from llamafarm.decision import Decision
from llamafarm.hardware.facts import GIB, Hardware
from llamafarm.models.shape import LinearLayer, ModelShape, OtherModule
from llamafarm.models.source import ModelSource
from llamafarm.planning.plan import TrainingPlan
from llamafarm.planning.render import short_field
from llamafarm.planning.resolve import resolve
from llamafarm.strategy.model import Origin, Strategy, TrainingArgs
from tests.hardware.recorded import LAPTOP

HOME = Path("/home/ada/project")
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def llama_shape(
    hidden: int,
    mlp: int,
    layers: int,
    heads: int,
    kv_heads: int,
    vocab: int,
    *,
    tied: bool,
    context: int = 8192,
) -> ModelShape:
    """A Llama of these sizes, as the model room would read it from its configuration."""
    dim = hidden // heads
    kv = kv_heads * dim
    sizes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
    }
    linear = tuple(
        LinearLayer(f"model.layers.{index}.{name}", d_out, d_in)
        for index in range(layers)
        for name, (d_out, d_in) in sizes.items()
    )
    norms = 2 * layers + 1
    head = () if tied else (OtherModule("lm_head", vocab * hidden),)
    other = (
        OtherModule("model.embed_tokens", vocab * hidden),
        OtherModule("model.norm", hidden),
        *head,
    )
    total = sum(layer.d_out * layer.d_in for layer in linear) + norms * hidden
    return ModelShape(
        architecture="LlamaForCausalLM",
        model_type="llama",
        num_parameters=total + vocab * hidden * (1 if tied else 2),
        num_layers=layers,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=dim,
        vocab_size=vocab,
        max_position_embeddings=context,
        tied_embeddings=tied,
        linear_layers=linear,
        other_modules=other,
    )


SMOLLM2 = llama_shape(576, 1536, 30, 9, 3, 49152, tied=True)
LLAMA_1B = llama_shape(2048, 8192, 16, 32, 8, 128256, tied=True, context=131072)
LLAMA_3B = llama_shape(3072, 8192, 28, 24, 8, 128256, tied=True, context=131072)
LLAMA_7B = llama_shape(4096, 11008, 32, 32, 32, 32000, tied=False, context=4096)
LLAMA_13B = llama_shape(5120, 13824, 40, 40, 40, 32000, tied=False, context=4096)

SMOLLM2_SOURCE = ModelSource(
    requested="smollm2-135m-instruct",
    name="smollm2-135m-instruct",
    kind="packaged",
    directory=Path("/cache/smollm2-135m-instruct"),
    fingerprint="f" * 64,
)


def hub_source(name: str) -> ModelSource:
    return ModelSource(name, name, "hub", Path("/cache") / name.replace("/", "--"), "a" * 64)


def lengths(rows: int, *, tokens: int = 100, longest: int = 160) -> LengthSummary:
    """Rows of about so many tokens, 60 % of them trained."""
    return LengthSummary(
        rows=rows,
        total_tokens=rows * tokens,
        trained_tokens=rows * tokens * 6 // 10,
        shortest=tokens // 2,
        median=tokens,
        p95=(tokens + longest) // 2,
        longest=longest,
    )


def make_report(train_rows: int, eval_rows: int | None = None, **sizes: int) -> DataReport:
    """eval_rows left out: a ninth of the training rows; 0: no evaluation set."""
    evaluated = max(1, train_rows // 9) if eval_rows is None else eval_rows
    return DataReport(
        data_format="qa",
        files=(),
        train=lengths(train_rows, **sizes),
        eval=lengths(evaluated, **sizes) if evaluated else None,
        split="0.1 of the rows",
        template="the model's own",
        truncated=(),
        dropped=(),
        warnings=(),
        notices=(),
        fingerprint="d" * 64,
    )


def make_request(**changes: Any) -> DataRequest:
    values: dict[str, Any] = {
        "train_location": HOME / "data.jsonl",
        "eval_location": None,
        "test_location": None,
        "eval_wanted": True,
        "eval_fraction": 0.1,
        "chat_template": "{{ messages }}",
        "max_length": 4096,
        "seed": 42,
    }
    return DataRequest(**(values | changes))


def plan_for(
    strategy: Strategy,
    machine: Hardware = LAPTOP,
    shape: ModelShape = SMOLLM2,
    *,
    rows: int = 412,
    report: DataReport | None = None,
    request: DataRequest | None = None,
    source: ModelSource = SMOLLM2_SOURCE,
    bitsandbytes: bool = True,
    disk_gib: float = 100,
    speed: float | None = None,
    data_decisions: tuple[Decision, ...] = (),
) -> TrainingPlan:
    wanted = strategy.training_args.eval_strategy != "no"
    return resolve(
        strategy,
        machine,
        source,
        shape,
        request or make_request(eval_wanted=wanted),
        report or make_report(rows, None if wanted else 0),
        data_decisions=data_decisions,
        working_directory=HOME,
        bitsandbytes_available=bitsandbytes,
        free_disk_bytes=int(disk_gib * GIB),
        measured_speed=speed,
    )


def with_args(id_: str = "my_training", **args: Any) -> Strategy:
    """A strategy of nothing but training_args."""
    return Strategy(id=id_, training_args=TrainingArgs(**args))


def at_line(line: int, strategy_id: str = "my_training") -> Origin:
    return Origin(kind="strategy", file=Path("strategies.yaml"), line=line, strategy_id=strategy_id)


def decision(plan: TrainingPlan, field: str) -> Decision:
    """The value decision of a field, not a remark about it."""
    (found,) = [
        d
        for d in plan.decisions
        if d.field == short_field(field) and d.source not in ("warning", "notice")
    ]
    return found


def remarks(plan: TrainingPlan, field: str, source: str = "warning") -> list[str]:
    return [
        d.reason for d in plan.decisions if d.field == short_field(field) and d.source == source
    ]
