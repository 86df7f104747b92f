"""A model name to local files, a tokenizer, a shape, and a forward pass over packed rows."""
