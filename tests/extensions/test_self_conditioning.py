"""Self-conditioning: stand-ins that return what they were shown, and losses and gradients that are known."""

import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from tinyddpm.diffusion import diffusion_loss, make_denoiser, q_sample
from tinyddpm.extensions.self_conditioning import SelfConditioned, SelfConditionedLoss, self_conditioned
from tinyddpm.guidance import classifier_free_guidance, clip_x_0
from tinyddpm.nn import UNet
from tinyddpm.oracle import gaussian_oracle
from tinyddpm.pipeline import DDPM
from tinyddpm.samplers import ddim, dpm_solver_pp, heun, last, p_sample_loop
from tinyddpm.schedules import Schedule
from tinyddpm.training import DenoisingLoss, train_steps

COSINE = Schedule.named("cosine", 10)
SAMPLERS = {"p_sample_loop": p_sample_loop, "ddim": ddim, "heun": heun, "dpm_solver_pp": dpm_solver_pp}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def counter(x_t, t, y=None, x_0_hat=None):
    """0.1 more than it was shown, so that a denoiser of x_0 counts its calls in tenths."""
    return (torch.zeros_like(x_t) if x_0_hat is None else x_0_hat) + 0.1


def mixer(x_t, t, y=None, x_0_hat=None):
    """Stands for a network: bounded, and another prediction for each x_t, t and last estimate."""
    shown = 0 if x_0_hat is None else x_0_hat
    return (1.3 * x_t + shown + 0.1 * t.reshape(-1, 1, 1, 1)).sin()


mixer.num_classes = counter.num_classes = None


def recording(model, num_classes=None):
    """The model, and a list of what it is called with: (x_t, y, x_0_hat, whether gradients are on)."""
    calls = []

    def recorded(x_t, t, y=None, x_0_hat=None):
        calls.append((x_t, y, x_0_hat, torch.is_grad_enabled()))
        return model(x_t, t, y, x_0_hat)

    recorded.num_classes = num_classes
    return recorded, calls


def at(*t):
    return torch.tensor(t)


# What the denoiser remembers, and when it forgets


def test_it_counts_down_a_run_and_starts_anew_where_t_rises():
    # at the same t again, as Heun's method asks, it still remembers
    d, x = self_conditioned(counter, COSINE, "x_0"), randn(1, 1, 2, 2)
    counts = [round(float(10 * d(x, at(t)).mean())) for t in (9, 7, 7, 2, 1, 10, 9, 10, 3)]
    assert counts == [1, 2, 3, 4, 5, 1, 2, 1, 2]


def test_each_image_starts_anew_by_itself():
    d, x = self_conditioned(counter, COSINE, "x_0"), randn(3, 1, 2, 2)
    d(x, at(5, 5, 5))
    assert_close(d(x, at(4, 6, 5))[:, 0, 0, 0], torch.tensor([0.2, 0.1, 0.2]).double())
    assert_close(d(x, at(4, 5, 6))[:, 0, 0, 0], torch.tensor([0.3, 0.2, 0.1]).double())


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (2, 1, 4, 2)])
def test_another_shape_starts_anew(shape):
    d, x = self_conditioned(counter, COSINE, "x_0"), randn(*shape)
    d(randn(2, 1, 4, 4), at(5, 5))
    assert_close(d(x, at(*[4] * len(x))), torch.full_like(x, 0.1))


@pytest.mark.parametrize("predicts", ["eps", "x_0", "v", "flow"])
def test_it_shows_the_clamped_clean_image_whatever_is_predicted(predicts):
    x, before = 2 * randn(2, 1, 4, 4), torch.zeros(2, 1, 4, 4).double()
    model, calls = recording(mixer)
    d, outside = self_conditioned(model, COSINE, predicts), 0
    for t in (10, 6, 1):
        x_0_hat = d(x, at(t, t))
        assert torch.equal(calls[-1][2], before)
        expected = make_denoiser(lambda x_t, t, shown=before: mixer(x_t, t, None, shown), COSINE, predicts)
        assert_close(x_0_hat, expected(x, at(t, t)))
        before, outside = x_0_hat.clamp(-1, 1), outside + (x_0_hat.abs() > 1).sum()
    assert outside or predicts == "x_0"  # what is returned is not clamped


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_denoiser_serves_run_after_run(name):
    def run(d, seed, grid):
        steps = SAMPLERS[name](d, randn(2, 1, 4, 4, seed=seed), COSINE, grid, seeded(seed))
        return [step.x_t for step in steps]

    one = self_conditioned(mixer, COSINE, "v")
    for seed, grid in enumerate([None, COSINE.grid(3), COSINE.grid(4, "log-snr")]):
        fresh = self_conditioned(mixer, COSINE, "v")
        assert all(torch.equal(a, b) for a, b in zip(run(one, seed, grid), run(fresh, seed, grid), strict=True))


def test_an_image_does_not_depend_on_its_batch():
    x_T = randn(3, 1, 4, 4)
    together = last(ddim(self_conditioned(mixer, COSINE, "v"), x_T, COSINE)).x_t
    for k in range(3):
        alone = last(ddim(self_conditioned(mixer, COSINE, "v"), x_T[k : k + 1], COSINE)).x_t
        assert_close(together[k : k + 1], alone, rtol=0, atol=1e-12)


def test_two_branches_of_guidance_remember_each_their_own():
    def labelled(x_t, t, y, x_0_hat):
        return mixer(x_t + y.reshape(-1, 1, 1, 1), t, y, x_0_hat)

    def branches():
        return [self_conditioned(labelled, COSINE, "v", labels) for labels in (at(0, 0), at(1, 1))]

    guided = clip_x_0(classifier_free_guidance(*branches(), 2.0))
    a, b = branches()
    for step in ddim(guided, randn(2, 1, 4, 4), COSINE):
        if step.t:
            t = at(step.t, step.t)
            x_0_b = b(step.x_t, t)
            expected = (x_0_b + 2 * (a(step.x_t, t) - x_0_b)).clamp(-1, 1)
            assert_close(step.x_0_hat, expected, rtol=0, atol=1e-12)


def test_a_network_that_ignores_its_estimate_is_the_plain_denoiser():
    oracle, x_T = gaussian_oracle(0.2, 0.3, COSINE), randn(2, 1, 4, 4)
    d = self_conditioned(lambda x_t, t, y, x_0_hat: oracle(x_t, t), COSINE, "x_0")
    assert torch.equal(last(ddim(d, x_T, COSINE)).x_t, last(ddim(oracle, x_T, COSINE)).x_t)
    forgetful, mindful = make_denoiser(mixer, COSINE, "v"), self_conditioned(mixer, COSINE, "v")
    ends = [last(ddim(d, x_T, COSINE)).x_t for d in (forgetful, mindful)]
    assert (ends[0] - ends[1]).abs().mean() > 0.01  # and of one that does not, another


def test_no_gradient_flows_to_the_step_before():
    d, x = self_conditioned(mixer, COSINE, "x_0"), [randn(1, 1, 2, 2, seed=k).requires_grad_() for k in (0, 1)]
    d(x[0], at(5))
    before, now = torch.autograd.grad(d(x[1], at(4)).sum(), x, allow_unused=True)
    assert before is None and (now != 0).all()


# The objective


X_0, T_6, Y = randn(6, 1, 4, 4, dtype=torch.float32).clamp(-1, 1), torch.arange(6) + 3, torch.arange(6) % 3


def fixed_times(n, T, generator):
    return T_6[:n]


def eps_of(seed, shape=X_0.shape):
    """The noise that an objective with fixed_times draws."""
    return torch.randn(shape, generator=seeded(seed))


@pytest.mark.parametrize("predicts", ["eps", "v"])
@pytest.mark.parametrize("kind", [{}, {"loss": "huber", "weights": "min-snr"}])
def test_p_0_is_the_plain_objective_in_one_pass(predicts, kind):
    model, calls = recording(mixer, num_classes=3)
    losses, t = SelfConditionedLoss(COSINE, predicts, **kind, p=0)(model, X_0, Y, seeded(1))
    plain, t_plain = DenoisingLoss(COSINE, predicts, **kind)(model, X_0, Y, seeded(1))
    assert torch.equal(losses, plain) and torch.equal(t, t_plain)
    assert len(calls) == 2 and (calls[0][2] == 0).all() and torch.equal(calls[0][1], calls[1][1])


@pytest.mark.parametrize("predicts", ["eps", "x_0", "v", "flow"])
def test_p_1_shows_every_image_the_estimate_from_zeros(predicts):
    model, calls = recording(mixer)
    losses, t = SelfConditionedLoss(COSINE, predicts, times=fixed_times, p=1)(model, X_0, None, seeded(1))
    x_t = q_sample(X_0, T_6, eps_of(1), COSINE)
    first = make_denoiser(mixer, COSINE, predicts)(x_t, T_6).clamp(-1, 1)
    assert torch.equal(t, T_6) and [call[3] for call in calls] == [False, True]
    assert torch.equal(calls[0][0], x_t) and calls[0][2] is None
    assert_close(calls[1][2], first)
    out = mixer(x_t, T_6, None, first)
    assert_close(losses, diffusion_loss(lambda *_: out, X_0, T_6, eps_of(1), COSINE, None, predicts, reduction="none"))


def test_no_gradient_flows_through_the_first_estimate():
    # out = w (x_t + shown), shown = w x_t: the gradient in w is that of a constant shown
    w, x_0 = torch.tensor(0.5, requires_grad=True), X_0 / 4

    def model(x_t, t, y=None, x_0_hat=None):
        return w * (x_t / 4 + (0 if x_0_hat is None else x_0_hat))

    model.num_classes = None
    losses, _ = SelfConditionedLoss(COSINE, "x_0", times=fixed_times, p=1)(model, x_0, None, seeded(1))
    (slope,) = torch.autograd.grad(losses.mean(), w)
    x = q_sample(x_0, T_6, eps_of(1), COSINE) / 4
    assert x.abs().max() < 2  # so that nothing is clamped
    assert_close(slope, (2 * (0.5 * 1.5 * x - x_0) * 1.5 * x).mean())


@pytest.mark.parametrize("p", [0.2, None])
def test_each_image_sees_its_estimate_with_probability_p(p):
    model, calls = recording(counter)
    loss = SelfConditionedLoss(COSINE, "x_0") if p is None else SelfConditionedLoss(COSINE, "x_0", p=p)
    loss(model, torch.zeros(2000, 1, 1, 2), None, seeded(1))
    shown = calls[1][2].flatten(1)
    assert ((shown == 0).all(1) | (shown == 0.1).all(1)).all()
    assert float((shown[:, 0] > 0).double().mean()) == pytest.approx(p or 0.5, abs=0.04)


def test_a_seed_draws_the_same_and_touches_no_other_generator():
    state = torch.get_rng_state()
    losses = [SelfConditionedLoss(COSINE)(mixer, X_0, None, seeded(k))[0] for k in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_both_passes_see_the_same_labels_some_of_them_dropped():
    model, calls = recording(mixer, num_classes=3)
    SelfConditionedLoss(COSINE, label_drop=0.5, p=1)(model, X_0.repeat(20, 1, 1, 1), Y.repeat(20), seeded(1))
    assert torch.equal(calls[0][1], calls[1][1]) and 30 < int((calls[0][1] == 3).sum()) < 90


def test_all_weights_get_their_gradient_in_half_precision_too(monkeypatch):
    # autocast caches the weights of the first pass, through which older torch lets no gradient flow
    conv, events, clear = torch.nn.Conv2d(1, 1, 3, padding=1), [], torch.clear_autocast_cache
    monkeypatch.setattr("torch.clear_autocast_cache", lambda: clear() or events.append("clear"))

    def model(x_t, t, y=None, x_0_hat=None):
        events.append("pass")
        return conv(x_t)

    model.num_classes = None
    with torch.autocast("cpu", torch.bfloat16):
        SelfConditionedLoss(COSINE, p=1)(model, X_0, None, seeded(1))[0].mean().backward()
    assert events[:3] == ["pass", "clear", "pass"]
    assert (conv.weight.grad != 0).all()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_a_probability_outside_0_to_1_is_refused(p):
    with pytest.raises(ValueError, match=rf"must be in \[0, 1\], got {p}"):
        SelfConditionedLoss(COSINE, p=p)


# The network


def small_network():
    torch.manual_seed(0)
    unet = UNet((8,), channels=2, num_classes=3, patch=1, attention=(), heads=1, groups=4, image_size=8, out_channels=1)
    with torch.no_grad():
        for weight in unet.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return SelfConditioned(unet)


def test_the_network_shows_its_own_zeros_where_it_is_given_no_estimate():
    model, x, t = small_network(), randn(2, 1, 8, 8, dtype=torch.float32), at(3, 5)
    assert model.num_classes == 3 and model(x, t).shape == x.shape
    assert torch.equal(model(x, t, at(0, 1)), model(x, t, at(0, 1), torch.zeros_like(x)))
    assert torch.equal(model(x, t, None, x), model.network(torch.cat([x, x], dim=1), t))
    assert not torch.equal(model(x, t, None, x), model(x, t))


def test_it_is_trained_sampled_saved_and_loaded_like_any_other(tmp_path):
    model, schedule = small_network(), Schedule.named("cosine-shifted", 20)
    x_0, y = randn(20, 1, 8, 8, dtype=torch.float32).sign() / 2, torch.arange(20) % 3
    loss = SelfConditionedLoss(schedule, "eps", times=lambda n, T, generator: torch.arange(1, 21))
    optimizer = torch.optim.Adam(model.parameters())
    steps = list(train_steps(model, [(x_0, y)] * 15, loss, optimizer, lambda n: 3e-3, generator=seeded(0)))
    assert steps[-1].losses.mean() < 0.8 * steps[0].losses.mean()

    ddpm = DDPM(model, schedule, "eps", (1, 8, 8))
    ddpm.save(tmp_path / "ddpm.safetensors")
    again = DDPM.load(tmp_path / "ddpm.safetensors")
    assert isinstance(again.model, SelfConditioned) and again.model.arguments == model.arguments
    for sampler in SAMPLERS.values():
        how = {"y": [0, 2], "steps": 4, "scale": 2.0, "seeds": [1, 2], "sampler": sampler}
        assert torch.equal(again.sample(**how), ddpm.sample(**how))

    x_T = torch.cat([torch.randn(1, 1, 8, 8, generator=seeded(seed)) for seed in (1, 2)])
    d = clip_x_0(self_conditioned(model, schedule, "eps"))
    by_hand, forgetful = (
        last(ddim(d, x_T, schedule, schedule.grid(4))).x_t for d in (d, make_denoiser(model, schedule, "eps"))
    )
    assert_close(ddpm.sample(n=2, steps=4, seeds=[1, 2]), by_hand)
    assert not torch.allclose(by_hand, forgetful, atol=1e-3)


def test_a_program_that_never_imported_it_loads_its_checkpoint(tmp_path):
    DDPM(small_network(), COSINE, "v", (1, 8, 8)).save(tmp_path / "ddpm.safetensors")
    code = "import sys, tinyddpm; print(type(tinyddpm.DDPM.load(sys.argv[1]).model).__name__)"
    words = [sys.executable, "-c", code, tmp_path / "ddpm.safetensors"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "SelfConditioned\n"
