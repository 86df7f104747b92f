"""The PyTorch fine-tuner: one visible loop."""
