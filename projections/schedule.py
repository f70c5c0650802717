"""Nominal fire instants: pure arithmetic on the config in force, all times in microseconds since the epoch.

`every` is anchored at the epoch in UTC, so that two hosts and two restarts agree on the instants; `cron` follows its
time zone, daylight saving included.
"""

from __future__ import annotations

import hashlib

from projections.derived import Config, of_config


def last_fire(config: Config, now: int) -> int:
    """The newest nominal instant at or before `now`."""
    if config["cron"] is None:
        every = _every(config)
        return now // every * every
    # Looking back, in the hour that winter time repeats, cronsim misses what fired in its first pass.
    fire = _cron(config, now + 1, reverse=True)
    while (following := next_fire(config, fire)) <= now:
        fire = following
    return fire


def next_fire(config: Config, now: int) -> int:
    """The first nominal instant after `now`."""
    if config["cron"] is None:
        every = _every(config)
        return (now // every + 1) * every
    return _cron(config, now, reverse=False)


def period(config: Config, now: int) -> int:
    """How long one period is at `now`: `every`, or the distance between the cron instants around it."""
    if config["cron"] is None:
        return _every(config)
    return next_fire(config, now) - last_fire(config, now)


def later(config: Config, moment: int, periods: int) -> int:
    """The moment that lies so many periods after `moment`, each as long as the schedule makes it just there."""
    fire = begun = last_fire(config, moment)
    for _ in range(periods):
        fire = next_fire(config, fire)
    return fire + moment - begun


def fires_between(config: Config, after: int, upto: int, limit: int = 10_000) -> int:
    """How many nominal instants lie after `after` and at or before `upto`, counted up to `limit`."""
    if config["cron"] is None:
        every = _every(config)
        return max(0, min(limit, upto // every - after // every))
    count = 0
    while count < limit and (after := next_fire(config, after)) <= upto:
        count += 1
    return count


def jitter(config: Config, store: str, nominal: int) -> int:
    """The delay of one fire: spread over the configured jitter by a hash, so that a fleet does not fire as one."""
    width = round(float(config["jitter"]) * 1_000_000)
    if width <= 0:
        return 0
    digest = hashlib.sha256(f"loop.jitter/1\x1f{store}\x1f{nominal}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % width


@of_config
def _every(config: Config) -> int:
    return max(1_000_000, round(float(config["every"]) * 1_000_000))


def _cron(config: Config, now: int, *, reverse: bool) -> int:
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    from cronsim import CronSim

    zone = ZoneInfo(config["timezone"] or "UTC")
    # cronsim steps in whole minutes from the moment it is given; a fraction would hide the instant just passed.
    seconds = -(-now // 1_000_000) if reverse else now // 1_000_000
    moment = datetime.fromtimestamp(seconds, UTC).astimezone(zone)
    for found in CronSim(config["cron"], moment, reverse=reverse):
        fire = int(found.timestamp()) * 1_000_000
        if reverse or fire > now:  # in the hour that winter time repeats cronsim names its first pass once more
            return fire
    raise AssertionError("a cron line that never fires is refused with the config")
