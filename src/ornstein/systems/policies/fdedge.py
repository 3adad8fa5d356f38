"""FDEdge: a chain of scores that starts from the probabilities it gave at the same place before, in place of noise.

Each place, the n-th task of slot t, has an entry in a memory; a decision starts its chain there and puts its
probabilities back, so that later episodes refine what earlier ones found. What tells it apart: that feedback start, in
acting and in both losses; the network's guess of the noise is itself a probability vector; acting is an argmax, and
the noise of the steps is the only exploration; a learned temperature, which can only fall, since its target entropy is
below that of any law; one update a slot.

The memory is the carry, which goes on from episode to episode (`renew`); it is no part of the weights, so that a loaded
policy fills a new one. The replay holds copies of the entries that decisions started from (`note`). Batches without
them, of recorded episodes, start from noise, as does everything with `feedback=False`, the control arm and the released
code's behaviour. The observation ends with slot and place (`EdgeQueues-v0?indexed=true`), which the networks are not
shown.

Deviates: the released code stores views of the memory, which show later values when they are sampled, and has the
feedback start commented out. One update follows every 50 tasks, the mean of a slot, not every slot; the first tasks are
given to random servers, where the official code acts by the untrained network.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ornstein.actor import DiffusionActor, fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.diffusion.process import DiscreteVP
from ornstein.fit import Run
from ornstein.nets.score import ScoreMLP
from ornstein.noise import generator
from ornstein.rl.action import ActionChoice
from ornstein.rl.average import frozen
from ornstein.rl.discrete import ChoiceCritics, choice_loss, choice_regression, entropy, expected
from ornstein.rl.target import td_target
from ornstein.rl.temperature import Temperature
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Metrics, Noise, Phase, Spaces

SOURCE = Source(
    title="Enhancing QoE in Collaborative Edge Systems with Feedback Diffusion Generative Scheduling",
    authors="Xu, Changfu and Guo, Jianxiong and Liang, Yuzhu and Zou, Haodong and Zeng, Jiandian and Dai, Haipeng "
    "and Jia, Weijia and Cao, Jiannong and Wang, Tian",
    year=2025,
    venue="IEEE Transactions on Mobile Computing",
    repository="https://github.com/ChangfuXu/FDEdge",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are the official code's."""

    feedback: bool = True  # start chains from the memory; False: from noise, as D2SAC
    slots: int = 100  # of the memory; later ones share the last entry's row
    places: int = 100  # tasks of a slot that the memory tells apart
    diffusion_steps: int = 5
    temperature: float = 0.05  # the first one
    temperature_lr: float = 3e-4
    target_entropy: float = -1.0
    lr: float = 1e-4  # of the actor
    critic_lr: float = 1e-3
    discount: float = 0.95
    ema_rate: float = 0.005  # share of the new weights in the target critics
    width: int = 128
    activation: str = "relu"
    batch_size: int = 64
    steps: int = 10_000  # updates: 100 episodes of 100 slots


Memory = Float[Tensor, " n entries act"]


class FDEdge(nn.Module):
    """The learner and the policy."""

    first: Tensor

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, self.choice = config, spaces, ActionChoice(spaces)
        self.size = spaces.obs + spaces.goal - 2
        if self.size < 1:
            raise ValueError(f"observations of size {self.size + 2}: their last two entries must be slot and place")
        net = {"width": config.width, "activation": config.activation}
        network = ScoreMLP(spaces.act, self.size, embed=False, head="softmax", **net)
        self.actor = DiffusionActor(network, DiscreteVP(config.diffusion_steps, "vp"), spaces.act, bound=None)
        self.critics = ChoiceCritics(self.size, spaces.act, **net)
        self.critics_target = frozen(self.critics)
        self.temperature = Temperature(config.temperature)
        entries = torch.randn(config.slots * config.places, spaces.act, generator=generator("memory"))
        self.register_buffer("first", entries, persistent=False)
        self.noise = dict(self.actor.needs())

    def phases(self) -> tuple[Phase, ...]:
        """Critics, actor, temperature, target critics."""
        c, chain = self.config, self.noise
        return (
            Descend("critic", self.critics, self.critic_loss, Adam(c.critic_lr), chain),
            Descend("actor", self.actor, self.actor_loss, Adam(c.lr), chain),
            Descend("temperature", self.temperature, self.temperature_loss, Adam(c.temperature_lr), chain),
            Average(self.critics_target, self.critics, c.ema_rate),
        )

    def critic_loss(self, batch: Any, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics' squared error against r + gamma (sum_a pi(a|s') min Q'(s', a) + temperature H(pi)), where the
        policy starts from what the memory held for s'.
        """
        after = self._state(batch.next_obs)
        with torch.no_grad():
            law = self.law(batch.next_obs, getattr(batch, "next_start", None), noise)
            soft = expected(self.critics_target(after), law) + self.temperature() * entropy(law)
            target = td_target(batch.reward, batch.terminal, batch.discount, soft)
        return choice_regression(self.critics, self._state(batch.obs), self.choice.to_unit(batch.action), target)

    def actor_loss(self, batch: Any, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """- (temperature H(pi) + sum_a pi(a|s) min Q(s, a)) through all steps of the chain."""
        law = self.law(batch.obs, getattr(batch, "start", None), noise)
        return choice_loss(self.critics, self._state(batch.obs), law, self.temperature())

    def temperature_loss(self, batch: Any, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The temperature times entropy - target, which is never negative."""
        with torch.no_grad():
            spread = entropy(self.law(batch.obs, getattr(batch, "start", None), noise))
        return self.temperature.loss(spread, self.config.target_entropy)

    def law(
        self, obs: Float[Tensor, " b obs"], start: Float[Tensor, " b act"] | None, noise: Noise
    ) -> Float[Tensor, " b act"]:
        """Log-probabilities, by a chain from `start`, or from noise."""
        chain = noise if start is None or not self.config.feedback else {**noise, "start": start}
        return self.actor(self._state(obs), chain).log_softmax(-1)

    def start(self, n_envs: int) -> Memory:
        """The first entries, N(0, 1), the same for all."""
        return self.first.expand(n_envs, -1, -1).clone()

    def renew(self, carry: Memory) -> Memory:
        """An episode begins with the memory of the last one."""
        return carry

    def note(self, obs: Float[Tensor, " n obs"], carry: Memory) -> dict[str, Float[Tensor, " n act"]]:
        """What the chain of a decision at this observation starts from."""
        return {"start": carry.gather(1, self._entry(obs)).squeeze(1)} if self.config.feedback else {}

    def act(self, obs: Float[Tensor, " n obs"], carry: Memory, noise: Noise) -> tuple[Float[Tensor, " n act"], Memory]:
        """The most probable choice; its probabilities are what the memory holds from then on."""
        entry = self._entry(obs)
        law = self.law(obs, carry.gather(1, entry).squeeze(1), noise)
        return self.choice.to_env(law), carry.scatter(1, entry, law.exp().unsqueeze(1))

    def _state(self, obs: Float[Tensor, " b obs"]) -> Float[Tensor, " b state"]:
        return obs[:, : self.size]

    def _entry(self, obs: Float[Tensor, " n obs"]) -> Int[Tensor, " n 1 act"]:
        """The index of the memory's entry for slot and place, once for each score."""
        slot, place = obs[:, -2].clamp(0, self.config.slots - 1), obs[:, -1].clamp(0, self.config.places - 1)
        entry = slot.long() * self.config.places + place.long()
        return entry.view(-1, 1, 1).expand(-1, 1, self.spaces.act)


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage on recorded episodes, without feedback; online it is at home."""
    return fit_transitions(lambda e: FDEdge(config, e.spaces), config, episodes, run)


BASE = Config()
PRESETS = {"queues": BASE, "queues-noise": replace(BASE, feedback=False)}
TARGETS: dict[str, str | float] = {"queues": "87.6 % less delay than random scheduling: about 1.0 s"}
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, FDEdge, train)
