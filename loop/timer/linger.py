"""Whether the user's systemd goes on without a login: else a logout ends its timers, and every session with them."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

BOOTED = Path("/run/systemd/system")  # there where systemd runs the machine, see sd_booted(3)
KEPT = Path("/var/lib/systemd/linger")
ENABLE = "loginctl enable-linger"


def booted() -> bool:
    """Whether systemd runs this machine."""
    return BOOTED.is_dir()


def user() -> str:
    """This user's name, or the number where there is no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def lingers() -> bool | None:
    """Whether this user lingers; None where systemd does not run."""
    return (KEPT / user()).exists() if booted() else None
