"""`llamafarm schema`."""

from __future__ import annotations

from llamafarm.cli.output import result_json

EXAMPLE = """
llamafarm schema > strategy.schema.json
"""


def command() -> None:
    """Print the JSON Schema of strategy files, for editors."""
    from llamafarm import api

    result_json(api.schema())
