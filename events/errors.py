"""Errors a user sees: what happened (with the value), why it is wrong, what to do."""

from __future__ import annotations

from typing import ClassVar


class LoopError(Exception):
    """Root of every error that is the user's to mend; anything else that escapes is a bug in loop.

    `code` names the error for scripts, `exit_code` is the process's, `hint` is the mend.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(LoopError):
    """The words of the command are off: an unknown id, a position beyond head, two options that exclude each other."""

    code = "usage"
    exit_code = 2


class ConfigError(LoopError):
    """The config file cannot be used: missing, not TOML, an unknown key, a value out of range."""

    code = "config_invalid"
    exit_code = 3


class RefusedError(LoopError):
    """loop declines on purpose: inside a session, a second `run`, `--expect` that no longer holds."""

    code = "refused"
    exit_code = 6


class StoreImported(RefusedError):
    """An imported store is a copy for reading: what happened elsewhere is not continued here."""

    code = "store_imported"


class PassBusy(LoopError):
    """Another pass is observing; two would ask the selector the same question at once."""

    code = "pass_busy"
    exit_code = 5


class StoreBusy(LoopError):
    """The write lock could not be had in time; nothing was written, so the command can simply be run again."""

    code = "store_busy"
    exit_code = 5


class StoreError(LoopError):
    """The store cannot be read or written: not a database, missing, read-only, disk full, damaged."""

    code = "store"


class ImportFailed(LoopError):
    """A file cannot be imported: damaged, cut off, in another order, of another format. Nothing was made of it."""

    code = "import"


DAMAGED = "see what else is wrong: loop verify; then restore the store from a backup"
"""The mend for whatever a fault has made of a row."""


class StoreGone(StoreError):
    """The file was removed, replaced or overwritten while it was open: what is written now nobody would find."""

    code = "store_gone"


class StoreTooNew(StoreError):
    """The store was written by a newer loop; an older one would misread it."""

    code = "store_too_new"


class IllegalTransition(Exception):
    """Our own append contradicts a state machine of `events.lifecycle`: a bug in loop, never a user's mistake."""
