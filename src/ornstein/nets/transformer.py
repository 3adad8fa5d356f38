"""A transformer over time for trajectories (b, horizon, channels)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ornstein.nets.embed import Sinusoid, checked, time_mlp


class DiffusionTransformer1d(nn.Module):
    """A transformer whose blocks are scaled, shifted and gated by the time and the condition (adaLN-zero).

    One token per time step, with a fixed sinusoid of its position; the horizon is free. All gates and the head start at
    zero, so every block starts as the identity of its residual stream and the network as 0.
    Source: Peebles, Xie 2023 (2212.09748), section 3.2, for tokens of a trajectory instead of image patches.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        ratio: int = 4,
        cond: int = 0,
    ) -> None:
        super().__init__()
        if width % heads or width % 2:
            raise ValueError(f"width = {width} must be even and divisible by heads = {heads}")
        self.cond = cond
        self.inward = nn.Linear(channels, width)
        self.position = Sinusoid(width)
        self.time = time_mlp(width, width, activation="silu")
        self.condition = nn.Linear(cond, width) if cond else None
        self.blocks = nn.ModuleList(DiffusionBlock(width, heads, ratio) for _ in range(depth))
        self.last = Modulation(width, 2)
        self.head = nn.Linear(width, channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        x: Float[Tensor, " b horizon channels"],
        t: Float[Tensor, " b"],
        cond: Float[Tensor, " b cond"] | None = None,
    ) -> Float[Tensor, " b horizon channels"]:
        """The network's value at noisy x, time label t and condition."""
        mark, cond = self.time(t), checked(cond, self.cond)
        if self.condition is not None and cond is not None:
            mark = mark + self.condition(cond)
        mark = functional.silu(mark)
        h = self.inward(x) + self.position(torch.arange(x.shape[1], dtype=x.dtype, device=x.device))
        for block in self.blocks:
            h = block(h, mark)
        shift, scale = self.last(mark)
        return self.head(_modulated(h, shift, scale))


class DiffusionBlock(nn.Module):
    """Attention among all time steps, then a network on each; both read a modulated LayerNorm and add to the stream.

    What is added to is the stream h itself, not its LayerNorm, so that zero gates make the block the identity.
    """

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = Modulation(width, 6)
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)
        self.each = nn.Sequential(
            nn.Linear(width, ratio * width), nn.GELU(approximate="tanh"), nn.Linear(ratio * width, width)
        )

    def forward(
        self, h: Float[Tensor, " b horizon width"], mark: Float[Tensor, " b width"]
    ) -> Float[Tensor, " b horizon width"]:
        """The stream after the block."""
        shift, scale, gate, shift_each, scale_each, gate_each = self.modulation(mark)
        h = h + gate * self.attend(_modulated(h, shift, scale))
        return h + gate_each * self.each(_modulated(h, shift_each, scale_each))

    def attend(self, h: Float[Tensor, " b horizon width"]) -> Float[Tensor, " b horizon width"]:
        """What each time step reads from all of them."""
        parts = self.inward(h).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        # Written out: the fused kernel has neither a batching rule nor a second derivative on a CPU.
        scores = (query * query.shape[-1] ** -0.5) @ key.mT
        read = scores.softmax(dim=-1) @ value
        return self.outward(read.transpose(1, 2).flatten(2))


class Modulation(nn.Module):
    """`parts` vectors (b, 1, width) of shifts, scales and gates, linear in the mark; all zero at the start."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, mark: Float[Tensor, " b width"]) -> tuple[Float[Tensor, " b 1 width"], ...]:
        """The vectors, in the order in which their user names them."""
        return self.linear(mark)[:, None].chunk(self.parts, dim=-1)


def _modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return functional.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift
