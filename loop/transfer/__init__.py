"""Logs as files: exports, their import, and the lock histories of other programs."""
