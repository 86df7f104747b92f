"""What `type: llamafactory` adds to a plan: its stage, and its own keys. Pure.

A key of ours is translated (`training/backends/llamafactory/translate.py`) or refused here with the
reason; a key of its own is passed on, said to have no effect, or refused. The names are those of
LLaMA-Factory 0.9.5.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llamafarm.decision import Decision
from llamafarm.errors import Problem
from llamafarm.models.shape import ModelShape
from llamafarm.planning.explain import asked, is_written, notice, problem, shown, warning
from llamafarm.planning.metrics import answer_metrics, best_metric
from llamafarm.planning.plan import LlamaFactoryPlan, Stage
from llamafarm.strategy.model import Strategy

STAGES: Mapping[str, str] = {
    "sft": "",
    "pt": "",
    "dpo": "",
    "kto": "its rows (an answer, and whether it is wanted) are no format here yet",
    "rm": "what comes out is a scorer, which nothing here can evaluate or convert",
    "ppo": "it needs a reward model beside the base model",
}
"""What it trains for, and why some of it is refused."""


def _words(text: str) -> list[str]:
    return text.split()


_DATA = "the rows come from `dataset:` of the strategy, as tokens with their mask"
_MASK = "which tokens are trained is decided from the rows"
_CONTROL = "this project evaluates, saves, logs and ends the run itself"
_VOCABULARY = "the tokenizer stays that of the base model"
_ALONE = "one process on one device"
_SERVING = "it is about serving or exporting a model, which `generate` and `convert` do here"
_HUB = "nothing is sent anywhere: `convert` and the report stay on this machine"

PASSED_ON = frozenset(
    _words("""
    rope_scaling flash_attn shift_attn use_unsloth use_unsloth_gc enable_liger_kernel
    moe_aux_loss_coef use_reentrant_gc upcast_layernorm upcast_lmhead_output low_cpu_mem_usage
    use_kv_cache print_param_status quantization_method freeze_trainable_layers
    freeze_trainable_modules freeze_extra_modules loraplus_lr_ratio loraplus_lr_embedding
    pref_beta pref_ftx pref_bco_weight pref_loss dpo_label_smoothing simpo_gamma ld_alpha
    use_galore galore_target galore_rank galore_update_interval galore_scale galore_proj_type
    use_apollo apollo_target apollo_rank apollo_update_interval apollo_scale
    apollo_proj apollo_proj_type apollo_scale_type apollo_scale_front use_badam
    badam_mode badam_start_block badam_switch_mode badam_switch_interval badam_update_ratio
    badam_mask_mode badam_verbose pure_bf16 use_llama_pro use_adam_mini use_muon use_dft_loss
    use_asft_loss asft_alpha use_eaft_loss eaft_alpha freeze_vision_tower
    freeze_multi_modal_projector freeze_language_model optim_args optim_target_modules
    full_determinism skip_memory_metrics torch_empty_cache_steps use_liger_kernel
""")
)
"""Its own keys that change what is learnt, or how fast."""

_WITHOUT_EFFECT: Mapping[str, str] = {
    "template": "rows are rendered by the model's own chat template",
    "custom_template": "rows are rendered by the model's own chat template",
    "dataset_dir": _DATA,
    "overwrite_cache": _DATA,
    "preprocessing_batch_size": _DATA,
    "plot_loss": "report.html has the curves",
    "ddp_timeout": _ALONE,
    "deepspeed": _ALONE,
    "do_train": "`train` trains",
    "do_eval": "evaluation is on wherever there are rows for it",
    "infer_dtype": _SERVING,
    "disable_tqdm": _CONTROL,
    "overwrite_output_dir": "`--overwrite` replaces a run",
}
_LAYERS = "freeze_trainable_layers"
_WORTH_A_WARNING = ("template", "custom_template", "deepspeed")
# Of these, the value that is given anyway does not have to be left out.
_HARMLESS: Mapping[str, tuple[object, ...]] = {
    "packing": (False,),
    "neat_packing": (False,),
    "mask_history": (False,),
    "train_on_prompt": (False,),
    "streaming": (False,),
    "do_predict": (False,),
    "use_swanlab": (False,),
    "predict_with_generate": (False,),
    "resize_vocab": (False,),
    "pissa_init": (False,),
}
_REFUSED_FOR: Mapping[str, str] = {
    _DATA: """
        eval_dataset media_dir streaming buffer_size mix_strategy interleave_probs
        tokenized_path data_shared_file_system eval_on_each_dataset ignore_pad_token_for_loss
        sortish_sampler remove_unused_columns label_names train_sampling_strategy
        length_column_name disable_shuffling
    """,
    "a row is a row: batches are padded, so that no row sees another": """
        packing neat_packing
    """,
    _MASK: """
        train_on_prompt mask_history tool_format default_system enable_thinking
        preserve_thinking
    """,
    _CONTROL: """
        logging_strategy log_on_each_node logging_nan_inf_filter include_num_input_tokens_seen
        log_level log_level_replica project logging_dir prediction_loss_only
        eval_do_concat_batches eval_use_gather_object eval_accumulation_steps
        include_for_metrics batch_eval_metrics save_only_model save_on_each_node
        enable_jit_checkpoint ignore_data_skip restore_callback_states_from_checkpoint
        do_predict predict_with_generate generation_max_length generation_num_beams
        generation_config eval_num_beams compute_accuracy early_stopping_steps
        auto_find_batch_size debug include_effective_tokens_per_second enable_torch_profiler
        profiler_output_dir profiler_wait_steps profiler_warmup_steps profiler_active_steps
        profiler_repeat profiler_record_shapes profiler_profile_memory profiler_with_stack
        profile_modules use_cpu average_tokens_across_devices bf16_full_eval fp16_full_eval
        dataloader_drop_last dataloader_pin_memory dataloader_persistent_workers
        dataloader_prefetch_factor trackio_space_id trackio_bucket_id trackio_static_space_id
        use_cache gradient_checkpointing_kwargs torch_compile_backend torch_compile_mode
        liger_kernel_config disable_gradient_checkpointing
    """,
    _VOCABULARY: """
        resize_vocab add_tokens add_special_tokens new_special_tokens_config init_special_tokens
        use_fast_tokenizer split_special_tokens
    """,
    _ALONE: """
        fsdp fsdp_config ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend
        local_rank accelerator_config parallelism_config ray_num_workers ray_init_kwargs
        master_addr master_port use_mca use_hyper_parallel hyper_parallel_args fp8 fp8_backend
        fp8_enable_fsdp_float8_all_gather
    """,
    _SERVING: """
        infer_backend offload_folder vllm_maxlen vllm_gpu_util vllm_enforce_eager
        vllm_max_lora_rank vllm_config sglang_maxlen sglang_mem_fraction sglang_tp_size
        sglang_config sglang_lora_backend export_dir export_size export_device
        export_quantization_bit export_quantization_dataset export_quantization_nsamples
        export_quantization_maxlen export_legacy_format do_sample temperature top_p top_k
        num_beams max_new_tokens repetition_penalty length_penalty skip_special_tokens
    """,
    "it uses gradients up before anything can look at them": """
        galore_layerwise apollo_layerwise
    """,
    _HUB: """
        hf_hub_token ms_hub_token om_hub_token export_hub_model_id hub_token hub_strategy
        hub_always_push use_swanlab swanlab_project swanlab_workspace swanlab_run_name
        swanlab_mode swanlab_api_key swanlab_logdir swanlab_lark_webhook_url swanlab_lark_secret
    """,
    "a run starts from a base model alone, which is looked at first": """
        adapter_name_or_path adapter_folder create_new_adapter ref_model
        ref_model_quantization_bit ref_model_adapters
    """,
    "it changes the base weights, so that the adapter does not fit the base model": """
        pissa_init pissa_iter pissa_convert
    """,
    "what comes out is no adapter or model that the other commands know": """
        mixture_of_depths train_from_scratch module_dropout oft_rank oft_block_size oft_target
        use_kt kt_weight_path kt_expert_checkpoint_path kt_use_lora_experts kt_lora_expert_num
        kt_lora_expert_intermediate_size use_v1_kernels quantization_device_map
    """,
    "its stage is refused as well": """
        kto_chosen_weight kto_rejected_weight ppo_buffer_size ppo_epochs ppo_score_norm
        ppo_target ppo_whiten_rewards reward_model reward_model_adapters
        reward_model_quantization_bit reward_model_type
    """,
    "rows are text": """
        image_max_pixels image_min_pixels image_do_pan_and_scan crop_to_patches video_max_pixels
        video_min_pixels video_fps video_maxlen use_audio_in_video audio_sampling_rate
    """,
}
_REFUSED = {name: why for why, names in _REFUSED_FOR.items() for name in _words(names)}
_KNOWN = PASSED_ON | _WITHOUT_EFFECT.keys() | _REFUSED.keys() | {"stage", "dataset"}


def llamafactory_problems(strategy: Strategy) -> Iterator[Problem]:
    """Everything that this fine-tuner cannot do, or must not."""
    yield from _stage(strategy)
    yield from _native(strategy)
    yield from _settings(strategy)


def choose_llamafactory(strategy: Strategy) -> tuple[LlamaFactoryPlan, list[Decision]]:
    """What is passed on, and the decisions. `llamafactory_problems` comes first."""
    native = {name: value for name, value in strategy.native.items() if name in PASSED_ON}
    stage: Stage = _stage_of(strategy)  # type: ignore[assignment]  # checked by _stage
    decisions = [
        *([_written(strategy, "stage", stage)] if "stage" in strategy.native else []),
        *(_written(strategy, name, value) for name, value in native.items()),
        *_remarks(strategy),
    ]
    return LlamaFactoryPlan(stage, strategy.method.type, native), decisions


def with_native_dataset(strategy: Strategy) -> Strategy:
    """`dataset: NAME` with `dataset_dir: DIR`, as LLaMA-Factory has it: the entry NAME of
    DIR/dataset_info.json, where no other rows are named.
    """
    name = strategy.native.get("dataset")
    dataset = strategy.dataset
    named = dataset.path or dataset.train_file or dataset.dataset_name or dataset.mix
    if strategy.backend != "llamafactory" or not isinstance(name, str) or named:
        return strategy
    place = str(strategy.native.get("dataset_dir") or "data").rstrip("/")
    origin = strategy.origin("native.dataset")
    origins = {**strategy.origins, **({"dataset.path": origin} if origin else {})}
    path = f"{place}/dataset_info.json#{name}"
    return strategy.model_copy(
        update={"dataset": dataset.model_copy(update={"path": path}), "origins": origins}
    )


def learns_from_pairs(strategy: Strategy) -> bool:
    """Whether each row needs two answers, a chosen and a rejected one."""
    return strategy.backend == "llamafactory" and _stage_of(strategy) == "dpo"


def unfrozen_parameters(strategy: Strategy, shape: ModelShape) -> int:
    """Parameters that `type: freeze` trains: of the last `freeze_trainable_layers` layers (2; below
    0: of the first ones) those in `freeze_trainable_modules` (all; parts that stand directly in a
    layer), and `freeze_extra_modules` outside of the layers. As LLaMA-Factory documents it; biases
    are not counted.
    """
    count = int(str(strategy.native.get(_LAYERS, 2)))
    layers = range(shape.num_layers)
    wanted = set(layers[-count:] if count > 0 else layers[:-count])
    modules = _names(strategy.native.get("freeze_trainable_modules", "all"))
    extra = _names(strategy.native.get("freeze_extra_modules", ()))
    sizes = {layer.name: layer.d_out * layer.d_in for layer in shape.linear_layers}
    sizes |= {module.name: module.num_parameters for module in shape.other_modules}
    total = 0
    for name, size in sizes.items():
        parts = name.split(".")
        at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        if at is None:
            total += size if parts[-1] in extra else 0
        elif int(parts[at]) in wanted and ("all" in modules or parts[at + 1] in modules):
            total += size
    return total


def _names(value: object) -> tuple[str, ...]:
    """A list, or names with commas between them."""
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    return tuple(str(part).strip() for part in parts)


def _stage_of(strategy: Strategy) -> object:
    return strategy.native.get("stage", "sft")


def _stage(strategy: Strategy) -> Iterator[Problem]:
    stage = _stage_of(strategy)
    able = ", ".join(name for name, why in STAGES.items() if not why)
    if str(stage) not in STAGES:
        yield problem(strategy, "native.stage", f"expected one of {able} (got {shown(stage)})")
    elif why := STAGES[str(stage)]:
        yield problem(
            strategy,
            "native.stage",
            f"stage: {stage} is not available here: {why}",
            f"there are: {able}",
        )


def _native(strategy: Strategy) -> Iterator[Problem]:
    for name, value in strategy.native.items():
        path = f"native.{name}"
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, sorted(_KNOWN), n=1)
            yield problem(
                strategy,
                path,
                f"LLaMA-Factory 0.9.5 has no key {name}",
                f"did you mean `{near[0]}`?" if near else "remove this line",
            )
        elif name in _REFUSED and not _is_harmless(name, value):
            yield problem(
                strategy, path, f"{name} cannot be set: {_REFUSED[name]}", "remove this line"
            )

    layers = strategy.native.get(_LAYERS, 2)
    if not re.fullmatch(r"-?[0-9]{1,6}", str(layers)):
        yield problem(
            strategy,
            f"native.{_LAYERS}",
            f"expected a whole number (got {shown(layers)})",
            "2 trains the last two layers, -2 the first two",
        )


def _is_harmless(name: str, value: object) -> bool:
    return value in _HARMLESS.get(name, ())


def _settings(strategy: Strategy) -> Iterator[Problem]:
    """Values of ours that it has no key for."""
    method, args = strategy.method, strategy.training_args
    without: dict[str, bool] = {
        "method.bias": method.bias != "none",
        "method.layers_to_transform": method.layers_to_transform is not None,
        "method.layers_pattern": method.layers_pattern is not None,
        "training_args.label_smoothing_factor": args.label_smoothing_factor > 0,
    }
    for path, wanted in without.items():
        if wanted:
            yield problem(
                strategy,
                path,
                f"{path.rpartition('.')[2]} cannot be translated: LLaMA-Factory 0.9.5 has no "
                "setting that does the same",
                "remove this line, or write `type: pytorch`",
            )
    if method.alpha is not None and method.alpha != int(method.alpha):
        yield problem(
            strategy,
            "method.alpha",
            f"LLaMA-Factory takes whole numbers (got {shown(method.alpha)})",
            f"write `alpha: {round(method.alpha)}`",
        )
    if "rope_scaling" in strategy.native and not method.trains_base:
        yield problem(
            strategy,
            "native.rope_scaling",
            "an adapter does not say that its base was scaled: it would be used on another one",
            "train the weights (`type: full_finetune`), or remove this line",
        )
    best = best_metric(strategy)
    pairs = learns_from_pairs(strategy)
    if pairs and best is not None and best.name == "perplexity":
        yield problem(
            strategy,
            "training_args.metric_for_best_model",
            "pairs of answers have no perplexity",
            "write eval_loss, or accuracy: the share of pairs whose chosen answer is preferred",
        )
    if answer_metrics(strategy):
        yield problem(
            strategy,
            "metrics" if strategy.metrics else "training_args.metric_for_best_model",
            "metrics of answers are not measured while LLaMA-Factory trains",
            "remove this line; `llamafarm evaluate RUN --dataset FILE --metric NAME` measures them "
            "afterwards",
        )


def _written(strategy: Strategy, name: str, value: Any) -> Decision:
    return asked(strategy, f"native.{name}", value, "passed on to LLaMA-Factory")


def _remarks(strategy: Strategy) -> Iterator[Decision]:
    if "dataset" in strategy.native and with_native_dataset(strategy) is strategy:
        name = strategy.native["dataset"]
        yield notice("native.dataset", name, "native.dataset has no effect: other rows are named")
    text = (
        "memory and time are forecast as `type: pytorch` needs them: LLaMA-Factory pads the rows "
        "of a batch, and takes more of both"
    )
    yield notice("forecast", "type: pytorch", text)
    path = "method.quantization.bnb_4bit_compute_dtype"
    if is_written(strategy, path):
        text = f"{path} has no effect: LLaMA-Factory computes in the precision of the run"
        yield warning(path, strategy.method.quantization.bnb_4bit_compute_dtype, text)
    for name, value in strategy.native.items():
        if name == "dataset_dir" and "dataset" in strategy.native:
            continue
        if name in _WITHOUT_EFFECT:
            line = warning if name in _WORTH_A_WARNING else notice
            text = f"native.{name} has no effect: {_WITHOUT_EFFECT[name]}"
            yield line(f"native.{name}", value, text)
        elif name in _REFUSED:
            yield notice(f"native.{name}", value, f"native.{name} is what it is anyway")
