"""Mixture policies against torch's own distributions."""

import pytest
import torch
from torch import distributions

from ornstein.noise import generator
from ornstein.rl.actor import Actor, MixtureActor


def actor(components: int = 3) -> MixtureActor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MixtureActor(4, 2, components=components, width=8)


def test_the_density_is_that_of_a_mixture():
    a, g = actor(), generator("mixture")
    obs, action = 3 * torch.randn(6, 4, generator=g), torch.rand(6, 2, generator=g)
    weight, mean, log_std = a(obs)
    inner = distributions.Independent(distributions.Normal(mean, log_std.exp()), 1)
    law = distributions.MixtureSameFamily(distributions.Categorical(logits=weight), inner)
    torch.testing.assert_close(a.log_prob(obs, action), law.log_prob(action))
    torch.testing.assert_close(weight.exp().sum(-1), torch.ones(6))
    assert mean.abs().max() <= 1


def test_samples_follow_the_law():
    a, g = actor(2), generator("samples")
    obs = torch.randn(1, 4, generator=g).expand(40_000, 4)
    with torch.no_grad():
        drawn = a.sample(obs, torch.rand(40_000, 2, generator=g), torch.randn(40_000, 2, generator=g))
        weight, mean, log_std = (x[0] for x in a(obs[:1]))
    w = weight.exp()[:, None]
    centre = (w * mean).sum(0)
    variance = (w * (log_std.exp() ** 2 + mean**2)).sum(0) - centre**2
    torch.testing.assert_close(drawn.mean(0), centre, atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.var(0), variance, atol=0.05, rtol=0.05)


def test_no_noise_gives_a_components_mean():
    a = actor()
    obs = torch.zeros(50, 4)
    with torch.no_grad():
        drawn = a.sample(obs, torch.rand(50, 3, generator=generator("u")), torch.zeros(50, 2))
        means = a(obs)[1]
    assert (drawn.unsqueeze(1) - means).abs().amax(-1).amin(-1).max() < 1e-6


def test_actors_without_squashing_are_linear_at_the_end():
    a = Actor(3, 2, width=8, squash=False)
    last = a.body[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias.fill_(7.0)
    assert a(torch.zeros(1, 3)).min() > 5
    with pytest.raises(ValueError, match="at least one"):
        MixtureActor(3, 2, components=0)
