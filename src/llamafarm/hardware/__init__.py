"""Facts about this machine, and what follows from them for device, precision and threads."""
