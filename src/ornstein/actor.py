"""What policies learned from rewards are made of: a diffusion model of one action, and how it meets critics and data.

This room joins the mathematics of `diffusion`, `rl` and `data`, which do not know each other, into the parts that
several systems share; what tells the systems apart stays in their files.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.data.episodes import Episodes
from ornstein.data.goal import joined
from ornstein.data.normalize import Gaussian
from ornstein.data.reward import transform_reward
from ornstein.data.transitions import transitions
from ornstein.diffusion.denoiser import Clock, Denoiser, Eps, Index, Predict
from ornstein.diffusion.grid import Grid, uniform
from ornstein.diffusion.process import DiscreteVP, corrupt
from ornstein.diffusion.sampler import Sampler, drawn_level
from ornstein.diffusion.solver import DDPM, Solver
from ornstein.fit import Run, fit
from ornstein.rl.critic import Critics, candidate_values
from ornstein.rl.select import draw_by_value
from ornstein.rl.target import td_target
from ornstein.types import Constrain, Draw, Noise, NoiseSpec, Point, Process, Transitions


class DiffusionActor(nn.Module):
    """The law of an action in [-1, 1]^act given an observation: a denoiser, its levels in training, and its sampler.

    `network(x_t, t, obs)`. By default as in Diffusion-QL: the noise is predicted, the denoised action is clamped to the
    box at every step, and training and sampling share the levels of one discrete chain. `scale`: standard deviation of
    the start noise; `constrain` acts on the iterate itself. `draws` is the noise of `noised`, `needs` that of sampling.
    Source: Wang et al. 2023 (2208.06193), section 3.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        act: int,
        *,
        grid: Grid | None = None,
        solver: Solver = DDPM(),  # noqa: B008 (a frozen value)
        predict: Predict = Eps(),  # noqa: B008
        clock: Clock | None = None,
        bound: float | None = 1.0,
        scale: float = 1.0,
        constrain: Constrain | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(process, DiscreteVP) and (grid is None or clock is None):
            raise ValueError(f"{process} has no steps of its own: give the grid of the sampler and the network's clock")
        steps = process.steps if isinstance(process, DiscreteVP) else 0
        self.process, self.act, self.constrain = process, act, constrain
        self.denoiser = Denoiser(network, process, predict, clock=clock or Index(steps), bound=bound)
        self.sampler = Sampler(grid or uniform(process, steps), solver, scale=scale)
        self.draws: NoiseSpec = {"t": Draw("uniform"), "eps": Draw("normal", (act,))}

    def needs(self, copies: int = 0) -> NoiseSpec:
        """The noise of one action a row, or of `copies` candidates."""
        return self.sampler.needs((self.act,), copies=copies)

    def noised(self, action: Float[Tensor, " b act"], noise: Noise) -> tuple[Float[Tensor, " b act"], Point]:
        """Actions at levels drawn as in training, and these levels."""
        level = drawn_level(self.process, noise["t"], action)
        return corrupt(action, level, noise["eps"]), level

    def cloning(
        self, obs: Float[Tensor, " b obs"], action: Float[Tensor, " b act"], noise: Noise
    ) -> Float[Tensor, " b act"]:
        """The denoising loss of every entry: its squared error in what the network predicts."""
        return self.denoiser.regression(action, drawn_level(self.process, noise["t"], action), noise["eps"], obs)

    def reconstructed(
        self, obs: Float[Tensor, " b obs"], action: Float[Tensor, " b act"], noise: Noise
    ) -> tuple[Float[Tensor, " b act"], Float[Tensor, " b act"]]:
        """What `cloning` gives, and from the same network call the action denoised in one step, within the bound."""
        x_t, level = self.noised(action, noise)
        output = self.denoiser.output(x_t, level, obs)
        error = (output - self.denoiser.predict.target(action, level, noise["eps"])).square()
        return error, self.denoiser.clean(output, x_t, level)

    def forward(self, obs: Float[Tensor, " b obs"], noise: Noise) -> Float[Tensor, " b act"]:
        """One action a row, differentiable through every denoising step."""
        return self.sampler(self.denoiser.given(obs), noise, constrain=self.constrain)

    def candidates(self, obs: Float[Tensor, " b obs"], noise: Noise) -> Float[Tensor, " b k act"]:
        """`k` actions a row, as many as the noise holds."""
        k = noise["start"].shape[1]
        return self.sampler.many(self.denoiser.given(obs.repeat_interleave(k, 0)), noise, constrain=self.constrain)


def candidate_target(critics: Critics, actor: DiffusionActor, batch: Transitions, noise: Noise) -> Float[Tensor, " b"]:
    """The target r + gamma min_i max_k Q_i(s', a_k), a_k from the actor, detached: max-Q backup for several k.

    Source: Wang et al. 2023 (2208.06193), eq. 4 and appendix B.
    """
    with torch.no_grad():
        values = candidate_values(critics, batch.next_obs, actor.candidates(batch.next_obs, noise))
        return td_target(batch.reward, batch.terminal, batch.discount, values.amax(-1).amin(0))


def drawn_action(
    actor: DiffusionActor, critics: Critics, obs: Float[Tensor, " n obs"], noise: Noise
) -> Float[Tensor, " n act"]:
    """One of the actor's candidates, drawn by a softmax of the critics' minimum; noise as in `choice_noise`.

    Source: Wang et al. 2023 (2208.06193), section 5.
    """
    action = actor.candidates(obs, noise)
    return draw_by_value(action, candidate_values(critics, obs, action).amin(0), noise["choice"])


def choice_noise(actor: DiffusionActor, candidates: int) -> NoiseSpec:
    """The noise with which one of so many candidates is drawn."""
    return dict(actor.needs(candidates)) | {"choice": Draw("uniform", (candidates,))}


def best_episodes(episodes: Episodes, share: float) -> Episodes:
    """The share of the episodes with the highest returns, at least one; all of them, as they are, for a share of 1."""
    if share >= 1:
        return episodes
    return episodes.select(episodes.returns.argsort(descending=True)[: max(1, round(share * episodes.n_episodes))])


def standardized(episodes: Episodes, learners: list[Any]) -> Episodes:
    """Episodes whose observations have mean 0 and deviation 1 over the data; the learners' `inputs` then do the same.

    So losses see standardised observations; acting, which meets the environment's, passes them through `inputs` first.
    Learners that begin with weights of another run (`Run.init_from`) keep the scale that these were trained with.
    """
    first, *others = (deepcopy(learner.inputs).cpu() for learner in learners)
    if not bool(first.mean.any() or (first.std != 1).any()):  # not fitted yet
        first = Gaussian(episodes.spaces.obs).fit(episodes.obs)
        for learner in learners:
            learner.inputs.load_state_dict(first.state_dict())
    elif not all(torch.equal(a.mean, first.mean) and torch.equal(a.std, first.std) for a in others):
        raise ValueError("the weights to start from saw observations on scales of their own: continue them one by one")
    return replace(episodes, obs=first(episodes.obs))


def fit_transitions(
    build: Callable[[Episodes], nn.Module], config: Any, episodes: Episodes, run: Run
) -> list[nn.Module]:
    """One learner per seed of the run, built for the episodes and trained on their transitions in one stage.

    `config` has steps and batch_size, and may have discount (0.99), n_step (1), standardize and reward, a transform by
    name. Goals are part of the observation, where official codes learn D4RL's mazes without them.
    """
    episodes = joined(transform_reward(episodes, getattr(config, "reward", "none")))
    learners = run.build(lambda: build(episodes))
    if getattr(config, "standardize", False):
        episodes = standardized(episodes, learners)
    discount, n = getattr(config, "discount", 0.99), getattr(config, "n_step", 1)
    data, held_out = run.batches(episodes, lambda e: transitions(e, discount=discount, n=n))
    fit(learners, data, steps=config.steps, batch_size=config.batch_size, run=run, validation=held_out)
    return learners
