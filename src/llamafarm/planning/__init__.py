"""Strategy, machine, model and data become a plan in which every value has a reason."""
