"""LLaMA-Factory itself, installed once in the user's data directory and shared by every test."""

from __future__ import annotations

import pytest

from llamafarm.errors import UserError
from llamafarm.training.backends.llamafactory.environment import Environment, install_environment


@pytest.fixture(scope="session")
def llamafactory_environment() -> Environment:
    """The real environment (2 GB, made on first use); skips where it cannot be installed."""
    try:
        return install_environment()
    except UserError as fault:
        # Only for want of uv or of a registry: what is there and does not work is a failure.
        if "could not be installed; uv said" in fault.summary or "uv is not there" in fault.summary:
            pytest.skip(fault.render())
        raise
