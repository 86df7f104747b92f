"""The demo: split medical questions, ask the base model, train it, ask again. See
demos/README.md.
"""

from llamafarm.cli import demo
from llamafarm.cli.main import leave, run_function

if __name__ == "__main__":
    leave(run_function(demo.command, "demo3_training.py", demo.EXAMPLE))
