"""One test per row of the table of keys: obeyed, answered by one line, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamafarm.strategy.fields import field_specs
from llamafarm.strategy.keys import ASKED, CONFIG, Key, keys
from llamafarm.strategy.model import TrainingArgs

from .support import load, refuse, strategy_text, value_at

# Keys of `config`, the canonical path they land at, and the value there.
IN_CONFIG: list[tuple[dict[str, Any], str, object]] = [
    ({"base_model": "org/model"}, "base_model.id", "org/model"),
    ({"base_model": {"huggingface_id": "org/m", "name": "A title"}}, "base_model.id", "org/m"),
    ({"base_model": {"name": "org/m"}}, "base_model.id", "org/m"),
    ({"base_model": {"name": "./dir/model.gguf"}}, "base_model.id", "./dir/model.gguf"),
    ({"base_model": {"cache_dir": "./cache"}}, "base_model.cache_dir", "./cache"),
    ({"base_model": {"revision": "1e5"}}, "base_model.revision", "1e5"),
    ({"base_model": {"torch_dtype": "bfloat16"}}, "base_model.torch_dtype", "bfloat16"),
    ({"base_model": {"load_in_4bit": True}}, "method.quantization.load_in_4bit", True),
    ({"base_model": {"load_in_8bit": True}}, "method.quantization.load_in_8bit", True),
    ({"method": {"type": "lora"}}, "method.type", "lora"),
    ({"method": {"type": "qlora"}}, "method.type", "qlora"),
    ({"method": {"type": "full_finetune"}}, "method.type", "full_finetune"),
    ({"method": {"type": "full"}}, "method.type", "full_finetune"),
    ({"method": {"type": "dora"}}, "method.use_dora", True),
    ({"method": {"type": "dora"}}, "method.type", "lora"),
    ({"method": {"type": "rslora"}}, "method.use_rslora", True),
    ({"method": {"r": 4}}, "method.r", 4),
    ({"method": {"lora_r": 4}}, "method.r", 4),
    ({"method": {"rank": 4}}, "method.r", 4),
    ({"method": {"alpha": 16}}, "method.alpha", 16.0),
    ({"method": {"lora_alpha": 16}}, "method.alpha", 16.0),
    ({"method": {"dropout": 0.15}}, "method.dropout", 0.15),
    ({"method": {"lora_dropout": 0}}, "method.dropout", 0.0),
    ({"method": {"bias": "lora_only"}}, "method.bias", "lora_only"),
    ({"method": {"target_modules": ["q_proj"]}}, "method.target_modules", ("q_proj",)),
    ({"method": {"target_modules": "all-linear"}}, "method.target_modules", ("all-linear",)),
    ({"method": {"modules_to_save": ["lm_head"]}}, "method.modules_to_save", ("lm_head",)),
    ({"method": {"layers_to_transform": [0, 1]}}, "method.layers_to_transform", (0, 1)),
    ({"method": {"layers_pattern": "layers"}}, "method.layers_pattern", "layers"),
    ({"method": {"use_rslora": True}}, "method.use_rslora", True),
    ({"method": {"use_dora": True}}, "method.use_dora", True),
    (
        {"method": {"quantization": {"load_in_4bit": True}}},
        "method.quantization.load_in_4bit",
        True,
    ),
    (
        {"method": {"quantization": {"bnb_4bit_compute_dtype": "float32"}}},
        "method.quantization.bnb_4bit_compute_dtype",
        "float32",
    ),
    (
        {"method": {"quantization": {"bnb_4bit_quant_type": "fp4"}}},
        "method.quantization.bnb_4bit_quant_type",
        "fp4",
    ),
    (
        {"method": {"quantization": {"bnb_4bit_use_double_quant": False}}},
        "method.quantization.bnb_4bit_use_double_quant",
        False,
    ),
    ({"hardware": {"device": "cuda:1"}}, "hardware.device", "cuda:1"),
    ({"environment": {"device": "mps"}}, "hardware.device", "mps"),
    ({"hardware": {"memory_gb": 8}}, "hardware.memory_gb", 8.0),
    ({"hardware": {"precision": {"use_bf16": True}}}, "hardware.precision.use_bf16", True),
    ({"hardware": {"precision": {"use_fp16": False}}}, "hardware.precision.use_fp16", False),
    (
        {"hardware": {"precision": {"cuda": {"use_tf32": True}}}},
        "hardware.precision.cuda.use_tf32",
        True,
    ),
    (
        {"hardware": {"precision": {"mps": {"use_fp16": False}}}},
        "hardware.precision.mps.use_fp16",
        False,
    ),
    (
        {"hardware": {"precision": {"cpu": {"use_bf16": False}}}},
        "hardware.precision.cpu.use_bf16",
        False,
    ),
    (
        {"hardware": {"optimization": {"gradient_checkpointing": True}}},
        "training_args.gradient_checkpointing",
        True,
    ),
    (
        {"framework": {"gradient_checkpointing": True}},
        "training_args.gradient_checkpointing",
        True,
    ),
    (
        {"training_args": {"gradient_checkpointing": False}},
        "training_args.gradient_checkpointing",
        False,
    ),
    (
        {"hardware": {"optimization": {"gradient_accumulation_steps": 2}}},
        "training_args.gradient_accumulation_steps",
        2,
    ),
    (
        {"hardware": {"optimization": {"mixed_precision": "fp16"}}},
        "training_args.mixed_precision",
        "fp16",
    ),
    ({"environment": {"seed": 7}}, "training_args.seed", 7),
    ({"training_args": {"seed": 7}}, "training_args.seed", 7),
    ({"training_args": {"data_seed": 7}}, "training_args.seed", 7),
    ({"dataset": "data.jsonl"}, "dataset.path", "data.jsonl"),
    ({"dataset": {"path": "data.jsonl"}}, "dataset.path", "data.jsonl"),
    ({"dataset": {"dataset_name": "org/data"}}, "dataset.dataset_name", "org/data"),
    ({"dataset": {"dataset_config_name": "en"}}, "dataset.dataset_config_name", "en"),
    ({"dataset": {"train_split": "train[:50%]"}}, "dataset.train_split", "train[:50%]"),
    ({"dataset": {"train_split": 0.9}}, "dataset.eval_split", 0.1),
    ({"dataset": {"eval_split": "validation"}}, "dataset.eval_split", "validation"),
    ({"dataset": {"eval_split": 0.2}}, "dataset.eval_split", 0.2),
    ({"dataset": {"eval_split": "20%"}}, "dataset.eval_split", 0.2),
    ({"dataset": {"val_split": 0.1}}, "dataset.eval_split", 0.1),
    ({"dataset": {"max_samples": 10}}, "dataset.max_samples", 10),
    ({"dataset": {"format": "alpaca"}}, "dataset.format", "alpaca"),
    ({"dataset": {"format": "openai"}}, "dataset.format", "messages"),
    ({"dataset": {"max_length": 128}}, "training_args.max_seq_length", 128),
    ({"dataset": {"columns": {"question": "q"}}}, "dataset.columns", {"question": "q"}),
    ({"dataset": {"shuffle": False}}, "dataset.shuffle", False),
    ({"dataset": {"seed": 7}}, "training_args.seed", 7),
    ({"dataset": {"preprocessing_num_workers": 2}}, "dataset.preprocessing_num_workers", 2),
    ({"training": {"batch_size": 4}}, "training_args.per_device_train_batch_size", 4),
    ({"training": {"learning_rate": 2e-4}}, "training_args.learning_rate", 2e-4),
    ({"training": {"num_epochs": 3}}, "training_args.num_train_epochs", 3.0),
    ({"training": {"optimizer": "adamw"}}, "training_args.optim", "adamw_torch"),
    ({"training": {"early_stopping": False}}, "training_args.early_stopping_patience", 0),
    ({"training": {"early_stopping": True}}, "training_args.early_stopping_patience", 3),
    (
        {"training": {"early_stopping_patience": 5}},
        "training_args.early_stopping_patience",
        5,
    ),
    (
        {"training": {"early_stopping_threshold": 0.01}},
        "training_args.early_stopping_threshold",
        0.01,
    ),
    ({"lora_r": 4}, "method.r", 4),
    ({"lora_alpha": 8}, "method.alpha", 8.0),
    ({"learning_rate": 1e-3}, "training_args.learning_rate", 1e-3),
    ({"num_epochs": 2}, "training_args.num_train_epochs", 2.0),
    ({"batch_size": 2}, "training_args.per_device_train_batch_size", 2),
    ({"full_finetuning": True}, "method.type", "full_finetune"),
    ({"full_finetuning": False}, "method.type", "lora"),
]

IN_TRAINING_ARGS: list[tuple[str, object, str, object]] = [
    ("output_dir", "./out", "output_dir", "./out"),
    ("num_train_epochs", 0.5, "num_train_epochs", 0.5),
    ("max_steps", 20, "max_steps", 20),
    ("per_device_train_batch_size", 8, "per_device_train_batch_size", 8),
    ("per_device_eval_batch_size", 8, "per_device_eval_batch_size", 8),
    ("gradient_accumulation_steps", 1, "gradient_accumulation_steps", 1),
    ("learning_rate", 0.00005, "learning_rate", 5e-5),
    ("weight_decay", 0.01, "weight_decay", 0.01),
    ("adam_beta1", 0.8, "adam_beta1", 0.8),
    ("adam_beta2", 0.95, "adam_beta2", 0.95),
    ("adam_epsilon", 1e-6, "adam_epsilon", 1e-6),
    ("max_grad_norm", 0, "max_grad_norm", 0.0),
    ("label_smoothing_factor", 0.1, "label_smoothing_factor", 0.1),
    ("neftune_noise_alpha", 5, "neftune_noise_alpha", 5.0),
    ("lr_scheduler_type", "constant_with_warmup", "lr_scheduler_type", "constant_with_warmup"),
    ("lr_scheduler_kwargs", {"num_cycles": 2}, "lr_scheduler_kwargs", {"num_cycles": 2}),
    ("warmup_steps", 10, "warmup_steps", 10.0),
    ("warmup_steps", 0.1, "warmup_steps", 0.1),
    ("warmup_ratio", 0.03, "warmup_steps", 0.03),
    ("optim", "paged_adamw_8bit", "optim", "paged_adamw_8bit"),
    ("eval_strategy", "epoch", "eval_strategy", "epoch"),
    ("eval_strategy", False, "eval_strategy", "no"),
    ("evaluation_strategy", "steps", "eval_strategy", "steps"),
    ("eval_steps", 500, "eval_steps", 500.0),
    ("eval_delay", 3, "eval_delay", 3.0),
    ("eval_on_start", False, "eval_on_start", False),
    ("save_strategy", "best", "save_strategy", "best"),
    ("save_strategy", "no", "save_strategy", "no"),
    ("save_steps", 50, "save_steps", 50.0),
    ("save_total_limit", 2, "save_total_limit", 2),
    ("load_best_model_at_end", False, "load_best_model_at_end", False),
    ("metric_for_best_model", "perplexity", "metric_for_best_model", "perplexity"),
    ("greater_is_better", False, "greater_is_better", False),
    ("early_stopping_patience", 0, "early_stopping_patience", 0),
    ("early_stopping_threshold", 0.1, "early_stopping_threshold", 0.1),
    ("logging_steps", 5, "logging_steps", 5.0),
    ("logging_first_step", False, "logging_first_step", False),
    ("report_to", "tensorboard", "report_to", ("tensorboard",)),
    ("report_to", ["wandb", "mlflow"], "report_to", ("wandb", "mlflow")),
    ("report_to", "none", "report_to", ()),
    ("report_to", [], "report_to", ()),
    ("run_name", 2024, "run_name", "2024"),
    ("fp16", True, "mixed_precision", "fp16"),
    ("bf16", True, "mixed_precision", "bf16"),
    ("tf32", True, "tf32", True),
    ("mixed_precision", "bf16", "mixed_precision", "bf16"),
    ("mixed_precision", False, "mixed_precision", "no"),
    ("max_seq_length", 512, "max_seq_length", 512),
    ("max_length", 512, "max_seq_length", 512),
    ("cutoff_len", 512, "max_seq_length", 512),
    ("sequence_len", 512, "max_seq_length", 512),
    ("dataloader_num_workers", 4, "dataloader_num_workers", 4),
    ("ddp_find_unused_parameters", False, "ddp_find_unused_parameters", False),
    ("torch_compile", True, "torch_compile", True),
    ("resume_from_checkpoint", True, "resume_from_checkpoint", True),
    ("resume_from_checkpoint", "./c", "resume_from_checkpoint", "./c"),
    ("push_to_hub", False, "push_to_hub", False),
    ("hub_model_id", "me/model", "hub_model_id", "me/model"),
    ("hub_private_repo", True, "hub_private_repo", True),
]

# Blocks beside `components`.
BESIDE: list[tuple[dict[str, Any], str, object]] = [
    ({"name": "A title"}, "title", "A title"),
    ({"description": "What for"}, "description", "What for"),
    ({"dataset": {"train_file": "t.jsonl"}}, "dataset.train_file", "t.jsonl"),
    ({"dataset": {"eval_file": "e.jsonl"}}, "dataset.eval_file", "e.jsonl"),
    ({"dataset": {"test_file": "x.jsonl"}}, "dataset.test_file", "x.jsonl"),
    ({"dataset": {"eval_split": 0.15}}, "dataset.eval_split", 0.15),
    ({"dataset": {"eval_split": "auto"}}, "dataset.eval_split", "auto"),
    ({"dataset": {"eval_percent": 15}}, "dataset.eval_split", 0.15),
    ({"dataset": {"eval_percent": "15%"}}, "dataset.eval_split", 0.15),
    ({"dataset": {"eval_percent": 0.1}}, "dataset.eval_split", 0.1),
    ({"dataset": {"eval_percent": "auto"}}, "dataset.eval_split", "auto"),
    ({"dataset": {"eval_percent": "robust"}}, "dataset.eval_split", 0.15),
    ({"dataset": {"eval_percent": "research"}}, "dataset.eval_split", 0.2),
    ({"dataset": {"eval_rows": 200}}, "dataset.eval_rows", 200),
    ({"dataset": {"stable_split": True}}, "dataset.stable_split", True),
    ({"dataset": {"allow_leakage": True}}, "dataset.allow_leakage", True),
    ({"dataset": {"mix": {"b.jsonl": 0.5}}}, "dataset.mix", {"b.jsonl": 0.5}),
    ({"dataset": {"roles": {"user": "guest"}}}, "dataset.roles", {"user": "guest"}),
    ({"dataset": {"mask_history": True}}, "dataset.mask_history", True),
    ({"dataset": {"shuffle": "no"}}, "dataset.shuffle", False),
    ({"dataset": {"seed": 3}}, "training_args.seed", 3),
    ({"dataset": {"format": "sharegpt"}}, "dataset.format", "sharegpt"),
    ({"dataset": {"format": "input_output"}}, "dataset.format", "input_output"),
    ({"dataset": {"format": "template_free"}}, "dataset.format", "input_output"),
    ({"dataset": {"format": "chat_template"}}, "dataset.format", "messages"),
    ({"dataset": {"columns": {"answer": "a"}}}, "dataset.columns.answer", "a"),
    ({"dataset": {"group_by": "id"}}, "dataset.group_by", "id"),
    ({"dataset": {"stratify_by": "topic"}}, "dataset.stratify_by", "topic"),
    ({"data_preprocessing": {"max_length": 256}}, "data_preprocessing.max_length", 256),
    (
        {"data_preprocessing": {"remove_duplicates": True}},
        "data_preprocessing.remove_duplicates",
        True,
    ),
    ({"data_preprocessing": {"filter_empty": True}}, "data_preprocessing.filter_empty", True),
    (
        {"data_preprocessing": {"remove_patterns": ["**", "Note:"]}},
        "data_preprocessing.remove_patterns",
        ("**", "Note:"),
    ),
    ({"data_preprocessing": {"shuffle": False}}, "dataset.shuffle", False),
    ({"data_preprocessing": {"seed": 9}}, "training_args.seed", 9),
    ({"data_preprocessing": {"max_input_length": 50}}, "data_preprocessing.max_input_length", 50),
    ({"data_preprocessing": {"max_output_length": 9}}, "data_preprocessing.max_output_length", 9),
    ({"prompt_template": {"system": "Be brief."}}, "prompt_template.system", "Be brief."),
    ({"prompt_template": {"format": "Q: {input}\n"}}, "prompt_template.format", "Q: {input}\n"),
    (
        {"prompt_template": {"stop_sequences": ["\nUser:"]}},
        "prompt_template.stop_sequences",
        ("\nUser:",),
    ),
    ({"prompt_template": {"override": True}}, "prompt_template.override", True),
    ({"export": {"to_ollama": True}}, "export.to_ollama", True),
    ({"export": {"to_gguf": True}}, "export.to_gguf", True),
    ({"export": {"quantization": "Q4_K_M"}}, "export.quantization", "q4_k_m"),
    ({"export": {"model_name": "my-model"}}, "export.model_name", "my-model"),
    ({"export": {"system_prompt": "Hi"}}, "export.system_prompt", "Hi"),
    (
        {"export": {"ollama_parameters": {"temperature": 0.3, "stop": ["a", "b"]}}},
        "export.ollama_parameters",
        {"temperature": 0.3, "stop": ("a", "b")},
    ),
    (
        {"export": {"ollama_parameters": {"stop": "###"}}},
        "export.ollama_parameters.stop",
        "###",
    ),
    ({"export": {"temperature": 0.2}}, "export.ollama_parameters.temperature", 0.2),
    ({"export": {"max_new_tokens": 99}}, "export.ollama_parameters.num_predict", 99),
    ({"export": {"repetition_penalty": 1.2}}, "export.ollama_parameters.repeat_penalty", 1.2),
    ({"more_components": {"converter": {"type": "ollama"}}}, "export.to_ollama", True),
    ({"more_components": {"converter": {"type": "gguf"}}}, "export.to_gguf", True),
    (
        {"more_components": {"converter": {"config": {"quantization": "f16"}}}},
        "export.quantization",
        "f16",
    ),
    ({"deployment": {"export_format": "ollama"}}, "export.to_ollama", True),
    ({"deployment": {"quantization_method": "q5_0"}}, "export.quantization", "q5_0"),
    (
        {"conversion": {"quantization_profiles": {"small": {"method": "q4_0"}}}},
        "export.quantization_profiles",
        {"small": "q4_0"},
    ),
    (
        {
            "conversion": {"quantization_profiles": {"small": "q4_0"}},
            "export": {"quantization": "small"},
        },
        "export.quantization",
        "q4_0",
    ),
    (
        {"monitoring": {"track_training_metrics": True}},
        "monitoring.track_training_metrics",
        True,
    ),
    ({"monitoring": {"log_tensorboard": True}}, "monitoring.log_tensorboard", True),
    ({"monitoring": {"use_tensorboard": True}}, "monitoring.log_tensorboard", True),
    ({"monitoring": {"use_wandb": True}}, "monitoring.use_wandb", True),
    ({"monitoring": {"save_checkpoints": False}}, "monitoring.save_checkpoints", False),
    ({"monitoring": {"log_level": "INFO"}}, "monitoring.log_level", "info"),
    ({"metrics": ["accuracy", "my.module.metric"]}, "metrics", ("accuracy", "my.module.metric")),
    ({"metrics": "accuracy"}, "metrics", ("accuracy",)),
    ({"distributed": {"strategy": "fsdp2"}}, "distributed", {"strategy": "fsdp2"}),
    ({"on_nonfinite": "skip"}, "on_nonfinite", "skip"),
    ({"stop_on_overfitting": True}, "stop_on_overfitting", True),
]

LLAMAFACTORY: list[tuple[dict[str, Any], str, object]] = [
    ({"base_model": {"name": "llama3.2-3b"}}, "base_model.id", "meta-llama/Llama-3.2-3B-Instruct"),
    ({"base_model": {"name": "llama3.1-8b"}}, "base_model.id", "meta-llama/Llama-3.1-8B-Instruct"),
    (
        {"base_model": {"name": "llama3.1-70b"}},
        "base_model.id",
        "meta-llama/Llama-3.1-70B-Instruct",
    ),
    (
        {"base_model": {"name": "mistral-7b"}},
        "base_model.id",
        "mistralai/Mistral-7B-Instruct-v0.3",
    ),
    (
        {"base_model": {"name": "codellama-13b"}},
        "base_model.id",
        "codellama/CodeLlama-13b-Instruct-hf",
    ),
    (
        {"base_model": {"name": "custom", "custom_model_path": "./mine"}},
        "base_model.id",
        "./mine",
    ),
    ({"dataset": {"conversation_template": "openai"}}, "dataset.format", "messages"),
    ({"dataset": {"conversation_template": "alpaca"}}, "dataset.format", "alpaca"),
    (
        {"dataset": {"custom_template": {"user": "{q}"}}},
        "native.custom_template",
        {"user": "{q}"},
    ),
    ({"framework": {"flash_attention": True}}, "native.flash_attn", "fa2"),
    ({"environment": {"num_gpus": 2}}, "distributed.num_gpus", 2),
    ({"environment": {"deepspeed_config": "ds.json"}}, "native.deepspeed", "ds.json"),
    ({"model_name_or_path": "org/m"}, "base_model.id", "org/m"),
    ({"stage": "sft"}, "native.stage", "sft"),
    ({"finetuning_type": "full"}, "method.type", "full_finetune"),
    ({"finetuning_type": "freeze"}, "method.type", "freeze"),
    ({"finetuning_type": "lora"}, "method.type", "lora"),
    ({"template": "llama2"}, "native.template", "llama2"),
    ({"dataset": "alpaca_en"}, "native.dataset", "alpaca_en"),
    ({"cutoff_len": 1024}, "training_args.max_seq_length", 1024),
    ({"quantization_bit": 4}, "method.quantization.load_in_4bit", True),
    ({"quantization_bit": 8}, "method.quantization.load_in_8bit", True),
    ({"lora_rank": 8}, "method.r", 8),
    ({"lora_alpha": 16}, "method.alpha", 16.0),
    ({"lora_dropout": 0.1}, "method.dropout", 0.1),
    ({"lora_target": "q_proj,v_proj"}, "method.target_modules", ("q_proj", "v_proj")),
    ({"lora_target": "all"}, "method.target_modules", ("all-linear",)),
    ({"packing": True}, "native.packing", True),
    ({"flash_attn": "fa2"}, "native.flash_attn", "fa2"),
    ({"use_unsloth": False}, "native.use_unsloth", False),
    ({"neftune_noise_alpha": 5}, "training_args.neftune_noise_alpha", 5.0),
    ({"plot_loss": True}, "native.plot_loss", True),
    ({"learning_rate": 5e-5}, "training_args.learning_rate", 5e-5),
    ({"native": {"lora_rank": 8}}, "method.r", 8),
    ({"native": {"anything": {"a": [1]}}}, "native.anything", {"a": [1]}),
]

NOTICES: list[dict[str, Any]] = [
    {"config": {"base_model": {"device_map": "auto"}}},
    {"config": {"base_model": {"use_auth_token": True}}},
    {"config": {"optimization": {"cuda": {"allow_tf32": True}}}},
    {"config": {"optimization": {"mps": None}}},
    {"config": {"framework": {"use_fast_tokenizer": True}}},
    {"config": {"environment": {"low_cpu_mem_usage": True}}},
    *(
        {"config": {"training_args": {name: value}}}
        for name, value in {
            "dataloader_pin_memory": False,
            "group_by_length": True,
            "fp16_backend": "auto",
            "remove_unused_columns": False,
            "eval_accumulation_steps": 4,
            "overwrite_output_dir": True,
            "save_safetensors": True,
            "logging_dir": "./logs",
            "include_tokens_per_second": True,
            "max_new_tokens": 100,
            "do_sample": False,
            "temperature": 0.3,
            "top_p": 0.9,
            "repetition_penalty": 1.2,
            "hub_token": "x",
        }.items()
    ),
    {"config": {"training_args": {"max_length": 150, "temperature": 0.3}}},
    *(
        {"beside": {"data_preprocessing": {name: value}}}
        for name, value in {
            "augmentation": {"enabled": False},
            "simplify_instructions": True,
            "filter_quality": True,
            "validation": {"check_format": True},
            "instruction_template": "Answer:",
        }.items()
    ),
    {"beside": {"conversion": {"auto_install_llama_cpp": True, "build_options": {"linux": {}}}}},
    *(
        {"beside": {name: value}}
        for name, value in {
            "fallback_chain": [{"provider": "x"}],
            "routing_rules": {"a": 1},
            "optimization": {"cache_enabled": True},
            "use_case_mapping": {"chat": ["s"]},
            "test_queries": ["x"],
            "test_tasks": {"a": ["b"]},
            "constraints": {"requires_gpu": True},
        }.items()
    ),
    *(
        {"beside": {"more_components": {name: {"type": "x", "config": {"a": "${UNSET}"}}}}}
        for name in ("cloud_api", "backup_api", "model_app", "ollama", "repository")
    ),
    {"config": {"dataset": {"format": "jsonl"}}},
    {"beside": {"deployment": {"export_format": "pytorch"}}},
    {"beside": {"deployment": {"merge_lora": True, "quantize_after_merge": True}}},
]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"config": {"base_model": {"trust_remote_code": True}}}, "a model's own code is never run"),
    ({"config": {"training_args": {"lr_scheduler_type": "inverse_sqrt"}}}, "constant_with_warmup"),
    ({"config": {"training_args": {"optim": "lion_32bit"}}}, "paged_adamw_8bit"),
    (
        {"config": {"hardware": {"precision": {"use_fp16": True, "use_bf16": True}}}},
        "both asked for",
    ),
    ({"config": {"training_args": {"fp16": True, "bf16": True}}}, "both asked for"),
    ({"config": {"hardware": {"device": "tpu"}}}, "auto, cuda, cuda:N, mps or cpu"),
    ({"config": {"hardware": {"memory_gb": 1}}}, "a number >= 2"),
    ({"beside": {"deployment": {"export_format": "onnx"}}}, "ollama, gguf"),
    ({"config": {"method": {"type": "adapters"}}}, "lora, qlora, full_finetune, dora, rslora"),
    ({"config": {"model_name_or_path": "x"}}, "is a key of `type: llamafactory`"),
    ({"backend": "custom"}, "one of pytorch, llamafactory"),
]


def text_of(parts: dict[str, Any]) -> str:
    return strategy_text(
        parts.get("config"),
        backend=parts.get("backend", "pytorch"),
        beside=parts.get("beside"),
    )


@pytest.mark.parametrize(("config", "path", "value"), IN_CONFIG)
def test_a_key_of_config_lands_at_its_canonical_path(
    tmp_path: Path, config: dict[str, Any], path: str, value: object
) -> None:
    strategy = load(tmp_path, strategy_text(config))
    assert value_at(strategy, path) == value


@pytest.mark.parametrize("place", ["training_args", "training", None])
@pytest.mark.parametrize(("name", "written", "field", "value"), IN_TRAINING_ARGS)
def test_a_training_argument_lands_from_all_three_places(
    tmp_path: Path, place: str | None, name: str, written: object, field: str, value: object
) -> None:
    config = {name: written} if place is None else {place: {name: written}}
    strategy = load(tmp_path, strategy_text(config))
    assert getattr(strategy.training_args, field) == value
    assert not strategy.notices


def test_every_training_argument_of_the_model_has_a_row_here() -> None:
    assert {field for _, _, field, _ in IN_TRAINING_ARGS} >= (
        set(TrainingArgs.model_fields) - {"seed", "gradient_checkpointing", "hub_revision"}
    )


@pytest.mark.parametrize(("beside", "path", "value"), BESIDE)
def test_a_key_beside_components_lands_at_its_canonical_path(
    tmp_path: Path, beside: dict[str, Any], path: str, value: object
) -> None:
    strategy = load(tmp_path, strategy_text(beside=beside))
    assert value_at(strategy, path) == value
    assert strategy.origin(path) is not None


@pytest.mark.parametrize(("config", "path", "value"), LLAMAFACTORY)
def test_a_key_of_llamafactory_lands_at_its_canonical_path(
    tmp_path: Path, config: dict[str, Any], path: str, value: object
) -> None:
    strategy = load(tmp_path, strategy_text(config, backend="llamafactory"))
    assert strategy.backend == "llamafactory"
    assert value_at(strategy, path) == value


@pytest.mark.parametrize("parts", NOTICES, ids=str)
def test_a_key_without_effect_is_answered_by_one_line(
    tmp_path: Path, parts: dict[str, Any]
) -> None:
    strategy = load(tmp_path, text_of(parts))
    assert len(strategy.notices) == 1
    notice = strategy.notices[0]
    assert notice.severity == "notice"
    assert "\n" not in notice.message
    assert notice.where.startswith(f"{tmp_path}/strategies.yaml:")
    assert set(strategy.origins) == {"backend"}


@pytest.mark.parametrize(("parts", "allowed"), REFUSED, ids=str)
def test_a_refused_value_names_the_alternative(
    tmp_path: Path, parts: dict[str, Any], allowed: str
) -> None:
    error = refuse(tmp_path, text_of(parts))
    assert error.exit_code == 2
    assert allowed in error.render()


def test_trust_remote_code_false_is_accepted_in_silence(tmp_path: Path) -> None:
    strategy = load(tmp_path, strategy_text({"base_model": {"trust_remote_code": False}}))
    assert not strategy.notices


def test_a_hub_token_is_never_repeated(tmp_path: Path) -> None:
    config = {"training_args": {"hub_token": "hf_secret", "hub_tokn": "hf_secret"}}
    shown = refuse(tmp_path, strategy_text(config)).render()
    assert "hub_tokn" in shown
    assert "hf_secret" not in shown


def sample(key: Key) -> object:
    """A value that this row takes, other than the field's default where there is a choice."""
    schema = dict(key.conversion.schema) if key.conversion and key.conversion.schema else None
    spec = field_specs().get(key.target.removesuffix(".*"))
    schema = schema or (dict(spec.schema) if spec else {})
    if key.target.endswith(".*") and isinstance(inner := schema.get("additionalProperties"), dict):
        schema = inner
    while "anyOf" in schema:
        schema = dict(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][-1] if key.status != "refused" else False
    examples: dict[str, object] = {
        "boolean": False,
        "integer": 9,
        "number": 0.5,
        "array": ["text"],
        "object": {"method": "q4_0"},
    }
    if schema.get("minimum") == 2:
        return 4
    kind = schema.get("type")
    if kind == "array" and schema.get("items", {}).get("type") == "integer":
        return [1]
    if kind == "array" and "enum" in schema.get("items", {}):
        return [schema["items"]["enum"][-1]]
    return "cpu" if "pattern" in schema else examples.get(str(kind), "text")


def document(key: Key) -> dict[str, Any]:
    """A file with this one key in it."""
    backend = key.backend or "pytorch"
    strategy: dict[str, Any] = {"components": {"fine_tuner": {"type": backend, "config": {}}}}
    block = strategy
    *parents, last = key.path.replace("*", "some_name").split(".")
    for parent in parents:
        block = block.setdefault(parent, {})
    block[last] = sample(key)
    if key.beside:
        block[min(key.beside)] = 1
    return {"s": strategy}


@pytest.mark.parametrize(
    "key",
    [key for key in keys() if key.status != "structure"],
    ids=lambda key: f"{key.backend}:{key.path}:{key.status}",
)
def test_every_row_of_the_table_does_what_it_says(tmp_path: Path, key: Key) -> None:
    import yaml

    strategy = load(tmp_path, yaml.safe_dump(document(key)))
    own = [path for path in strategy.origins if path != "backend"]
    if key.status == "notice":
        assert len(strategy.notices) == 1
        assert not own
    elif key.target == "backend" or key.status == "refused":
        assert not strategy.notices
    elif key.target.startswith(ASKED):
        assert own == ["training_args.mixed_precision"]
    elif own:
        targets = {key.target, key.target.replace("*", "some_name")}
        assert targets & set(own) or key.conversion is not None
    else:
        assert key.conversion is not None


def test_every_field_of_the_model_can_be_written() -> None:
    targets = {key.target.removesuffix(".*") for key in keys() if key.status == "obeyed"}
    assert set(field_specs()) <= targets


def test_every_target_is_a_field_of_the_model() -> None:
    from llamafarm.strategy.fields import find_spec

    for key in keys():
        if key.target and not key.target.startswith(ASKED):
            assert find_spec(key.target) is not None, key.path


def test_every_notice_says_why() -> None:
    for key in keys():
        if key.status in ("notice", "refused"):
            assert key.text, key.path


def test_config_keys_stand_below_the_fine_tuner() -> None:
    assert CONFIG == "components.fine_tuner.config."
    assert all(field.description for field in field_specs().values())
