"""The fault campaign: what goes wrong is done on purpose, counted, and published."""
