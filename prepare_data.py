"""Raw files to training rows: `python prepare_data.py --input RAW --output data.jsonl`."""

from llamafarm.cli.main import leave, run_function
from llamafarm.cli.prepare import SCRIPT_EXAMPLE, script

if __name__ == "__main__":
    leave(run_function(script, "prepare_data.py", SCRIPT_EXAMPLE))
