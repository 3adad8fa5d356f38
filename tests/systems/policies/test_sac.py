"""What makes SAC what it is: entropy in the targets and in the policy's loss, and a temperature that holds it."""

import torch
from torch import Tensor

from ornstein.noise import draw, generator
from ornstein.systems.policies.sac import PRESETS, SAC, Config
from ornstein.types import Adam, Average, Descend, Spaces, Transitions

SPACES = Spaces(obs=3, act=2)
ROWS = 8


def agent(spaces: Spaces = SPACES, *, temperature: float = 0.5, entropy: float = 1.0) -> SAC:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SAC(Config(width=16, temperature=temperature, entropy=entropy), spaces)


def batch() -> Transitions:
    """Every second transition ends; discounts differ."""
    g = generator("batch")
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    ends, discount = (torch.arange(ROWS) % 2).float(), torch.linspace(0.5, 0.99, ROWS)
    return Transitions(normal(ROWS, 3), normal(ROWS, 2).clamp(-1, 1), normal(ROWS), normal(ROWS, 3), ends, discount)


def noise() -> dict[str, Tensor]:
    return dict(draw(agent().explore_noise, ROWS, generator("noise")))


def drawn(a: SAC, obs: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """An action and its log-density, by torch's own law of tanh of a Gaussian."""
    mean, log_std = a.actor.body(obs).chunk(2, -1)
    gaussian = torch.distributions.Normal(mean, log_std.clamp(-5, 2).exp())
    law = torch.distributions.TransformedDistribution(gaussian, torch.distributions.TanhTransform(cache_size=1))
    action = (mean + gaussian.stddev * normal).tanh()
    return action, law.log_prob(action).sum(-1)


def test_the_target_is_the_smaller_value_and_the_entropy_unless_the_episode_ends():
    a, b, n = agent(), batch(), noise()
    with torch.no_grad():
        for p in a.critics_target.parameters():
            p.mul_(-2.0)  # apart from the critics that learn
        action, log_prob = drawn(a, b.next_obs, n["action"])
        first, second = a.critics_target(b.next_obs, action)
        assert bool((first < second).any() and (second < first).any())  # so that the smaller one is neither
        soft = torch.minimum(first, second) - 0.5 * log_prob
        target = b.reward + (1 - b.terminal) * b.discount * soft
        by_hand = sum(((q - target) ** 2).mean() for q in a.critics(b.obs, b.action))
        torch.testing.assert_close(a.critic_loss(b, n)[0], by_hand)


def test_the_policy_climbs_the_smaller_value_and_its_own_entropy():
    a, b, n = agent(), batch(), noise()
    with torch.no_grad():
        action, log_prob = drawn(a, b.obs, n["action"])
        first, second = a.critics(b.obs, action)
        assert bool((first < second).any() and (second < first).any())  # so that the smaller one is neither
        loss, metrics = a.actor_loss(b, n)
        torch.testing.assert_close(loss, (0.5 * log_prob - torch.minimum(first, second)).mean())
        torch.testing.assert_close(metrics["entropy"], -log_prob.mean())


def test_a_step_of_the_policy_raises_its_value_where_entropy_weighs_nothing():
    a, b, n = agent(temperature=1e-8), batch(), noise()
    before = float(a.critics(b.obs, a.actor.sample(b.obs, n["action"])[0]).amin(0).mean().detach())
    descent = torch.optim.SGD(a.actor.parameters(), lr=0.1)
    a.actor_loss(b, n)[0].backward()
    descent.step()
    assert float(a.critics(b.obs, a.actor.sample(b.obs, n["action"])[0]).amin(0).mean().detach()) > before


def test_the_temperature_rises_while_the_entropy_is_too_low_and_falls_while_it_is_too_high():
    b, n = batch(), noise()
    entropy = float(-drawn(agent(), b.obs, n["action"])[1].mean().detach())
    for above, rises in ((0.3, True), (-0.3, False)):
        a = agent(entropy=-(entropy + above) / SPACES.act)  # held to this much above what the policy has
        loss = a.temperature_loss(b, n)[0]
        torch.testing.assert_close(loss, torch.tensor(0.5).log() * -above, atol=1e-5, rtol=0)
        loss.backward()
        assert bool(a.temperature.log.grad < 0) == rises  # pyright: ignore[reportOptionalOperand]
        assert all(p.grad is None for p in a.actor.parameters())


def test_the_entropy_is_held_to_minus_the_number_of_actions():
    a, b, n = agent(), batch(), noise()
    excess = drawn(a, b.obs, n["action"])[1].mean() - 2
    torch.testing.assert_close(a.temperature_loss(b, n)[0], -torch.tensor(0.5).log() * excess)


def test_neither_the_values_nor_the_temperature_move_the_policy():
    a, b, n = agent(), batch(), noise()
    (a.critic_loss(b, n)[0] + a.temperature_loss(b, n)[0]).backward()
    moved = {name.split(".")[0] for name, p in a.named_parameters() if p.grad is not None}
    assert moved == {"critics", "temperature"}
    a.zero_grad()
    a.actor_loss(b, n)[0].backward()
    assert a.temperature.log.grad is None and all(p.grad is not None for p in a.actor.parameters())


def test_all_rates_are_alike_and_the_targets_follow_at_every_update():
    *learned, average = agent().phases()
    assert [p.adam for p in learned if isinstance(p, Descend)] == [Adam(3e-4)] * 3
    assert isinstance(average, Average) and (average.rate, average.every) == (0.005, 1)
    assert PRESETS["locomotion"] == Config()


def test_acting_takes_the_mean_and_exploring_draws_in_the_environments_units():
    a = agent(Spaces(obs=3, act=2, action_low=(-4.0, 0.0), action_high=(4.0, 2.0)))
    obs, n = batch().obs, noise()
    scale, shift = torch.tensor([4.0, 1.0]), torch.tensor([0.0, 1.0])
    with torch.no_grad():
        mean = a.actor.body(obs).chunk(2, -1)[0].tanh()
        torch.testing.assert_close(a.act(obs, (), {})[0], scale * mean + shift)
        torch.testing.assert_close(a.explore(obs, (), n)[0], scale * drawn(a, obs, n["action"])[0] + shift)
