"""What makes IDQL what it is: imitation and in-sample values apart, joined by the choice among candidates."""

from dataclasses import replace

import pytest
import torch

from nets.reference import normal
from ornstein.diffusion.process import point
from ornstein.nets.mlp import dropped
from ornstein.noise import draw, generator
from ornstein.systems.policies.idql import IDQL, Config
from ornstein.types import Descend, Noise, Spaces, Transitions

SMALL = Config(width=16, blocks=2, candidates=7, batch_size=8)


def agent(config: Config = SMALL) -> IDQL:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return IDQL(config, Spaces(obs=3, act=2)).train()


def batch(rows: int = 8) -> Transitions:
    action, discount = normal(rows, 2, seed=2).clamp(-1, 1), torch.full((rows,), 0.99)
    return Transitions(normal(rows, 3), action, normal(rows), normal(rows, 3, seed=3), torch.zeros(rows), discount)


def losses(a: IDQL) -> dict[str, torch.Tensor]:
    found = {}
    for phase in a.phases():
        if isinstance(phase, Descend):
            found[phase.name] = phase.loss(batch(), draw(phase.noise, 8, generator(phase.name)))[0]
    return found


def act_noise(a: IDQL, rows: int = 5) -> Noise:
    return draw(a.noise, rows, generator("act"))


def test_the_actor_imitates_and_no_reward_reaches_it():
    a, b = agent(), batch()
    noise = draw({"t": a.actor.draws["t"], "eps": a.actor.draws["eps"]}, 8, generator("n"))
    ones = noise | {"drop": torch.ones(8, 2, 16) * 0.05}
    loss = a.actor_loss(b, ones)[0]
    assert torch.equal(loss, a.actor_loss(b._replace(reward=b.reward + 7, terminal=torch.ones(8)), ones)[0])
    loss.backward()
    assert all(p.grad is None for net in (a.critics, a.critics_target, a.values) for p in net.parameters())
    with torch.no_grad():
        level = point(a.actor.process, (torch.floor(noise["t"] * 5) + 1) / 5, b.action)
        expected = a.actor.denoiser.regression(b.action, level, noise["eps"], b.obs).sum(1).mean()
        torch.testing.assert_close(a.eval().actor_loss(b, noise)[0], expected)  # no dropout after training


def test_dropout_falls_as_the_noise_says():
    a, b = agent(), batch()
    noise = draw({"t": a.actor.draws["t"], "eps": a.actor.draws["eps"]}, 8, generator("n"))
    uniform = torch.rand(8, 2, 16, generator=generator("drop"))
    level = point(a.actor.process, (torch.floor(noise["t"] * 5) + 1) / 5, b.action)
    expected = a.actor.denoiser.regression(b.action, level, noise["eps"], dropped(b.obs, uniform, 0.1)).sum(1).mean()
    torch.testing.assert_close(a.actor_loss(b, noise | {"drop": uniform})[0], expected)


def test_no_sampled_action_is_valued_in_training():
    a, b = agent(), batch()
    asked: list[torch.Tensor] = []
    for critics in (a.critics, a.critics_target):
        critics.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[1]))
    losses(a)
    assert len(asked) == 2
    assert all(torch.equal(action, b.action) for action in asked)


def test_values_and_critics_have_the_losses_of_iql():
    a, b = agent(), batch()
    found = losses(a)
    with torch.no_grad():
        u = a.critics_target(b.obs, b.action).min(0).values - a.values(b.obs)[0]
        torch.testing.assert_close(found["value"].detach(), (torch.where(u < 0, 0.3, 0.7) * u**2).mean())
        target = b.reward + 0.99 * a.values(b.next_obs)[0]
        expected = ((a.critics(b.obs, b.action) - target) ** 2).mean(1).sum()
        torch.testing.assert_close(found["critic"].detach(), expected)


def test_the_order_is_actor_value_critic_and_fine_tuning_leaves_the_actor_out():
    names = [
        [p.name for p in agent(c).phases() if isinstance(p, Descend)]
        for c in (SMALL, replace(SMALL, train_actor=False))
    ]
    assert names == [["actor", "value", "critic"], ["value", "critic"]]


def test_acting_takes_the_best_candidate_of_the_averaged_actor_by_the_target_critics():
    a, obs = agent(), normal(5, 3)
    noise = act_noise(a)
    with torch.no_grad():
        action = a.actor_ema.candidates(obs, noise)
        q = torch.stack([a.critics_target(obs, action[:, k]).min(0).values for k in range(7)], 1)
        expected = action[torch.arange(5), q.argmax(1)]
        torch.testing.assert_close(a.act(obs, (), noise)[0], expected)
        for unused in (a.actor, a.critics, a.values):
            for p in unused.parameters():
                p.add_(1.0)
        torch.testing.assert_close(a.act(obs, (), noise)[0], expected)


def test_the_chain_has_the_forward_variance_and_clips_x_itself_but_not_the_start():
    """A network that says 0 leaves x_t / alpha as the mean: every step can be written down."""
    a = agent(replace(SMALL, diffusion_steps=3))
    network, seen = a.actor.denoiser.network, []
    network.forward = lambda x, t, cond=None: (seen.append(x), torch.zeros_like(x))[1]  # type: ignore[method-assign]
    noise = {"start": torch.tensor([[2.0, -0.3]]), "steps": torch.tensor([[[0.1, -0.1], [3.0, 0.2]]])}
    with torch.no_grad():
        last = a.actor(torch.zeros(1, 3), noise)
    abar = a.actor.process.rates(torch.tensor([0.0, 1 / 3, 2 / 3, 1.0], dtype=torch.float64)).alpha ** 2
    x = noise["start"].double()
    for i, k in enumerate((3, 2, 1)):
        torch.testing.assert_close(seen[i].double(), x)
        alpha = abar[k] / abar[k - 1]
        kick = (1 - alpha).sqrt() * noise["steps"][0, i] if k > 1 else 0.0
        x = (x / alpha.sqrt() + kick).clamp(-1, 1)
    torch.testing.assert_close(last.double(), x)


def test_the_implied_policy_draws_by_its_weights():
    """With candidates and values pinned, those above V are taken nine times as often at the expectile 0.9."""
    a = agent(replace(SMALL, choice="implicit", level=0.9, candidates=4))
    rows, at = 6000, torch.tensor([-0.6, -0.2, 0.2, 0.6])
    pinned = at[:, None].expand(rows, 4, 2)
    a.actor_ema.candidates = lambda obs, noise: pinned  # type: ignore[method-assign]
    a.critics_target.forward = lambda obs, action: action[..., 0].expand(2, rows, 4)  # type: ignore[method-assign]
    a.values.forward = lambda obs: torch.full((1, rows), 0.4)  # type: ignore[method-assign]
    with torch.no_grad():
        action, _ = a.act(torch.zeros(rows, 3), (), act_noise(a, rows))
    shares = torch.stack([(action[:, 0] == x).double().mean() for x in at])
    torch.testing.assert_close(shares, torch.tensor([1, 1, 1, 9]).double() / 12, atol=0.02, rtol=0)


def test_the_actor_has_the_papers_size():
    a = IDQL(Config(), Spaces(obs=17, act=6))
    assert sum(p.numel() for p in a.actor.parameters()) == 1_643_558


@pytest.mark.slow
def test_on_four_corners_the_critics_alone_decide_and_imitation_keeps_every_corner():
    """The acceptance experiment; the control arm, a single sample, stays at a quarter."""
    from recipes.idql import main

    found = main()
    assert all(0.15 <= share <= 0.35 for share in found["single"][:4])
    assert found["best_of_32"][3] >= 0.95
    assert found["best_of_32_other_rewards"][0] >= 0.95
    assert found["actor_untouched"]
    assert found["value_0.7"] == pytest.approx(found["exact_value_0.7"], abs=0.1)
    implied, single = found["implicit_0.9_of_64"], found["single"]
    ratio = (implied[3] / single[3]) / (sum(implied[:3]) / sum(single[:3]))
    assert 7.5 <= ratio <= 10.5
