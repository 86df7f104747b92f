"""The LLaMA-Factory fine-tuner: it trains in a process and a Python environment of its own."""
