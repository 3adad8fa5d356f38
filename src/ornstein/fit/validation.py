"""The loss on held-out episodes, always on the same batch with the same noise."""

from typing import Any

import torch
from torch import nn

from ornstein.noise import draw, generator
from ornstein.types import Batches, Descend
from ornstein.update.capture import move


class HeldOut:
    """A fixed batch of held-out data with fixed noise, so that its losses are comparable from checkpoint to checkpoint.

    Its draws come from streams of their own: training is the same with and without it.
    """

    def __init__(self, data: Batches, learner: Any, *, rows: int, stage: str, device: torch.device) -> None:
        rows = min(len(data), rows)
        index = torch.randperm(len(data), generator=generator("held out", stage))[:rows]
        self.batch = move(data.gather(index), device)
        self.noises = {
            phase.name: move(draw(phase.noise, rows, generator("held out", stage, phase.name)), device)
            for phase in learner.phases()
            if isinstance(phase, Descend)
        }

    def losses(self, learner: nn.Module) -> dict[str, float]:
        """The loss of every phase, in evaluation mode."""
        found: dict[str, float] = {}
        training = learner.training
        learner.eval()
        for phase in learner.phases():  # pyright: ignore[reportCallIssue]
            if isinstance(phase, Descend):
                loss, _ = phase.loss(self.batch, self.noises[phase.name])
                found[f"validation/{phase.name}/loss"] = float(loss.detach())
        learner.train(training)
        return found
