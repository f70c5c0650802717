"""The main job: observe, decide, start, supervise, audit."""

__version__ = "0.1.0"
