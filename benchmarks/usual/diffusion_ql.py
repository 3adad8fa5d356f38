"""Diffusion-QL (Wang et al. 2023, 2208.06193) as its released code writes an update and an act."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.usual.diffusion import Chain, Normal, follow, mse, time_network, vp_betas


class NoiseNetwork(nn.Module):
    """The noise of an action, from [action, step, state]."""

    def __init__(self, obs: int, act: int, width: int = 256) -> None:
        super().__init__()
        self.time = time_network(16, 32)
        self.middle = nn.Sequential(
            nn.Linear(obs + act + 16, width), nn.Mish(),
            nn.Linear(width, width), nn.Mish(),
            nn.Linear(width, width), nn.Mish(),
        )  # fmt: skip
        self.last = nn.Linear(width, act)

    def forward(self, x: Tensor, t: Tensor, obs: Tensor) -> Tensor:
        return self.last(self.middle(torch.cat([x, self.time(t), obs], dim=1)))


class Policy(nn.Module):
    """An action by the whole chain, clamped at each step."""

    def __init__(self, network: NoiseNetwork, act: int, steps: int = 5) -> None:
        super().__init__()
        self.network, self.act, self.chain = network, act, Chain(vp_betas(steps))

    def forward(self, obs: Tensor, normal: Normal = torch.randn_like) -> Tensor:
        x = normal(torch.empty(len(obs), self.act, device=obs.device))
        for i in reversed(range(self.chain.steps)):
            t = torch.full((len(obs),), i, device=obs.device, dtype=torch.long)
            x0 = self.chain.x0_from_eps(x, t, self.network(x, t, obs)).clamp(-1.0, 1.0)
            x = self.chain.back(x, x0, t, normal)
        return x.clamp(-1.0, 1.0)

    def loss(self, action: Tensor, obs: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The squared error of the predicted noise."""
        return mse(self.network(self.chain.noised(action, t, noise), t, obs), noise)


class Twins(nn.Module):
    """Two critics, one after the other."""

    def __init__(self, obs: int, act: int, width: int = 256) -> None:
        super().__init__()
        self.q1, self.q2 = (
            nn.Sequential(
                nn.Linear(obs + act, width), nn.Mish(),
                nn.Linear(width, width), nn.Mish(),
                nn.Linear(width, width), nn.Mish(),
                nn.Linear(width, 1),
            ) for _ in range(2)
        )  # fmt: skip

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([obs, action], dim=-1)
        return self.q1(x), self.q2(x)


@dataclass
class Draws:
    """The random numbers of one update; fresh ones by default."""

    normal: Normal = torch.randn_like
    step: Callable[[int], Tensor] = lambda n: torch.randint(0, 5, (n,))
    coin: Callable[[], float] = lambda: torch.rand(()).item()


class Agent:
    """Both networks, their averages and their optimisers."""

    def __init__(self, obs: int, act: int, *, eta: float = 1.0, clip: float = 5.0, device: str = "cpu") -> None:
        self.actor = Policy(NoiseNetwork(obs, act), act).to(device)
        self.average = deepcopy(self.actor)
        self.critic = Twins(obs, act).to(device)
        self.target = deepcopy(self.critic)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.critic_adam = torch.optim.Adam(self.critic.parameters(), lr=3e-4)
        self.eta, self.clip, self.step, self.device = eta, clip, 0, device

    def update(self, batch: tuple[Tensor, ...], draws: Draws = Draws()) -> dict[str, float]:  # noqa: B008
        """One step of both networks on (state, action, next state, reward, not done)."""
        obs, action, next_obs, reward, alive = batch
        q1, q2 = self.critic(obs, action)
        next_action = self.average(next_obs, draws.normal)
        target_q = torch.min(*self.target(next_obs, next_action))
        target_q = (reward + alive * 0.99 * target_q).detach()
        critic_loss = mse(q1, target_q) + mse(q2, target_q)
        critic_norm = self._descend(self.critic_adam, self.critic, critic_loss)

        t = draws.step(len(obs)).to(obs.device)
        cloning = self.actor.loss(action, obs, t, draws.normal(action))
        new_q1, new_q2 = self.critic(obs, self.actor(obs, draws.normal))
        if draws.coin() < 0.5:
            improve = -new_q1.mean() / new_q2.abs().mean().detach()
        else:
            improve = -new_q2.mean() / new_q1.abs().mean().detach()
        actor_loss = cloning + self.eta * improve
        actor_norm = self._descend(self.actor_adam, self.actor, actor_loss)

        if self.step % 5 == 0 and self.step >= 1000:
            follow(self.average, self.actor, 0.995)
        follow(self.target, self.critic, 0.995)
        self.step += 1
        return {
            "critic": critic_loss.item(), "cloning": cloning.item(), "improve": improve.item(),
            "critic_norm": critic_norm.item(), "actor_norm": actor_norm.item(), "target": target_q.mean().item(),
        }  # fmt: skip

    def _descend(self, adam: torch.optim.Adam, module: nn.Module, loss: Tensor) -> Tensor:
        adam.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), max_norm=self.clip, norm_type=2)
        adam.step()
        return norm

    @torch.no_grad()
    def act(
        self,
        obs: np.ndarray,
        normal: Normal = torch.randn_like,
        choose: Callable[[Tensor], Tensor] = lambda value: torch.multinomial(torch.softmax(value, 0), 1),
    ) -> np.ndarray:
        """One of 50 candidates for one state, drawn by a softmax of the target critics' minimum."""
        many = torch.repeat_interleave(torch.FloatTensor(obs.reshape(1, -1)).to(self.device), repeats=50, dim=0)
        action = self.actor(many, normal)
        value = torch.min(*self.target(many, action)).flatten()
        return action[choose(value)].cpu().data.numpy().flatten()
