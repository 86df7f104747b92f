"""The other tools' side of the campaign: ordinary training scripts, and the faults done to them."""
