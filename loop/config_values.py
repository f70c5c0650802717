"""The values of loop.toml: how each kind of value is checked, with a message that shows a right one.

Every check raises ValueError with the whole message; pydantic carries it to `loop.config_file`, which adds the place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import Field, PlainValidator

from loop.cascade.terms import WEIGHTS
from loop.command import PLACEHOLDERS, placeholder_problem
from loop.duration import parse_bytes, parse_seconds

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
OUTCOMES = (
    "productive", "noop", "unproven", "blocked", "failed", "limited", "refused", "timed_out", "stalled", "cancelled",
    "lost",
)  # fmt: skip
MOST = 10_000  # of anything counted: more is a typo

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


HEAVIEST = 100  # weight of a term


def name_problem(name: object) -> str | None:
    """Why `name` cannot name a category, a backend or a lock, or None."""
    if isinstance(name, str) and NAME.fullmatch(name):
        return None
    shown = repr(name if not isinstance(name, str) or len(name) <= 70 else name[:70] + "…")
    return f"{shown} is no usable name; use 1 to 64 of a-z 0-9 _ . - and begin with a letter or digit"


def _name(value: object) -> str:
    if problem := name_problem(value):
        raise ValueError(problem)
    return str(value)


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f'{value!r} is no list of names; write ["{value}"]')
    names = tuple(_name(item) for item in value)
    if len(set(names)) < len(names):
        raise ValueError(f"{value!r} names one twice")
    return names


def _some_names(value: object) -> tuple[str, ...]:
    if value == []:
        raise ValueError("[] allows none; leave the key out to allow any")
    return _names(value)


def _positive(value: object) -> float:
    seconds = parse_seconds(value)
    if seconds == 0:
        raise ValueError(f"{value!r} makes no sense here; it must be longer than 0s")
    return seconds


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"a string is wanted, not {value!r}")
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"{value!r} is no path")
    return value


def _templated(allowed: frozenset[str], check: Callable[[object], str]) -> Callable[[object], str]:
    def validate(value: object) -> str:
        text = check(value)
        if problem := placeholder_problem(text, allowed):
            raise ValueError(problem)
        return text

    return validate


def _argv(allowed: frozenset[str] | None) -> Callable[[object], tuple[str, ...]]:
    """A validator of argv lists, with these placeholders, or None: braces mean nothing in it."""

    def validate(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            words = ", ".join(f'"{word}"' for word in value.split()) or '"./program"'
            raise ValueError(f"a command is a list of words and no shell line; write [{words}]")
        if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
            raise ValueError(f'{value!r} is no command; write a list of strings: ["./program", "argument"]')
        if not value[0] or any("\0" in word for word in value):
            raise ValueError(f"{value!r} is no command; its first word is the program, and no word may hold a NUL")
        for word in value if allowed is not None else ():
            if problem := placeholder_problem(word, allowed or frozenset()):
                raise ValueError(problem)
        return tuple(value)

    return validate


def _words(value: object) -> tuple[str, ...]:
    """Words of an argv, templates like those of a command; none is fine."""
    return () if value == [] else _argv(PLACEHOLDERS)(value)


def _patterns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(pattern, str) and pattern for pattern in value):
        raise ValueError(f'{value!r} is no list of regular expressions; write ["usage limit reached"]')
    for pattern in value:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return tuple(value)


def _env(value: object) -> Mapping[str, str]:
    """Environment variables. No message holds a value: it may be a secret."""
    if not isinstance(value, dict):
        raise ValueError('a table is wanted: { NAME = "value" }')
    for name, content in value.items():
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        if name.startswith("LOOP_"):
            raise ValueError(f"{name}: names with LOOP_ are loop's own")
        if not isinstance(content, str) or "\0" in content:
            raise ValueError(f'{name}: the value must be a string; write {name} = "…"')
    return dict(value)


def _exit_codes(value: object) -> Mapping[int, str]:
    if not isinstance(value, dict):
        raise ValueError('a table is wanted: { 75 = "refused" }')
    codes: dict[int, str] = {}
    for key, outcome in value.items():
        if not re.fullmatch(r"0|[1-9][0-9]{0,2}", key) or int(key) > 255:
            raise ValueError(f"{key!r} is no exit code; they are 0 to 255")
        if outcome not in OUTCOMES:
            raise ValueError(f"{key} = {outcome!r} is no outcome; they are {' '.join(OUTCOMES)}")
        codes[int(key)] = outcome
    return codes


def _aliases(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError('a table is wanted: { infra = "infrastructure" }')
    if long := [name for name in value if not 0 < len(name) <= 64]:
        raise ValueError(f"{long[0][:70]!r} is no usable alias; 1 to 64 characters")
    return {alias: _name(target) for alias, target in value.items()}


def _weights(value: object) -> Mapping[str, float]:
    if not isinstance(value, dict):
        raise ValueError("a table is wanted: { gap = 3.0 }")
    for name, weight in value.items():
        if name not in WEIGHTS:
            near = get_close_matches(name, WEIGHTS, 1)
            raise ValueError(
                f"{name[:64]!r} is no term of a score; " + (f"did you mean {near[0]}?" if near else ", ".join(WEIGHTS))
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= HEAVIEST:
            raise ValueError(f"{name} = {weight!r} is no weight; a number from 0 to {HEAVIEST} is")
    return {name: float(weight) for name, weight in value.items()}


def _parallel(value: object) -> bool | Literal["alone"]:
    if value == "alone" and isinstance(value, str):
        return "alone"
    if not isinstance(value, bool):
        raise ValueError(f'{value!r} is neither true, false nor "alone"')
    return value


Name = Annotated[str, PlainValidator(_name)]
Names = Annotated[tuple[str, ...], PlainValidator(_names)]
SomeNames = Annotated[tuple[str, ...], PlainValidator(_some_names)]
Seconds = Annotated[float, PlainValidator(parse_seconds)]
PositiveSeconds = Annotated[float, PlainValidator(_positive)]
Size = Annotated[int, PlainValidator(parse_bytes)]
Share = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(gt=0, le=MOST)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Tokens = Annotated[int, Field(ge=1, le=10**15)]
Money = Annotated[float, Field(gt=0, le=10**9)]  # US dollars
Text = Annotated[str, PlainValidator(_text)]
PathText = Annotated[str, PlainValidator(_path)]
Cwd = Annotated[str, PlainValidator(_templated(PLACEHOLDERS, _path))]
Prompt = Annotated[str, PlainValidator(_templated(PLACEHOLDERS - {"prompt"}, _text))]
LiteralArgv = Annotated[tuple[str, ...], PlainValidator(_argv(None))]
GateArgv = Annotated[tuple[str, ...], PlainValidator(_argv(frozenset({"category"})))]
SessionArgv = Annotated[tuple[str, ...], PlainValidator(_argv(PLACEHOLDERS))]
Words = Annotated[tuple[str, ...], PlainValidator(_words)]
Patterns = Annotated[tuple[str, ...], PlainValidator(_patterns)]
Env = Annotated[Mapping[str, str], PlainValidator(_env)]
ExitCodes = Annotated[Mapping[int, str], PlainValidator(_exit_codes)]
Aliases = Annotated[Mapping[str, str], PlainValidator(_aliases)]
Weights = Annotated[Mapping[str, float], PlainValidator(_weights)]
Parallel = Annotated[bool | Literal["alone"], PlainValidator(_parallel)]
