"""What a run will need: memory, time and disk, from counted operations and what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from llamafarm.data.report import LengthSummary
from llamafarm.hardware.facts import Cpu
from llamafarm.planning.memory import BYTES, Workload, memory_parts
from llamafarm.planning.method import adapted_layers
from llamafarm.planning.plan import (
    ANSWER_TOKENS,
    ANSWERED_ROWS,
    SAMPLE_ROWS,
    SAMPLE_SECONDS,
    SAMPLE_SHARE,
    SAMPLE_TOKENS,
    BatchPlan,
    EvaluationPlan,
    Forecast,
    SavingPlan,
)

# Measured: SmolLM2-135M with LoRA r 8 on questions of about 95 tokens trains 150 tokens/s on 2 AVX2
# cores, where flops_per_token counts 0.52 GFLOP a token.
_MEASURED_CPU_FLOPS_PER_CORE = 150 * 0.52e9 / 2
# That is this share of the 122 GFLOP/s that bare matrix products reached on the same cores.
TRAINING_SHARE = 0.64
_MEASURED_CPU = "measured with SmolLM2-135M on 2 AVX2 cores: 150 tokens/s"
_MEASURED_CAPABILITIES = ("AVX2", "AVX512")
# Tokenizer, configuration, model card, logs and metrics.
_SMALL_FILES_BYTES = 20_000_000
# Of a step of `generate`: what a laptop's or a small server's memory gives, and what some hundred
# kernels take to be started; as many again with an adapter. On 2 cores, 2026-11-30, the samples of
# a run of the packaged model took 0.15 s a token, of which half had the adapter switched off.
_MEMORY_BYTES_A_SECOND = 8e9
_KERNEL_SECONDS_CPU, _KERNEL_SECONDS = 0.06, 0.03
# Optimizer states in fp32 per trainable parameter; a resume point holds them beside the weights.
_STATES = {"sgd": 0, "adafactor": 0}


@dataclass(frozen=True, slots=True)
class Speed:
    """flops: useful floating-point operations a second, None where nothing was measured."""

    flops: float | None
    basis: str


def forecast(
    work: Workload,
    batch: BatchPlan,
    evaluation: EvaluationPlan,
    saving: SavingPlan,
    speed: Speed,
    *,
    memory_limit_bytes: int,
    disk_free_bytes: int,
) -> Forecast:
    """The forecast of a decided run."""
    parts = memory_parts(work)
    train_tokens = trained_on_tokens(work.train, batch)
    seconds = rate = None
    if speed.flops is not None:
        training = train_tokens * flops_per_token(work) / speed.flops
        seconds = training + _evaluation_flops(work, batch, evaluation) / speed.flops
        seconds += _answering_seconds(work, batch, evaluation, seconds)
        rate = speed.flops / flops_per_token(work)
    return Forecast(
        memory_bytes=sum(size for _, size in parts),
        memory_limit_bytes=memory_limit_bytes,
        memory_parts=parts,
        disk_bytes=disk_bytes(work, saving, evaluation),
        disk_free_bytes=disk_free_bytes,
        train_tokens=train_tokens,
        seconds=seconds,
        tokens_per_second=rate,
        basis=speed.basis,
    )


def choose_speed(measured_flops: float | None, work: Workload, cpu: Cpu, threads: int) -> Speed:
    """measured_flops: the rate of matrix products on the device in the run's precision, if
    known.
    """
    if measured_flops is not None:
        basis = f"matrix products measured at {measured_flops / 1e9:,.0f} GFLOP/s"
        return Speed(measured_flops * TRAINING_SHARE, basis)
    if work.device == "cpu" and cpu.capability in _MEASURED_CAPABILITIES:
        return Speed(_MEASURED_CPU_FLOPS_PER_CORE * threads, _MEASURED_CPU)
    return Speed(None, "nothing was measured on such a device yet")


def flops_per_token(work: Workload) -> float:
    """Floating-point operations of training on one token, the head counted where there is a label.

    P: linear weights; A: causal attention forward. Full: 6P + 3A. LoRA: 4P + 3A, and 6 r (in + out)
    for each adapted layer; checkpointing computes the forward pass, 2P + A, a second time.
    """
    weights, attention = _weights_and_attention(work, work.train)
    if work.adapter is None:
        flops = 6 * weights + 3 * attention
    else:
        layers = adapted_layers(
            work.shape,
            work.adapter.target_modules,
            work.adapter.layers_to_transform,
            work.adapter.layers_pattern,
        )
        own = 6 * work.adapter.r * sum(layer.d_in + layer.d_out for layer in layers)
        flops = 4 * weights + 3 * attention + own
    return flops + (2 * weights + attention if work.gradient_checkpointing else 0)


def trained_on_tokens(lengths: LengthSummary, batch: BatchPlan) -> int:
    """Tokens over the whole run: the steps' share of the epochs."""
    return round(lengths.total_tokens * batch.total_steps / batch.steps_per_epoch)


def disk_bytes(work: Workload, saving: SavingPlan, evaluation: EvaluationPlan) -> int:
    """The run directory at its fullest: resume points, the best one, one being written,
    final_model.
    """
    weights_width = 4 if work.adapter is not None else BYTES[work.weights]
    weights = work.num_trainable_parameters * weights_width
    states = work.num_trainable_parameters * 4 * _STATES.get(work.optimizer, 2)
    kept = saving.total_limit if saving.every.steps else 1
    best = 1 if evaluation.enabled else 0
    return (weights + states) * (kept + best + 1) + weights + _SMALL_FILES_BYTES


def _weights_and_attention(work: Workload, lengths: LengthSummary) -> tuple[float, float]:
    shape = work.shape
    linear = sum(layer.d_out * layer.d_in for layer in shape.linear_layers)
    labels = lengths.trained_tokens / max(1, lengths.total_tokens)
    head = shape.vocab_size * shape.hidden_size * labels
    # The mean over tokens of their conversation's length lies between the median and the 95th
    # percentile of the conversations.
    length = (lengths.median + lengths.p95) / 2
    attention = 2 * shape.num_layers * shape.num_attention_heads * shape.head_dim * length
    return linear + head, attention


def _evaluation_flops(work: Workload, batch: BatchPlan, plan: EvaluationPlan) -> float:
    if work.evaluation is None or not plan.enabled:
        return 0.0
    weights, attention = _weights_and_attention(work, work.evaluation)
    return _evaluations(batch, plan) * work.evaluation.total_tokens * (2 * weights + attention)


def _evaluations(batch: BatchPlan, plan: EvaluationPlan) -> int:
    during = sum(plan.every.due(step) for step in range(1, batch.total_steps))
    return during + 1 + plan.on_start


def _answering_seconds(
    work: Workload, batch: BatchPlan, plan: EvaluationPlan, run_seconds: float
) -> float:
    """Answers of full length: to a few rows in every evaluation where a metric needs them, else
    at the end, by the base and the best model.
    """
    if work.evaluation is None:
        return 0.0
    a_token = _seconds_a_generated_token(work)
    if plan.enabled and plan.answer_metrics:
        rows = min(ANSWERED_ROWS, work.evaluation.rows)
        return _evaluations(batch, plan) * rows * ANSWER_TOKENS * a_token
    models = 1 if work.adapter is None else 2
    samples = min(SAMPLE_ROWS, work.evaluation.rows) * models * SAMPLE_TOKENS * a_token
    return min(samples, max(SAMPLE_SECONDS, SAMPLE_SHARE * run_seconds))


def _seconds_a_generated_token(work: Workload) -> float:
    """One token at a time, the kernels are started anew and every weight is read once; an
    accelerator reads them meanwhile.
    """
    started = 1 if work.adapter is None else 2
    if work.device != "cpu":
        return started * _KERNEL_SECONDS
    read = work.shape.num_parameters * BYTES[work.weights] / _MEMORY_BYTES_A_SECOND
    return started * _KERNEL_SECONDS_CPU + read
