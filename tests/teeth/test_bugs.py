"""`make teeth` plants each bug and takes minutes; that each can be planted is known in a moment."""

from __future__ import annotations

import ast

import pytest
from bugs import BUGS, Bug, NotPlanted


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_product_still_reads_as_the_bug_expects(bug: Bug) -> None:
    ast.parse(bug.planted()[1])


@pytest.mark.parametrize("where", ["loop.decider:gone", "loop.gone:decide"])
def test_a_bug_in_what_is_gone_says_where_to_mend(where: str) -> None:
    with pytest.raises(NotPlanted, match=rf"{where}.*mend .*bugs\.py"):
        Bug("stale", where, "a", "b").plant()


def test_a_bug_whose_words_have_changed_says_so() -> None:
    with pytest.raises(NotPlanted, match="has 'no such words' 0 times"):
        Bug("stale", "loop.passes:is_used", "no such words", "b").plant()
