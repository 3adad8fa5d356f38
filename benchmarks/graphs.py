"""One graph and no break: every loss with its gradient, every act and every plan of every system, as traced."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn
from torch._dynamo.exc import Unsupported

from benchmarks.measure import Row
from benchmarks.subjects import episodes
from ornstein.contract.compiling import Graphs
from ornstein.data.transitions import transitions
from ornstein.data.windows import windows
from ornstein.diffusion.solver import DDIM
from ornstein.noise import draw, generator
from ornstein.systems.planners import diffuser
from ornstein.systems.policies import diffusion_cloning, diffusion_ql, td3_bc
from ornstein.systems.synthesizers import synther
from ornstein.types import Batches, Descend, Policy, Spaces
from ornstein.update.gradient import plain

ROWS = 8
FIRST = ("Diffusion-QL", "SynthER", "Diffuser")


def rows(quick: bool) -> list[Row]:
    """The largest number of graphs among the functions of each system; the bar is one. Quick: of three systems."""
    found = []
    for name, (learner, data) in cases().items():
        if quick and name not in FIRST:
            continue
        counts: dict[str, int] = {}
        breaks: dict[str, str] = {}
        for part, run in parts(learner, data).items():
            graphs = Graphs()
            try:
                run(graphs)
            except Unsupported as error:
                breaks[part] = str(error).partition("\n")[0]
            counts[part] = graphs.count
        most = max(counts.values())
        label = f"{name}: graphs of {', '.join(counts)}"
        more = {"graphs": counts, "breaks": breaks}
        found.append(Row(label, 0.0, ratio=float(most), bar="= 1", met=most == 1 and not breaks, more=more))
    return found


def cases() -> dict[str, tuple[nn.Module, Batches]]:
    """A small learner of each system with its data: sizes do not change a graph, short chains are quick to trace."""
    spaces, goal, recorded = Spaces(obs=5, act=2), Spaces(obs=4, act=2, goal=2), episodes(400, obs=5, act=2, length=100)
    maze = episodes(400, obs=4, act=2, length=100)
    plan = replace(
        diffuser.Config(),
        horizon=8,
        diffusion_steps=4,
        calls=4,
        width=16,
        multipliers=(1, 2),
        candidates=2,
        batch_size=ROWS,
    )
    reach = replace(plan, task="goal", solver=DDIM(), normalizer="limits", bound=1.0)
    steps = transitions(recorded)
    return {
        "Diffusion-QL": (
            diffusion_ql.DiffusionQL(diffusion_ql.Config(width=16, diffusion_steps=2, candidates=4), spaces),
            steps,
        ),
        "diffusion cloning": (
            diffusion_cloning.DiffusionCloning(diffusion_cloning.Config(width=16, diffusion_steps=2), spaces),
            steps,
        ),
        "TD3+BC": (td3_bc.TD3BC(td3_bc.Config(width=16), spaces), steps),
        "SynthER": (synther.SynthER(synther.Config(width=16, blocks=2, calls=3), spaces), steps),
        "Diffuser": (diffuser.Diffuser(plan, spaces), windows(recorded, plan.horizon)),
        "Diffuser to goals": (diffuser.Diffuser(reach, goal), windows(maze, plan.horizon)),
    }


def parts(learner: nn.Module, data: Batches) -> dict[str, Callable[[Graphs], Any]]:
    """Every function of a learner that must be one graph, to be run under a compiler that counts."""
    found: dict[str, Callable[[Graphs], Any]] = {}
    batch, agent = data.gather(torch.arange(ROWS)), cast("Any", learner)
    live = dict(learner.named_parameters()) | dict(learner.named_buffers())
    for phase in agent.phases():
        if isinstance(phase, Descend):
            inside = {id(p) for p in phase.module.parameters()}
            names = [name for name, p in learner.named_parameters() if id(p) in inside]
            noise = draw(phase.noise, ROWS, generator(0))
            found[f"{phase.name} loss"] = lambda graphs, phase=phase, names=names, noise=noise: plain(
                phase, names, compiler=graphs.compile
            )(live, batch, noise)
    if isinstance(learner, Policy):
        obs = torch.randn(2, agent.spaces.obs + agent.spaces.goal)
        arguments = obs, learner.start(2), draw(learner.noise, 2, generator(0))
        for name in ("plan", "act"):
            if method := getattr(agent, name, None):
                found[name] = lambda graphs, method=method: torch.no_grad()(graphs.compile(method))(*arguments)
    return found
