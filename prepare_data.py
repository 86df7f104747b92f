"""Raw files to training rows: `python prepare_data.py --input RAW --output data.jsonl`."""

import sys

from llamafarm.cli.main import run_function
from llamafarm.cli.prepare import SCRIPT_EXAMPLE, script

if __name__ == "__main__":
    sys.exit(run_function(script, "prepare_data.py", SCRIPT_EXAMPLE))
