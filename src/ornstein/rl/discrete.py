"""Soft actor-critic where the action is one of several choices: sums over all of them in place of samples.

A policy is given by its log-probabilities (b, act). Source: Christodoulou 2019 (1910.07207).
"""

from jaxtyping import Float
from torch import Tensor, nn

from ornstein.activation import activation as layer
from ornstein.rl.critic import BatchedLinear
from ornstein.types import Metrics

LogProbs = Float[Tensor, " b act"]


class ChoiceCritics(nn.Module):
    """`n` independent networks obs -> one value for each of `act` choices, as one batched module."""

    def __init__(
        self, obs: int, act: int, *, n: int = 2, width: int = 256, depth: int = 2, activation: str = "relu"
    ) -> None:
        super().__init__()
        if n < 1 or depth < 1:
            raise ValueError(f"n = {n} members of depth {depth}: give at least one member and one hidden layer")
        layers: list[nn.Module] = []
        for inside in [obs] + [width] * (depth - 1):
            layers += [BatchedLinear(n, inside, width), layer(activation)]
        self.body, self.n = nn.Sequential(*layers, BatchedLinear(n, width, act)), n

    def forward(self, obs: Float[Tensor, " b obs"]) -> Float[Tensor, " n b act"]:
        """Each member's value of every choice."""
        return self.body(obs.expand(self.n, *obs.shape))


def entropy(log_prob: LogProbs) -> Float[Tensor, " b"]:
    """Entropy of each row, in nats."""
    return -(log_prob.exp() * log_prob).sum(-1)


def expected(q: Float[Tensor, " n b act"], log_prob: LogProbs) -> Float[Tensor, " b"]:
    """The policy's mean of the members' minimum: sum_a pi(a|s) min_i Q_i(s, a)."""
    return (log_prob.exp() * q.amin(0)).sum(-1)


def choice_regression(
    critics: ChoiceCritics, obs: Float[Tensor, " b obs"], choice: Float[Tensor, " b act"], target: Float[Tensor, " b"]
) -> tuple[Float[Tensor, ""], Metrics]:
    """The sum over members of their mean squared error at the choices made (one-hot) against one target."""
    q = (critics(obs) * choice).sum(-1)
    return (q - target).square().mean(1).sum(), {"q": q.mean(), "target": target.mean()}


def choice_loss(
    critics: ChoiceCritics, obs: Float[Tensor, " b obs"], log_prob: LogProbs, temperature: float | Float[Tensor, ""]
) -> tuple[Float[Tensor, ""], Metrics]:
    """- (temperature H(pi) + sum_a pi(a|s) min_i Q_i(s, a)): the gradient is that of the policy, not of the critics."""
    spread, value = entropy(log_prob), expected(critics(obs).detach(), log_prob)
    return -(temperature * spread + value).mean(), {"entropy": spread.mean(), "value": value.mean()}
