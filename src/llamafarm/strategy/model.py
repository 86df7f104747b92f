"""The one shape that every strategy file is brought into: `Strategy`.

`None` means "left out": planning fills it and says why. A value that is a plain constant when left
out (weight decay, seed …) has that constant as its default here, and nowhere else; schema,
documentation and plan read it from this file. The dotted path of a field
(`training_args.learning_rate`) is its name everywhere: in origins, decisions, `--set`, messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
TorchDtype = Literal["auto", "float32", "float16", "bfloat16"]
MixedPrecision = Literal["no", "fp16", "bf16"]
WhenTo = Literal["steps", "epoch", "no"]
SchedulerName = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
]
OptimizerName = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "paged_adamw_8bit",
    "adafactor",
    "sgd",
]
DataFormat = Literal[
    "auto",
    "alpaca",
    "messages",
    "sharegpt",
    "prompt_completion",
    "qa",
    "preference",
    "reflection",
    "multiple_choice",
    "context_qa",
    "jeopardy",
    "summary",
    "input_output",
    "text",
]
# What other tools call these formats: axolotl's `type`, LLaMA-Factory's `formatting` and stages,
# TRL's dataset types.
FORMAT_ALIASES: Mapping[str, DataFormat] = {
    "chat_template": "messages",
    "chatml": "messages",
    "conversational": "messages",
    "openai": "messages",
    "pygmalion": "sharegpt",
    "alpaca_chat": "alpaca",
    "alpaca_chat.load_concise": "alpaca",
    "alpaca_instruct": "alpaca",
    "alpaca_w_system": "alpaca",
    "gpteacher": "alpaca",
    "oasst": "alpaca",
    "prompt-completion": "prompt_completion",
    "kto": "prompt_completion",
    "unpaired_preference": "prompt_completion",
    "alpaca_chat.load_camel_ai": "qa",
    "alpaca_chat.load_qa": "qa",
    "alpaca_w_system.load_open_orca": "qa",
    "alpaca_w_system.load_open_orca_chatml": "qa",
    "metharme": "qa",
    "nomic_gpt4all": "qa",
    "context_qa.load_v2": "context_qa",
    "concisechoice": "multiple_choice",
    "explainchoice": "multiple_choice",
    "summarizetldr": "summary",
    "chat_template.argilla": "preference",
    "chat_template.default": "preference",
    "chatml.argilla": "preference",
    "chatml.intel": "preference",
    "chatml.prompt_pairs": "preference",
    "chatml.ultra": "preference",
    "llama3.argilla": "preference",
    "llama3.intel": "preference",
    "llama3.prompt_pairs": "preference",
    "llama3.ultra": "preference",
    "template_free": "input_output",
    "completion": "text",
    "language_modeling": "text",
    "pretrain": "text",
    "pretraining": "text",
    "pt": "text",
}
LogLevel = Literal["debug", "info", "warning", "error"]
Tracker = Literal["none", "tensorboard", "wandb", "mlflow", "trackio"]


class Section(BaseModel):
    """A block of a strategy: strict about its keys, and never changed after it was read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class BaseModelSpec(Section):
    """`base_model`: which weights to start from."""

    id: str | None = Field(
        None,
        description="Hub id, directory, or .gguf file. "
        "Left out: the packaged SmolLM2-135M-Instruct.",
    )
    revision: str | None = Field(
        None, description="Branch, tag or commit of a Hub model. Left out: its main branch."
    )
    cache_dir: str | None = Field(
        None, description="Where Hub files are kept. Left out: the Hub's own cache."
    )
    torch_dtype: TorchDtype = Field(
        "auto", description="Type of the base weights. auto: the device's precision."
    )


class Quantization(Section):
    """`method.quantization`: how QLoRA holds the frozen base (bitsandbytes' names)."""

    load_in_4bit: bool | None = Field(
        None, description="4-bit base weights. Left out: true for qlora."
    )
    load_in_8bit: bool | None = Field(None, description="8-bit base weights. Left out: false.")
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field("nf4", description="4-bit number format.")
    bnb_4bit_use_double_quant: bool = Field(
        True, description="Quantise the quantisation constants too."
    )
    bnb_4bit_compute_dtype: TorchDtype = Field(
        "auto", description="Type of the matrix products. auto: the device's precision."
    )


class Method(Section):
    """`method`: what is trained."""

    type: Literal["lora", "qlora", "full_finetune", "freeze"] = Field(
        "lora", description="What is trained. dora and rslora are lora with that flag set."
    )
    r: PositiveInt | None = Field(None, description="LoRA rank. Left out: by model size.")
    alpha: PositiveFloat | None = Field(None, description="LoRA scaling numerator. Left out: 2 r.")
    dropout: Fraction = Field(0.05, description="Dropout on the adapter's input.")
    bias: Literal["none", "all", "lora_only"] = Field(
        "none", description="Which biases are trained."
    )
    target_modules: tuple[str, ...] | None = Field(
        None,
        description="Adapted modules; `all-linear` is every linear layer of the language model "
        "except the head. Left out: all-linear.",
    )
    modules_to_save: tuple[str, ...] = Field(
        (), description="Modules trained and saved whole, beside the adapter."
    )
    layers_to_transform: tuple[NonNegativeInt, ...] | None = Field(
        None, description="Indices of the layers that get adapters. Left out: all."
    )
    layers_pattern: str | None = Field(
        None,
        description="Name of the layer list, with layers_to_transform. Left out: PEFT's guess.",
    )
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(r).")
    use_dora: bool = Field(False, description="Weight-decomposed LoRA.")
    quantization: Quantization = Quantization()

    @property
    def trains_base(self) -> bool:
        """Whether weights of the base model are trained, and no adapter."""
        return self.type in ("full_finetune", "freeze")


class PrecisionFlags(Section):
    """Precision switches as they were asked for on one device; None: not asked."""

    use_fp16: bool | None = Field(
        None, description="Ask for, or rule out, fp16. Left out: by device."
    )
    use_bf16: bool | None = Field(
        None, description="Ask for, or rule out, bf16. Left out: by device."
    )
    use_tf32: bool | None = Field(None, description="TF32 matrix products. Left out: by device.")


class Precision(PrecisionFlags):
    """`hardware.precision`: flat switches, and the same per device (the device in use wins)."""

    cuda: PrecisionFlags = PrecisionFlags()
    mps: PrecisionFlags = PrecisionFlags()
    cpu: PrecisionFlags = PrecisionFlags()


class HardwareSection(Section):
    """`hardware`: which device, and how much of it."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = Field(
        "auto", description="auto, cuda, cuda:N, mps or cpu."
    )
    memory_gb: Annotated[float, Field(ge=2)] | None = Field(
        None, description="Upper bound on memory for the planner, in GB. Left out: what is there."
    )
    precision: Precision = Precision()


class TrainingArgs(Section):
    """`training_args`, under Hugging Face's names."""

    output_dir: str | None = Field(
        None, description="Run directory. Left out: ./fine_tuned_models/<strategy id>."
    )
    num_train_epochs: PositiveFloat | None = Field(
        None,
        description="Passes over the training data; a fraction is allowed. Left out: by data size.",
    )
    max_steps: PositiveInt | None = Field(
        None, description="Optimizer steps; wins over num_train_epochs. Left out: by epochs."
    )
    per_device_train_batch_size: PositiveInt | None = Field(
        None,
        description="Conversations per micro-step. Left out: by model size and memory.",
    )
    per_device_eval_batch_size: PositiveInt | None = Field(
        None, description="Conversations per evaluation step. Left out: as in training."
    )
    gradient_accumulation_steps: PositiveInt | None = Field(
        None, description="Micro-steps per optimizer step. Left out: effective batch 8 to 16."
    )
    learning_rate: NonNegativeFloat | None = Field(
        None,
        description="Peak learning rate; 0 trains nothing. Left out: by data size and model size.",
    )
    weight_decay: NonNegativeFloat = Field(0.01, description="Decoupled weight decay of matrices.")
    adam_beta1: Fraction = Field(0.9, description="AdamW's decay of the gradient's mean.")
    adam_beta2: Fraction = Field(0.999, description="AdamW's decay of the gradient's square.")
    adam_epsilon: PositiveFloat = Field(1e-8, description="AdamW's guard against division by 0.")
    max_grad_norm: NonNegativeFloat = Field(
        1.0, description="Gradients are clipped to this global norm; 0 switches clipping off."
    )
    label_smoothing_factor: Fraction = Field(
        0.0, description="Share of the target spread evenly over the vocabulary, in training only."
    )
    neftune_noise_alpha: PositiveFloat | None = Field(
        None,
        description="Noise on the embeddings while training (arXiv 2310.05914). Left out: none.",
    )
    lr_scheduler_type: SchedulerName = Field(
        "cosine", description="How the learning rate goes on after the warm-up."
    )
    lr_scheduler_kwargs: Mapping[str, float | int | bool | str] = Field(
        default_factory=dict, description="Further arguments of that scheduler."
    )
    warmup_steps: NonNegativeFloat | None = Field(
        None,
        description="Optimizer steps of warm-up; below 1 a fraction of the run. "
        "Left out: by data size.",
    )
    optim: OptimizerName | None = Field(
        None, description="Update rule. Left out: fused AdamW where the device has it."
    )
    eval_strategy: WhenTo = Field(
        "steps", description="When to evaluate, besides before the first step and after the last."
    )
    eval_steps: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Optimizer steps between evaluations; below 1 a fraction of the run. "
        "Left out: about ten a run.",
    )
    eval_delay: NonNegativeFloat = Field(
        0, description="Steps (or epochs) before the first evaluation of the schedule."
    )
    eval_on_start: bool = Field(True, description="Evaluate the base model before the first step.")
    save_strategy: Literal["steps", "epoch", "no", "best"] | None = Field(
        None, description="When resume points are written. Left out: with the evaluations."
    )
    save_steps: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Optimizer steps between resume points; below 1 a fraction of the run. "
        "Left out: as eval_steps.",
    )
    save_total_limit: PositiveInt = Field(
        3, description="Resume points kept; the best is kept besides."
    )
    load_best_model_at_end: bool = Field(
        True, description="final_model is the best step, not the last."
    )
    metric_for_best_model: str = Field(
        "eval_loss", description="What makes a step the best: eval_loss, or another metric's name."
    )
    greater_is_better: bool | None = Field(
        None, description="Which way that metric improves. Left out: by metric."
    )
    early_stopping_patience: NonNegativeInt = Field(
        3, description="Evaluations without improvement before the run ends; 0 switches it off."
    )
    early_stopping_threshold: NonNegativeFloat = Field(
        1e-4, description="Improvement of the metric that counts."
    )
    logging_steps: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Optimizer steps between log lines. "
        "Left out: 1 for runs under 200 steps, else 10.",
    )
    logging_first_step: bool = Field(True, description="Log the first step too.")
    report_to: tuple[Tracker, ...] = Field((), description="Trackers that are told of the run.")
    run_name: str | None = Field(
        None, description="Name of the run for trackers. Left out: the strategy's id."
    )
    mixed_precision: MixedPrecision | None = Field(
        None, description="Type of autocast matrix products. Left out: by device."
    )
    tf32: bool | None = Field(None, description="TF32 matrix products. Left out: by device.")
    gradient_checkpointing: bool | None = Field(
        None,
        description="Recompute activations instead of keeping them. "
        "Left out: only when the forecast needs it.",
    )
    max_seq_length: Annotated[int, Field(ge=8)] | None = Field(
        None,
        description="Tokens per conversation. Left out: the longest one, at most the model's "
        "context and 4096.",
    )
    dataloader_num_workers: NonNegativeInt = Field(
        0, description="Workers that prepare batches ahead."
    )
    ddp_find_unused_parameters: bool = Field(
        False, description="Let data-parallel training look for parameters without a gradient."
    )
    torch_compile: bool = Field(False, description="Compile the model with torch.compile.")
    seed: NonNegativeInt = Field(42, description="One seed for split, order, weights and dropout.")
    resume_from_checkpoint: bool | str | None = Field(
        None, description="As --resume: true, false, or a checkpoint directory. Left out: false."
    )
    push_to_hub: bool = Field(
        False, description="Upload the result: only after training, on request."
    )
    hub_model_id: str | None = Field(
        None, description="Repository to upload to. Left out: the name of the output directory."
    )
    hub_private_repo: bool | None = Field(
        None, description="Make that repository private. Left out: the Hub's default."
    )
    hub_revision: str | None = Field(
        None, description="Branch to upload to. Left out: the main branch."
    )


class DatasetSection(Section):
    """`dataset`: where the rows are, and what they look like.

    Precedence: flags, then `dataset` beside `components`, then `config.dataset`.
    """

    path: str | None = Field(
        None,
        description="A file, directory or index of rows, split in two. Left out: no such file.",
    )
    train_file: str | None = Field(None, description="File to train on. Left out: see path.")
    eval_file: str | None = Field(
        None, description="File to evaluate on. Left out: split off the training rows."
    )
    test_file: str | None = Field(
        None, description="File for the measurement after training. Left out: none."
    )
    mix: Mapping[str, PositiveFloat] = Field(
        default_factory=dict,
        description="Files that are trained on together, and how often the rows of each count.",
    )
    dataset_name: str | None = Field(None, description="A dataset of the Hub. Left out: none.")
    dataset_config_name: str | None = Field(
        None, description="Its configuration. Left out: its default one."
    )
    train_split: str = Field("train", description="Name of the Hub split to train on.")
    eval_split: str | float | None = Field(
        None, description="A fraction, auto, or the name of a Hub split. Left out: 0.1."
    )
    eval_rows: PositiveInt | None = Field(
        None, description="Rows split off for evaluation. Left out: see eval_split."
    )
    stable_split: bool = Field(
        False,
        description="Split by content, so that rows added later move no old row; counts vary.",
    )
    allow_leakage: bool = Field(
        False, description="Go on although training rows give evaluation rows away."
    )
    max_samples: PositiveInt | None = Field(None, description="Rows used at most. Left out: all.")
    format: DataFormat = Field("auto", description="Shape of a row. auto: recognised by its keys.")
    columns: Mapping[str, str] = Field(
        default_factory=dict, description="Our name for a column, and its name in the file."
    )
    roles: Mapping[str, str] = Field(
        default_factory=dict, description="Our name for a role, and its name in the file."
    )
    mask_history: bool = Field(
        False, description="Train only the last answer of a conversation, not every one."
    )
    group_by: str | None = Field(
        None, description="Column whose equal values stay on one side of the split. Left out: none."
    )
    stratify_by: str | None = Field(
        None, description="Column whose values are spread evenly over the split. Left out: none."
    )
    shuffle: bool = Field(True, description="Shuffle before the split and in every epoch.")
    preprocessing_num_workers: PositiveInt = Field(1, description="Threads that tokenise the rows.")


class Preprocessing(Section):
    """`data_preprocessing`: what happens to rows before they are split."""

    max_length: PositiveInt | None = Field(
        None,
        description="Tokens per conversation, as training_args.max_seq_length. Left out: that.",
    )
    max_input_length: PositiveInt | None = Field(
        None, description="Tokens per question. Left out: no limit of its own."
    )
    max_output_length: PositiveInt | None = Field(
        None, description="Tokens per answer. Left out: no limit of its own."
    )
    remove_duplicates: bool = Field(False, description="Keep only the first of equal rows.")
    filter_empty: bool = Field(False, description="Drop rows without an answer.")
    remove_patterns: tuple[str, ...] = Field(
        (), description="Regular expressions; what matches is cut out of every text."
    )


class PromptTemplate(Section):
    """`prompt_template`: a system prompt, and a chat template for models that have none."""

    system: str | None = Field(
        None, description="System prompt of every conversation. Left out: the template's own."
    )
    format: str | None = Field(
        None,
        description="Jinja chat template, or a text with {instruction}, {input}, {output}, "
        "for a base model without one. Left out: the model's own template.",
    )
    stop_sequences: tuple[str, ...] = Field((), description="Texts that end an answer.")
    override: bool = Field(
        False, description="Use `format` although the model has its own chat template."
    )


class Export(Section):
    """`export`, `components.converter`, `deployment`, `conversion`: what to make of the result."""

    to_ollama: bool = Field(False, description="Make a GGUF and a Modelfile after training.")
    to_gguf: bool = Field(False, description="Make a GGUF after training.")
    quantization: str = Field("q8_0", description="GGUF type, or the name of a profile.")
    model_name: str | None = Field(
        None, description="Name of the exported model. Left out: that of the target directory."
    )
    system_prompt: str | None = Field(
        None, description="System prompt of the Modelfile. Left out: the one trained with."
    )
    ollama_parameters: Mapping[str, float | int | str | bool | tuple[str, ...]] = Field(
        default_factory=dict, description="PARAMETER lines of the Modelfile."
    )
    quantization_profiles: Mapping[str, str] = Field(
        default_factory=dict, description="Names of your own for GGUF types."
    )


class Monitoring(Section):
    """`monitoring`: what is recorded."""

    track_training_metrics: bool = Field(True, description="Write metrics.jsonl.")
    log_tensorboard: bool = Field(False, description="Write TensorBoard event files.")
    use_wandb: bool = Field(False, description="Tell Weights & Biases of the run.")
    save_checkpoints: bool = Field(
        True, description="false: no resume points; the best is still kept."
    )
    log_level: LogLevel = Field(
        "info",
        description="How much a run says: debug adds defaults, warning leaves out what goes well.",
    )


class Origin(Section):
    """Where a value was written: `flag` with the text as typed, `strategy` with file and line."""

    kind: Literal["flag", "strategy"]
    text: str = ""
    file: Path | None = None
    line: int | None = None
    strategy_id: str | None = None

    def describe(self) -> str:
        """E.g. `my_training, line 10`, or `--learning-rate 1e-3`."""
        return self.text if self.kind == "flag" else f"{self.strategy_id}, line {self.line}"


class Notice(Section):
    """One line about a key that was accepted but does not do what its name may suggest here."""

    path: str
    message: str
    where: str = ""
    severity: Literal["notice", "warning"] = "notice"


class Strategy(Section):
    """One strategy, checked, aliases resolved, with the origin of every value somebody wrote."""

    id: str
    title: str = Field("", description="What people call it: `name` in the file.")
    description: str = Field("", description="What it is for.")
    backend: Literal["pytorch", "llamafactory"] = Field(
        "pytorch", description="What carries the training out: `type` of the fine-tuner."
    )
    base_model: BaseModelSpec = BaseModelSpec()
    method: Method = Method()
    hardware: HardwareSection = HardwareSection()
    training_args: TrainingArgs = TrainingArgs()
    dataset: DatasetSection = DatasetSection()
    data_preprocessing: Preprocessing = Preprocessing()
    prompt_template: PromptTemplate = PromptTemplate()
    export: Export = Export()
    monitoring: Monitoring = Monitoring()
    metrics: tuple[str, ...] = Field(
        (), description="Further metrics: registered names, or dotted paths that a flag allows."
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="What a non-finite loss or gradient does: end the run, or skip that step and "
        "count it.",
    )
    stop_on_overfitting: bool = Field(
        False, description="End the run when the evaluation loss turns for good."
    )
    distributed: Mapping[str, object] = Field(
        default_factory=dict, description="Training on several devices, as it was written."
    )
    native: Mapping[str, object] = Field(
        default_factory=dict, description="llamafactory only: keys passed through as they are."
    )
    file: Path | None = Field(
        None, description="The file it was read from; relative paths in it start there."
    )
    origins: Mapping[str, Origin] = Field(default_factory=dict)
    notices: tuple[Notice, ...] = ()

    def origin(self, path: str) -> Origin | None:
        """Who wrote the value at this dotted path; None when it was left out."""
        return self.origins.get(path)
