"""What makes Diffusion-QL what it is: the gradient through the whole chain, the roles of its four networks, its
draw.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ornstein.diffusion.process import point
from ornstein.noise import draw, generator
from ornstein.systems.policies.diffusion_ql import PRESETS, Config, DiffusionQL
from ornstein.types import Descend, Spaces, Transitions

SPACES = Spaces(obs=3, act=2)
SMALL = Config(width=16, candidates=7, batch_size=8)


def agent(config: Config = SMALL, seed: int = 0) -> DiffusionQL:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiffusionQL(config, SPACES)


def batch(rows: int = 8) -> Transitions:
    g = generator("batch")
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    action = normal(rows, 2).clamp(-1, 1)
    return Transitions(
        normal(rows, 3), action, normal(rows), normal(rows, 3), torch.zeros(rows), torch.full((rows,), 0.99)
    )


def noise_of(a: DiffusionQL, name: str, rows: int = 8) -> dict[str, torch.Tensor]:
    (phase,) = [p for p in a.phases() if isinstance(p, Descend) and p.name == name]
    return dict(draw(phase.noise, rows, generator("noise", name)))


def calls_of(network: nn.Module) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []
    head: nn.Module = network.body[-1]  # pyright: ignore  # the chain meets the network in two parts
    head.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    return outputs


def test_the_q_gradient_reaches_the_first_executed_step_of_the_chain():
    a = agent(replace(SMALL, eta=1.0))
    outputs = calls_of(a.actor.denoiser.network)
    _, metrics = a.actor_loss(batch(256), noise_of(a, "actor", 256))  # at the first step most x0 are clamped, not all
    first_of_chain = outputs[1]  # outputs[0] is the regression
    (reached,) = torch.autograd.grad(metrics["improve"], first_of_chain)
    assert reached.abs().max() > 0


def test_an_actor_update_calls_the_network_once_per_step_and_once_for_cloning():
    a = agent()
    outputs = calls_of(a.actor.denoiser.network)
    a.actor_loss(batch(), noise_of(a, "actor"))
    assert len(outputs) == SMALL.diffusion_steps + 1


def test_the_improvement_is_one_critic_scaled_by_the_other_and_the_coin_swaps_them():
    a, b = agent(replace(SMALL, eta=2.0)), batch()
    noise = noise_of(a, "actor")
    with torch.no_grad():
        sampled = a.actor.sampler(a.actor.denoiser.given(b.obs), noise)
        q = a.critics(b.obs, sampled)
        level = point(a.actor.process, (torch.floor(noise["t"] * 5) + 1) / 5, b.action)
        cloning = a.actor.denoiser.regression(b.action, level, noise["eps"], b.obs).mean()
        for coin, (i, j) in ((0.2, (0, 1)), (0.8, (1, 0))):
            loss, _ = a.actor_loss(b, noise | {"coin": torch.tensor(coin)})
            torch.testing.assert_close(loss, cloning - 2.0 * q[i].mean() / q[j].abs().mean())


def test_the_target_takes_the_averaged_actor_and_the_smaller_target_critic():
    a, b = agent(), batch()
    noise = noise_of(a, "critic")
    with torch.no_grad():
        action = a.actor.sampler(a.actor_ema.denoiser.given(b.next_obs), {k: v[:, 0] for k, v in noise.items()})
        next_q = a.critics_target(b.next_obs, action)
        target = b.reward + 0.99 * next_q.min(0).values
        expected = sum(((a.critics(b.obs, b.action)[i] - target) ** 2).mean() for i in range(2))
        loss, _ = a.critic_loss(b, noise)
    torch.testing.assert_close(loss, expected)


def test_a_terminal_cuts_the_bootstrap():
    a, b = agent(), batch()
    noise = noise_of(a, "critic")
    with torch.no_grad():
        ended = a.critic_loss(b._replace(terminal=torch.ones(8)), noise)[0]
        expected = sum(((a.critics(b.obs, b.action)[i] - b.reward) ** 2).mean() for i in range(2))
    torch.testing.assert_close(ended, expected)


def test_max_backup_takes_the_maximum_over_candidates_before_the_minimum_over_critics():
    a, b = agent(replace(SMALL, backup_candidates=4)), batch()
    noise = noise_of(a, "critic")
    with torch.no_grad():
        each = [
            a.actor.sampler(a.actor_ema.denoiser.given(b.next_obs), {k: v[:, i] for k, v in noise.items()})
            for i in range(4)
        ]
        next_q = torch.stack([a.critics_target(b.next_obs, action) for action in each])  # (candidate, critic, row)
        target = b.reward + 0.99 * next_q.max(0).values.min(0).values
        expected = sum(((a.critics(b.obs, b.action)[i] - target) ** 2).mean() for i in range(2))
        torch.testing.assert_close(a.critic_loss(b, noise)[0], expected)


def test_acting_uses_the_online_actor_and_the_target_critics_only():
    a = agent()
    obs, noise = torch.randn(5, 3, generator=generator("obs")), draw(a.noise, 5, generator("act"))
    with torch.no_grad():
        before = a.act(obs, a.start(5), noise)[0]
        for unused in (a.actor_ema, a.critics):
            for p in unused.parameters():
                p.add_(1.0)
        torch.testing.assert_close(a.act(obs, a.start(5), noise)[0], before)
        for p in a.critics_target.parameters():
            p.add_(torch.randn(p.shape, generator=generator("p")))
        assert not torch.equal(a.act(obs, a.start(5), noise)[0], before)


def test_acting_draws_by_the_softmax_of_the_values():
    """With candidates and values pinned, the share of each candidate is its softmax probability."""
    a = agent(replace(SMALL, candidates=3))
    rows, values = 4000, torch.tensor([0.0, 1.0, 2.0])
    pinned = torch.tensor([[-0.5], [0.0], [0.5]]).expand(rows, 3, 2)
    a.actor.candidates = lambda obs, noise: pinned  # type: ignore[method-assign]
    a.critics_target.forward = lambda obs, action: 1 + 2 * action[..., 0].expand(2, rows, 3)  # type: ignore[method-assign]
    with torch.no_grad():
        action, _ = a.act(torch.zeros(rows, 3), (), draw(a.noise, rows, generator("act")))
    shares = torch.stack([(action[:, 0] == x).double().mean() for x in (-0.5, 0.0, 0.5)])
    torch.testing.assert_close(shares, torch.softmax(values, 0).double(), atol=0.025, rtol=0)


def test_actions_come_in_the_environments_units():
    a = DiffusionQL(SMALL, Spaces(obs=3, act=2, action_low=(-2.0, 0.0), action_high=(2.0, 10.0)))
    noise = draw(a.noise, 64, generator("act"))
    with torch.no_grad():
        action, _ = a.act(torch.randn(64, 3, generator=generator("o")), (), noise)
    assert action[:, 0].min() < -1 and action[:, 0].max() > 1
    assert action[:, 1].min() >= 0 and action[:, 1].max() > 5


def test_the_networks_have_the_papers_sizes():
    a = DiffusionQL(Config(), Spaces(obs=17, act=6))
    assert sum(p.numel() for p in a.actor.parameters()) == 144_438
    assert sum(p.numel() for p in a.critics.parameters()) == 275_970


@pytest.mark.slow
def test_on_four_corners_the_q_term_finds_the_best_and_stays_on_the_data():
    """The acceptance experiment, with cloning, eta 0 and a deterministic actor as control arms."""
    from recipes.bandit import main

    found = main()
    assert all(0.15 <= share <= 0.35 for share in found["cloning"]["corners"])
    assert found["diffusion_ql_single"]["best"] >= 0.45
    assert found["diffusion_ql_single"]["outside"] <= 0.15
    assert found["diffusion_ql_act"]["best"] >= 0.85
    assert found["eta_0_single"]["best"] <= 0.35
    assert sum(found["deterministic"]["corners"]) <= 0.20
    assert PRESETS["bandit"].eta == 0.2
