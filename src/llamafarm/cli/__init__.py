"""Words in, words out, exit code: one module a command."""
