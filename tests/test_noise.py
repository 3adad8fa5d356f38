"""Named generators and declared draws."""

import pytest
import torch

from ornstein.noise import Streams, draw, generator
from ornstein.types import Draw

SPEC = {"eps": Draw("normal", (2, 3)), "t": Draw("uniform"), "coin": Draw("uniform", per="update")}


def test_streams_depend_on_every_name_and_on_nothing_else():
    first = torch.rand(4, generator=generator(1, "train", "actor"))
    assert torch.equal(first, torch.rand(4, generator=generator(1, "train", "actor")))
    for other in [(2, "train", "actor"), (1, "value", "actor"), (1, "train", "critic"), (1, "trainactor", ""), (1,)]:
        assert not torch.equal(first, torch.rand(4, generator=generator(*other)))
    assert generator(1, "2").initial_seed() == generator("1", 2).initial_seed()
    assert generator("12").initial_seed() != generator("1", "2").initial_seed()


def test_seeds_of_generators_stay_the_same_from_version_to_version():
    """Results of a seed can only be had again if its streams never change."""
    assert generator(0, "train", "batch").initial_seed() == 1202780804253608053


def test_draws_have_their_law_and_shape_and_order():
    found = draw(SPEC, 5, generator("x"))
    assert {name: tuple(t.shape) for name, t in found.items()} == {"eps": (5, 2, 3), "t": (5,), "coin": ()}
    source = generator("x")
    assert torch.equal(found["eps"], torch.randn(5, 2, 3, generator=source))
    assert torch.equal(found["t"], torch.rand(5, generator=source))
    assert torch.equal(found["coin"], torch.rand((), generator=source))


def test_laws_are_the_standard_ones():
    found = draw({"n": Draw("normal"), "u": Draw("uniform")}, 20_000, generator("laws"))
    assert float(found["n"].mean()) == pytest.approx(0.0, abs=0.03)
    assert float(found["n"].std()) == pytest.approx(1.0, abs=0.03)
    assert float(found["u"].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(found["u"].min()) >= 0.0
    assert float(found["u"].max()) < 1.0


def test_streams_of_seeds_and_phases_are_apart():
    streams = Streams([0, 1], "train", ["a", "b"])
    noises = streams.noises({"a": SPEC, "b": SPEC}, 4)
    assert not torch.equal(noises[0]["a"]["eps"], noises[1]["a"]["eps"])
    assert not torch.equal(noises[0]["a"]["eps"], noises[0]["b"]["eps"])
    index = streams.indices(10, 64)
    assert not torch.equal(index[0], index[1])
    assert int(torch.cat(index).min()) == 0
    assert int(torch.cat(index).max()) == 9


def test_a_phase_that_rests_does_not_advance():
    one, other = Streams([0], "train", ["a", "b"]), Streams([0], "train", ["a", "b"])
    one.noises({"a": SPEC}, 4)
    one.indices(10, 4)
    assert torch.equal(one.noises({"b": SPEC}, 4)[0]["b"]["eps"], other.noises({"b": SPEC}, 4)[0]["b"]["eps"])


def test_streams_go_on_from_their_state():
    streams = Streams([0, 1], "train", ["a"])
    streams.noises({"a": SPEC}, 4)
    streams.indices(100, 3)
    states = [streams.state(0), streams.state(1)]
    expected = streams.noises({"a": SPEC}, 4), streams.indices(100, 3)
    again = Streams([0, 1], "train", ["a"])
    again.load_state(states)
    found = again.noises({"a": SPEC}, 4), again.indices(100, 3)
    for seed in range(2):
        assert torch.equal(found[0][seed]["a"]["eps"], expected[0][seed]["a"]["eps"])
        assert torch.equal(found[1][seed], expected[1][seed])
