"""Checks that a system can be compiled: one graph for each loss with its gradient and for each act, of equal values."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ornstein.contract.acting import Player, observations
from ornstein.contract.case import Broken, Case, double
from ornstein.types import Policy
from ornstein.update.gradient import plain


class Graphs:
    """A compiler that counts the graphs that it is given, and runs them as they are."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, module: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        """The graph itself."""
        self.count += 1
        return module.forward

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, traced; a graph break is an error."""
        torch._dynamo.reset()
        return torch.compile(function, fullgraph=True, dynamic=False, backend=self)


def losses(case: Case) -> None:
    """Each loss with its gradient is one unbroken graph that equals the eager one to 1e-8 in double precision."""
    for stage in case.stages:
        learner = deepcopy(stage.learner).double().train()
        live = dict(learner.named_parameters()) | dict(learner.named_buffers())
        for phase in stage.descents(learner):
            inside = {id(p) for p in phase.module.parameters() if p.requires_grad}
            names = [name for name, p in learner.named_parameters() if id(p) in inside]
            graphs = Graphs()
            traced = plain(phase, names, compiler=graphs.compile)
            batch, noise = double(stage.batch(0)), double(stage.noise(phase, 0))
            ours, theirs = (gradient(live, batch, noise) for gradient in (traced, plain(phase, names)))
            pairs = [(ours.loss, theirs.loss), *zip(ours.gradients, theirs.gradients, strict=True)]
            _compare(f"loss {phase.name!r}", graphs, pairs)


def acts(case: Case) -> None:
    """Each act, and each plan, is one unbroken graph that equals the eager one to 1e-8 in double precision."""
    policy = deepcopy(case.learner).double()
    obs = observations(case, 3)[0]
    eager, traced = Player(policy, range(3), wide=True), Player(policy, range(3), wide=True)
    for name in ("plan", "act") if traced.plans else ("act",):
        graphs = Graphs()
        traced.policy = _With(policy, name, graphs.compile(getattr(policy, name)))
        eager, traced = _restarted(eager), _restarted(traced)
        pairs = [
            (traced.step(obs), eager.step(obs)),
            *zip(*map(pytree.tree_leaves, (traced.carry, eager.carry)), strict=True),
        ]
        _compare(name, graphs, pairs)


class _With:
    """A policy with one method replaced."""

    def __init__(self, policy: nn.Module, name: str, method: Callable[..., Any]) -> None:
        self.policy = policy
        setattr(self, name, method)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)


def _restarted(player: Player) -> Player:
    return Player(player.policy, range(len(player.sources)), wide=player.wide)


def _compare(what: str, graphs: Graphs, pairs: list[tuple[Tensor, Tensor]]) -> None:
    if graphs.count != 1:
        raise Broken(f"{what} is {graphs.count} graphs, expected one")
    far = max(float((a.detach().double() - b.detach().double()).abs().max()) for a, b in pairs if a.numel())
    if not far < 1e-8:
        raise Broken(f"{what} differs by {far:.2g} when compiled")


def checks(learner: nn.Module) -> dict[str, Callable[[Case], None]]:
    """The checks that fit what a learner offers."""
    found: dict[str, Callable[[Case], None]] = {"each loss with its gradient is one graph": losses}
    return found | ({"each act is one graph": acts} if isinstance(learner, Policy) else {})
