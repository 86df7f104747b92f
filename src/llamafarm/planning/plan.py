"""The complete, frozen answer to "what will this run do": every value set, each with its decision.

Nothing after `planning.resolve` reads the YAML or asks the hardware again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llamafarm.data.request import DataRequest
from llamafarm.decision import Decision
from llamafarm.models.shape import ModelShape
from llamafarm.models.source import ModelSource

Dtype = Literal["float32", "float16", "bfloat16"]
Stage = Literal["sft", "pt", "dpo"]

# How many evaluation rows are answered at the end of a run, for a person to look at, how far, and
# how long that may take (of a long run a share).
SAMPLE_ROWS, SAMPLE_TOKENS = 3, 32
SAMPLE_SECONDS, SAMPLE_SHARE = 20.0, 0.02
# How many are answered in each evaluation, where a metric needs answers.
ANSWERED_ROWS, ANSWER_TOKENS = 8, 64


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """The base. dtype: type of its weights in memory."""

    source: ModelSource
    shape: ModelShape
    dtype: Dtype


@dataclass(frozen=True, slots=True)
class AdapterPlan:
    """LoRA as PEFT's LoraConfig takes it. None in the plan means full fine-tuning."""

    r: int
    alpha: float
    dropout: float
    bias: Literal["none", "all", "lora_only"]
    target_modules: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    layers_to_transform: tuple[int, ...] | None
    layers_pattern: str | None
    use_rslora: bool
    use_dora: bool


@dataclass(frozen=True, slots=True)
class QuantizationPlan:
    """How bitsandbytes holds the frozen base. bits: 4 or 8."""

    bits: Literal[4, 8]
    quant_type: Literal["nf4", "fp4"]
    double_quant: bool
    compute_dtype: Dtype


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """Where it runs. device: torch's name; mixed_precision: autocast type; threads: torch threads
    on the CPU.
    """

    device: str
    name: str
    mixed_precision: Literal["no", "fp16", "bf16"]
    tf32: bool
    threads: int


@dataclass(frozen=True, slots=True)
class OptimizerPlan:
    """The update rule and its schedule. warmup_steps in optimizer steps."""

    name: str
    learning_rate: float
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    max_grad_norm: float
    scheduler: str
    scheduler_kwargs: Mapping[str, float | int | bool | str]
    warmup_steps: int
    label_smoothing: float
    neftune_noise_alpha: float | None


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How rows become steps. An optimizer step is accumulation_steps micro-batches of
    micro_batch_size rows; the last step of an epoch may hold fewer. total_steps counts optimizer
    steps over the whole run.
    """

    micro_batch_size: int
    accumulation_steps: int
    eval_batch_size: int
    steps_per_epoch: int
    total_steps: int
    num_epochs: float
    shuffle: bool
    num_workers: int

    @property
    def effective_batch_size(self) -> int:
        """Rows per optimizer step."""
        return self.micro_batch_size * self.accumulation_steps


@dataclass(frozen=True, slots=True)
class Every:
    """When something is due: every `steps` optimizer steps after `delay`; steps 0 means never."""

    steps: int
    delay: int = 0

    def due(self, step: int) -> bool:
        """Whether it is due after optimizer step `step` (1-based)."""
        return self.steps > 0 and step > self.delay and step % self.steps == 0


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """enabled False: no evaluation at all. Besides `every`, the last step is always evaluated.

    answer_metrics: names of metrics for which the first ANSWERED_ROWS rows are answered in every
    evaluation.
    """

    enabled: bool
    on_start: bool
    every: Every
    metric: str
    greater_is_better: bool
    load_best: bool
    patience: int
    threshold: float
    answer_metrics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SavingPlan:
    """Resume points: every N steps, and always at an interruption. The best step is saved
    besides.
    """

    every: Every
    total_limit: int


@dataclass(frozen=True, slots=True)
class LoggingPlan:
    """Which steps become `step` events (the first too when `first_step`), and who is told."""

    every: Every
    first_step: bool
    report_to: tuple[str, ...]
    run_name: str


@dataclass(frozen=True, slots=True)
class LlamaFactoryPlan:
    """What only `type: llamafactory` has. stage: what it trains for; method: lora, qlora,
    full_finetune or freeze; native: its own keys, passed on as they are; libraries: versions in its
    environment.
    """

    stage: Stage
    method: str
    native: Mapping[str, object]
    libraries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What is made of the result. quantization: GGUF's name of a type; name_is_given: the strategy
    says the name, which is else the run directory's.
    """

    format: Literal["ollama", "gguf"]
    target: Path
    quantization: str
    name: str
    name_is_given: bool
    system_prompt: str | None
    parameters: Mapping[str, float | int | str | bool | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the run will need. seconds and tokens_per_second are None where nothing was measured to
    base them on.

    disk_bytes: what the run directory will hold at its fullest; memory_parts: name → bytes, largest
    first.
    """

    memory_bytes: int
    memory_limit_bytes: int
    memory_parts: tuple[tuple[str, int], ...]
    disk_bytes: int
    disk_free_bytes: int
    train_tokens: int
    seconds: float | None
    tokens_per_second: float | None
    basis: str

    @property
    def fits(self) -> bool:
        """Whether memory and disk suffice."""
        return (
            self.memory_bytes <= self.memory_limit_bytes and self.disk_bytes <= self.disk_free_bytes
        )


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """One run, decided."""

    strategy_id: str
    title: str
    backend: Literal["pytorch", "llamafactory"]
    output_dir: Path
    model: ModelPlan
    adapter: AdapterPlan | None
    quantization: QuantizationPlan | None
    device: DevicePlan
    optimizer: OptimizerPlan
    batch: BatchPlan
    evaluation: EvaluationPlan
    saving: SavingPlan
    logging: LoggingPlan
    data: DataRequest
    data_fingerprint: str
    num_trainable_parameters: int
    max_length: int
    gradient_checkpointing: bool
    torch_compile: bool
    seed: int
    on_nonfinite: Literal["stop", "skip"]
    stop_on_overfitting: bool
    forecast: Forecast
    llamafactory: LlamaFactoryPlan | None = None
    export: ExportPlan | None = None
    stop_words: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = field(default=())

    @property
    def warnings(self) -> tuple[str, ...]:
        """The lines a person should not miss."""
        return tuple(d.reason for d in self.decisions if d.source == "warning")
