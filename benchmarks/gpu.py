"""The same on a GPU, where there is one: updates in each mode, eight seeds at once, the latency of an act."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Race, Row
from benchmarks.policy import SPACES, act_of, make, usual_update
from benchmarks.subjects import Training, episodes
from benchmarks.usual.diffusion_ql import Agent
from ornstein.data.transitions import transitions
from ornstein.noise import draw, generator
from ornstein.systems.policies.diffusion_ql import DiffusionQL
from ornstein.update.capture import cuda_graph


def rows(quick: bool) -> list[Row]:
    """Nothing without a GPU."""
    if not torch.cuda.is_available():
        return []
    return [*updates(quick), *acts(quick)]


def updates(quick: bool) -> list[Row]:
    """Diffusion-QL: each mode against the official way on the same GPU, and eight seeds against one."""
    data = transitions(episodes(20_000)).to("cuda")
    usual = Agent(SPACES.obs, SPACES.act, device="cuda")
    works: dict[str, Callable[[], Any]] = {"usual": usual_update(usual, data.gather)}
    for mode in ("eager", "compiled", "graphs"):
        works[mode] = Training([make().cuda()], data, 256, mode=mode)
    works["eight"] = Training([make(seed=seed).cuda() for seed in range(8)], data, 256, mode="graphs")
    race = Race({name: waiting(work) for name, work in works.items()}, turns=5 if quick else 15, block_ms=200)
    bars = {"eager": None, "compiled": None, "graphs": 8.0}
    found = []
    for mode, bar in bars.items():
        ratio = race.ratio("eager", mode, "wall")
        more = {"over_usual": race.ratio("usual", mode, "wall")}
        text, met = (f">= {bar:g}", ratio >= bar) if bar else ("", None)
        found.append(
            Row(
                f"Diffusion-QL update on the GPU, {mode}, over eager",
                race.wall[mode],
                race.wall["usual"],
                ratio,
                bar=text,
                met=met,
                more=more,
            )
        )
    ratio = race.ratio("eight", "graphs", "wall")
    found.append(
        Row(
            "eight seeds over one, graphs",
            race.wall["eight"],
            race.wall["graphs"],
            ratio,
            bar="<= 1.6",
            met=ratio <= 1.6,
        )
    )
    return found


def acts(quick: bool) -> list[Row]:
    """One act over 50 candidates, eagerly and captured, from array to array."""
    state, learner = np.random.default_rng(0).standard_normal(SPACES.obs), make().cuda()
    race = Race({"eager": act_of(learner, state), "captured": captured(learner, state)}, turns=5 if quick else 15)
    ours = race.wall["captured"]
    name = "Diffusion-QL act on the GPU"
    return [Row(f"{name}, eager", race.wall["eager"]), Row(f"{name}, captured", ours, bar="< 0.6 ms", met=ours < 0.6)]


def captured(learner: DiffusionQL, state: np.ndarray) -> Callable[[], np.ndarray]:
    """The act as one CUDA graph: state and noise are copied into fixed tensors, then it is replayed."""
    source, carry = generator("act"), learner.start(1)
    obs = torch.as_tensor(state, dtype=torch.float32, device="cuda")[None]
    noise = {name: values.cuda() for name, values in draw(learner.noise, 1, source).items()}

    @torch.no_grad()
    def work() -> torch.Tensor:
        return learner.act(obs, carry, noise)[0]

    work()
    replay, action = cuda_graph(work, obs.device)

    def act() -> np.ndarray:
        obs.copy_(torch.as_tensor(state, dtype=torch.float32)[None])
        for name, values in draw(learner.noise, 1, source).items():
            noise[name].copy_(values)
        replay()
        return action.cpu().numpy()

    return act


def waiting(work: Callable[[], Any]) -> Callable[[], Any]:
    """The work, and the wait for the device to finish it."""

    def run() -> None:
        work()
        torch.cuda.synchronize()

    return run
