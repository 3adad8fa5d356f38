"""Diffusion-QL on replay data: does the Q gradient through the chain beat selection alone, and cloning of the best
episodes?

Three arms at equal steps: Diffusion-QL; the same system at eta 0, with the same critic and the same selection among
50 candidates; and diffusion cloning of the best 10 % of episodes. Five seeds, 20 episodes each, paired by seed, 95 %
intervals. `--candidates 1` takes the selection away and leaves what the gradient alone does; such rows are reported
under `single`. Every finished run is a row in `results/replay.jsonl`, so an interrupted recipe goes on where it
stopped.
"""

import argparse
import json
from dataclasses import replace
from typing import Any

import torch

from ornstein.data.open import open_dataset
from ornstein.evaluate import evaluate
from ornstein.fit import Run
from ornstein.systems.policies import diffusion_cloning, diffusion_ql
from recipes.common import RESULTS, interval, offline_file, say, write

ENVS = {"hopper-replay": "Hopper-v5", "walker2d-replay": "Walker2d-v5"}
QL = replace(diffusion_ql.PRESETS["replay-cpu"], standardize=False, layer_norm=False, width=256)
CLONING = replace(
    diffusion_cloning.PRESETS["best-10-percent"], activation=QL.activation, width=QL.width, batch_size=QL.batch_size,
    lr=QL.lr, schedule=QL.schedule, clip=QL.clip, ema_rate=QL.ema_rate, ema_every=QL.ema_every, ema_after=QL.ema_after,
)  # fmt: skip
ARMS: dict[str, tuple[Any, Any]] = {
    "diffusion_ql": (diffusion_ql.SYSTEM, QL),
    "eta_0": (diffusion_ql.SYSTEM, replace(QL, eta=0.0)),
    "best_10_percent": (diffusion_cloning.SYSTEM, CLONING),
}
ROWS = RESULTS / "replay.jsonl"


def rows() -> list[dict[str, Any]]:
    """The finished runs."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def measure(data: str, arm: str, seed: int, steps: int, candidates: int) -> None:
    """Train and evaluate one arm, unless its row exists, and append the row."""
    key = {"data": data, "arm": arm, "seed": seed, "steps": steps, "candidates": candidates}
    if any(key.items() <= row.items() for row in rows()):
        return
    system, config = ARMS[arm]
    say(f"{data} {arm} seed {seed}")
    agent: Any = system.run(config, open_dataset(offline_file(data)), Run(None, seeds=(seed,), steps=steps))[0]
    if hasattr(config, "candidates"):
        fewer = system.build(replace(config, candidates=candidates), agent.spaces)
        fewer.load_state_dict(agent.state_dict())
        agent = fewer.eval()
    result = evaluate(agent, ENVS[data], episodes=20, seed=1000 + seed, n_envs=20)
    summary = result.summary(system.name)
    with ROWS.open("a") as file:
        file.write(
            json.dumps(key | {"env": ENVS[data], "return_mean": summary["return_mean"], "score": summary["score"]})
            + "\n"
        )


def report(steps: int) -> dict[str, Any]:
    """What selection and gradient do together, and what the gradient does alone."""
    return {"steps": steps} | compare(steps, QL.candidates) | {"single": compare(steps, 1)}


def compare(steps: int, candidates: int) -> dict[str, Any]:
    """Means of every arm and paired differences, for the data sets with at least two complete seeds."""
    found: dict[str, Any] = {}
    for data in ENVS:
        mine = [row for row in rows() if row["data"] == data and row["steps"] == steps]
        mine = [row for row in mine if row["candidates"] == candidates or row["arm"] == "best_10_percent"]
        by = {arm: {row["seed"]: row["return_mean"] for row in mine if row["arm"] == arm} for arm in ARMS}
        seeds = sorted(set.intersection(*(set(values) for values in by.values())))
        if len(seeds) < 2:
            continue
        found[data] = {
            "seeds": seeds,
            "returns": {arm: interval([values[s] for s in seeds]) for arm, values in by.items()},
            "minus_eta_0": interval([by["diffusion_ql"][s] - by["eta_0"][s] for s in seeds]),
            "minus_best_10_percent": interval([by["diffusion_ql"][s] - by["best_10_percent"][s] for s in seeds]),
        }
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=[*ENVS, "all"], default="all")
    parser.add_argument("--steps", type=int, default=QL.steps)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=QL.candidates, help="actions among which acting selects")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for number in range(options.seeds):
        for name in ENVS if options.data == "all" else [options.data]:
            for kind in ARMS:
                if kind != "best_10_percent" or options.candidates == QL.candidates:
                    measure(name, kind, number, options.steps, options.candidates)
    write("replay", report(options.steps))
