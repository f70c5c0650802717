"""How the shim tells a silent session from one that works: by its output, and by CPU time used anywhere in its tree.

Standard library only, as the shim has it.
"""

from __future__ import annotations

import os

from loop.sessions import proc

CPU_POLL = 15.0  # seconds between two sums over the process tree, at most


class Ear:
    """When the worker was last heard: output, or CPU time used anywhere in its tree. Times are CLOCK_MONOTONIC.

    Without `silence` (seconds) it is never silent. It warns once a silent spell: at half the time if the end of it
    kills, else at its end.
    """

    def __init__(self, silence: float | None, kills: bool, now: float) -> None:
        self.silence, self.kills, self.heard = silence, kills, now
        self._warned, self._ticks, self._counted = False, 0, now
        self._every = min(CPU_POLL, (silence or 0.0) / 20)

    def hear(self, now: float, grown: int) -> None:
        if self.silence is None:
            return
        # Before it warns or kills it looks once more: a burst may lie between two counts.
        if not grown and now >= min(self._counted + self._every, self.heard + self._warn_after()):
            ticks = proc.cpu_ticks(proc.descendants(os.getpid()))
            # Less than before is a sign of life, too: a process of the tree has ended.
            grown, self._ticks, self._counted = int(ticks != self._ticks), ticks, now
        if grown:
            self.heard, self._warned = now, False

    def must_kill(self, now: float) -> bool:
        return self.silence is not None and self.kills and now - self.heard >= self.silence

    def must_warn(self, now: float) -> bool:
        warn = self.silence is not None and not self._warned and now >= self.heard + self._warn_after()
        self._warned |= warn
        return warn

    def due(self) -> list[float]:
        """The next instants that matter."""
        return [] if self.silence is None else [self.heard + self._warn_after(), self.heard + self.silence]

    def _warn_after(self) -> float:
        return (self.silence or 0.0) / (2 if self.kills else 1)
