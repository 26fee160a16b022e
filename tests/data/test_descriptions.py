"""Descriptions of classes: what is read, and what is refused by name."""

import pytest

from enn_finetune.data.descriptions import describe
from enn_finetune.data.faults import DataError


def test_sentences_stand_in_the_order_of_the_classes_and_may_have_colons():
    entries = ["pos: good: very", "neg:bad", " pos : fine "]
    assert describe(entries, ("neg", "pos")) == (("bad",), ("good: very", "fine"))
    assert describe([], ("neg", "pos")) == ()
    classes = ("card", "card:lost", "x")
    entries = ["card : paid by it", "card:lost: gone", "x: other"]
    assert describe(entries, classes) == (("paid by it",), ("gone",), ("other",))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["neg bad"], "'neg bad' does not describe a class; write CLASS: "),
        (["neg:"], "does not describe a class"),
        ([": bad"], "does not describe a class"),
        (["neg: bad", "psi: good"], "'psi' is described, which is no class; the nearest is 'pos'"),
        (["neg: bad"], "no description of 'pos'; described are 'neg': describe every class"),
    ],
)
def test_what_cannot_be_used_is_refused(entries, words):
    with pytest.raises(DataError, match=words):
        describe(entries, ("neg", "pos"))
