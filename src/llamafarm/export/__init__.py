"""From a run directory to what is deployed: merged weights, GGUF, Ollama, and the proof of it."""
