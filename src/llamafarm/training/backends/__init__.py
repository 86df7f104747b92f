"""Backends: each trains a plan and leaves the same run directory."""
