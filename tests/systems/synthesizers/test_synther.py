"""What makes SynthER what it is: one model of the joint transition, EDM's loss and its churned Heun sampler."""

from dataclasses import replace

import pytest
import torch

from ornstein.diffusion.process import point
from ornstein.noise import draw, generator
from ornstein.systems.synthesizers.synther import PRESETS, Config, SynthER
from ornstein.types import Descend, Spaces, Transitions

SMALL = Config(width=32, blocks=1, calls=6, generate_batch=5)
SPACES = Spaces(obs=2, act=1)


def synthesizer(config: Config = SMALL) -> SynthER:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SynthER(config, SPACES)


def batch(rows: int = 4) -> Transitions:
    g = generator("batch")
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return Transitions(
        normal(rows, 2), normal(rows, 1), normal(rows), normal(rows, 2), torch.ones(rows), torch.ones(rows)
    )


def test_a_row_is_the_whole_transition():
    b = batch()
    rows = synthesizer().rows(b)
    torch.testing.assert_close(
        rows, torch.cat([b.obs, b.action, b.reward[:, None], b.next_obs, b.terminal[:, None]], 1)
    )


def test_the_loss_is_edms_weighted_error_at_log_normal_levels():
    a, b = synthesizer(), batch()
    (phase,) = [p for p in a.phases() if isinstance(p, Descend)]
    noise = draw(phase.noise, 4, generator("noise"))
    with torch.no_grad():
        x0 = a.rows(b)
        sigma = torch.exp(-1.2 + 1.2 * noise["level"])[:, None]
        level = point(a.process, a.process.time(-sigma[:, 0].log()), x0)
        torch.testing.assert_close(level.sigma, sigma)
        error = (a.denoiser(x0 + sigma * noise["eps"], level) - x0) ** 2
        expected = ((sigma**2 + 1) / sigma**2 * error).mean()
        torch.testing.assert_close(a.denoiser_loss(b, noise)[0], expected, rtol=1e-4, atol=1e-5)


def test_generation_starts_at_sigma_max_and_calls_the_network_twice_a_level_minus_one():
    a = synthesizer()
    calls: list[torch.Tensor] = []
    a.ema.network.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0]))
    a.generate(5)
    assert len(calls) == 2 * SMALL.calls - 1
    assert calls[0].std() == pytest.approx(1.0, abs=0.35)  # c_in x at sigma 80 has unit variance


def test_generated_transitions_are_the_asked_number_and_the_same_for_the_same_seed():
    a = synthesizer()
    made, again, other = a.generate(12, 1), a.generate(12, 1), a.generate(12, 2)
    assert made.n_episodes == made.n_steps == 12
    assert made.hash == again.hash != other.hash
    assert (made.terminal ^ made.truncated).all()


def test_samples_are_not_clamped():
    a = synthesizer()
    a.normalizer.mean.fill_(100.0)
    a.normalizer.std.fill_(10.0)
    assert (a.generate(50).obs - 100.0).abs().max() > 10.0


def test_the_end_flag_is_not_normalised_and_is_thresholded_at_one_half():
    a = synthesizer()
    a.sampler.forward = lambda denoise, noise: torch.tensor([[0.0] * 6 + [v] for v in (0.4, 0.6, 0.2, 0.9, 0.5)])  # type: ignore[method-assign]
    assert a.generate(5).terminal.tolist() == [False, True, False, True, False]


def test_the_published_sizes():
    a = SynthER(PRESETS["offline"], Spaces(obs=17, act=6))
    assert sum(p.numel() for p in a.denoiser.parameters()) == pytest.approx(25.6e6, rel=0.01)


@pytest.mark.slow
def test_generated_pendulum_transitions_obey_the_dynamics():
    """The acceptance experiment with its controls: shuffled pairs, and clamped samples."""
    from recipes.pendulum import main

    found = main()
    assert found["error"]["next_state"] <= 0.04
    assert found["error"]["reward"] <= 0.04
    assert found["error_shuffled"]["next_state"] >= 10 * found["error"]["next_state"]
    assert found["error_shuffled"]["reward"] >= 10 * found["error"]["reward"]
    assert found["on_circle"] >= 0.98
    assert found["wasserstein_max"] <= 0.2 < found["wasserstein_max_clamped"]
    assert 0.2 <= found["near_share"] <= 0.8
    assert found["network_calls"] == 2 * replace(PRESETS["fast"]).calls - 1
