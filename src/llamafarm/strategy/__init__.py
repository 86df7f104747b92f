"""YAML text to one valid Strategy, or all its problems."""
