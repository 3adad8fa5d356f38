"""What makes SRDP what it is: the second head on the trunk, in training only; and Diffusion-QL without it."""

from dataclasses import replace

import pytest
import torch

from ornstein.noise import draw, generator
from ornstein.systems.policies import diffusion_ql
from ornstein.systems.policies.srdp import NETWORKS, SRDP, Config
from ornstein.types import Descend, Noise, Spaces, Transitions
from ornstein.update import Update

SPACES = Spaces(obs=3, act=2)
SMALL = Config(width=16, candidates=7, batch_size=8)


def agent(config: Config = SMALL) -> SRDP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SRDP(config, SPACES)


def batch(rows: int = 8) -> Transitions:
    g = generator("batch")
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    action = normal(rows, 2).clamp(-1, 1)
    return Transitions(
        normal(rows, 3), action, normal(rows), normal(rows, 3), torch.zeros(rows), torch.full((rows,), 0.99)
    )


def noises(a: SRDP, step: int = 0) -> dict[str, Noise]:
    return {p.name: draw(p.noise, 8, generator(step, p.name)) for p in a.phases() if isinstance(p, Descend)}


def twin(a: SRDP) -> diffusion_ql.DiffusionQL:
    """Diffusion-QL of the same settings and weights."""
    config = diffusion_ql.Config(width=16, candidates=7, batch_size=8, ema_after=2, ema_every=2)
    other = diffusion_ql.DiffusionQL(config, SPACES)
    state = {name.replace(".main.", "."): value for name, value in a.state_dict().items()}
    other.load_state_dict({name: state[name] for name in other.state_dict()})
    return other


def test_without_reconstruction_it_is_diffusion_ql_bit_for_bit():
    a = agent(replace(SMALL, reconstruction=0.0, ema_after=2, ema_every=2))
    b = twin(a)
    torch.testing.assert_close(
        a.actor_loss(batch(), noises(a)["actor"])[0], b.actor_loss(batch(), noises(a)["actor"])[0], atol=1e-6, rtol=0
    )
    ours, theirs = Update([a], steps=9), Update([b], steps=9)
    for step in range(6):
        ours(step, batch(), noises(a, step))
        theirs(step, batch(), noises(a, step))
    moved = {name.replace(".main.", "."): value for name, value in a.state_dict().items()}
    assert all(torch.equal(moved[name], value) for name, value in b.state_dict().items())
    obs, noise = torch.randn(5, 3, generator=generator("obs")), draw(a.noise, 5, generator("act"))
    with torch.no_grad():
        assert torch.equal(a.act(obs, (), noise)[0], b.act(obs, (), noise)[0])


def test_with_it_the_trunk_goes_elsewhere():
    a = agent()
    b, noise = twin(a), noises(a)
    loss, parts = a.actor_loss(batch(), noise["actor"])
    torch.testing.assert_close(loss - b.actor_loss(batch(), noise["actor"])[0], parts["state"])
    first = a.actor.denoiser.network.main.body[0].weight  # pyright: ignore
    assert torch.autograd.grad(parts["state"], first)[0].abs().max() > 0


def test_the_state_is_told_from_noisy_action_step_and_clean_state_in_one_call():
    a, calls = agent(), []
    network = a.actor.denoiser.network
    network.main.body[0].register_forward_hook(lambda m, inputs, out: calls.append(inputs[0]))  # pyright: ignore
    noise = noises(a)["actor"]
    _, parts = a.actor_loss(batch(), noise)
    assert len(calls) == 1  # the chain goes through prepared functions
    seen = calls[0]
    torch.testing.assert_close(seen[:, :2], a.actor.noised(batch().action, noise)[0])
    torch.testing.assert_close(seen[:, -3:], batch().obs)
    features = network.main.body[:-1](seen)  # pyright: ignore
    state = network.second(features)  # pyright: ignore
    torch.testing.assert_close(parts["state"], (state - batch().obs).square().mean())


def test_samples_do_not_depend_on_the_second_head():
    a = agent()
    obs, noise = torch.randn(5, 3, generator=generator("obs")), draw(a.noise, 5, generator("act"))
    with torch.no_grad():
        before = a.act(obs, (), noise)[0]
        for p in a.actor.denoiser.network.second.parameters():  # pyright: ignore
            p.add_(1.0)
        assert torch.equal(a.act(obs, (), noise)[0], before)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_released_networks_have_their_widths(name):
    network = agent(replace(SMALL, network=name, width=256)).actor.denoiser.network
    layers = [m.out_features for m in network.main.body if hasattr(m, "out_features")]  # pyright: ignore
    heads = [m.out_features for m in network.second if hasattr(m, "out_features")]  # pyright: ignore
    expected = {
        "MLP": ([256, 256, 256, 2], [3]), "MLP_AE": ([256, 256, 256, 256, 2], [256, 3]),
        "MLP_P5": ([256, 128, 256, 2], [3]), "MLP2": ([512, 256, 512, 2], [3]),
        "MLP_AE2": ([512, 256, 512, 2], [512, 3]), "MLP_AE_P5": ([256, 128, 256, 2], [256, 3]),
    }  # fmt: skip
    assert (layers, heads) == expected[name]


def test_unknown_networks_are_refused():
    config = replace(SMALL)
    object.__setattr__(config, "network", "MLP3")  # past the runtime checker of types
    with pytest.raises(ValueError, match="choose one of MLP"):
        agent(config)


@pytest.mark.slow
def test_in_unseen_wedges_reconstruction_brings_actions_nearer():
    """The acceptance experiment, with the weight 0 as control arm."""
    from recipes.srdp import main

    found = main()
    assert found["ratio"] <= 0.75
    assert max(found["reconstruction_error"]) < 1e-2
