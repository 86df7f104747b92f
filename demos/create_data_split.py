"""Split a dataset: `python demos/create_data_split.py --input data.jsonl --eval-percent 10`."""

from llamafarm.cli.datasplit import SCRIPT_EXAMPLE, script
from llamafarm.cli.main import leave, run_function

if __name__ == "__main__":
    leave(run_function(script, "create_data_split.py", SCRIPT_EXAMPLE))
