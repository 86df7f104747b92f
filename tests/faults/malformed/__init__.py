"""The corpus: files as they should not be, each with what a user is to see of it."""
