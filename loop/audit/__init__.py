"""Questions to the past: why, and later replay and verify."""
