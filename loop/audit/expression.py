"""The language of `when`, `step` and filters: parsed by `ast`, compiled to closures, never handed to `eval`.

Names are the status object's: `live capacity violations noop_rate mode intent_lost`, and `locks["code"].session`,
`category["code"].ratio`, `backend["opus"].state` with the fields that `loop.audit.terms` lists. They stand in
comparisons (`< <= > >= == !=`, chained ones too), `in` and `not in` a list or tuple of literals, `and`, `or`, `not`;
literals are numbers, texts in quotes, True, False and None. Nothing else is in the language.

What is missing (no data, an unknown key) is None, and None makes every comparison false, `!=` and `not in` among them;
only `== None`, `!= None`, `is None`, `is not None` and an `in` that lists None ask for it. Alone, a name counts as true
unless it is missing, 0, False or empty; so `not category["code"].ratio > 2` holds where there is no ratio. Everything
else means what it means in Python. A comparison that could never hold (text with number, a mode that does not exist) is
an error, not a silent false; a text compared with a time is read as an ISO time, in UTC unless it names a zone.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from events.envelope import to_micros, to_text
from events.errors import UsageError
from loop.audit.terms import INDEXED, SCALARS, Kind, Term, source_of

LONGEST = 1_000  # characters
DEEPEST = 50  # levels of nesting

Values = Mapping[Term, Any]
Reading = Callable[[Values], Any]
Compare = Callable[[Any, Any], bool]

_ORDER: dict[type[ast.cmpop], Compare] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_SAME: dict[type[ast.cmpop], Compare] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}
_ABSENT: dict[type[ast.cmpop], bool] = {ast.Eq: True, ast.Is: True, ast.NotEq: False, ast.IsNot: False}
_REFUSED = {
    "Call": "calls are", "BinOp": "arithmetic is", "NamedExpr": "assignments are", "Lambda": "lambdas are",
    "JoinedStr": "f-strings are", "IfExp": "if … else is", "Dict": "dictionaries are", "Set": "sets are",
    "Attribute": "this attribute is", "Subscript": "this index is", "UnaryOp": "this sign is", "Slice": "slices are",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Expression:
    """A predicate over the view. `terms` are all the names it asks for; `holds` wants a value, or None, for each."""

    text: str
    terms: frozenset[Term]
    holds: Callable[[Values], bool]


@dataclass(frozen=True, slots=True)
class _Operand:
    """One side of a comparison: how to read it, what kind it is; `literal` where it is no name."""

    read: Reading
    kind: Kind
    text: str
    literal: bool
    value: Any = None
    words: tuple[str, ...] | None = None  # all that it can be, where that is known


def parse(text: str) -> Expression:
    """The predicate that `text` states. Raises UsageError, which names the offending piece and what may stand there."""
    if len(text) > LONGEST:
        raise UsageError(f"the expression has {len(text)} characters, the most is {LONGEST}", "ask for less at once")
    compiler = _Compiler(text.strip())
    predicate = compiler.predicate(compiler.tree(), 0)
    return Expression(compiler.text, frozenset(compiler.terms), lambda values: bool(predicate(values)))


class _Compiler:
    def __init__(self, text: str) -> None:
        self.text = text
        self.terms: set[Term] = set()

    def tree(self) -> ast.expr:
        """The text as a syntax tree; Python's own complaints become ours."""
        if not self.text:
            raise UsageError("the expression is empty", EXAMPLE)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an odd escape in a text is nobody's business here
                return ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            where = "" if not error.offset else f", near {self.text[max(0, error.offset - 1) :][:20]!r}"
            raise UsageError(f"{_short(self.text)} is no expression: {error.msg}{where}", EXAMPLE) from None
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            raise UsageError(f"{_short(self.text)} is no expression: {type(error).__name__}", EXAMPLE) from None

    def predicate(self, node: ast.expr, depth: int) -> Reading:
        """Anything that is true or false: a comparison, and/or/not, or a value alone."""
        if depth >= DEEPEST:
            raise UsageError(f"the expression is nested more than {DEEPEST} levels deep", "write it flatter")
        if isinstance(node, ast.BoolOp):
            parts = tuple(self.predicate(part, depth + 1) for part in node.values)
            if isinstance(node.op, ast.And):
                return lambda values: all(part(values) for part in parts)
            return lambda values: any(part(values) for part in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.predicate(node.operand, depth + 1)
            return lambda values: not inner(values)
        if isinstance(node, ast.Compare):
            return self.comparison(node)
        return self.operand(node).read

    def comparison(self, node: ast.Compare) -> Reading:
        """`a < b <= c` as its pairs, each of which must hold."""
        pairs: list[Reading] = []
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            pairs.append(self.pair(left, op, right))
            left = right
        if len(pairs) == 1:
            return pairs[0]
        return lambda values: all(pair(values) for pair in pairs)

    def pair(self, first: ast.expr, op: ast.cmpop, second: ast.expr) -> Reading:
        if isinstance(op, ast.In | ast.NotIn):
            return self.membership(first, op, second)
        left, right = self.operand(first), self.operand(second)
        for one, other in ((left, right), (right, left)):
            if one.kind == "none":
                if type(op) not in _ABSENT:
                    raise UsageError(f"None has no order, in {self.piece(first, second)}", "ask == None or != None")
                wanted, read = _ABSENT[type(op)], other.read
                return lambda values: (read(values) is None) is wanted
        if isinstance(op, ast.Is | ast.IsNot):
            raise UsageError(f"`is` asks for None only, in {self.piece(first, second)}", "compare with == or !=")
        left, right = self.matched(left, right), self.matched(right, left)
        compare = _ORDER.get(type(op)) or _SAME[type(op)]
        get_left, get_right = left.read, right.read

        def holds(values: Values) -> bool:
            a, b = get_left(values), get_right(values)
            return a is not None and b is not None and compare(a, b)

        return holds

    def membership(self, first: ast.expr, op: ast.cmpop, second: ast.expr) -> Reading:
        if not isinstance(second, ast.List | ast.Tuple):
            raise UsageError(
                f"{self.piece(second)} cannot be searched: `in` takes a list of literals", 'like mode in ("paused",)'
            )
        left = self.operand(first)
        listed = [self.operand(item) for item in second.elts]
        for item in listed:
            if not item.literal:
                raise UsageError(f"{item.text} is no literal; `in` takes a list of literals", "join with `or`")
        among = [self.matched(item, left).value for item in listed if item.kind != "none"]
        absent = any(item.kind == "none" for item in listed)
        read = left.read
        if isinstance(op, ast.In):
            return lambda values: absent if (value := read(values)) is None else value in among
        return lambda values: (value := read(values)) is not None and value not in among

    def matched(self, one: _Operand, other: _Operand) -> _Operand:
        """`one`, fit to be compared with `other`; raises UsageError where they never could be equal or ordered."""
        kinds = {one.kind, other.kind}
        if "none" in kinds:
            return one
        if kinds == {"text", "time"} and one.literal:
            return _literal(_time(one.value), one.text)
        if len(kinds) > 1 and kinds != {"text", "time"}:
            what = f"{one.text} is a {one.kind}, {other.text} a {other.kind}"
            raise UsageError(f"{what}: they cannot be compared", "numbers stand bare, texts in quotes")
        if one.literal and other.words and one.value not in other.words:
            near = _nearest(str(one.value), other.words)
            raise UsageError(f"{other.text} is never {one.text}{near}", f"it is one of {', '.join(other.words)}")
        return one

    def operand(self, node: ast.expr) -> _Operand:
        """A name or a literal."""
        if isinstance(node, ast.Constant):
            return self.constant(node, node.value)
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return self.constant(node, -value)
            case ast.UnaryOp(op=ast.UAdd(), operand=ast.Constant(value=int() | float() as value)):
                return self.constant(node, +value)
        if isinstance(node, ast.Compare | ast.BoolOp) or isinstance(getattr(node, "op", None), ast.Not):
            raise UsageError(f"{self.piece(node)} cannot be compared: it is a predicate", "join predicates by and, or")
        if isinstance(node, ast.List | ast.Tuple):
            raise UsageError(f"{self.piece(node)} can only stand behind `in`", EXAMPLE)
        term = self.term(node)
        self.terms.add(term)
        source = source_of(term)
        return _Operand(lambda values: values[term], source.kind, str(term), literal=False, words=source.words)

    def constant(self, node: ast.expr, value: object) -> _Operand:
        if value is None or isinstance(value, bool | int | float | str):
            return _literal(value, self.piece(node))
        raise UsageError(f"{self.piece(node)} is no literal of the language", "numbers, texts, True, False, None")

    def term(self, node: ast.expr) -> Term:
        """`live`, or `locks["code"].session`. Raises UsageError with the nearest name."""
        if isinstance(node, ast.Name):
            if node.id in SCALARS:
                return Term(node.id)
            if node.id in INDEXED:
                raise UsageError(f"{node.id} needs a key and a field", f"like {_example(node.id)}")
            near = _nearest(node.id, (*SCALARS, *INDEXED))
            raise UsageError(f"unknown name {_short(node.id)}{near}", f"names: {', '.join((*SCALARS, *INDEXED))}")
        match node:
            case ast.Attribute(value=ast.Subscript(value=ast.Name(id=root), slice=ast.Constant(value=str(key)))):
                if root not in INDEXED:
                    near = _nearest(root, tuple(INDEXED))
                    raise UsageError(f"{_short(root)} takes no key{near}", f"these do: {', '.join(INDEXED)}")
                if node.attr not in INDEXED[root]:
                    fields = tuple(INDEXED[root])
                    near = _nearest(node.attr, fields)
                    raise UsageError(f"{root} has no field {_short(node.attr)}{near}", f"fields: {', '.join(fields)}")
                return Term(root, key, node.attr)
            case ast.Subscript(value=ast.Name(id=root)) if root in INDEXED:
                raise UsageError(f"{self.piece(node)} needs a field", f"like {_example(root)}")
            case ast.Attribute(value=ast.Name(id=root)) if root in INDEXED:
                raise UsageError(f"{self.piece(node)} needs a key", f"like {_example(root)}")
        why = _REFUSED.get(type(node).__name__, "this is")
        raise UsageError(f"{self.piece(node)}: {why} not in the language", EXAMPLE)

    def piece(self, *nodes: ast.expr) -> str:
        """The source of one node, or from the first to the last, short enough for a message."""
        first, last = nodes[0], nodes[-1]
        lines = self.text.encode().splitlines(keepends=True)  # offsets count bytes
        begin = sum(map(len, lines[: first.lineno - 1])) + first.col_offset
        end = sum(map(len, lines[: (last.end_lineno or 1) - 1])) + (last.end_col_offset or 0)
        return _short(self.text.encode()[begin:end].decode(errors="replace"))


EXAMPLE = """like: live > 3 and mode == "running"; locks["code"].session != None; category["code"].ratio > 1.5"""


def _literal(value: Any, text: str) -> _Operand:
    kind: Kind = "none" if value is None else "text" if isinstance(value, str) else "number"
    return _Operand(lambda values: value, kind, text, literal=True, value=value)


def _time(text: str) -> str:
    """An ISO time as the log writes it, in UTC unless it names a zone."""
    try:
        if not re.match(r"\d{4}-", text):
            raise ValueError
        moment = datetime.fromisoformat(text)
        return to_text(to_micros((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()))
    except (ValueError, OverflowError):
        raise UsageError(f"{_short(text)} is no time", "write it like 2026-11-23T14:03:00Z") from None


def _example(root: str) -> str:
    return f'{root}["{"opus" if root == "backend" else "code"}"].{next(iter(INDEXED[root]))}'


def _nearest(word: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
