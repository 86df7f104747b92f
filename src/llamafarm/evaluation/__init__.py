"""Numbers about a model on a dataset."""
