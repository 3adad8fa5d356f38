"""The demonstration: record a maze, learn to plan in it, plan and execute for starts and goals that were never seen.

Data come from a waypoint controller in PointMaze (MuJoCo). After training nothing looks at the maze's map: a plan is
what the denoiser makes of noise, a start and a goal, and a tracker follows it. Beside it run the controller, the same
tracker on the straight line, the untrained planner, and random forces.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.checkpoint import write_json
from ornstein.data.collect import collect
from ornstein.data.episodes import Episodes
from ornstein.diffusion.solver import trace
from ornstein.envs.maze import GOAL_RADIUS, Pair
from ornstein.envs.point import Errands, PointMaze
from ornstein.envs.tracker import Controller
from ornstein.evaluate import Evaluation, draw_rows, evaluate, seeds
from ornstein.fit import Run
from ornstein.noise import draw, generator
from ornstein.planner import held
from ornstein.systems.planners.diffuser import SYSTEM, Config, Diffuser
from ornstein.types import Draw, Noise, NoiseSpec


@dataclass(frozen=True)
class Settings:
    """How much of everything; the defaults fit six minutes on two cores."""

    maze: str = "medium"
    preset: str = "maze-fast"
    record_steps: int = 150_000
    stay: int = 200  # steps of rest at the goal that end an episode: a plan's length, so that plans arrive and rest
    pairs: int = 100
    ratio: float = 1.5  # least geodesic distance over straight distance of the pairs
    max_steps: int = 300  # environment steps of an episode
    train_steps: int | None = None


@dataclass(frozen=True)
class Random:
    """Uniform forces, the zero of the score."""

    noise: NoiseSpec

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Tensor, carry: Any, noise: Noise) -> tuple[Tensor, Any]:
        """A force in the box."""
        return 2 * noise["force"] - 1, carry


def main(out: Path | str = "demo", *, seed: int = 0, settings: Settings | None = None) -> dict[str, Any]:
    """Run the demonstration into the directory `out`; the result is what `summary.json` there holds."""
    began, out, s = time.perf_counter(), Path(out), settings or Settings()
    torch.set_num_threads(1)  # a small network gains nothing by more, and loses tenfold where the other cores are busy
    out.mkdir(parents=True, exist_ok=True)
    episodes = record(s, seed)
    config = SYSTEM.preset(s.preset)
    _say(f"training Diffuser ({s.preset}) on {episodes.n_steps} steps of {episodes.n_episodes} episodes")
    started = time.perf_counter()
    planner: Any = SYSTEM.run(config, episodes, Run(None, seeds=(seed,), steps=s.train_steps))[0]
    train_seconds = time.perf_counter() - started
    pairs = PointMaze(s.maze).maze.pairs(s.pairs, generator("demo pairs", seed), ratio=s.ratio)
    results = compare(planner, untrained(config, planner, episodes, seed), pairs, s, seed)
    summary = summarise(results, planner, pairs, s) | {"train_seconds": round(train_seconds, 1)}
    _say("drawing")
    show(planner, pairs, results["planner"], s, out)
    summary["seconds"] = round(time.perf_counter() - began, 1)
    write_json(out / "summary.json", summary)
    report(summary, out)
    return summary


def record(s: Settings, seed: int) -> Episodes:
    """Episodes of the waypoint controller, from rest at a random start to rest at a random goal; observations without
    the goal, which goes beside them.
    """
    env = Errands(s.maze, goals=1, stay=s.stay, max_episode_steps=600 + s.stay)
    controller = Controller(env.maze, jitter=0.1)
    bar = _Bar("recording", s.record_steps)
    raw = collect(env, controller.driver(seed), steps=s.record_steps, seed=seed, progress=lambda _, steps: bar(steps))
    bar(s.record_steps, last=True)
    env.close()
    return raw


def untrained(config: Config, planner: Diffuser, episodes: Episodes, seed: int) -> Diffuser:
    """The same planner with the weights that it had before training, and the data's normaliser."""
    fresh: Any = Run(None, seeds=(seed,)).build(lambda: SYSTEM.build(config, episodes.spaces))[0]
    fresh.layout.load_state_dict(planner.layout.state_dict())
    return fresh


def compare(planner: Diffuser, fresh: Diffuser, pairs: list[Pair], s: Settings, seed: int) -> dict[str, Evaluation]:
    """Every arm on the same pairs."""
    maze = PointMaze(s.maze).maze
    arms: dict[str, Any] = {
        "planner": planner,
        "controller": Controller(maze),
        "straight line": Controller(maze, straight=True),
        "untrained": fresh,
        "random": Random({"force": Draw("uniform", (2,))}),
    }
    options = [pair.options for pair in pairs]
    results = {}
    for name, policy in arms.items():
        _say(f"executing: {name}")
        results[name] = evaluate(
            policy, lambda: PointMaze(s.maze, max_episode_steps=s.max_steps), episodes=len(pairs), seed=seed, n_envs=20,
            options=options, keep_paths=name == "planner",
        )  # fmt: skip
    return results


def summarise(results: dict[str, Evaluation], planner: Diffuser, pairs: list[Pair], s: Settings) -> dict[str, Any]:
    """The figures of the demonstration."""
    rate = {name: float(np.mean(result.success or 0.0)) for name, result in results.items()}
    steps = {name: float(np.mean(result.lengths)) for name, result in results.items()}
    mean = {name: float(np.mean(result.returns)) for name, result in results.items()}
    return {
        "maze": s.maze,
        "pairs": len(pairs),
        "success_rate": rate["planner"],
        "controller_success": rate["controller"],
        "straight_line_success": rate["straight line"],
        "untrained_success": rate["untrained"],
        "random_success": rate["random"],
        "steps_mean": steps["planner"],
        "controller_steps_mean": steps["controller"],
        "score": 100 * (mean["planner"] - mean["random"]) / (mean["controller"] - mean["random"]),
        "plan_ms_median": time_plans(planner, pairs),
        "parameters": sum(p.numel() for p in planner.denoiser.parameters()),
    }


def time_plans(planner: Diffuser, pairs: list[Pair], times: int = 20) -> float:
    """The median milliseconds of one plan for one start and goal."""
    spent = []
    for i, pair in enumerate(pairs[: times + 1]):
        noise = draw(planner.noise, 1, generator("time", i))
        began = time.perf_counter()
        with torch.no_grad():
            planner.plan(_question(pair), planner.start(1), noise)
        spent.append(1000 * (time.perf_counter() - began))
    return round(median(spent[1:]), 2)


def denoising(planner: Diffuser, pair: Pair, noise: Noise) -> np.ndarray:
    """The positions of a plan at every stage of its denoising, (stages, horizon, 2), from noise to the plan."""
    ends = planner.layout.ends(_question(pair))
    start, steps = noise["start"][:, 0], noise["steps"][:, 0].movedim(1, 0) if "steps" in noise else None
    with torch.no_grad():
        sampler = planner.sampler
        states = trace(
            planner.ema.given(None),
            start,
            sampler.grid,
            solver=sampler.solver,
            noise=steps,
            constrain=held(planner.layout, ends),
        )
    return planner.layout.unpack(states[:, 0])[1][..., :2].numpy()


def show(planner: Diffuser, pairs: list[Pair], result: Evaluation, s: Settings, out: Path) -> None:
    """Write plans.png and plan.gif: the plans that were ridden, with the noise that the evaluation drew for them."""
    from ornstein.view.animate import Scene, animate_plans
    from ornstein.view.plot import Panel, draw_plans

    boxes = PointMaze(s.maze).maze.boxes
    panels, scenes = [], []
    for i, pair in enumerate(pairs[:6]):
        ride, source = result.paths[i][:, :2], seeds(result.seed, i)[1]
        traces = [denoising(planner, pair, draw_rows(planner.noise, [source])) for _ in range(3)]
        done = "reached" if (result.success or ())[i] else "missed"
        caption = f"{done} in {result.lengths[i]} steps"
        panels.append(Panel(pair.start, pair.goal, tuple(trace[-1] for trace in traces), ride, caption))
        scenes.append(Scene(pair.start, pair.goal, traces[0], ride))
    draw_plans(
        boxes, panels, out / "plans.png", title="First plans from noise, and the rides: on the way, plans are made anew"
    )
    animate_plans(
        boxes, scenes[:3], out / "plan.gif", title="Noise becomes a plan, a ball rides; plans are made anew on the way"
    )


def report(summary: dict[str, Any], out: Path) -> None:
    """Print what came out, for a person."""
    lines = [
        f"success       {summary['success_rate']:.0%} of {summary['pairs']} unseen pairs in {summary['maze']}"
        f" (goal disc of {GOAL_RADIUS} m)",
        f"  controller  {summary['controller_success']:.0%}   straight line {summary['straight_line_success']:.0%}"
        f"   untrained {summary['untrained_success']:.0%}   random {summary['random_success']:.0%}",
        f"steps         {summary['steps_mean']:.0f}, controller {summary['controller_steps_mean']:.0f}",
        f"score         {summary['score']:.1f} (0 random, 100 controller)",
        f"one plan      {summary['plan_ms_median']:.1f} ms",
        f"training      {summary['train_seconds']:.0f} s; all in all {summary['seconds']:.0f} s",
        f"see           {out}/plans.png, {out}/plan.gif, {out}/summary.json",
    ]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _question(pair: Pair) -> Tensor:
    return torch.tensor([[*pair.start, 0.0, 0.0, *pair.goal]])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Bar:
    """A progress line for counted work."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.shown = label, total, 0.0

    def __call__(self, done: int, *, last: bool = False) -> None:
        now, live = time.monotonic(), sys.stderr.isatty()
        if not last and now - self.shown < (0.2 if live else 10.0):
            return
        self.shown = now
        end = "\n" if last or not live else ""
        print(
            f"\r{self.label}  {done}/{self.total} steps" if live else f"{self.label}  {done}/{self.total} steps",
            end=end,
            file=sys.stderr,
            flush=True,
        )
