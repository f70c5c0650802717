"""The log of a worker's output, bounded without limiting what the worker may write. Standard library only."""

from __future__ import annotations

import ctypes
import os

HEAD = 4 << 20  # bytes of a worker's output that are kept from its start
TAIL = 16 << 20  # and from its end
BLOCK = 1 << 20  # the middle is given back in multiples of this
PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01


class BoundedLog:
    """A log that keeps its first 4 and last 16 MiB on disk; the middle becomes a hole, so offsets stay valid.

    The worker writes to `fd` itself (O_APPEND), so its output survives the shim. `tend` must be called while it
    grows. Where the filesystem cannot punch holes the bound is a hard cap: beyond HEAD + TAIL everything behind the
    head is cut off but for the last MiB, a line says how much is missing, and the worker goes on behind it. `size` is
    what was written, kept or not.
    """

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self.truncated = False
        self._length = os.fstat(self.fd).st_size
        self._cut = 0  # bytes written that the file no longer counts
        self._hole_end = HEAD
        self._holes = True

    @property
    def size(self) -> int:
        """Bytes written in all."""
        return self._length + self._cut

    def tend(self) -> int:
        """Give back what is beyond the bound; returns the bytes by which the log grew. Raises OSError."""
        length = os.fstat(self.fd).st_size
        grown, self._length = length - self._length, length
        if grown < 0:  # emptied by its writer, who may fill it again
            self._hole_end = HEAD
        end = (length - TAIL) // BLOCK * BLOCK
        if end > self._hole_end:
            if self._holes and punch_hole(self.fd, self._hole_end, end - self._hole_end):
                self.truncated, self._hole_end = True, end
            else:
                self._holes = False
                self._cut_middle()
        return abs(grown)

    def _cut_middle(self) -> None:
        """Cut the log back to its head and the last MiB; what is written meanwhile is lost or kept whole."""
        length = os.fstat(self.fd).st_size
        last = os.pread(self.fd, BLOCK, length - BLOCK)
        os.ftruncate(self.fd, HEAD)
        os.write(self.fd, b"\n[%d bytes left out]\n" % (length - HEAD - len(last)) + last)
        now = os.fstat(self.fd).st_size
        self._cut, self._length, self.truncated = self._cut + length - now, now, True

    def close(self) -> None:
        """Close the shim's own descriptor."""
        os.close(self.fd)


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Give the blocks of a piece of a file back; False where the filesystem cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.fallocate(fd, PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length))) == 0
