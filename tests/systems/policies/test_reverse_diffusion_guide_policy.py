"""What makes it this system: a guide in the noise space of a chain that no longer changes."""

from dataclasses import replace

import pytest
import torch

from ornstein import contract
from ornstein.noise import draw, generator
from ornstein.systems.policies.reverse_diffusion_guide_policy import PRESETS, SYSTEM, Config, GuidePolicy
from ornstein.types import Average, Descend, Noise, Spaces, Transitions
from ornstein.update import Update

SPACES = Spaces(obs=3, act=2)
SMALL = Config(width=16, guide_width=16, batch_size=8)


def agent(config: Config = SMALL, stage: str = "guide") -> GuidePolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        a = GuidePolicy(config, SPACES)
    a.stage, a.explore = stage, 0.1
    return a


def batch(rows: int = 8) -> Transitions:
    g = generator("batch")
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    action = normal(rows, 2).clamp(-1, 1)
    return Transitions(
        normal(rows, 3), action, normal(rows), normal(rows, 3), torch.zeros(rows), torch.full((rows,), 0.9)
    )


def noises(a: GuidePolicy, rows: int = 8, step: int = 0) -> dict[str, Noise]:
    return {p.name: draw(p.noise, rows, generator(step, p.name)) for p in a.phases() if isinstance(p, Descend)}


@pytest.mark.parametrize("config", [replace(SMALL, form="start"), replace(SMALL, perturbation=0.05)])
def test_the_other_forms_keep_the_contract(config):
    found = [r for r in contract.check(SYSTEM, config) if not r.passed]
    assert found == []


def unbounded() -> GuidePolicy:
    """Without the clamp to the box, at which the actions of an untrained chain all lie."""
    a = agent()
    a.behaviour.denoiser.bound = None
    return a


def test_the_guides_stage_changes_no_bit_of_the_behaviour():
    a = unbounded()
    frozen = {n: v.clone() for n, v in a.state_dict().items() if n.startswith(("actor.", "behaviour."))}
    before, update = a.guide.choice.body[0].weight.clone(), Update([a], steps=4)  # pyright: ignore
    for step in range(4):
        update(step, batch(), noises(a, step=step))
    now = a.state_dict()
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    assert not torch.equal(a.guide.choice.body[0].weight, before)  # pyright: ignore


def test_the_gradient_passes_through_the_chain_and_stops_at_its_weights():
    a = unbounded()
    loss = a.guide_loss(batch(), noises(a)["guide"])[0]
    own = torch.autograd.grad(loss, list(a.guide.parameters()), retain_graph=True)
    assert all(g.abs().max() > 0 for g in own)
    chain = [*a.actor.parameters()]
    assert torch.autograd.grad(loss, chain, allow_unused=True) == (None,) * len(chain)
    assert not any(p.requires_grad for p in a.behaviour.parameters())


def test_the_guide_chooses_the_start_and_the_noise_of_every_step():
    a, seen = agent(), []
    forward = a.guide.forward
    a.guide.forward = lambda x, label, obs: seen.append((x, label)) or forward(x, label, obs)  # type: ignore
    with torch.no_grad():
        a.act(batch().obs, (), {})
    assert [label[0].item() for _, label in seen] == pytest.approx([4, 4, 3, 2, 1])  # 0-based; the first is the start
    assert seen[0][0].abs().max() == 0
    seen.clear()
    b = agent(replace(SMALL, form="start"))
    forward = b.guide.forward
    b.guide.forward = lambda x, label, obs: seen.append((x, label)) or forward(x, label, obs)  # type: ignore
    with torch.no_grad():
        b.act(batch().obs, (), {})
    assert len(seen) == 1


@pytest.mark.parametrize("form", ["step", "start"])
def test_a_guide_that_says_what_was_drawn_gives_the_behaviours_sample(form):
    a, b = agent(replace(SMALL, form=form)), batch()
    noise = draw(a.actor.needs(), 8, generator("behaviour"))
    steps = noise["steps"].unbind(1) if "steps" in noise else ()
    queue = iter([noise["start"], *steps])
    a.guide.forward = lambda x, label, obs: next(queue)  # type: ignore[method-assign]
    with torch.no_grad():
        torch.testing.assert_close(a.steered(a.guide, b.obs, a.still(b.obs)), a.behaviour(b.obs, noise))


def test_choices_are_bounded():
    a, b = agent(replace(SMALL, reach=1.5)), batch()
    with torch.no_grad():
        for p in a.guide.parameters():
            p.mul_(100.0)
        chosen = a.guide(b.action, torch.zeros(8), b.obs)
    largest = chosen.abs().max()
    assert largest <= 1.5, "never beyond its reach"
    assert largest > 1.4, "which these weights ask for, so that the bound is seen to hold"


def test_the_perturbation_moves_actions_by_at_most_its_size_and_stays_in_the_box():
    a, b = agent(replace(SMALL, perturbation=0.05)), batch()
    with torch.no_grad():
        for p in a.guide.parameters():
            p.mul_(100.0)
        plain = agent()
        plain.load_state_dict({n: v for n, v in a.state_dict().items() if ".shift." not in n})
        moved, still = (each.steered(each.guide, b.obs, each.still(b.obs)) for each in (a, plain))
    assert 0 < (moved - still).abs().max() <= 0.05 + 1e-6
    assert moved.abs().max() <= 1.0
    assert plain.guide.shift is None


def test_the_target_smooths_the_target_guides_choices_by_clipped_noise():
    a, b = agent(), batch()
    noise = {name: 10 * each for name, each in noises(a)["critic"].items()}
    with torch.no_grad():
        loss, _ = a.critic_loss(b, noise)
        smooth = {name: (0.2 * each).clamp(-0.5, 0.5) for name, each in noise.items()}
        q = a.critics_target(b.next_obs, a.steered(a.guide_target, b.next_obs, smooth)).min(0).values
        target = b.reward + 0.9 * q
        expected = sum(((a.critics(b.obs, b.action)[i] - target) ** 2).mean() for i in range(2))
    torch.testing.assert_close(loss, expected)


def test_the_guide_climbs_the_first_critic_scaled_by_itself():
    a, b = agent(), batch()
    noise = noises(a)["guide"]
    with torch.no_grad():
        action = a.steered(a.guide, b.obs, a.still(b.obs) | {"start": 0.1 * noise["start"]})
        q = a.critics(b.obs, action)[0]
        torch.testing.assert_close(a.guide_loss(b, noise)[0], -q.mean() / q.abs().mean())


def test_acting_draws_nothing_and_the_guide_is_delayed():
    assert agent().noise == {}
    delays = [p.every for p in agent().phases()]
    assert delays == [1, 2, 2, 1]
    (clone, average) = agent(stage="behaviour").phases()
    assert isinstance(clone, Descend) and isinstance(average, Average) and average.before == "copy"


@pytest.mark.slow
def test_guides_reach_rare_actions_and_stay_on_the_data():
    """The acceptance experiment; free ascent and a guide of reach 10 are the control arms."""
    from recipes.reverse_diffusion_guide_policy import main

    found = main()
    guides, narrow, wide = found["guides"], found["reach_1"], found["reach_10"]
    assert all(g["frozen"] for g in (*guides, *narrow, wide))
    assert all(max(g["near"]) >= 0.90 for g in guides)
    assert all(g["q"] >= g["q_of_the_most_frequent"] for g in guides)
    assert any(g["near"][3] >= 0.90 for g in guides)
    assert all(g["distance"] <= 0.6 * g["free"]["distance"] for g in guides)
    assert narrow[0]["distance"] < guides[0]["distance"] + 0.01  # both in the middle of the main corner
    assert narrow[1]["distance"] < 0.5 * guides[1]["distance"]  # both at the rare one
    assert narrow[1]["near"][3] >= 0.90
    assert wide["distance"] > 0.6 * wide["free"]["distance"]
    assert PRESETS["bandit"].reach == 2.0
