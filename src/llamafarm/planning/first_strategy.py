"""What a beginner's strategy file holds, and what it says of each value: what it does, and in
which direction to change it.
"""

from __future__ import annotations

from collections.abc import Mapping

HEAD = (
    "A fine-tuning run, described. `train` reads this file, decides what it leaves out, trains,",
    "and evaluates before, during and after the training; the best step is kept.",
    "",
    "Behind each value stands who chose it (a table of the guide, the machine, a default) and why;",
    "above it, when to change it. Change one thing at a time, and compare the loss on the",
    "evaluation rows. What is not in this file is decided for you: `llamafarm info` shows it all.",
)
BLOCKS: Mapping[str, str] = {
    "base_model": "The model to start from. A larger one knows more and needs more memory.",
    "method": "What is trained: small matrices beside the frozen weights (lora), or every weight.",
    "training_args": "How long and how fast it learns. Names are those of Hugging Face.",
    "dataset": "Your rows: JSONL, JSON, CSV or Parquet with questions and answers, or chats.",
}
FIELDS: Mapping[str, str] = {
    "base_model.id": "Another one: a Hub id, a directory with a model, or a .gguf file.",
    "method.type": (
        "Memory is short: qlora holds the base in 4 bits. Much data and much memory: full_finetune."
    ),
    "method.r": (
        "How much can be learnt. Both losses stay high: double it. The evaluation loss rises while "
        "the training loss falls: halve it."
    ),
    "method.alpha": "How strongly it acts: r to 2 r. Rarely worth changing; change it with r.",
    "method.dropout": "Few rows, or the evaluation loss rises: more, up to 0.2.",
    "training_args.output_dir": (
        "Where the run goes. A directory with a run in it is refused, unless --resume goes on with "
        "it or --overwrite replaces it."
    ),
    "training_args.num_train_epochs": (
        "Passes over the rows. The evaluation loss still falls at the end: more. It rises: fewer."
    ),
    "training_args.learning_rate": (
        "The loss jumps: a third of it. The loss hardly moves: three times as much."
    ),
    "training_args.warmup_steps": (
        "Steps in which the learning rate rises. The first steps are unstable: more."
    ),
    "training_args.per_device_train_batch_size": (
        "Rows computed at once. Memory runs out: halve it, and double gradient_accumulation_steps. "
        "The device is idle: the other way round."
    ),
    "training_args.gradient_accumulation_steps": (
        "Batches added up for one step. Batch x accumulation is what counts for learning: 8 to 16."
    ),
    "training_args.max_seq_length": (
        "Tokens of the longest row; longer ones are cut, and named. Memory is short: less."
    ),
    "training_args.seed": "Any number. The same one repeats the split and the run.",
    "dataset.path": (
        "The file; it may stand beside this one. `llamafarm inspect FILE` shows what is in it."
    ),
    "dataset.eval_file": "Rows that are only measured on. Without it some of the others are.",
    "dataset.allow_leakage": (
        "Training rows give evaluation rows away: the evaluation loss says little about new ones."
    ),
    "dataset.eval_split": (
        "The share of the rows that is only measured on. Under 50 rows: 0.05. The result must be "
        "sure: 0.15 to 0.2."
    ),
}
