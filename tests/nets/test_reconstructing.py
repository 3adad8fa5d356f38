"""The second head: it shares the trunk, and the first one does not know of it."""

import pytest
import torch

from ornstein.nets.mlp import ConditionalMLP
from ornstein.nets.reconstructing import ReconstructingMLP
from ornstein.noise import generator


@pytest.mark.parametrize(("trunk", "head"), [((8, 8, 8), 0), ((8, 4, 8), 0), ((8, 4), 8)])
def test_both_heads_come_from_one_trunk(trunk, head):
    net, g = ReconstructingMLP(2, 3, trunk=trunk, head=head), generator("both")
    x, t, cond = torch.randn(5, 2, generator=g), torch.rand(5, generator=g), torch.randn(5, 3, generator=g)
    action, state = net.both(x, t, cond)
    torch.testing.assert_close(action, net(x, t, cond))
    torch.testing.assert_close(net.at(t[:1], cond)[0](x), net(x, t[:1].expand(5), cond))
    assert state.shape == (5, 3)
    first = net.main.body[0].weight
    assert torch.autograd.grad(state.sum(), first, retain_graph=True)[0].abs().max() > 0
    with torch.no_grad():
        for p in net.second.parameters():
            p.add_(1.0)
    torch.testing.assert_close(net(x, t, cond), action)
    assert not torch.allclose(net.both(x, t, cond)[1], state)


def test_the_second_head_costs_what_the_paper_says():
    def size(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert size(ReconstructingMLP(6, 17)) == 148_807 == size(ConditionalMLP(6, 17)) + 257 * 17
    assert [m.out_features for m in ConditionalMLP(2, 3, width=(8, 4)).body if hasattr(m, "out_features")] == [8, 4, 2]
