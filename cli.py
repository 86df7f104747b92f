"""The command line from a checkout: `uv run python cli.py COMMAND …`."""

from llamafarm.cli.main import run

if __name__ == "__main__":
    run()
