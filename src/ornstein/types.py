"""The values that flow between the rooms: array aliases, points of a noise path, batches, and the protocols.

Axis names used everywhere: `b` batch, `n` environments or grid points, `k` candidates, `horizon`, `obs`, `act`,
`goal`, `z` latent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, device, nn

X = Float[Tensor, " b *x"]
"""Whatever is diffused: an action (b, act), a trajectory (b, horizon, act + obs), a transition (b, d)."""

Time = Float[Tensor, " b"]
"""Diffusion time: 0 is data, 1 is noise; always one per sample."""


class Rates(NamedTuple):
    """The Gaussian path x_t = alpha x0 + sigma eps at some times; both have the shape of those times."""

    alpha: Float[Tensor, " *t"]
    sigma: Float[Tensor, " *t"]


class Point(NamedTuple):
    """One noise level for a batch: times (b,), and alpha and sigma (b, 1, ..., 1), which multiply x as they are."""

    t: Time
    alpha: Float[Tensor, " b *ones"]
    sigma: Float[Tensor, " b *ones"]


Denoise = Callable[[X, Point], X]
"""(x_t, point) -> E[x0 | x_t]: the waist where every parameterisation, guidance, constraint and solver meet."""

Shift = Callable[[X, Point, Point], X]
"""Moves x before a solver step from `now` to `then`; never called at sigma = 0."""

Constrain = Callable[[X, Point | None, X | None], X]
"""Applied after every change of x, with the level that x has then (None: clean), and fresh noise if it asks for it."""


@runtime_checkable
class Process(Protocol):
    """A noise process, known by its rates and by their inverse in lam = log(alpha / sigma)."""

    def rates(self, t: Float[Tensor, " *t"]) -> Rates:
        """Alpha and sigma at diffusion times `t` (any shape)."""
        ...

    def time(self, lam: Float[Tensor, " *t"]) -> Float[Tensor, " *t"]:
        """The diffusion time at which log(alpha / sigma) equals `lam`."""
        ...


class Draw(NamedTuple):
    """One random tensor that a loss or an act needs: its law, and its shape for each row or once per update.

    A row is a sample of the batch, or an environment.
    """

    law: Literal["normal", "uniform"]
    shape: tuple[int, ...] = ()
    per: Literal["row", "update"] = "row"


NoiseSpec = Mapping[str, Draw]
"""Names of the random tensors of one loss or one act. Rows come first: shape (5, 2) per row arrives as (b, 5, 2)."""

Noise = Mapping[str, Tensor]
Metrics = dict[str, Float[Tensor, ""]]


class Transitions(NamedTuple):
    """A batch of steps.

    `terminal` (1 or 0) excludes time limits; `discount` is the factor on the bootstrap, gamma^n after n steps.
    """

    obs: Float[Tensor, " b obs"]
    action: Float[Tensor, " b act"]
    reward: Float[Tensor, " b"]
    next_obs: Float[Tensor, " b obs"]
    terminal: Float[Tensor, " b"]
    discount: Float[Tensor, " b"]


class Segments(NamedTuple):
    """A batch of windows, each inside one episode; rows after an episode's end repeat its last one and have mask 0.

    `returns` sums the discounted rewards from the window's first step to the end of the episode, not of the window.
    """

    obs: Float[Tensor, " b horizon obs"]
    action: Float[Tensor, " b horizon act"]
    reward: Float[Tensor, " b horizon"]
    mask: Float[Tensor, " b horizon"]
    returns: Float[Tensor, " b"]


class Rolled(NamedTuple):
    """A batch of a policy's own steps: what it drew on the way to each action, and what became of it.

    `path` holds the k + 1 states of k draws, whose log-densities were `log_prob`; `target` is the critic's.
    """

    obs: Float[Tensor, " b obs"]
    path: Float[Tensor, " b states act"]
    log_prob: Float[Tensor, " b k"]
    advantage: Float[Tensor, " b"]
    target: Float[Tensor, " b"]


@runtime_checkable
class Batches(Protocol):
    """A data set that is sampled by index: `fit` draws the indices, `gather` looks them up."""

    def __len__(self) -> int: ...

    def gather(self, index: Int[Tensor, " b"]) -> Any:
        """The batch (a NamedTuple of tensors with b rows) at these indices in [0, len)."""
        ...

    def to(self, where: device | str) -> "Batches":
        """The same data, resident on a device."""
        ...


@runtime_checkable
class Growing(Batches, Protocol):
    """Data that come while they are learned from: `fit` lets them grow before each update."""

    def grow(self, learner: Any) -> None:
        """Make the experience that is due before the next update, with the learner as it is now."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that has to be put back to go on exactly; what cannot be stored is begun anew here, now."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        ...


@runtime_checkable
class Ordered(Batches, Protocol):
    """Data that say themselves which examples come next, as epochs do; of other data `fit` draws the indices."""

    def choose(self, rows: int) -> Int[Tensor, " b"]:
        """The indices of the next batch."""
        ...


@dataclass(frozen=True)
class Spaces:
    """Sizes and bounds that a system needs to be built; stored with every checkpoint.

    A policy of a goal-conditioned task receives observations of size `obs + goal`, the goal last.
    """

    obs: int
    act: int
    goal: int = 0
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Fill the usual box [-1, 1] and refuse bounds of another size."""
        if not self.action_low:
            object.__setattr__(self, "action_low", (-1.0,) * self.act)
        if not self.action_high:
            object.__setattr__(self, "action_high", (1.0,) * self.act)
        if len(self.action_low) != self.act or len(self.action_high) != self.act:
            raise ValueError(
                f"action bounds of size {len(self.action_low)} and {len(self.action_high)} for {self.act} actions: "
                "give one lower and one upper bound per action"
            )


@dataclass(frozen=True)
class Adam:
    """Adam's settings as plain values; `fit` owns the state. Source: Kingma, Ba 2015 (1412.6980).

    `clip`: largest gradient norm over the phase's module (0: none), before the decay. `warmup`: steps of a linear rise
    to `lr`. `schedule`: after that "constant", or "cosine", half a period to 0 at the end of the stage. `accumulate`:
    equal parts in which a batch is taken, one after the other, to save memory; the gradient is their mean.
    `weight_decay`: the factor of an L2 penalty's gradient, as in torch.optim.Adam.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    accumulate: int = 1
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings with which nothing could be trained."""
        if min(self.lr, self.clip, self.warmup, self.weight_decay) < 0 or self.accumulate < 1:
            raise ValueError(
                f"{self}: lr, clip, warmup and weight_decay must be at least 0 and accumulate at least 1; "
                "a clip of 0 clips nothing"
            )


@dataclass(frozen=True)
class Rollouts:
    """How a policy that learns from its own newest steps alone gathers them and goes through them.

    `n_envs` environments side by side take `n_steps` steps each, which are learned from in `epochs` passes of batches
    of `batch_size`, then forgotten. `discount` and `trace` (the paper's lambda) make the advantages. `scale_rewards`:
    divided by the running standard deviation of the discounted returns. `target_kl`: a batch on which the policy has
    drifted further than that ends the passes (0: none does). `steps`: updates in all.
    """

    n_envs: int
    n_steps: int
    epochs: int
    batch_size: int
    steps: int
    discount: float = 0.99
    trace: float = 0.95
    scale_rewards: bool = True
    target_kl: float = 0.0

    def __post_init__(self) -> None:
        """Refuse passes that do not come out even."""
        if min(self.n_envs, self.n_steps, self.epochs, self.batch_size, self.steps) < 1 or self.target_kl < 0:
            raise ValueError(f"{self}: all sizes must be at least 1 and target_kl at least 0")
        if self.n_envs * self.n_steps % self.batch_size:
            raise ValueError(
                f"n_envs * n_steps = {self.n_envs * self.n_steps} steps do not divide into batches of "
                f"{self.batch_size}: change one of them"
            )


Loss = Callable[[Any, Noise], tuple[Float[Tensor, ""], Metrics]]


@dataclass(frozen=True)
class Descend:
    """One gradient step on the parameters of `module` (and of nothing else) down `loss`, a method of the learner.

    `every`: only at update steps divisible by it, as TD3's delayed actor.
    """

    name: str
    module: nn.Module
    loss: Loss
    adam: Adam
    noise: NoiseSpec
    every: int = 1

    def __post_init__(self) -> None:
        """Refuse a delay of no steps."""
        if self.every < 1:
            raise ValueError(f"phase {self.name!r}: every = {self.every} must be at least 1, which is at every update")


@dataclass(frozen=True)
class Average:
    """target <- (1 - rate) target + rate source, at update steps divisible by `every` from step `after` on.

    Before `after` the target is held at its first weights, or copied from the source at each of those steps.
    """

    target: nn.Module
    source: nn.Module
    rate: float
    every: int = 1
    after: int = 0
    before: Literal["hold", "copy"] = "hold"

    def __post_init__(self) -> None:
        """Refuse delays that cannot be, and rates outside (0, 1]: the classic slip is the share of the old weights."""
        if self.every < 1 or self.after < 0:
            raise ValueError(f"every = {self.every} must be at least 1 and after = {self.after} at least 0")
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(
                f"rate = {self.rate} must lie in (0, 1]; it is the share of the new weights, not of the old"
            )


Phase = Descend | Average


@runtime_checkable
class Learner(Protocol):
    """What `fit` needs. A learner is an nn.Module that holds all its tensors as parameters and buffers."""

    def phases(self) -> tuple[Phase, ...]:
        """The phases of one update, in the published order."""
        ...


@runtime_checkable
class Policy(Protocol):
    """What evaluation, export and serving need. Memory is data: the carry, a pytree of tensors with n leading rows.

    A policy that also has `plan(obs, carry, noise) -> carry` and `plan_every` (environment steps; 0: once an episode)
    is planned for by the caller at those steps; its `act` then follows the plan in the carry. One that also has
    `renew(carry) -> carry` begins an episode with what that makes of the last one's memory, and only the first of all
    with `start`.
    """

    noise: NoiseSpec

    def start(self, n_envs: int) -> Any:
        """The carry of n fresh episodes."""
        ...

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """Actions in the environment's units, and the next carry."""
        ...


Mask = Bool[Tensor, " b"]
