"""Systems as values, and trained learners read back from their runs."""

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ornstein import checkpoint
from ornstein.data.episodes import Episodes
from ornstein.data.transitions import transitions
from ornstein.fit import Run, fit
from ornstein.source import Source
from ornstein.system import System, load
from ornstein.types import Adam, Descend, Metrics, Noise, Phase, Spaces
from toys import distance, weights


@dataclass(frozen=True)
class Config:
    """Settings of a cloning policy; `adam` is a nested value of the package."""

    adam: Adam = Adam(1e-2)  # noqa: RUF009
    width: int = 4


class Cloning(nn.Module):
    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        self.net = nn.Sequential(nn.Linear(spaces.obs, config.width), nn.Tanh(), nn.Linear(config.width, spaces.act))

    def phases(self) -> tuple[Phase, ...]:
        return (Descend("net", self.net, self.loss, self.config.adam, {}),)

    def loss(self, batch: Any, noise: Noise) -> tuple[Tensor, Metrics]:
        return (self.net(batch.obs) - batch.action).square().mean(), {}


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    agents = run.build(lambda: Cloning(config, episodes.spaces))
    data, held_out = run.batches(episodes, transitions)
    fit(agents, data, steps=6, batch_size=4, run=run, validation=held_out)
    return agents


SOURCE = Source("Cloning", "Pomerleau", 1988, "NIPS")
SYSTEM = System(SOURCE, Config, {"small": Config(), "wide": replace(Config(), width=8)}, {}, Cloning, train)


def episodes(*, reward: float = 0.0) -> Episodes:
    source = torch.Generator().manual_seed(0)
    obs = [torch.randn(5, 3, generator=source) for _ in range(4)]
    action = [torch.rand(4, 2, generator=source) for _ in range(4)]
    return Episodes.from_lists(obs, action, [torch.full((4,), reward)] * 4, terminal=[True] * 4)


@pytest.fixture
def run(tmp_path):
    learner = SYSTEM.run(SYSTEM.preset("wide"), episodes(), Run(tmp_path, (2,), checkpoint_every=3, quiet=True))[0]
    return tmp_path, learner


def test_a_system_knows_its_name_and_presets():
    assert SYSTEM.name == __name__.rpartition(".")[2]
    assert SYSTEM.module == Config.__module__
    assert SYSTEM.preset() == Config()
    assert SYSTEM.preset("wide").width == 8
    with pytest.raises(ValueError, match=f"{SYSTEM.name} has no preset 'tall'; it has small, wide"):
        SYSTEM.preset("tall")


def test_a_trained_learner_comes_back_bit_for_bit(run):
    directory, learner = run
    system, loaded = load(directory, system=SYSTEM)
    assert system is SYSTEM
    assert not loaded.training
    assert loaded.config == SYSTEM.preset("wide")
    assert loaded.spaces == episodes().spaces
    assert distance(weights(loaded), weights(learner)) == 0.0
    earlier = load(directory, step=3, system=SYSTEM)[1]
    assert distance(weights(earlier), weights(learner)) > 0.0


def test_a_checkpoint_says_what_it_is_of(run):
    directory, _ = run
    config = checkpoint.read(directory).config
    assert config["system"] == SYSTEM.module
    assert config["config"] == checkpoint.encode(SYSTEM.preset("wide"))
    assert config["data"] == {"hash": episodes().hash, "episodes": 4, "steps": 16}


def test_only_the_same_run_is_resumed(run):
    directory, _ = run
    again = Run(directory, (2,), checkpoint_every=3, quiet=True, resume=True)
    assert len(SYSTEM.run(SYSTEM.preset("wide"), episodes(), again)) == 1
    with pytest.raises(ValueError, match=r"config.width was 8 and is now 4"):
        SYSTEM.run(SYSTEM.preset("small"), episodes(), again)
    with pytest.raises(ValueError, match=r"data.hash was"):
        SYSTEM.run(SYSTEM.preset("wide"), episodes(reward=1.0), again)
    with pytest.raises(ValueError, match="holds another run"):
        SYSTEM.run(SYSTEM.preset("wide"), episodes(), replace(again, resume=False))


def test_a_system_outside_of_the_package_is_never_run_by_a_checkpoint(run):
    with pytest.raises(ValueError, match="from outside of the package; pass its SYSTEM value or file"):
        load(run[0])
    other = replace(SYSTEM, config=checkpoint.Saved)
    with pytest.raises(ValueError, match=r"trained by .*, not by 'store'; pass the system that trained it"):
        load(run[0], system=other)


def rewritten(directory, **changes) -> str:
    file = directory / "checkpoints" / "last" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return str(file)


def test_configurations_that_do_not_fit_are_named(run):
    directory, _ = run
    good = checkpoint.read(directory).config
    cases = {
        "names no system": {"system": None},
        "this version of ornstein does not have": {"system": "ornstein.systems.planners.nothing"},
    }
    for message, change in cases.items():
        file = rewritten(directory, **change)
        with pytest.raises(ValueError, match=f"{file}: .*{message}"):
            load(directory)
        rewritten(directory, **good)
    changes = {
        "unknown field 'depth'": {"config": good["config"] | {"depth": 3}},
        "expected a configuration of Config, found None": {"config": None},
        "action bounds of size 1": {"spaces": good["spaces"] | {"action_low": [0.0]}},
        "only dataclasses of ornstein": {"config": good["config"] | {"adam": {"$type": "os:system"}}},
    }
    for message, change in changes.items():
        file = rewritten(directory, **change)
        with pytest.raises(ValueError, match=f"{file}: .*{message}.*; it was not written by this version"):
            load(directory, system=SYSTEM)
        rewritten(directory, **good)
    rewritten(directory, config=good["config"] | {"width": 5})
    with pytest.raises(ValueError, match=r"weights.safetensors: tensor 'net.0.weight' has shape \(8, 3\)"):
        load(directory, system=SYSTEM)


def test_validation_and_several_seeds_through_a_system(tmp_path):
    pair = SYSTEM.run(Config(), episodes(), Run(tmp_path, (0, 1), validation=0.25, quiet=True))
    assert len(pair) == 2
    for seed, learner in enumerate(pair):
        assert distance(weights(load(tmp_path / f"seed-{seed}", system=SYSTEM)[1]), weights(learner)) == 0.0
        assert "validation/net/loss" in (tmp_path / f"seed-{seed}" / "metrics.jsonl").read_text()
