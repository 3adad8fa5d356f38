"""What makes Diffuser what it is: joint trajectories, inpainted ends, a value's gradient as guide, best of the
candidates.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from ornstein.noise import draw, generator
from ornstein.planner import Plan, held, noised
from ornstein.systems.planners.diffuser import PRESETS, Config, Diffuser
from ornstein.types import Average, Descend, Segments, Spaces

GOAL = Config(
    task="goal", horizon=8, diffusion_steps=6, calls=6, width=16, multipliers=(1, 2), normalizer="limits", bound=1.0,
    action_weight=1.0, replan=0, candidates=1,
)  # fmt: skip
RETURN = replace(GOAL, task="return", replan=1, normalizer="gaussian", bound=None, action_weight=10.0, candidates=5)
MAZE, ROBOT = Spaces(obs=4, act=2, goal=2), Spaces(obs=3, act=2)


def planner(config: Config, spaces: Spaces) -> Diffuser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        agent = Diffuser(config, spaces)
        rows = torch.randn(100, spaces.act + spaces.obs, generator=generator("rows"))
        agent.layout.normalizer.fit(2 * rows + 1)
        return agent


def batch(spaces: Spaces, rows: int = 6) -> Segments:
    g = generator("batch")
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return Segments(
        normal(rows, 8, spaces.obs), normal(rows, 8, spaces.act), normal(rows, 8), torch.ones(rows, 8), normal(rows)
    )


def noise_of(agent: Diffuser, name: str, rows: int = 6) -> dict[str, torch.Tensor]:
    (phase,) = [p for p in agent.phases() if isinstance(p, Descend) and p.name == name]
    return dict(draw(phase.noise, rows, generator("noise", name)))


def planned(agent: Diffuser, obs: torch.Tensor) -> Plan:
    with torch.no_grad():
        return agent.plan(obs, agent.start(len(obs)), draw(agent.noise, len(obs), generator("plan")))


def test_a_goal_plan_begins_at_the_state_and_ends_at_rest_on_the_goal():
    agent = planner(GOAL, MAZE)
    obs = torch.tensor([[0.5, -0.5, 0.1, 0.2, 1.5, -1.0], [0.0, 0.0, 0.0, 0.0, -1.0, 1.0]])
    plan = planned(agent, obs)
    torch.testing.assert_close(plan.obs[:, 0], obs[:, :4], atol=1e-5, rtol=0)
    torch.testing.assert_close(plan.obs[:, -1, :2], obs[:, 4:], atol=1e-5, rtol=0)
    torch.testing.assert_close(plan.obs[:, -1, 2:], torch.zeros(2, 2), atol=1e-5, rtol=0)


def test_only_observations_are_held_never_actions():
    agent = planner(GOAL, MAZE)
    known = agent.layout.known
    assert known[0].tolist() == known[-1].tolist() == [False] * 2 + [True] * 4
    assert not known[1:-1].any()
    assert planner(RETURN, ROBOT).layout.known.sum() == 3


def test_known_entries_carry_no_loss_and_the_first_action_carries_ten():
    agent, b = planner(RETURN, ROBOT), batch(ROBOT)
    noise = noise_of(agent, "denoiser")
    with torch.no_grad():
        x0 = agent.layout.pack(b)
        x_t, level, _ = noised(agent.chain, agent.layout, x0, noise)
        torch.testing.assert_close(x_t[:, 0, 2:], x0[:, 0, 2:])
        error = (agent.denoiser.output(x_t, level) - x0) ** 2
        error[:, 0, 2:] = 0.0
        error[:, 0, :2] *= 10.0
        torch.testing.assert_close(agent.denoiser_loss(b, noise)[0], error.mean())


def test_rows_beyond_the_episode_carry_no_loss():
    agent, b = planner(RETURN, ROBOT), batch(ROBOT)
    noise = noise_of(agent, "denoiser")
    mask = b.mask.clone()
    mask[:, 4:] = 0.0
    padded = b._replace(mask=mask, obs=b.obs.clone(), action=b.action.clone())
    with torch.no_grad():
        x0 = agent.layout.pack(padded)
        x_t, level, given = noised(agent.chain, agent.layout, x0, noise)
        error = (given(agent.denoiser.output(x_t, level), level, None) - x0).square() * agent.layout.weight
        torch.testing.assert_close(agent.denoiser_loss(padded, noise)[0], error[:, :4].sum() / error.numel())


def test_the_value_learns_the_return_to_the_end_of_the_episode_from_a_noised_window():
    agent, b = planner(RETURN, ROBOT), batch(ROBOT)
    noise = noise_of(agent, "value")
    with torch.no_grad():
        x_t, *_ = noised(agent.chain, agent.layout, agent.layout.pack(b), noise)
        value = agent.value(x_t, torch.floor(noise["t"] * 6))
        torch.testing.assert_close(agent.value_loss(b, noise)[0], ((value - b.returns) ** 2).mean())


def test_the_guide_moves_plans_to_higher_value():
    """With a value that prefers a large first channel, guidance raises it; without guidance (scale 0) it does not."""
    reached = []
    for scale in (0.0, 5.0):
        agent = planner(replace(RETURN, guide_scale=scale, candidates=1), ROBOT)
        agent.ema.network.forward = lambda x, label, cond: 0.9 * x  # type: ignore[method-assign]
        agent.value_ema.forward = lambda x, label: x[:, :, 0].sum(1)  # type: ignore[method-assign]
        reached.append(planned(agent, torch.zeros(64, 3)).action[:, :, 0].mean())
    assert reached[1] > reached[0] + 0.3


def test_the_first_action_of_the_most_valued_candidate_is_executed():
    agent = planner(replace(RETURN, guide_scale=0.0), ROBOT)
    agent.value_ema.forward = lambda x, label: x[:, 0, 0]  # type: ignore[method-assign]
    obs, carry = torch.zeros(3, 3), agent.start(3)
    noise = draw(agent.noise, 3, generator("plan"))
    with torch.no_grad():
        all_plans = agent.layout.normalizer.inverse(
            agent.sampler.many(
                agent.ema, noise, constrain=held(agent.layout, agent.layout.ends(obs).repeat_interleave(5, 0))
            )
        )
        best = all_plans[torch.arange(3), all_plans[:, :, 0, 0].argmax(1)]
        action, _ = agent.act(obs, agent.plan(obs, carry, noise), {})
    torch.testing.assert_close(action, best[:, 0, :2].clamp(-1, 1))


def test_mazes_are_planned_once_and_locomotion_at_every_step():
    assert planner(GOAL, MAZE).plan_every == 0
    assert planner(RETURN, ROBOT).plan_every == 1
    assert PRESETS["maze-large"].replan == 0
    assert PRESETS["locomotion"].replan == 1


def test_the_tracker_follows_the_plan_and_not_its_actions():
    agent = planner(replace(GOAL, stride=2), MAZE)
    rows = torch.zeros(1, 8, 4)
    rows[0, :, 0] = torch.arange(8.0)
    carry = Plan(rows, torch.full((1, 8, 2), 0.77), torch.tensor([3.0]))
    obs = torch.tensor([[1.99, 0.0, 0.0, 0.0, 7.0, 0.0]])
    action, following = agent.act(obs, carry, {})
    torch.testing.assert_close(action, torch.tensor([[16.0 * 0.01, 0.0]]), atol=1e-5, rtol=0)
    assert following.age.item() == 4.0


def test_the_horizon_is_free_at_test_time():
    agent = planner(GOAL, MAZE)
    longer = planner(replace(GOAL, horizon=16), MAZE)
    longer.ema.load_state_dict(agent.ema.state_dict())
    assert planned(longer, torch.zeros(1, 6)).obs.shape == (1, 16, 4)


def test_averages_copy_until_their_start():
    averages = [p for p in planner(RETURN, ROBOT).phases() if isinstance(p, Average)]
    assert [(p.rate, p.every, p.after, p.before) for p in averages] == [(0.005, 10, 2000, "copy")] * 2


@pytest.fixture(scope="module")
def stitched() -> dict[str, Any]:
    """Pieces of at most half the way through a U; six minutes."""
    from recipes.stitching import main

    return main()


@pytest.mark.slow
def test_plans_stitch_short_pieces_through_the_u_maze(stitched):
    """Acceptance: a tracker of the plans arrives; without the goal inpainted, plans end anywhere."""
    assert stitched["executed"] >= 0.8
    assert stitched["clear_of_walls"] >= 0.8
    assert stitched["without_goal_near"] < 0.1


@pytest.mark.slow
@pytest.mark.xfail(reason="plans of twice the trained length jump in their last row, by 0.5 in the mean", strict=True)
def test_plans_of_twice_the_trained_length_have_no_jumps(stitched):
    assert stitched["joined"] >= 0.8
