"""SynthER where data are scarce: hopper-replay cut to 10 % of its episodes, TD3+BC at equal updates on six data sets.

Real alone; synthetic alone; real + synthetic; and three controls of the same size as real + synthetic: real data
duplicated (which draws the very same batches, so it can only tell a change of the code), real data with Gaussian
jitter, and real data whose next observations are shuffled among the copies. A last arm takes the synthetic data with
their flags of termination corrected by the simulator's own rule, to tell what that one column costs. Five seeds of
everything, with 95 % intervals. Quality of the synthetic transitions: marginals, correlations, the error of one step of
the simulator, and how many of the falls are flagged.
"""

import argparse
import json
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ornstein.data.episodes import Episodes, concatenate
from ornstein.data.open import open_dataset
from ornstein.data.transitions import transitions
from ornstein.evaluate import evaluate
from ornstein.fit import Run
from ornstein.noise import generator
from ornstein.systems.policies import td3_bc
from ornstein.systems.synthesizers import synther
from recipes.common import RESULTS, interval, offline_file, say, write
from recipes.pendulum import wasserstein

ENV, DATA = "Hopper-v5", "hopper-replay"
ROWS = RESULTS / "synthetic_replay.jsonl"
ARMS = ("real", "synthetic", "real+synthetic", "duplicated", "jittered", "next_shuffled", "synthetic_true_ends")
MODEL = synther.PRESETS["fast"]


def cut(seed: int, share: float = 0.1) -> Episodes:
    """A random tenth of the episodes."""
    return open_dataset(offline_file(DATA)).split(share, generator("cut", seed))[1]


def table(episodes: Episodes) -> tuple[Tensor, ...]:
    """All known transitions: obs, action, reward, next_obs, terminal."""
    known = transitions(episodes)
    return tuple(known.gather(torch.arange(len(known))))[:5]


def loose(obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, terminal: Tensor) -> Episodes:
    """Transitions as episodes of one step."""
    return Episodes.from_transitions(obs, action, reward, next_obs=next_obs, terminal=terminal > 0.5)


def controls(real: Episodes, copies: int, seed: int) -> dict[str, Episodes]:
    """The data sets that real + synthetic must be told from, each `copies` times as large as the real one."""
    source = generator("controls", seed)
    obs, action, reward, next_obs, terminal = (
        column.repeat(copies, *(1,) * (column.dim() - 1)) for column in table(real)
    )
    noise = [torch.randn(column.shape, generator=source) * 0.05 * column.std(0) for column in (obs, action, next_obs)]
    jittered = (obs + noise[0], (action + noise[1]).clamp(-1, 1), reward, next_obs + noise[2], terminal)
    order = torch.randperm(len(obs), generator=source)
    return {
        "duplicated": loose(obs, action, reward, next_obs, terminal),
        "jittered": loose(*jittered),
        "next_shuffled": loose(obs, action, reward, next_obs[order], terminal),
    }


def fallen(next_obs: Tensor) -> Tensor:
    """Where Hopper ends an episode: a height below 0.7, or a torso tilted by more than 0.2."""
    return (next_obs[:, 0] < 0.7) | (next_obs[:, 1].abs() > 0.2)


def corrected(made: Episodes) -> Episodes:
    """The same transitions, terminal where the simulator says so."""
    obs, action, reward, next_obs, _ = table(made)
    return loose(obs, action, reward, next_obs, fallen(next_obs).float())


def quality(made: Episodes, real: Episodes, rows: int = 500) -> dict[str, float]:
    """Marginals and correlations against the data, and one step of the simulator from the generated state and
    action.
    """
    a, b = (torch.cat([c if c.dim() == 2 else c[:, None] for c in table(e)[:4]], 1) for e in (made, real))
    unit = b.std(0).clamp(min=1e-6)
    gap = (torch.corrcoef(a.T) - torch.corrcoef(b.T)).nan_to_num().abs()
    return {
        "wasserstein_mean": float((wasserstein(a[:10_000], b) / unit).mean()),
        "correlation_gap_mean": float(gap.mean()),
        "step_error_synthetic": step_error(made, unit[-11:], rows),
        "step_error_real": step_error(real, unit[-11:], rows),
        "flagged_falls_synthetic": flagged(made),
        "flagged_falls_real": flagged(real),
    }


def flagged(episodes: Episodes) -> float:
    """The share of falls that are marked as terminal."""
    _, _, _, next_obs, terminal = table(episodes)
    return float(terminal[fallen(next_obs)].mean())


def step_error(episodes: Episodes, unit: Tensor, rows: int) -> float:
    """Median error of next_obs against Hopper's simulator, in standard deviations of the data; x is free and set
    to 0.
    """
    from ornstein.envs.make import make

    env = make(ENV).unwrapped
    env.reset(seed=0)
    obs, action, _, next_obs, _ = table(episodes)
    pick = torch.randperm(len(obs), generator=generator("steps"))[:rows]
    errors = []
    for o, a, n in zip(obs[pick].double().numpy(), action[pick].numpy(), next_obs[pick], strict=True):
        env.set_state(torch.tensor([0.0, *o[:5]]).numpy(), o[5:])
        env.do_simulation(a, env.frame_skip)
        errors.append(((torch.as_tensor(env._get_obs()) - n) / unit).abs().mean())
    return float(torch.stack(errors).median())


def measure(seed: int, steps: int, model_steps: int, count: int) -> None:
    """All arms of one seed."""
    key = {"seed": seed, "steps": steps, "model_steps": model_steps, "count": count}
    have = {row["arm"] for row in rows() if key.items() <= row.items()}
    if have >= {*ARMS}:
        return
    real = cut(seed)
    say(f"seed {seed}: synthesizer on {real.n_steps} steps")
    maker: Any = synther.SYSTEM.run(MODEL, real, Run(None, seeds=(seed,), steps=model_steps))[0]
    made: Episodes = maker.generate(count, seed)
    copies = max(2, round((count + real.n_steps) / real.n_steps))
    sets = {"real": real, "synthetic": made, "real+synthetic": concatenate([loose(*table(real)), made])}
    sets["synthetic_true_ends"] = corrected(made)
    sets |= controls(real, copies, seed)
    learner = replace(td3_bc.BASE, steps=steps)
    for arm in ARMS:
        if arm in have:
            continue
        say(f"seed {seed}: TD3+BC on {arm}")
        agent: Any = td3_bc.SYSTEM.run(learner, sets[arm], Run(None, seeds=(seed,)))[0]
        result = evaluate(agent, ENV, episodes=20, seed=1000 + seed, n_envs=20).summary()
        row = {"arm": arm} | key | {"return_mean": result["return_mean"], "score": result["score"]}
        with ROWS.open("a") as file:
            file.write(json.dumps(row | (quality(made, real) if arm == "synthetic_true_ends" else {})) + "\n")


def rows() -> list[dict[str, Any]]:
    """The finished runs."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def report(steps: int, model_steps: int, count: int) -> dict[str, Any]:
    """Intervals of every arm, and of the synthetic arms' paired differences to the others."""
    key = {"steps": steps, "model_steps": model_steps, "count": count}
    mine = [row for row in rows() if key.items() <= row.items()]
    by: dict[str, dict[int, float]] = {}
    for row in mine:
        by.setdefault(row["arm"], {})[row["seed"]] = row["return_mean"]
    seeds = sorted(set.intersection(*(set(values) for values in by.values())))
    made = [row for row in mine if row["arm"] == "synthetic_true_ends"]  # the quality of what both synthetic arms use
    keys = ("wasserstein_mean", "correlation_gap_mean", "step_error_synthetic", "step_error_real")
    keys += ("flagged_falls_synthetic", "flagged_falls_real")
    return {
        "steps": steps,
        "seeds": seeds,
        "returns": {arm: interval([values[s] for s in seeds]) for arm, values in by.items()},
        "synthetic_minus": {
            a: interval([by["synthetic"][s] - v[s] for s in seeds]) for a, v in by.items() if a != "synthetic"
        },
        "true_ends_minus_synthetic": interval([by["synthetic_true_ends"][s] - by["synthetic"][s] for s in seeds]),
        "real+synthetic_minus": {
            a: interval([by["real+synthetic"][s] - v[s] for s in seeds]) for a, v in by.items() if a != "real+synthetic"
        },
        "quality": {key: interval([row[key] for row in made]) for key in keys},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--model-steps", type=int, default=6000)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for number in range(options.seeds):
        measure(number, options.steps, options.model_steps, options.count)
    write("synthetic_replay", report(options.steps, options.model_steps, options.count))
