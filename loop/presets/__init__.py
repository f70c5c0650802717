"""Presets: how an agent is run unattended and how its result is read. Each is data and one small parser."""
