"""A plan to a run directory with a trained model in it."""
