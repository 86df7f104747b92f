"""Snippets of the seed as they stand there: what a reader copies has to work."""

from __future__ import annotations

# Line 57.
DEMO = "python demos/demo3_training.py"
# Lines 60-64.
TRAIN_DEMO = r"""
uv run python cli.py train \
  --strategy demo3_training_optimized \
  --strategy-file demos/strategies.yaml \
  --train-dataset medical_qa_train.jsonl \
  --eval-dataset medical_qa_eval.jsonl
"""
# Lines 69-83.
MY_STRATEGY = """\
# my_strategy.yaml
my_training:
  name: "Custom Domain Training"
  components:
    fine_tuner:
      type: pytorch
      config:
        method:
          type: lora
          r: 8
          alpha: 16
        training_args:
          num_train_epochs: 3
          eval_strategy: "steps"
          eval_steps: 100
"""
# Line 88.
TRAIN_MY_STRATEGY = (
    "uv run python cli.py train --strategy my_training --strategy-file my_strategy.yaml"
)
# Line 94 and line 107.
SPLIT = "python demos/create_data_split.py --input data.jsonl --eval-percent 10"
# Line 104.
PREPARE = "python prepare_data.py --input raw_data.txt --output data.jsonl"
# Lines 112-121.
STRATEGIES = """\
# strategies.yaml
my_strategy:
  components:
    fine_tuner:
      type: pytorch
      config:
        # Your configuration
  dataset:
    train_file: data_train.jsonl
    eval_file: data_eval.jsonl
"""
# Line 127.
SETUP = "uv run python cli.py setup strategies.yaml --strategy my_strategy --verify-only"
# Line 130.
TRAIN = "uv run python cli.py train --strategy my_strategy --strategy-file strategies.yaml"
# Line 143.
CONVERT = "uv run python cli.py convert ./fine_tuned_models/output ./my-model --format ollama"
# Line 146.
TEST_PROMPT = "Test prompt"
# Lines 155-158.
SIZE_TABLE = """\
| 1B | 4GB | 8GB | 4-8 | 1-2 |
| 3B | 8GB | 16GB | 8-16 | 2-4 |
| 7B | 16GB | 24GB | 16-32 | 4-8 |
| 13B | 24GB | 40GB | 32-64 | 4-8 |
"""
# Lines 164-167.
DATA_TABLE = """\
| <100 | 1e-5 to 5e-5 | 5-10 | 10% |
| 100-1000 | 5e-5 to 1e-4 | 3-5 | 5% |
| 1000-10000 | 1e-4 to 2e-4 | 2-3 | 3% |
| >10000 | 2e-4 to 5e-4 | 1-2 | 1% |
"""
# Lines 173-176.
SPLIT_TABLE = """\
| Very Small Dataset (<50) | 5% | Maximum training data |
| Standard Training | 10% | Balanced approach |
| Robust Validation | 15% | Higher confidence |
| Research/Publishing | 20% | Maximum validation |
"""
# Lines 182-191.
SCENARIO_1 = """\
config:
  method:
    r: 4          # Low rank
    dropout: 0.15 # High dropout
  training_args:
    num_train_epochs: 2  # Few epochs
    learning_rate: 0.00005  # Low LR
    weight_decay: 0.01  # Regularization
    eval_strategy: "steps"
    eval_steps: 20  # Frequent evaluation
"""
# Lines 196-206.
SCENARIO_2 = """\
config:
  hardware:
    device: cuda
    precision:
      use_bf16: true
  method:
    r: 32  # Higher rank
  training_args:
    per_device_train_batch_size: 8
    gradient_accumulation_steps: 1
    mixed_precision: bf16
"""
# Lines 211-218.
SCENARIO_3 = """\
config:
  hardware:
    device: mps
    precision:
      use_fp16: false  # FP32 for stability
  training_args:
    per_device_train_batch_size: 2
    gradient_accumulation_steps: 2
"""
# Lines 254-257.
MULTI_GPU = """\
training_args:
  ddp_find_unused_parameters: false
  dataloader_num_workers: 4
  fp16_backend: "auto"
"""
# Lines 262-265.
CUSTOM_METRICS = """\
training_args:
  metric_for_best_model: "eval_loss"
  greater_is_better: false
  load_best_model_at_end: true
"""
# Lines 270-273.
TRACKING = """\
monitoring:
  track_training_metrics: true
  log_tensorboard: true
  save_checkpoints: true
"""


def pasted(snippet: str, name: str = "pasted") -> str:
    """A strategy file with a `config:` snippet under `components.fine_tuner`, as it stands.

    One of `training_args:` goes under `config`, one of `monitoring:` beside `components`.
    """
    head = f"{name}:\n  components:\n    fine_tuner:\n      type: pytorch\n"
    if snippet.startswith("monitoring:"):
        return head + _indented(snippet, 2)
    if snippet.startswith("config:"):
        return head + _indented(snippet, 6)
    return head + "      config:\n" + _indented(snippet, 8)


def table(text: str) -> list[list[str]]:
    """The cells of a table's rows."""
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()]


def _indented(text: str, spaces: int) -> str:
    return "".join(" " * spaces + line + "\n" for line in text.splitlines())
