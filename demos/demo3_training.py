"""The demo: split medical questions, ask the base model, train it, ask again. See
demos/README.md.
"""

import sys

from llamafarm.cli import demo
from llamafarm.cli.main import run_function

if __name__ == "__main__":
    sys.exit(run_function(demo.command, "demo3_training.py", demo.EXAMPLE))
