"""What a person would want to know of the rows before anything learns from them."""
