"""The built-in selector: task files and the log in, a payload of the documented shape out."""
