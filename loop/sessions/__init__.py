"""One supervising shim per session, its run directory, and the way back from its files to events."""
