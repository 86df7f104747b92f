"""What happened in a run, in order, and who is told."""
