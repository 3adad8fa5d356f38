"""QGPO on eight modes of rising reward: the exact energy samples the tilted law, the mean energy something else.

One clone and one Q; on them the energy by contrast (CEP), the energy by regression (MSE), and no guidance. The distance
is the total variation between the shares of the modes and softmax(beta reward).
"""

import argparse
from dataclasses import replace
from typing import Any

import torch

from ornstein.data.episodes import Episodes
from ornstein.envs.toy import eight_modes, ring_shares
from ornstein.evaluate import draw_rows
from ornstein.fit import Run
from ornstein.noise import generator
from ornstein.systems.policies import qgpo_cep
from recipes.common import say, write

ROWS = 4000


def data() -> Episodes:
    """4,000 one-step episodes, in the toy's own units: the box is a matter of `act`, which is not used."""
    b = eight_modes(4_000, generator("ring", 0))
    return Episodes.from_transitions(
        b.obs, b.action, b.reward, next_obs=b.next_obs, terminal=b.terminal > 0.5,
        action_low=(-1.0, -1.0), action_high=(1.0, 1.0),
    )  # fmt: skip


def sampled(agent: Any, config: qgpo_cep.Config) -> dict[str, Any]:
    """Shares of the modes in an agent's samples at this guidance, and how far they are from the tilted law."""
    other: Any = qgpo_cep.SYSTEM.build(config, agent.spaces)
    other.load_state_dict(agent.state_dict())
    policy = other.eval()
    with torch.no_grad():
        noise = draw_rows(policy.noise, [generator("act", i) for i in range(ROWS)])
        action = policy.sample(torch.zeros(ROWS, 1), noise)
    shares, far = ring_shares(action)
    target = torch.softmax(config.beta * torch.arange(8) / 7, 0)
    distance = 0.5 * float((torch.tensor(shares) - target).abs().sum())
    return {"distance": round(distance, 4), "far": round(far, 4), "shares": [round(share, 4) for share in shares]}


def main() -> dict[str, Any]:
    """The figures of all arms."""
    torch.set_num_threads(1)
    config, episodes, run = qgpo_cep.PRESETS["bandit"], data(), Run(None)
    say("contrast")
    agent: Any = qgpo_cep.SYSTEM.run(config, episodes, run)[0]
    say("regression, on the same clone")
    mse = replace(config, objective="mse")
    other: Any = run.build(lambda: qgpo_cep.QGPO(mse, episodes.spaces))[0]
    other.actor.load_state_dict(agent.actor.state_dict())
    qgpo_cep.guide(mse, episodes, [other], run=run)
    same = zip(agent.critics.parameters(), other.critics.parameters(), strict=True)
    found = {
        "beta": config.beta,
        "target": [round(x, 4) for x in torch.softmax(config.beta * torch.arange(8) / 7, 0).tolist()],
        "same_q": all(torch.equal(a, b) for a, b in same),
        "contrastive": sampled(agent, config),
        "mse": sampled(other, mse),
        "unguided": sampled(agent, replace(config, guidance=0.0)),
    }
    for arm in ("contrastive", "mse", "unguided"):
        say(f"{arm}: {found[arm]['distance']} from the tilted law, {found[arm]['far']} far from all modes")
    return found


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    write("qgpo_cep", main())
