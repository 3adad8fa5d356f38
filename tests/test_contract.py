"""Every system keeps the contract, and each of its checks can fail."""

import functools
import shutil
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ornstein import catalogue, checkpoint, contract
from ornstein.contract import acting, compiling
from ornstein.contract.case import episodes, prepare
from ornstein.data.episodes import Episodes
from ornstein.data.transitions import transitions
from ornstein.fit import Run, fit
from ornstein.noise import generator
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Phase, Spaces

SYSTEMS = sorted(catalogue.paths())


def failures(system: System, **options: Any) -> dict[str, str]:
    return {result.name: result.detail for result in contract.check(system, **options) if not result.passed}


@pytest.mark.parametrize("name", SYSTEMS)
def test_published_systems_keep_the_contract(name):
    assert failures(catalogue.resolve(name)) == {}


@pytest.mark.graph
@pytest.mark.parametrize("name", SYSTEMS)
def test_published_systems_are_one_graph_per_loss_and_act(name):
    case = prepare(catalogue.resolve(name))
    for examine in compiling.checks(case.learner).values():
        examine(case)


def test_goal_tasks_are_checked_on_goals():
    system = catalogue.resolve("diffuser")
    case = prepare(system, system.preset("maze-fast"))
    assert case.episodes.spaces.goal == 2
    acting.shapes(case)
    acting.apart(case)
    assert prepare(system).episodes.spaces.goal == 0


def test_a_users_own_file_is_checked_like_the_others(tmp_path):
    shutil.copy(Path(__file__).parent / "own_system.py", tmp_path / "my_cloning.py")
    system = catalogue.resolve(str(tmp_path / "my_cloning.py"))
    results = list(contract.check(system, spaces=Spaces(3, 1, action_low=(-2.0,), action_high=(2.0,))))
    assert [result for result in results if not result.passed] == []
    assert len(results) > 10


# A system with one fault at a time ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    fault: str = ""
    batch_size: int = 4
    width: int = 64


class Faulty(nn.Module):
    """A cloning policy with a memory of its last observation, an average and noise; `fault` names what is wrong."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.fault, self.spaces = config.fault, spaces
        size = 2 * (spaces.obs + spaces.goal)
        self.net = nn.Sequential(nn.Linear(size, config.width), nn.Tanh(), nn.Linear(config.width, spaces.act))
        self.ema = deepcopy(self.net).requires_grad_(False)
        self.other = nn.Linear(2, 2)
        self.register_buffer("seen", torch.zeros(()))
        self.noise = {"jitter": Draw("normal", (spaces.act,), "update" if self.fault == "shared noise" else "row")}
        self.calls, self.last = 0, None
        if self.fault == "hidden tensor":
            self.hidden = {"list": [torch.zeros(1)]}

    def phases(self) -> tuple[Phase, ...]:
        draws = {"jitter": 3.0 if self.fault == "no draw" else Draw("normal")}
        module = nn.ModuleList([self.net, self.other]) if self.fault in ("unused", "dead end") else self.net
        clone = Descend("clone", module, self.loss, Adam(1e-2, clip=1.0), draws)
        average = Average(self.ema, self.net, 0.1)
        if self.fault == "no phase":
            return (average,)
        if self.fault == "two of a name":
            return (clone, clone, average)
        if self.fault == "stranger":
            return (replace(clone, module=nn.Linear(1, 1)), average)
        return (clone, average, "phase") if self.fault == "a word" else (clone, average)  # pyright: ignore

    def loss(self, batch: Any, noise: Any) -> Any:  # noqa: PLR0911, PLR0912
        x = torch.cat((batch.obs, batch.next_obs), dim=1)
        guess = self.net(x + 0.01 * noise["jitter"].unsqueeze(1))
        loss, metrics = (guess - batch.action).square().mean(), {"guess": guess.mean()}
        match self.fault:
            case "vector loss":
                return (guess - batch.action).square().mean(1), metrics
            case "bare loss":
                return loss
            case "infinite loss":
                return loss + torch.inf, metrics
            case "metric is a number":
                return loss, {"guess": 1.0}
            case "metric is a vector":
                return loss, {"guess": guess.mean(1)}
            case "global noise":
                return loss + 1e-3 * torch.randn(()), metrics
            case "global noise unused":
                torch.randn(())
            case "counts calls":
                self.calls += 1
                return loss * self.calls, metrics
            case "counts in a buffer":
                self.seen.add_(1.0)
            case "changes the batch":
                batch.reward.add_(1.0)
            case "moves another":
                with torch.no_grad():
                    self.other.weight.add_(1.0)
            case "dead end":
                return loss + 0.0 * self.other(x[:, :2]).sum(), metrics
            case "branches":
                return (loss if loss > 0 else -loss), metrics
        return loss, metrics

    def start(self, n_envs: int) -> Any:
        self.last = None
        zeros = torch.zeros(n_envs, self.spaces.obs + self.spaces.goal)
        return {"flat carry": (1.0,), "short carry": (zeros[:1], zeros)}.get(self.fault, zeros)

    def act(self, obs: Tensor, carry: Any, noise: Any) -> tuple[Tensor, Any]:
        memory = carry[-1] if isinstance(carry, tuple) else carry
        following: Any = carry if isinstance(carry, tuple) else obs
        if not isinstance(memory, Tensor):
            memory = torch.zeros_like(obs)
        if self.fault == "memory on self":
            memory, self.last = (memory if self.last is None else self.last), obs
        if self.fault == "batch statistics":
            obs = obs - obs.mean(0)
        if self.fault == "learns while acting":
            self.seen.add_(1.0)
        jitter = torch.randn(len(obs), self.spaces.act) if self.fault == "acts at random" else noise["jitter"]
        if self.fault == "draws and forgets":
            torch.randn(())
        action = torch.tanh(self.net(torch.cat((obs, memory), dim=1)) + 0.1 * jitter)
        low, high = (obs.new_tensor(bound) for bound in (self.spaces.action_low, self.spaces.action_high))
        action = low + (high - low) * (action + 1) / 2
        match self.fault:
            case "wrong size":
                action = action[:, :-1]
            case "beyond the box":
                action = action * 3
            case "not a number":
                action = action * torch.nan
            case "reads the action":
                action = action * (1.0 if action.sum().item() > 0 else 2.0)
        return action, following


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    if config.fault == "raises":
        raise RuntimeError("no way")
    if config.fault == "no fit":
        return [Faulty(config, episodes.spaces)]
    build = run.build if config.fault != "one weight for all" else _alike
    agents = build(lambda: Faulty(config, episodes.spaces))
    if config.fault == "random weights":
        with torch.no_grad():
            agents[0].net[0].weight.add_(torch.randn(agents[0].net[0].weight.shape))
    fit(agents, transitions(episodes), steps=9, batch_size=config.batch_size, run=run)
    if config.fault == "changes after fit":
        agents[0].seen.add_(1.0)
    return agents


def _alike(factory: Any) -> list[nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [factory()]


def faulty(fault: str, **changes: Any) -> System:
    config = Config(fault)
    source = Source("Faults", "Nobody", 2024, "Nowhere")
    return replace(System(source, Config, {"only": config}, {}, Faulty, train), **changes)


TRAINS, PHASES = "trains on a few episodes", "phases are well formed"
LOSSES, PURE = "losses are finite scalars", "losses are functions of batch and noise"
MOVES, SEEDS = "updates move what phases name and nothing else", "seeds at once move as each alone"
AGAIN, RESUMES = "a seed gives the same weights again", "a resumed run ends like an uninterrupted one"
RETURNS, REFUSES = "a learner comes back from its checkpoint", "a checkpoint with other tensors is refused"
ACTIONS, SAME = "actions have shapes and bounds", "the same noise gives the same actions"
ALONE, APART = "one environment acts as among many", "interleaved environments are apart"


def test_the_faulty_system_without_a_fault_keeps_the_contract():
    results = list(contract.check(faulty("")))
    assert [r for r in results if not r.passed] == []
    names = [r.name for r in results]
    assert names == [
        TRAINS, "tensors are registered", PHASES, LOSSES, PURE, MOVES, SEEDS, AGAIN, RESUMES, RETURNS, REFUSES,
        ACTIONS, SAME, ALONE, APART,
    ]  # fmt: skip


FAULTS = {
    "raises": (TRAINS, "RuntimeError: no way"),
    "no fit": (TRAINS, "never called fit"),
    "hidden tensor": ("tensors are registered", "'hidden' holds a tensor"),
    "a word": (PHASES, "phase 'phase' is neither Descend nor Average"),
    "no phase": (PHASES, "phases are named []"),
    "two of a name": (PHASES, "phases are named ['clone', 'clone']"),
    "stranger": (PHASES, "Linear has parameters outside of its learner"),
    "bare loss": (LOSSES, "expected (loss, metrics)"),
    "vector loss": (LOSSES, "the loss is a tensor of shape (4,), expected a scalar"),
    "infinite loss": (LOSSES, "the loss is inf on ordinary data"),
    "metric is a number": (LOSSES, "metric 'guess' is 1.0, expected a scalar tensor"),
    "metric is a vector": (LOSSES, "metric 'guess' is a tensor of shape (4,)"),
    "global noise": (PURE, "the same batch and noise gave another loss"),
    "global noise unused": (PURE, "draws from torch's global generator"),
    "counts calls": (PURE, "the same batch and noise gave another loss"),
    "counts in a buffer": (PURE, "the loss changed 'seen'"),
    "changes the batch": (PURE, "the loss changed its batch or noise"),
    "unused": (TRAINS, "does not depend on 'other.weight'"),
    "dead end": (MOVES, "8 updates did not move 'other.bias'"),
    "moves another": (MOVES, "updates moved 'other.weight', which no phase names"),
    "branches": (SEEDS, "data-dependent control flow"),
    "random weights": (AGAIN, "two runs of seed 0 ended with different weights"),
    "one weight for all": (AGAIN, "seeds 0 and 1 begin with the same weights"),
    "changes after fit": (RETURNS, "'seen' did not come back"),
    "shared noise": (ACTIONS, "noise 'jitter' of the policy is drawn per update"),
    "wrong size": (ACTIONS, "have shape (1, 1), not (1, 2)"),
    "not a number": (ACTIONS, "an action is not finite"),
    "beyond the box": (ACTIONS, "outside of the bounds"),
    "flat carry": (ACTIONS, "the carry of 1 environments holds 1.0"),
    "short carry": (ACTIONS, "not a tensor with 4 leading rows"),
    "acts at random": (SAME, "gave other actions"),
    "draws and forgets": (SAME, "acting draws from torch's global generator"),
    "learns while acting": (SAME, "acting changed 'seen'"),
    "batch statistics": (ALONE, "acts differently than among four"),
    "memory on self": (APART, "memory belongs into the carry"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_named(fault):
    name, detail = FAULTS[fault]
    found = failures(faulty(fault))
    assert name in found
    assert detail in found[name]


def test_noise_that_is_no_draw_is_found():
    """By the check, or before it by the runtime shape checker where that is on."""
    detail = failures(faulty("no draw"))[PHASES]
    assert "noise 'jitter' is 3.0, expected a Draw" in detail or "TypeCheckError" in detail


def test_a_resumed_run_that_ends_elsewhere_is_found():
    """A learner that counts its calls in Python starts from 1 again."""
    assert "differs between a resumed and an uninterrupted run" in failures(faulty("counts calls"))[RESUMES]


def test_lenient_loading_is_found(monkeypatch):
    def lenient(module: nn.Module, weights: dict[str, Tensor], origin: object) -> None:
        module.load_state_dict(weights, strict=False)

    monkeypatch.setattr(checkpoint, "restore", lenient)
    found = failures(faulty(""))
    assert found.keys() == {REFUSES}
    assert "a checkpoint without 'ema.0.bias' was loaded" in found[REFUSES]


@pytest.mark.graph
@pytest.mark.parametrize(
    "fault, name",
    [("branches", "each loss with its gradient is one graph"), ("reads the action", "each act is one graph")],
)
def test_a_graph_break_is_found(fault, name):
    results = {r.name: r for r in contract.check(faulty(fault), quick=False)}
    assert not results[name].passed
    assert results[name].detail
    sound = compiling.checks(prepare(faulty("")).learner)
    assert sound.keys() == {"each loss with its gradient is one graph", "each act is one graph"}


class Maker(nn.Module):
    """A generator of data with one fault: normal numbers scaled by one weight."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.fault, self.spaces = config.fault, spaces
        self.scale = nn.Linear(1, 1)
        self.register_buffer("made", torch.zeros(()))

    def phases(self) -> tuple[Phase, ...]:
        return (Descend("scale", self.scale, self.loss, Adam(1e-2), {}),)

    def loss(self, batch: Any, noise: Any) -> Any:
        return (self.scale(batch.reward.unsqueeze(1)) - 1.0).square().mean(), {}

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> Any:
        if self.fault == "forgets the seed":
            seed = 0
        if self.fault == "notes what it made":
            self.made.add_(n)
        source = None if self.fault == "draws globally" else generator("maker", seed)
        if self.fault == "draws beside":
            torch.randn(())
        obs, then = torch.randn(2, n, self.spaces.obs, generator=source)
        action, reward = torch.zeros(n, self.spaces.act), self.scale(torch.ones(n, 1))[:, 0]
        if self.fault == "a tensor":
            return obs
        rows = slice(0, n - 1 if self.fault == "too few" else n)
        ended = torch.zeros(n, dtype=torch.bool)
        return Episodes.from_transitions(
            obs[rows], action[rows], reward[rows], next_obs=then[rows], terminal=ended[rows]
        )


class Idle(Maker):
    """Neither acts nor generates."""

    @property
    def generate(self) -> Any:
        raise AttributeError("generate")


MAKER_FAULTS = {
    "": None,
    "a tensor": "generate(70, 0) gave Tensor, expected Episodes",
    "too few": "gave (steps, obs, act) = (69, 5, 2), expected (70, 5, 2)",
    "draws globally": "other data for the same seed",
    "forgets the seed": "the same data for another seed",
    "notes what it made": "generating changed 'made'",
    "draws beside": "generating draws from torch's global generator",
}


def maker(kind: type[Maker], fault: str) -> System:
    def learn(config: Config, data: Episodes, run: Run) -> list[nn.Module]:
        agents = run.build(lambda: kind(config, data.spaces))
        fit(agents, transitions(data), steps=9, batch_size=config.batch_size, run=run)
        return agents

    return faulty(fault, build=kind, train=learn)


@pytest.mark.parametrize("fault", MAKER_FAULTS)
def test_generators_are_checked_as_generators(fault):
    found, expected = failures(maker(Maker, fault)), MAKER_FAULTS[fault]
    if expected is None:
        assert found == {}
    else:
        assert found.keys() == {"generated data are data"}
        assert expected in found["generated data are data"]


def test_a_learner_that_does_nothing_is_found():
    found = failures(maker(Idle, ""))
    assert found == {
        "a learner acts or generates": "Idle neither acts (noise, start, act) nor generates data (generate)"
    }


def test_generated_episodes_suit_the_spaces():
    spaces = Spaces(3, 2, goal=1, action_low=(-3.0, 0.0), action_high=(-1.0, 2.0))
    data = episodes(spaces, count=4, steps=6)
    assert data.spaces == spaces
    assert data.lengths.tolist() == [6] * 4
    assert data.terminal.sum() == 2
    assert data.hash == episodes(spaces, count=4, steps=6).hash
    assert bool((data.action[:, 0] < -1.0).all() & (data.action[:, 1] > 0.0).all())


def test_sizes_are_cut_where_the_configuration_allows():
    case = prepare(faulty(""))
    assert case.config.width == 16

    @functools.wraps(Faulty)
    def proud(config: Config, spaces: Spaces) -> Faulty:
        if config.width < 20:
            raise ValueError("too narrow")
        return Faulty(config, spaces)

    assert prepare(faulty("", build=proud)).config.width == 64
