"""Files to conversations to token sequences with a mask."""
