"""Diffusion-QL: one update of everything, and one act over 50 candidates."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import Race, Row, floor
from benchmarks.subjects import Training, copy_layers, episodes
from benchmarks.usual.diffusion_ql import Agent
from ornstein.data.transitions import transitions
from ornstein.noise import draw, generator
from ornstein.rl.critic import BatchedLinear
from ornstein.systems.policies.diffusion_ql import PRESETS, DiffusionQL
from ornstein.types import Spaces

SPACES = Spaces(obs=17, act=6)
BARS = {"mish": (1.15, 1.3), "silu": (1.5, 1.7)}


def rows(quick: bool) -> list[Row]:
    """Mish against the official way, and SiLU against the same."""
    turns, usual, data = 7 if quick else 21, Agent(SPACES.obs, SPACES.act), transitions(episodes(20_000))
    state = np.random.default_rng(0).standard_normal(SPACES.obs)
    found = []
    for activation, (bar, _) in BARS.items():
        train = Training([make(activation)], data, 256)
        race = Race({"ours": train, "usual": usual_update(usual, data.gather)}, turns=turns, block_ms=150)
        found.append(race.row(f"Diffusion-QL update, {activation}", bar, floor(train)))
    for activation, (_, bar) in BARS.items():
        act = act_of(make(activation), state)
        race = Race({"ours": act, "usual": lambda: usual.act(state)}, turns=3 * turns)
        found.append(race.row(f"Diffusion-QL act, 50 candidates, {activation}", bar, floor(act)))
    return found


def make(activation: str = "mish", seed: int = 0) -> DiffusionQL:
    """An untrained learner of the paper's sizes."""
    torch.manual_seed(seed)
    return DiffusionQL(replace(PRESETS["locomotion"], activation=activation), SPACES)


def usual_update(agent: Agent, gather: Callable[[Tensor], tuple[Tensor, ...]], size: int = 256) -> Callable[[], object]:
    """The official loop: a batch by index from resident tensors, then the update."""
    agent.step = 5000
    obs, action, reward, next_obs, terminal, _ = gather(torch.arange(20_000 - 1, device=agent.device))
    columns = obs, action, next_obs, reward[:, None], 1 - terminal[:, None]

    def step() -> object:
        index = torch.randint(0, len(obs), size=(size,)).to(agent.device)
        return agent.update(tuple(column[index] for column in columns))

    return step


def act_of(learner: DiffusionQL, state: np.ndarray) -> Callable[[], np.ndarray]:
    """One act as `evaluate` asks for it, from array to array."""
    source, carry, device = generator("act"), learner.start(1), learner.box.middle.device

    @torch.no_grad()
    def act() -> np.ndarray:
        obs = torch.as_tensor(state, dtype=torch.float32, device=device)[None]
        noise = {name: values.to(device) for name, values in draw(learner.noise, 1, source).items()}
        return learner.act(obs, carry, noise)[0].cpu().numpy()

    return act


def match(learner: DiffusionQL, usual: Agent) -> None:
    """Give the reference the weights of our networks and their averages."""
    for ours, theirs in ((learner.actor.denoiser, usual.actor), (learner.actor_ema.denoiser, usual.average)):
        network: Any = ours.network
        copy_layers(network.time, theirs.network.time)
        copy_layers(network.body, nn.Sequential(theirs.network.middle, theirs.network.last))
    for ours, theirs in ((learner.critics, usual.critic), (learner.critics_target, usual.target)):
        batched: Any = [layer for layer in ours.modules() if isinstance(layer, BatchedLinear)]
        for member, twin in enumerate((theirs.q1, theirs.q2)):
            for layer, own in zip(batched, (m for m in twin if isinstance(m, nn.Linear)), strict=True):
                own.weight.data = layer.weight.detach()[member].mT.clone()
                own.bias.data = layer.bias.detach()[member, 0].clone()
