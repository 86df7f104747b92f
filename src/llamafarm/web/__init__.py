"""The dashboard: the runs of a directory in a browser, live, and only read."""
