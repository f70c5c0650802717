"""A shell line for a prompt: exit code 0 is evidence of work, and nothing that it prints means anything.

What the selector says reaches it as `$LOOP_TASK`, never as part of the program.
"""

from __future__ import annotations

from loop.presets.preset import Preset

PRESET = Preset(command=("sh", "-c"), evidence="exit")
