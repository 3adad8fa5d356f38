"""What makes FQL what it is: one noise for flow and student, no gradient through the flow, one call to act."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ornstein.noise import draw, generator
from ornstein.systems.policies.fql import FQL, Config
from ornstein.types import Descend, Spaces, Transitions

SPACES = Spaces(obs=3, act=2)
SMALL = Config(width=16, depth=2)


def agent(config: Config = SMALL) -> FQL:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FQL(config, SPACES)


def batch(rows: int = 8) -> Transitions:
    g = generator("batch")
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    action = normal(rows, 2).clamp(-1, 1)
    return Transitions(
        normal(rows, 3), action, normal(rows), normal(rows, 3), torch.zeros(rows), torch.full((rows,), 0.99)
    )


def noise_of(a: FQL, name: str, rows: int = 8) -> dict[str, torch.Tensor]:
    (phase,) = [p for p in a.phases() if isinstance(p, Descend) and p.name == name]
    return dict(draw(phase.noise, rows, generator("noise", name)))


def calls_of(layer: nn.Module) -> list[None]:
    calls: list[None] = []
    layer.register_forward_hook(lambda module, inputs, output: calls.append(None))
    return calls


def euler(a: FQL, obs: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Ten steps of Euler's method from noise (t = 1) to data (t = 0), written out."""
    x = z
    for i in range(10):
        t = torch.full((len(z),), 1 - i / 10)
        x = x - a.flow.denoiser.network(x, 10 * t, obs) / 10
    return x


def test_the_flow_is_eulers_method_in_ten_steps():
    a, b = agent(), batch()
    noise = noise_of(a, "student")
    with torch.no_grad():
        torch.testing.assert_close(a.flow(b.obs, noise), euler(a, b.obs, noise["start"]), atol=1e-5, rtol=1e-5)


def test_the_student_is_pulled_to_where_the_flow_leads_its_own_noise_and_up_the_critics_mean():
    a, b = agent(), batch()
    z = noise_of(a, "student")["start"]
    with torch.no_grad():
        action = a.student(torch.cat((b.obs, z), 1))
        led = euler(a, b.obs, z).clamp(-1, 1)
        q = a.critics(b.obs, action.clamp(-1, 1)).mean(0)
        expected = 10.0 * (action - led).square().mean() - q.mean()
        loss, metrics = a.student_loss(b, {"start": z})
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        other = (action - euler(a, b.obs, z.flip(0)).clamp(-1, 1)).square().mean()  # another noise for the flow
        assert not torch.allclose(metrics["distill"], other, atol=1e-4)
        scaled = agent(replace(SMALL, normalize_q=True)).student_loss(b, {"start": z})[0]
        torch.testing.assert_close(scaled, 10.0 * metrics["distill"] - q.mean() / q.abs().mean())


def test_no_gradient_reaches_the_flow_through_the_students_loss():
    a, b = agent(), batch()
    loss, _ = a.student_loss(b, noise_of(a, "student"))
    loss.backward()
    assert all(p.grad is None for p in a.flow.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in a.student.parameters())


def test_acting_is_one_call_and_the_flow_is_not_asked():
    a = agent()
    students, flows = calls_of(a.student.body[-1]), calls_of(a.flow.denoiser.network.body[-1])  # pyright: ignore
    noise = draw(a.noise, 5, generator("act"))
    with torch.no_grad():
        action, _ = a.act(torch.zeros(5, 3), (), noise)
    assert (len(students), len(flows)) == (1, 0)
    assert action.abs().max() <= 1.0
    a.student_loss(batch(), noise_of(a, "student"))
    assert len(flows) == 10


def test_targets_take_the_students_action_and_the_mean_or_the_minimum_of_the_critics():
    b = batch()
    for aggregate, choose in (("mean", lambda q: q.mean(0)), ("min", lambda q: q.min(0).values)):
        a = agent(replace(SMALL, aggregate=aggregate))  # type: ignore[arg-type]
        noise = noise_of(a, "critic")
        with torch.no_grad():
            action = a.student(torch.cat((b.next_obs, noise["start"]), 1)).clamp(-1, 1)
            target = b.reward + 0.99 * choose(a.critics_target(b.next_obs, action))
            expected = sum((a.critics(b.obs, b.action)[i] - target).square().mean() for i in range(2))
            torch.testing.assert_close(a.critic_loss(b, noise)[0], expected)


@pytest.mark.slow
def test_on_four_corners_the_student_earns_more_than_its_flow_and_is_lost_without_it():
    """It moves what the flow draws up the critic; where the pull back is strong, it stops between the corners."""
    from recipes.fql import main

    found = main()
    student, flow, held = found["student"], found["flow"], found["held"]
    assert student["reward"] >= flow["reward"] + 1.0
    assert student["outside"] <= 0.1
    assert student["best"] >= 0.8
    assert all(0.15 <= share <= 0.35 for share in flow["corners"])
    assert held["reward"] < flow["reward"]
    assert held["outside"] >= 0.35
    assert found["without_distillation"]["outside"] >= 0.9
