"""Which rows say nearly the same, and which are contained in others: exact answers, found fast."""
