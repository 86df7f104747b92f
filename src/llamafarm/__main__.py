"""`python -m llamafarm`: the same as the console script."""

from llamafarm.cli.main import run

if __name__ == "__main__":
    run()
