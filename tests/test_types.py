"""The values of the core types, and what they refuse."""

import pytest

from ornstein.source import Source
from ornstein.types import Adam, Average, Batches, Descend, Learner, Policy, Spaces
from toys import Table, Two


def test_spaces_fill_the_usual_box():
    spaces = Spaces(obs=3, act=2)
    assert spaces.action_low == (-1.0, -1.0)
    assert spaces.action_high == (1.0, 1.0)
    assert spaces == Spaces(3, 2, 0, (-1.0, -1.0), (1.0, 1.0))


def test_spaces_refuse_bounds_of_another_size():
    with pytest.raises(ValueError, match="action bounds of size 1 and 2 for 2 actions"):
        Spaces(obs=3, act=2, action_low=(-1.0,))
    with pytest.raises(ValueError, match="action bounds of size 2 and 3 for 2 actions"):
        Spaces(obs=3, act=2, action_high=(1.0, 1.0, 1.0))


def test_protocols_tell_apart_what_they_are_for():
    assert isinstance(Table(), Batches)
    assert isinstance(Two(), Learner)
    assert not isinstance(Two(), Policy)
    assert not isinstance(Two(), Batches)


def test_settings_that_train_nothing_are_refused():
    with pytest.raises(ValueError, match=r"Adam\(lr=-0.1.*must be at least 0"):
        Adam(-0.1)
    for wrong in ({"clip": -1.0}, {"warmup": -1}, {"accumulate": 0}, {"weight_decay": -1e-3}):
        with pytest.raises(ValueError, match="accumulate at least 1"):
            Adam(0.1, **wrong)
    learner = Two()
    with pytest.raises(ValueError, match="phase 'x': every = 0 must be at least 1"):
        Descend("x", learner.first, learner.first_loss, Adam(0.1), {}, every=0)
    for wrong in ({"every": 0}, {"after": -1}):
        with pytest.raises(ValueError, match=r"every = .* must be at least 1 and after = "):
            Average(learner.average, learner.first, 0.1, **wrong)


def test_a_source_as_bibtex():
    source = Source("On Rowing", "Ada Lovelace", 1843, "Notes", arxiv="1234.5678", repository="https://x.org/y")
    assert source.bibtex("rowing") == (
        "@inproceedings{rowing,\n"
        "  title = {{On Rowing}},\n"
        "  author = {Ada Lovelace},\n"
        "  year = {1843},\n"
        "  booktitle = {Notes},\n"
        "  eprint = {1234.5678},\n"
        "  archiveprefix = {arXiv},\n"
        "  howpublished = {\\url{https://x.org/y}}\n}"
    )
    assert "eprint" not in Source("a", "b", 1, "c").bibtex("k")
