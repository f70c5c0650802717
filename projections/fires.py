"""Which nominal instants had their fire, so that none has two, also where the clock is stepped back.

Instants are stored times, which sort as time does. Used ones are kept as spans `[first, last]`: a run of instants that
were used one after another, none of them missed. In a clock that only goes forward the newest instant says it all: what
was missed before it is coalesced into it. In one that was stepped back the spans tell what had its fire from what had
not, or a clock that had been years ahead would leave the loop silent for years.
"""

from __future__ import annotations

SPANS_KEPT = 32  # the oldest go first: each stands for a gap in the fires, as of a machine that was off

Span = list[str]


def note(spans: list[Span], nominal: str, missed: int) -> None:
    """Add a used instant; it continues the span before it, unless fires between the two were missed."""
    if had(spans, nominal):
        return
    earlier = [span for span in spans if span[1] < nominal]
    if earlier and not missed:
        earlier[-1][1] = nominal
        return
    spans.insert(len(earlier), [nominal, nominal])
    del spans[:-SPANS_KEPT]


def had(spans: list[Span], nominal: str) -> bool:
    """Whether this instant had a fire of its own."""
    return any(first <= nominal <= last for first, last in spans)


def before(spans: list[Span], nominal: str) -> str | None:
    """The newest instant before this one that had its fire; None where none is known."""
    return max((last for _, last in spans if last < nominal), default=None)
