"""Features of time have the published frequencies, and a shared time gives what separate equal times give."""

import math

import pytest
import torch

from nets.reference import build, normal, sinusoid, time_features
from ornstein.nets.embed import LearnedFourier, RandomFourier, Sinusoid, checked, time_mlp


def test_sinusoid_by_hand():
    """Size 4 has the frequencies 1 and 1 / 10000, because the exponent is divided by half - 1 = 1."""
    out = Sinusoid(4)(torch.tensor([0.0, 3.0]))
    expected = [[0, 0, 1, 1], [math.sin(3), math.sin(3e-4), math.cos(3), math.cos(3e-4)]]
    torch.testing.assert_close(out, torch.tensor(expected))
    t = torch.tensor([0.0, 1.0, 7.0, 19.0])
    torch.testing.assert_close(Sinusoid(16)(t), sinusoid(t, 16))


def test_sinusoids_are_no_part_of_a_checkpoint():
    assert not Sinusoid(8).state_dict()


def test_random_fourier_by_hand():
    net = RandomFourier(4, generator=torch.Generator().manual_seed(3))
    net.frequency.copy_(torch.tensor([0.25, 1.0]))
    out = net(torch.tensor([0.5]))
    expected = [[0.5, math.sin(math.pi / 4), math.sin(math.pi), math.cos(math.pi / 4), math.cos(math.pi)]]
    torch.testing.assert_close(out, torch.tensor(expected), atol=1e-6, rtol=0)


def test_random_frequencies_come_from_the_generator_and_travel_with_the_weights():
    first, again, other = (RandomFourier(8, generator=torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(first.frequency, again.frequency)
    assert not torch.equal(first.frequency, other.frequency)
    assert list(first.state_dict()) == ["frequency"]
    assert not list(first.parameters())
    many = RandomFourier(20000, scale=2.0, generator=torch.Generator().manual_seed(0)).frequency
    assert many.std().item() == pytest.approx(2.0, rel=0.03)


def test_learned_fourier_by_hand():
    net = build(LearnedFourier, 4)
    net.frequency.data.copy_(torch.tensor([0.25, 1.0]))
    out = net(torch.tensor([0.5]))
    expected = [[math.cos(math.pi / 4), math.cos(math.pi), math.sin(math.pi / 4), math.sin(math.pi)]]
    torch.testing.assert_close(out, torch.tensor(expected), atol=1e-6, rtol=0)
    assert [name for name, _ in net.named_parameters()] == ["frequency"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert LearnedFourier(20000).frequency.std().item() == pytest.approx(0.2, rel=0.03)


@pytest.mark.parametrize("size", [0, 2, 5])
def test_sinusoids_refuse_sizes_without_two_frequencies(size):
    with pytest.raises(ValueError, match=f"size {size}: give an even size of at least 4"):
        Sinusoid(size)


@pytest.mark.parametrize("kind", [RandomFourier, LearnedFourier])
def test_fourier_features_refuse_odd_sizes(kind):
    for size in (0, 3):
        with pytest.raises(ValueError, match=f"size {size}: give an even size of at least 2"):
            kind(size)


def test_the_time_network_is_linear_activation_linear_on_sinusoids():
    net = build(time_mlp, 16, 32)
    t = torch.tensor([0.0, 2.0, 4.0])
    assert [tuple(p.shape) for p in net.parameters()] == [(32, 16), (32,), (16, 32), (16,)]
    torch.testing.assert_close(net(t), time_features(t, net))


def test_conditions_of_another_width_are_refused():
    cond = normal(5, 3)
    assert checked(cond, 3) is cond
    assert checked(None, 0) is None
    with pytest.raises(ValueError, match=r"width 3, but the network was built with cond=4: give \(b, 4\)"):
        checked(cond, 4)
    with pytest.raises(ValueError, match=r"no condition, but the network was built with cond=3"):
        checked(None, 3)
    with pytest.raises(ValueError, match=r"width 3, but the network was built with cond=0"):
        checked(cond, 0)
