"""What makes D2SAC what it is: a gradient through every call and the start, noise in every act, a target without
entropy.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from ornstein.diffusion.process import DiscreteVP
from ornstein.fit import Run
from ornstein.noise import draw, generator
from ornstein.online import Online, train_online
from ornstein.systems.policies.d2sac import D2SAC, PRESETS, SYSTEM, Config
from ornstein.types import Spaces, Transitions

SMALL = Config(width=16, batch_size=8)
SPACES = Spaces(obs=3, act=4, action_low=(0.0,) * 4, action_high=(1.0,) * 4)


def agent(config: Config = SMALL, spaces: Spaces = SPACES) -> D2SAC:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return D2SAC(config, spaces)


def noise(policy: D2SAC, n: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    spec = dict(policy.explore_noise) | dict(policy.actor.draws)
    return dict(draw(spec, n, generator("noise", seed)))


def batch(n: int = 5) -> Transitions:
    source = generator("batch")
    obs, then = torch.randn(2, n, 3, generator=source)
    action, reward = torch.rand(n, 4, generator=source), torch.randn(n, generator=source)
    return Transitions(obs, action, reward, then, (torch.arange(n) % 2).float(), torch.full((n,), 0.9))


def test_the_published_sizes():
    policy = agent(Config(), Spaces(obs=42, act=20))
    assert sum(p.numel() for p in policy.actor.parameters()) == 92_228


def test_the_gradient_reaches_the_start_and_each_of_the_five_calls():
    policy, b, given = agent(), batch(), noise(agent())
    outputs: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    network = policy.actor.denoiser.network
    network.at = None  # type: ignore[attr-defined]  # so that every call is one of forward
    network.register_forward_hook(keep)  # type: ignore[union-attr]
    start = given["start"].requires_grad_(True)
    policy.actor_loss(b, given)[0].backward()
    assert len(outputs) == 5
    assert all(bool((output.grad != 0).any()) for output in outputs)  # type: ignore[union-attr]
    assert start.grad is not None and bool((start.grad != 0).any())
    assert all(p.grad is None for p in policy.critics.parameters())


def test_the_chain_by_hand():
    """Five ancestral steps from the predicted noise, the last one without fresh noise, nothing clipped."""
    policy, b, given = agent(), batch(), noise(agent())
    network, process = policy.actor.denoiser.network, DiscreteVP(5, "vp")
    alpha_bar = process.rates(torch.arange(6, dtype=torch.float64) / 5).alpha.square().float()
    x = given["start"]
    for k in range(5, 0, -1):
        now, then = alpha_bar[k], alpha_bar[k - 1]
        beta = 1 - now / then
        eps = network(x, torch.full((5,), k - 1.0), b.obs)
        x0 = (x - (1 - now).sqrt() * eps) / now.sqrt()
        x = (then.sqrt() * beta * x0 + (now / then).sqrt() * (1 - then) * x) / (1 - now)
        if k > 1:
            x = x + (beta * (1 - then) / (1 - now)).sqrt() * given["steps"][:, 5 - k]
    torch.testing.assert_close(policy.actor(b.obs, given), x, atol=1e-4, rtol=1e-4)
    assert x0.abs().max() > 1


def test_the_same_noise_gives_the_same_probabilities_and_fresh_noise_others():
    policy, obs = agent(), batch().obs
    one, two, other = (policy.actor(obs, noise(policy, seed=s)).softmax(-1) for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert bool(((one - other).abs() > 0.01).any())


def test_acting_is_the_argmax_and_exploring_a_draw():
    policy, given = agent(), noise(agent())
    scores = policy.actor(batch().obs, given)
    assert torch.equal(policy.act(batch().obs, (), given)[0].argmax(1), scores.argmax(1))
    many = {name: value[:1].expand(4000, *value.shape[1:]) for name, value in given.items()}
    many["choice"] = torch.rand(4000, 4, generator=generator("choice"))
    drawn, _ = policy.explore(batch().obs[:1].expand(4000, -1), (), many)
    torch.testing.assert_close(drawn.mean(0), scores[0].softmax(-1).detach(), atol=0.03, rtol=0)


def test_the_target_has_no_entropy_and_uses_both_averages():
    policy, b, given = agent(), batch(), noise(agent())
    for module in (policy.actor_target, policy.critics_target):
        for p in module.parameters():
            p.data.mul_(1.5)
    probs = policy.actor_target(b.next_obs, given).softmax(-1)
    target = b.reward + 0.9 * (1 - b.terminal) * (probs * policy.critics_target(b.next_obs).amin(0)).sum(-1)
    taken = policy.critics(b.obs)[:, torch.arange(5), b.action.argmax(1)]
    torch.testing.assert_close(policy.critic_loss(b, given)[0], (taken - target).square().mean(1).sum())


def test_imitation_is_mixed_in_by_its_share():
    plain, mixed = agent(), agent(replace(SMALL, imitation=0.25))
    b, given = batch(), noise(agent())
    imitate = mixed.imitation(b, given)
    torch.testing.assert_close(mixed.actor_loss(b, given)[0], 0.75 * plain.actor_loss(b, given)[0] + 0.25 * imitate)
    assert "eps" not in plain.phases()[1].noise and "eps" in mixed.phases()[1].noise  # type: ignore[union-attr]


def test_it_learns_online_from_returns_of_three_steps():
    config = replace(PRESETS["providers-small"], width=16, batch_size=8)
    run = Run(None, steps=3, quiet=True)
    learned: Any = train_online(SYSTEM, config, "EdgeProviders-v0?providers=5", run, online=Online(warmup=20))
    assert config.n_step == 3
    assert learned.actor(torch.zeros(1, 12), dict(draw(learned.noise, 1, generator("n")))).shape == (1, 5)


@pytest.mark.slow
def test_the_acceptance_experiment():
    from recipes.d2sac import main

    found = main()
    last, scripted = found["d2sac"][-1], found["scripted"]
    assert found["at 45"]["return"] >= 70 and found["at 45"]["crashes"] <= 8
    assert found["at 45"]["return"] > max(scripted[name]["return"] for name in ("random", "round robin"))
    assert min(point["crashes"] for point in found["d2sac"] if point["episode"] <= 25) < 15
    assert found["blind"]["return"] < scripted["round robin"]["return"] < last["return"]
