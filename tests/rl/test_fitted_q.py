"""The regression of fitted-Q evaluation; its result is compared with closed forms in tests/bench/test_estimate.py."""

import pytest
import torch

from ornstein.rl.fitted_q import FittedQ, Followed
from ornstein.types import Average, Descend


def test_the_loss_by_hand():
    """r + 0.5 mean(Q', Q') where the episode goes on, r where it ends; Q = 0 against these targets."""
    learner = FittedQ(1, 1, width=2)
    for value in learner.parameters():
        torch.nn.init.zeros_(value)
    learner.q_target.body.head.bias.data.fill_(4.0)
    one = torch.ones(2)
    batch = Followed(
        one[:, None], one[:, None], 3 * one, one[:, None], torch.zeros(2, 2, 1), torch.tensor([0.0, 1.0]), 0.5 * one
    )
    loss, _ = learner.loss(batch, {})
    assert float(loss.detach()) == pytest.approx(((3 + 0.5 * 4) ** 2 + 3**2) / 2)


def test_only_q_is_trained_and_its_copy_follows():
    learner = FittedQ(2, 1, width=4, lr=0.5, rate=0.25)
    descend, average = learner.phases()
    assert isinstance(descend, Descend) and isinstance(average, Average)
    assert descend.module is learner.q and descend.adam.lr == 0.5
    assert (average.target, average.source, average.rate) == (learner.q_target, learner.q, 0.25)
    assert not any(p.requires_grad for p in learner.q_target.parameters())


def test_the_value_is_the_mean_over_the_actions():
    learner, obs, action = FittedQ(2, 1, width=4), torch.randn(3, 2), torch.randn(3, 5, 1)
    alone = torch.stack([learner.q(obs, action[:, k])[0] for k in range(5)]).mean(0)
    assert torch.allclose(learner.value(obs, action), alone, atol=1e-6)
