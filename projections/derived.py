"""What is derived from a config, kept for the config that was asked about last.

All views of one log ask for the same of the same config again and again. A config is never changed in place: each
`loop.configured` brings a new one, so that being the same object is being the same config.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")

Config = Mapping[str, Any]


def of_config(derive: Callable[[Config], T]) -> Callable[[Config], T]:
    """Call `derive`, a pure function of a config, only where it was not asked about this very one last."""
    kept: list[tuple[Config, T]] = []

    @wraps(derive)
    def asked(config: Config) -> T:
        for known, found in kept:
            if known is config:
                return found
        found = derive(config)
        kept[:] = [(config, found)]
        return found

    return asked
