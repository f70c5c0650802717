"""The smallest changes of fact that would have started a category, found by deciding again on changed views.

Nothing is guessed: a change is reported only if the decider chooses the category on the view that has it. Only where no
single change suffices are pairs sought, neither half of which would do alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from loop.audit.changes import Change, Ladder
from loop.audit.remedies import suggested
from loop.decider import decide
from projections.view import View

PAIRS = 12  # pairs reported: whoever needs two changes seldom wants a catalogue
TRIES = 3_000  # decisions made in search of pairs

Flip = tuple[Change, ...]
"""One change, or two that only work together."""


def flips(view: View, name: str) -> list[Flip]:
    """Every single change that starts the category `name`, or else pairs; none where the view already starts it."""
    if starts(view, name):
        return []
    search = _Search(view, name)
    search.singles(suggested(view, decide(view), name))
    if not search.found:
        search.pairs()
    least = min(map(len, search.found), default=0)
    return [flip for flip in search.found if len(flip) == least]


def starts(view: View, name: str) -> bool:
    """Whether the decider chooses the category."""
    return any(choice.category == name for choice in decide(view).chosen)


@dataclass(slots=True)
class _Search:
    view: View
    name: str
    found: list[Flip] = field(default_factory=list)
    results: list[View] = field(default_factory=list)  # what they lead to: two ways to one view are one flip
    tries: int = 0

    def starts(self, view: View) -> bool:
        self.tries += 1
        return starts(view, self.name)

    def first(self, ladder: Ladder, view: View) -> Change | None:
        """The smallest rung that starts the category on `view`."""
        return next((change for change in ladder if self.starts(change.apply(view))), None)

    def add(self, view: View, *changes: Change) -> None:
        if view not in self.results:
            self.results.append(view)
            self.found.append(changes)

    def singles(self, ladders: list[Ladder]) -> None:
        for ladder in ladders:
            if (change := self.first(ladder, self.view)) is not None:
                self.add(change.apply(self.view), change)

    def pairs(self) -> None:
        """A first change, then whatever the verdict after it suggests: a gate that opens may show another shut."""
        for ladder in suggested(self.view, decide(self.view), self.name):
            for change in ladder[:1] + ladder[1:][-1:]:  # the smallest step and the largest; `pair` comes back down
                between = change.apply(self.view)
                for following in suggested(between, decide(between), self.name):
                    if len(self.found) >= PAIRS or self.tries >= TRIES:
                        return
                    if following[0].fact != change.fact and (second := self.first(following, between)) is not None:
                        self.pair(ladder, second)

    def pair(self, ladder: Ladder, second: Change) -> None:
        """Enter `second` with the smallest rung it works with; alone, where it needs none."""
        if self.starts(second.apply(self.view)):
            self.add(second.apply(self.view), second)
            return
        for first in ladder:
            both = second.apply(first.apply(self.view))
            if self.starts(both):
                self.add(both, first, second)
                return
