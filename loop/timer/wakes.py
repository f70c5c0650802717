"""When a timer has to wake the loop: a pattern of UTC with every nominal instant of the schedule, and perhaps more.

A wake at a used instant is a fire that does nothing, so that a pattern may be too rich, but never too poor. Where
systemd or cron can say the schedule itself, the pattern is exact. It is always in UTC: what a zone does to its clocks
is then settled by `projections.schedule` alone, and by nobody else in another way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SECOND = 1_000_000
DAY = 86_400 * SECOND
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
PLAIN = ("UTC", "Etc/UTC")  # zones whose cron lines can be said in UTC

# What one pattern can repeat exactly: the divisors of a minute, an hour and a day, in seconds.
STEPS = tuple(
    unit * count for unit, length in ((1, 60), (60, 60), (3_600, 24)) for count in range(1, length + 1)
    if length % count == 0
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wakes:
    """Every combination of these numbers, in UTC; an empty field is any. `exact` unless some are no nominal instants,
    and then `why` says the reason."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...] = tuple(range(24))
    seconds: tuple[int, ...] = (0,)
    days: tuple[int, ...] = ()
    months: tuple[int, ...] = ()
    weekdays: tuple[int, ...] = ()
    """From 0, Monday."""
    why: str | None = None

    @property
    def exact(self) -> bool:
        return self.why is None

    def calendar(self) -> str:
        """As systemd's OnCalendar= reads it (systemd.time(7))."""
        names = ",".join(WEEKDAYS[day] for day in self.weekdays)
        date = f"*-{_listed(self.months, 12)}-{_listed(self.days, 31)}"
        time = f"{_listed(self.hours, 24)}:{_listed(self.minutes, 60)}:{_listed(self.seconds, 60)}"
        return " ".join([*([names] if names else []), date, time, "UTC"])

    def crontab(self, offset: int) -> str:
        """The five fields of a crontab line on a machine whose clock is `offset` minutes ahead of UTC.

        Cron knows no seconds, and it follows the machine's zone: this wakes at these minutes of every hour.
        """
        if self.seconds != (0,):
            return "* * * * *"
        minutes = sorted({(minute + offset) % 60 for minute in self.minutes})
        step = 60 // len(minutes)
        if minutes == list(range(0, 60, step)) and len(minutes) > 1:
            return "* * * * *" if step == 1 else f"*/{step} * * * *"
        return f"{','.join(map(str, minutes))} * * * *"


def wakes(schedule: Mapping[str, Any], now: int) -> Wakes:
    """The wakes for `every` (seconds), or `cron` and `timezone`, as the config in force has them.

    `now` (microseconds) says which offsets a zone has: those of the year to come.
    """
    if schedule["cron"] is not None:
        return _of_cron(schedule["cron"], schedule["timezone"] or "UTC", now)
    return _of_every(round(float(schedule["every"]) * SECOND))


def _of_every(every: int) -> Wakes:
    step = max((step for step in STEPS if every % (step * SECOND) == 0), default=1)
    why = None
    if step * SECOND != every:
        why = f"every {every / SECOND:g} s fits no minute, hour or day evenly, so it wakes every {step} s"
    if step < 60:
        return Wakes(tuple(range(60)), seconds=tuple(range(0, 60, step)), why=why)
    if step < 3_600:
        return Wakes(tuple(range(0, 60, step // 60)), why=why)
    return Wakes((0,), hours=tuple(range(0, 24, step // 3_600)), why=why)


def _of_cron(line: str, zone: str, now: int) -> Wakes:
    from datetime import UTC, datetime

    from cronsim import CronSim

    parsed = CronSim(line, datetime.fromtimestamp(now / SECOND, UTC))
    minutes, hours = set[int](parsed.minutes), set[int](parsed.hours)
    days, months, weekdays = set[Any](parsed.days), set[int](parsed.months), set[Any](parsed.weekdays)
    any_hour = len(hours) == 24
    any_day = len(days) == 31 and len(months) == 12 and {0, *weekdays} >= set(range(7))
    if zone not in PLAIN:
        if not any_hour:
            minutes.add(0)  # an instant that summer time takes away comes at the full hour instead
        offsets = _offsets(zone, now)
        shifted = {(minute - offset) % 60 for minute in minutes for offset in offsets}
        why = None if any_hour and any_day and len(offsets) == 1 else f"the hours of {zone} move against UTC"
        return Wakes(_sorted(shifted), why=why and f"{why}, so it wakes at these minutes of every hour")
    wanted = Wakes(_sorted(minutes), hours=_sorted(hours))
    if any_day:
        return wanted
    if not all(isinstance(day, int) and day > 0 for day in days) or not all(isinstance(day, int) for day in weekdays):
        why = "systemd has no word for L and #, so it wakes on every day"
    elif not parsed.day_and:
        why = "the line means either the day of the month or that of the week, so it wakes on every day"
    else:
        names = {(day - 1) % 7 for day in weekdays}  # cron counts from Sunday, which is 0 and 7
        return Wakes(
            wanted.minutes,
            wanted.hours,
            days=_sorted(days) if len(days) < 31 else (),
            months=_sorted(months) if len(months) < 12 else (),
            weekdays=_sorted(names) if len(names) < 7 else (),
        )
    return Wakes(wanted.minutes, wanted.hours, why=why)


def _offsets(zone: str, now: int) -> set[int]:
    """By how many minutes of the hour a zone differs from UTC within a year: {0} nearly everywhere."""
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    found = set[int]()
    for day in range(0, 366, 15):
        offset = datetime.fromtimestamp((now + day * DAY) / SECOND, UTC).astimezone(ZoneInfo(zone)).utcoffset()
        assert offset is not None
        found.add(int(offset.total_seconds()) // 60 % 60)
    return found


def _listed(numbers: Sequence[int], count: int) -> str:
    """Numbers of a field as systemd writes them: `*`, `00/15`, `09,30`."""
    if not numbers or len(numbers) == count:
        return "*"
    step = count // len(numbers)
    if len(numbers) > 1 and list(numbers) == list(range(0, count, step)):
        return f"00/{step}"
    return ",".join(f"{number:02d}" for number in numbers)


def _sorted(numbers: set[int]) -> tuple[int, ...]:
    return tuple(sorted(numbers))
