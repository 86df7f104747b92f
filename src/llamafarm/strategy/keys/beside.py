"""Rows that stand outside `components.fine_tuner.config`."""

from __future__ import annotations

from llamafarm.strategy.conversions import EXPORT_FORMAT, PROFILE
from llamafarm.strategy.keys.fine_tuner import dataset_rows
from llamafarm.strategy.keys.row import Key, alias, notice, own

_INFERENCE = "part of inference in the wider product, not of training"
_BUILT_IN = "conversion is built in: nothing is installed or compiled for it"
_INSPECT = "`llamafarm inspect` reports the quality of the data before every run"
_MERGED = "an adapter is always merged before it is converted"

STRUCTURE: tuple[Key, ...] = (
    alias("name", "title"),
    alias("description", "description"),
    Key("extends", status="structure", text="id of the strategy whose keys are inherited"),
    alias("components.fine_tuner.type", "backend"),
)
DATASET: tuple[Key, ...] = (
    *dataset_rows("dataset."),
    alias("dataset", "dataset.path"),
)
PREPROCESSING: tuple[Key, ...] = (
    *own("data_preprocessing."),
    alias("data_preprocessing.shuffle", "dataset.shuffle"),
    alias("data_preprocessing.seed", "training_args.seed"),
    notice("data_preprocessing.augmentation", "no rows are made up: shuffling is dataset.shuffle"),
    notice(
        "data_preprocessing.simplify_instructions",
        "rows are trained as written: `prepare_data.py` cleans raw files",
    ),
    notice("data_preprocessing.filter_quality", _INSPECT),
    notice("data_preprocessing.validation", _INSPECT),
    notice(
        "data_preprocessing.instruction_template",
        "the prompt's shape is `prompt_template`, or the model's own chat template",
    ),
)
EXPORT: tuple[Key, ...] = (
    *own("export."),
    alias("export.temperature", "export.ollama_parameters.temperature"),
    alias("export.top_p", "export.ollama_parameters.top_p"),
    alias("export.top_k", "export.ollama_parameters.top_k"),
    alias("export.repetition_penalty", "export.ollama_parameters.repeat_penalty"),
    alias("export.max_new_tokens", "export.ollama_parameters.num_predict"),
    notice("export.do_sample", "Ollama samples by temperature: 0 is deterministic"),
    alias("components.converter.type", "export.to_ollama", EXPORT_FORMAT),
    alias("components.converter.config.quantization", "export.quantization"),
    alias("components.converter.config.model_name", "export.model_name"),
    alias("components.converter.config.system_prompt", "export.system_prompt"),
    alias("components.converter.config.ollama_parameters.*", "export.ollama_parameters.*"),
    alias("components.converter.config.parameters.*", "export.ollama_parameters.*"),
    *(
        notice(f"components.converter.config.{name}", _BUILT_IN, "conversion")
        for name in ("auto_install", "build_options", "llama_cpp_path")
    ),
    alias("deployment.export_format", "export.to_ollama", EXPORT_FORMAT),
    alias("deployment.quantization_method", "export.quantization"),
    notice("deployment.merge_lora", _MERGED, "merge"),
    notice("deployment.quantize_after_merge", _MERGED, "merge"),
    alias("conversion.quantization_profiles.*", "export.quantization_profiles.*", PROFILE),
    *(
        notice(f"conversion.{name}", _BUILT_IN, "conversion")
        for name in ("auto_install_llama_cpp", "build_options", "workflow")
    ),
)
MONITORING: tuple[Key, ...] = (
    *own("monitoring."),
    alias("monitoring.use_tensorboard", "monitoring.log_tensorboard"),
    alias("monitoring.tensorboard", "monitoring.log_tensorboard"),
    alias("monitoring.track_metrics", "monitoring.track_training_metrics"),
    alias("monitoring.metrics_enabled", "monitoring.track_training_metrics"),
    notice("monitoring.trace_enabled", "there is no tracing: a run keeps metrics.jsonl"),
    notice("monitoring.wandb_project", "Weights & Biases reads WANDB_PROJECT"),
)
OURS: tuple[Key, ...] = (
    *own("prompt_template."),
    *own("metrics"),
    *own("on_nonfinite"),
    *own("stop_on_overfitting"),
    *own("distributed"),
)
INFERENCE: tuple[Key, ...] = tuple(
    notice(path, _INFERENCE, "inference")
    for path in (
        "components.*",
        "fallback_chain",
        "routing_rules",
        "optimization",
        "use_case_mapping",
        "test_queries",
        "test_tasks",
        "constraints",
    )
)
# Blocks that may stand beside the strategies of a file.
FILE_SIBLINGS = frozenset({"use_case_mapping"})
