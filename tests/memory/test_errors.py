"""What was probably meant, as a part of a sentence."""

from __future__ import annotations

from self_pruner.memory.errors import meant

KNOWN = ("resume", "report", "export")


def test_the_words_that_are_most_like_a_wrong_one_are_named():
    assert meant("reprot", KNOWN) == "did you mean 'report'?"
    assert meant("reprot", KNOWN, 2) == "did you mean 'report' or 'export'?"
    assert meant("reprot", KNOWN, before="; ", after=",", said=str) == "; did you mean report,"


def test_nothing_is_said_where_none_is_like_it():
    assert meant("xyzzy", KNOWN, before=": ") == "" == meant("reprot", ())
    assert meant("resource", KNOWN, likeness=0.9) == ""
