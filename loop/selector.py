"""The selector contract: from the bytes a selector printed to a ranking, or to the reason why there is none.

Pure, and suspicious: a payload is hostile input. `parse` never raises, whatever the bytes, and takes time in
proportion to their number. The order of the rules is the order of `RULES`; the first mention of a category wins.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from loop.command import CommandResult
from loop.text import visible

LARGEST = 1 << 20  # bytes of a payload
DEEPEST = 64  # levels of nesting
LONGEST_NAME = 64  # characters
LONGEST_TASK = 200
LONGEST_TEXT = 300
MOST_ENTRIES = 500
MOST_WARNINGS = 50
MOST_KEYS = 20
LARGEST_NUMBER = 2**63

Rule = Literal["selected", "diversity_alternatives", "alternatives", "all_scores"]
RULES: tuple[Rule, ...] = ("selected", "diversity_alternatives", "alternatives", "all_scores")
Reason = Literal[
    "no_answer", "timeout", "exit_code", "not_json", "too_large", "too_deep", "unknown_shape", "wrong_type",
    "no_category",
]  # fmt: skip

# A string (closed or not), or one bracket. Possessive, so that no input makes it look twice at a character.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """One place of a ranking: a category, the rule that named it, its task if any, its score under `all_scores`."""

    category: str
    rule: Rule
    task: str | None = None
    score: float | int | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """A valid answer, best first, each category once. Without entries it says: nothing is worth starting."""

    tier: int | None
    entries: tuple[Entry, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rejection:
    """No usable answer: the reason code, the offending keys as JSON paths, and a line for a person."""

    reason: Reason
    keys: tuple[str, ...]
    text: str


def parse(
    raw: bytes, *, aliases: Mapping[str, str] | None = None, default_category: str | None = None
) -> Ranking | Rejection:
    """What a selector's answer says.

    `aliases` maps names of the payload to configured ones; `default_category` serves a `selected` without one.
    """
    payload = _decoded(raw)
    if isinstance(payload, Rejection):
        return payload
    reader = _Reader(dict(aliases or {}), default_category)
    return reader.ranking(payload)


def rejected_by_run(result: CommandResult) -> Rejection | None:
    """The rejection that a selector's run itself amounts to, or None: its output is worth parsing."""
    if result.failure == "timeout":
        return Rejection("timeout", (), visible(result.text, LONGEST_TEXT))
    if result.failure == "too_large":
        return Rejection("too_large", (), visible(result.text, LONGEST_TEXT))
    if result.failure is not None:
        return Rejection("no_answer", (), visible(f"the selector did not run: {result.text}", LONGEST_TEXT))
    if result.code != 0:
        return Rejection("exit_code", (), visible(result.text, LONGEST_TEXT))
    if not result.stdout.strip():
        return _NO_ANSWER
    return None


_NO_ANSWER = Rejection("no_answer", (), "the selector printed nothing")


def _decoded(raw: bytes) -> dict[str, object] | Rejection:
    if len(raw) > LARGEST:
        return Rejection("too_large", (), f"{len(raw)} bytes; at most {LARGEST} are read")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Rejection("not_json", (), f"byte {error.start} is not UTF-8")
    if not text.strip():
        return _NO_ANSWER
    if (depth := nesting(text)) > DEEPEST:
        return Rejection("too_deep", (), f"{depth} levels of nesting; at most {DEEPEST} are read")
    try:
        payload = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        begins = visible(text.strip(), 40)
        return Rejection("not_json", (), f"not JSON: {error.msg} at {where}; it begins with {begins!r}")
    except ValueError as error:  # NaN, Infinity, or more digits than Python turns into a number
        return Rejection("not_json", (), visible(f"not JSON: {error}", LONGEST_TEXT))
    if not isinstance(payload, dict):
        return Rejection("unknown_shape", (), f"an object is wanted at the top, not {_kind(payload)}")
    return payload


def nesting(text: str) -> int:
    """The deepest nesting of arrays and objects, without recursion; a parser's stack is not for strangers to fill."""
    depth = deepest = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        match token[0][0]:
            case "[" | "{":
                depth += 1
                deepest = max(deepest, depth)
            case "]" | "}":
                depth -= 1
    return deepest


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


@dataclass(slots=True)
class _Reader:
    """One reading of one payload: collects what is wrong, and what is odd, on the way."""

    aliases: dict[str, str]
    default_category: str | None
    wrong: list[tuple[str, str]] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    named: bool = False  # whether any category was named, with whatever score

    def ranking(self, payload: dict[str, object]) -> Ranking | Rejection:
        given = [rule for rule in RULES if payload.get(rule) is not None]
        if not given and payload.get("tier") is None:
            keys = tuple(visible(key, LONGEST_NAME) for key in list(payload)[:MOST_KEYS])
            return Rejection("unknown_shape", keys, f"none of the known keys: {', '.join(('tier', *RULES))}")
        tier = self._tier(payload.get("tier"))
        entries = self._first_mentions(payload)
        self._diversity_warnings(payload.get("diversity_warnings"))
        if self.wrong:
            keys = tuple(key for key, _ in self.wrong[:MOST_KEYS])
            return Rejection("wrong_type", keys, "; ".join(f"{key}: {what}" for key, what in self.wrong[:3]))
        nothing_worth_it = given == ["all_scores"] and not payload["all_scores"]
        if not self.named and not nothing_worth_it:
            hint = "; selector.default_category would serve it" if "selected" in given else ""
            return Rejection("no_category", tuple(given), f"no category is named anywhere{hint}")
        if len(entries) > MOST_ENTRIES:
            self.odd.append(f"{len(entries)} categories; the first {MOST_ENTRIES} are ranked")
        return Ranking(tier, tuple(entries[:MOST_ENTRIES]), self._warnings())

    def _first_mentions(self, payload: dict[str, object]) -> list[Entry]:
        found: dict[str, Entry] = {}
        for entry in self._entries(payload):
            found.setdefault(entry.category, entry)
        return list(found.values())

    def _entries(self, payload: dict[str, object]) -> Iterator[Entry]:
        selected = payload.get("selected")
        if selected is not None:
            yield from self._one("selected", "selected", selected, self.default_category)
        for rule in RULES[1:3]:
            items = payload.get(rule)
            if items is None:
                continue
            if not isinstance(items, list):
                self._wrong(rule, "a list of objects", items)
                continue
            for number, item in enumerate(items):
                yield from self._one(rule, f"{rule}[{number}]", item, None)
        yield from self._scored(payload.get("all_scores"))

    def _one(self, rule: Rule, at: str, item: object, default: str | None) -> Iterator[Entry]:
        """The entry of one object with a category; none, and a word about it, where it names none."""
        if not isinstance(item, dict):
            self._wrong(at, "an object", item)
            return
        task = self._task(f"{at}.id", item.get("id"))
        category = self._name(f"{at}.category", item.get("category"))
        surface = item.get("execution_surface")
        if surface is not None and not isinstance(surface, dict):
            self._wrong(f"{at}.execution_surface", "an object", surface)
        elif surface is not None:
            category = self._name(f"{at}.execution_surface.category", surface.get("category")) or category
        category = category or default
        if category is None:
            self.odd.append(f"{at} has no category and is skipped")
            return
        self.named = True
        yield Entry(category, rule, task)

    def _scored(self, scores: object) -> Iterator[Entry]:
        """The positive ones of `all_scores`, best first; equal ones stay in the payload's order."""
        pairs: list[tuple[str, float | int | None]] = []
        if isinstance(scores, dict):
            for key, value in scores.items():
                name = self._name("all_scores", key)
                if name is None:
                    self.odd.append("all_scores has a score without a name, which is skipped")
                    continue
                pairs.append((name, self._score(f"all_scores.{visible(key, LONGEST_NAME)}", value)))
        elif isinstance(scores, list):
            for number, item in enumerate(scores):
                at = f"all_scores[{number}]"
                if not isinstance(item, dict):
                    self._wrong(at, "an object", item)
                    continue
                name = self._name(f"{at}.category", item.get("category"))
                score = self._score(f"{at}.score", item.get("score"))
                if name is None:
                    self.odd.append(f"{at} has no category and is skipped")
                    continue
                pairs.append((name, score))
        elif scores is not None:
            self._wrong("all_scores", "a map or a list", scores)
        self.named = self.named or bool(pairs)
        positive = [(name, score) for name, score in pairs if score is not None and score > 0]
        for name, score in sorted(positive, key=lambda pair: pair[1], reverse=True):
            yield Entry(name, "all_scores", None, score)

    def _tier(self, value: object) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= LARGEST_NUMBER:
            self._wrong("tier", "a whole number", value)
            return None
        return value

    def _score(self, at: str, value: object) -> float | int | None:
        if value is None:
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (isinstance(value, float) and not math.isfinite(value))
            or (isinstance(value, int) and abs(value) >= LARGEST_NUMBER)
        ):
            self._wrong(at, "a finite number", value)
            return None
        return value

    def _name(self, at: str, value: object) -> str | None:
        """A category as the loop calls it; None where there is none."""
        if value is None:
            return None
        if not isinstance(value, str):
            self._wrong(at, "a string", value)
            return None
        name = self._cleaned(at, value, LONGEST_NAME)
        return self.aliases.get(name, name) if name.strip() else None

    def _task(self, at: str, value: object) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is not None and not isinstance(value, str):
            self._wrong(at, "a string or a whole number", value)
        if not isinstance(value, str):
            return None
        return self._cleaned(at, value, LONGEST_TASK) or None

    def _cleaned(self, at: str, value: str, longest: int) -> str:
        clean = visible(value, longest)
        if clean != value:
            what = f"is cut to {longest} characters" if len(value) > longest else "has characters that are taken out"
            self.odd.append(f"{at} {what}: {visible(clean, 40)}")
        return clean

    def _diversity_warnings(self, value: object) -> None:
        # Nothing is decided by them, so an odd one costs the selector its word and not its ranking.
        if value is None:
            return
        if not isinstance(value, list):
            self.odd.append(f"diversity_warnings is {_kind(value)} and no list; it is ignored")
            return
        for number, item in enumerate(value):
            if isinstance(item, str):
                self.odd.append(visible(item, LONGEST_TEXT))
            else:
                self.odd.append(f"diversity_warnings[{number}] is {_kind(item)} and no string; it is ignored")

    def _wrong(self, at: str, wanted: str, value: object) -> None:
        self.wrong.append((at, f"{wanted} is wanted, not {_kind(value)}"))

    def _warnings(self) -> tuple[str, ...]:
        if len(self.odd) <= MOST_WARNINGS:
            return tuple(self.odd)
        return (*self.odd[:MOST_WARNINGS], f"and {len(self.odd) - MOST_WARNINGS} more warnings")


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
