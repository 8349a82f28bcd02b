"""Self-conditioning: models that show what they were shown, and losses and slopes that are known."""

import pytest
import torch
from torch.testing import assert_close

from tinyddpm.diffusion import diffusion_loss, make_denoiser, q_sample
from tinyddpm.extensions.self_conditioning import self_conditioned, self_conditioned_loss
from tinyddpm.guidance import classifier_free_guidance, clip_x_0
from tinyddpm.nn import UNet
from tinyddpm.oracle import gaussian_oracle
from tinyddpm.samplers import ddim, dpm_solver_pp, heun, last, p_sample_loop
from tinyddpm.schedules import Schedule

COSINE = Schedule.named("cosine", 10)
SAMPLERS = {"p_sample_loop": p_sample_loop, "ddim": ddim, "heun": heun, "dpm_solver_pp": dpm_solver_pp}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def beside_first(first, beside):
    """What such a network makes: the prediction, and a half that nobody looks at."""
    return torch.cat([first, torch.full_like(beside, torch.nan)], dim=1)


def counter(x, t):
    """0.1 more than it was shown, so that a denoiser of x_0 counts its calls in tenths."""
    return beside_first(x.chunk(2, dim=1)[1] + 0.1, x.chunk(2, dim=1)[1])


def mixer(x, t):
    """Stands for a network: bounded, and another prediction for each x_t, t and last estimate."""
    x_t, seen = x.chunk(2, dim=1)
    return beside_first((1.3 * x_t + seen + 0.1 * t.reshape(-1, 1, 1, 1)).sin(), seen)


def at(*t):
    return torch.tensor(t)


# What the denoiser remembers, and when it forgets


def test_a_model_that_copies_what_it_is_shown_gives_back_the_last_estimate():
    first, x = randn(2, 1, 4, 4).clamp(-1, 1), torch.zeros(2, 1, 4, 4).double()
    calls = []

    def model(x, t):
        calls.append(x.chunk(2, dim=1)[1])
        return beside_first(first if len(calls) == 1 else calls[-1], first)

    d = self_conditioned(model, COSINE, "x_0")
    for t in (10, 9, 5, 5, 1):  # at the same t again, as Heun's method asks, it still remembers
        assert torch.equal(d(x, at(t, t)), first)
    assert (calls[0] == 0).all()


def test_it_counts_down_a_run_and_starts_anew_where_t_rises():
    d, x = self_conditioned(counter, COSINE, "x_0"), randn(1, 1, 2, 2)
    counts = [round(float(10 * d(x, at(t)).mean())) for t in (9, 7, 7, 2, 1, 10, 9, 10, 3)]
    assert counts == [1, 2, 3, 4, 5, 1, 2, 1, 2]


def test_each_image_starts_anew_by_itself():
    d, x = self_conditioned(counter, COSINE, "x_0"), randn(3, 1, 2, 2)
    d(x, at(5, 5, 5))
    assert_close(d(x, at(4, 6, 5))[:, 0, 0, 0], torch.tensor([0.2, 0.1, 0.2]).double())
    assert_close(d(x, at(4, 5, 6))[:, 0, 0, 0], torch.tensor([0.3, 0.2, 0.1]).double())


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (2, 1, 4, 2), (2, 3, 4, 4)])
def test_another_shape_starts_anew(shape):
    d = self_conditioned(counter, COSINE, "x_0")
    d(randn(2, 1, 4, 4), at(5, 5))
    x = randn(*shape)
    assert_close(d(x, at(*[4] * len(x))), torch.full_like(x, 0.1))


def test_what_is_shown_is_held_in_the_range_of_images_and_what_is_given_is_not():
    shown = []

    def model(x, t):
        shown.append(x[:, 1:])
        return beside_first(torch.full_like(x[:, :1], 3.0), x[:, 1:])

    d, x = self_conditioned(model, COSINE, "x_0"), randn(1, 1, 2, 2)
    assert (d(x, at(5)) == 3).all() and (d(x, at(4)) == 3).all()
    assert (shown[1] == 1).all()


@pytest.mark.parametrize("predicts", ["eps", "x_0", "v", "flow"])
def test_it_shows_the_clean_image_whatever_is_predicted(predicts):
    shown, x = [], randn(2, 1, 4, 4)

    def model(both, t):
        shown.append(both)
        return mixer(both, t)

    d = self_conditioned(model, COSINE, predicts)
    plain = make_denoiser(lambda x_t, t: mixer(torch.cat([x_t, shown[-1][:, 1:]], 1), t)[:, :1], COSINE, predicts)
    before = torch.zeros_like(x)
    for t in (10, 6, 1):
        x_0_hat = d(x, at(t, t))
        assert torch.equal(shown[-1], torch.cat([x, before], dim=1))
        assert_close(x_0_hat, plain(x, at(t, t)))
        before = x_0_hat.clamp(-1, 1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_denoiser_serves_run_after_run(name):
    def run(d, seed, grid):
        steps = SAMPLERS[name](d, randn(2, 1, 4, 4, seed=seed), COSINE, grid, **extra(seed))
        return [step.x_t for step in steps]

    def extra(seed):
        return {"generator": seeded(seed)} if name == "p_sample_loop" else {}

    one = self_conditioned(mixer, COSINE, "v")
    for seed, grid in enumerate([None, COSINE.grid(3), COSINE.grid(4, "log-snr")]):
        fresh = self_conditioned(mixer, COSINE, "v")
        assert all(torch.equal(a, b) for a, b in zip(run(one, seed, grid), run(fresh, seed, grid), strict=True))


def test_it_matters_what_was_seen():
    # or else the two tests above could not fail
    x_T = randn(2, 1, 4, 4)
    forgetful = make_denoiser(lambda x, t: mixer(torch.cat([x, 0 * x], 1), t)[:, :1], COSINE, "v")
    a, b = (last(ddim(d, x_T, COSINE)).x_t for d in (self_conditioned(mixer, COSINE, "v"), forgetful))
    assert (a - b).abs().mean() > 0.01


def test_an_image_does_not_depend_on_its_batch():
    x_T = randn(3, 1, 4, 4)
    together = last(ddim(self_conditioned(mixer, COSINE, "v"), x_T, COSINE)).x_t
    for k in range(3):
        alone = last(ddim(self_conditioned(mixer, COSINE, "v"), x_T[k : k + 1], COSINE)).x_t
        assert_close(together[k : k + 1], alone, rtol=0, atol=1e-12)


def test_two_branches_of_guidance_remember_each_their_own():
    def labelled(x, t, y):
        return mixer(x + y.reshape(-1, 1, 1, 1), t)

    x_T, y = randn(2, 1, 4, 4), [at(0, 0), at(1, 1)]

    def branches():
        return [self_conditioned(labelled, COSINE, "v", labels) for labels in y]

    guided = clip_x_0(classifier_free_guidance(*branches(), 2.0))
    a, b = branches()
    for step in ddim(guided, x_T, COSINE):
        if step.t:
            t = at(step.t, step.t)
            x_0_b = b(step.x_t, t)
            wanted = (x_0_b + 2 * (a(step.x_t, t) - x_0_b)).clamp(-1, 1)
            assert_close(step.x_0_hat, wanted, rtol=0, atol=1e-12)


def test_a_network_that_ignores_what_it_sees_is_the_plain_denoiser():
    oracle, x_T = gaussian_oracle(0.2, 0.3, COSINE), randn(2, 1, 4, 4)
    d = self_conditioned(lambda x, t: beside_first(oracle(x[:, :1], t), x[:, 1:]), COSINE, "x_0")
    for a, b in zip(ddim(d, x_T, COSINE), ddim(oracle, x_T, COSINE), strict=True):
        assert torch.equal(a.x_t, b.x_t) and torch.equal(a.x_0_hat, b.x_0_hat)


def test_no_gradient_goes_back_to_the_step_before():
    # guidance by a gradient keeps it on for the caller; the step before is over
    d, x = (self_conditioned(mixer, COSINE, "x_0"), [randn(1, 1, 2, 2, seed=k).requires_grad_() for k in (0, 1)])
    d(x[0], at(5))
    before, now = torch.autograd.grad(d(x[1], at(4)).sum(), x, allow_unused=True)
    assert before is None and (now != 0).all()


# The loss


def batch(b=6, c=1):
    x_0, eps = randn(b, c, 4, 4).clamp(-1, 1), randn(b, c, 4, 4, seed=1)
    return x_0, torch.arange(b) % 10 + 1, eps, COSINE


def recording(model):
    calls = []

    def recorded(x, t, *y):
        calls.append((x.detach(), torch.is_grad_enabled(), y))
        return model(x, t)

    return recorded, calls


@pytest.mark.parametrize("predicts", ["eps", "x_0", "v", "flow"])
def test_share_0_is_the_plain_loss_beside_zeros(predicts):
    model, calls = recording(mixer)
    loss = self_conditioned_loss(model, *batch(), predicts=predicts, share=0)
    plain = diffusion_loss(lambda x, t: mixer(torch.cat([x, 0 * x], 1), t)[:, :1], *batch(), predicts=predicts)
    assert torch.equal(loss, plain) and len(calls) == 1


@pytest.mark.parametrize("predicts", ["eps", "x_0", "v", "flow"])
def test_share_1_shows_every_image_the_estimate_from_zeros(predicts):
    x_0, t, eps, _ = batch(c=2)
    x_t = q_sample(x_0, t, eps, COSINE)
    first = make_denoiser(lambda x, t: mixer(torch.cat([x, 0 * x], 1), t)[:, :2], COSINE, predicts)(x_t, t)
    model, calls = recording(mixer)
    loss = self_conditioned_loss(model, *batch(c=2), predicts=predicts, share=1)
    assert [grad for _, grad, _ in calls] == [False, True]
    assert torch.equal(calls[0][0], torch.cat([x_t, 0 * x_t], dim=1))
    assert_close(calls[1][0], torch.cat([x_t, first.clamp(-1, 1)], dim=1))
    out = mixer(calls[1][0], t)[:, :2]
    assert_close(loss, diffusion_loss(lambda *_: out, x_0, t, eps, COSINE, predicts=predicts))


def test_the_first_estimate_gets_no_gradient():
    # out = w (x_t + seen), seen = w x_t: the slope in w is that of a seen which stays as it is
    x_0, t, eps, _ = batch()
    x_0, eps, w = x_0 / 4, eps / 4, torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    x_t = q_sample(x_0, t, eps, COSINE)
    assert (0.5 * x_t).abs().max() < 1

    def model(x, t):
        return beside_first(w * x.chunk(2, 1)[0] + w * x.chunk(2, 1)[1], x.chunk(2, 1)[1])

    loss = self_conditioned_loss(model, x_0, t, eps, COSINE, predicts="x_0", share=1)
    (slope,) = torch.autograd.grad(loss, w)
    seen = 0.5 * x_t
    assert_close(slope, (2 * (0.5 * (x_t + seen) - x_0) * (x_t + seen)).mean())


def test_some_images_of_a_batch_look_and_others_do_not():
    # as many as share says, drawn one by one
    for share in (0.2, 0.5):
        model, calls = recording(counter)
        self_conditioned_loss(model, *batch(2000), predicts="x_0", share=share, generator=seeded(1))
        shown = calls[1][0][:, 1].flatten(1)
        assert ((shown == 0).all(1) | (shown == 0.1).all(1)).all()
        assert float((shown[:, 0] > 0).double().mean()) == pytest.approx(share, abs=0.04)


def test_half_of_the_images_look_where_nothing_is_said():
    model, calls = recording(counter)
    self_conditioned_loss(model, *batch(2000), predicts="x_0", generator=seeded(2))
    assert float((calls[1][0][:, 1, 0, 0] > 0).double().mean()) == pytest.approx(0.5, abs=0.04)


def test_one_seed_draws_the_same_images_and_touches_no_other_generator():
    everyones = torch.get_rng_state()
    losses = [self_conditioned_loss(mixer, *batch(), generator=seeded(k)) for k in (1, 1, 2, 3, 4)]
    assert torch.equal(everyones, torch.get_rng_state())
    assert losses[0] == losses[1] and len(set(losses)) > 1
    self_conditioned_loss(mixer, *batch(), share=0)
    assert torch.equal(everyones, torch.get_rng_state())
    self_conditioned_loss(mixer, *batch())
    assert not torch.equal(everyones, torch.get_rng_state())


@pytest.mark.parametrize("y", [None, torch.arange(6)])
def test_labels_go_to_both_looks_where_there_are_any(y):
    model, calls = recording(mixer)
    self_conditioned_loss(model, *batch(), y, share=1)
    self_conditioned(model, COSINE, y=y)(randn(6, 1, 4, 4), torch.full((6,), 5))
    labels = [labels for _, _, labels in calls]
    assert labels == [()] * 3 if y is None else all(one[0] is y for one in labels) and len(labels) == 3


def test_all_weights_get_their_gradient_in_half_precision_too(monkeypatch):
    # autocast keeps the weights' copies of the first look, which in older torch lead no gradient back
    torch.manual_seed(0)
    conv, events, clear = torch.nn.Conv2d(2, 2, 3, padding=1), [], torch.clear_autocast_cache
    monkeypatch.setattr("torch.clear_autocast_cache", lambda: clear() or events.append("clear"))
    x_0, t, eps, _ = (x.float() if torch.is_tensor(x) and x.is_floating_point() else x for x in batch())

    def model(x, t):
        events.append("look")
        return conv(x)

    with torch.autocast("cpu", torch.bfloat16):
        self_conditioned_loss(model, x_0, t, eps, COSINE, share=1).backward()
    assert events[:3] == ["look", "clear", "look"]
    assert conv.weight.grad is not None and (conv.weight.grad[0] != 0).all()


def test_a_run_never_looks_at_values_on_a_device():
    # meta tensors have no values, so that a look (a stall on a GPU) raises
    x = torch.zeros(2, 1, 4, 4, device="meta")
    d = self_conditioned(mixer, COSINE)
    for _ in range(2):
        assert last(ddim(d, x, COSINE)).x_t.device.type == "meta"
    t = torch.ones(2, dtype=torch.long, device="meta")
    assert self_conditioned_loss(mixer, x, t, x, COSINE, generator=seeded(0)).device.type == "meta"


@pytest.mark.parametrize("predicts", ["eps", "v"])
def test_a_tiny_network_learns_and_every_sampler_takes_it(predicts):
    torch.manual_seed(0)
    unet = UNet((8, 16), channels=2, patch=1, attention=(), groups=4, image_size=8)
    schedule = Schedule.named("cosine-shifted", 20)
    optimizer, losses = torch.optim.Adam(unet.parameters(), 3e-3), []
    x_0, t = randn(20, 1, 8, 8, dtype=torch.float32).sign() / 2, torch.arange(1, 21)
    eps, g = randn(20, 1, 8, 8, dtype=torch.float32, seed=1), seeded(2)
    for _ in range(15):
        loss = self_conditioned_loss(unet, x_0, t, eps, schedule, predicts=predicts, generator=g)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    unused = {unet.out[0].weight, unet.out[0].bias}  # whose second half makes what nobody looks at
    assert all((p.grad != 0).any() for p in unet.parameters()) and all((p.grad[1] == 0).all() for p in unused)
    d, x_T = self_conditioned(unet, schedule, predicts), randn(2, 1, 8, 8, dtype=torch.float32)
    for sampler in SAMPLERS.values():
        end = last(sampler(d, x_T, schedule, schedule.grid(5))).x_t
        assert end.shape == x_T.shape and end.isfinite().all()


# What is refused, and in which words


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=f"share of images that see an estimate goes from 0 to 1, got {share}"):
        self_conditioned_loss(mixer, *batch(), share=share)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_predictions_and_images_are_checked_as_elsewhere(share):
    x_0, t, eps, _ = batch()
    with pytest.raises(ValueError, match="predicts one of eps, x_0, v, flow, got 'noise'"):
        self_conditioned_loss(mixer, x_0, t, eps, COSINE, predicts="noise", share=share)
    with pytest.raises(ValueError, match="predicts one of eps, x_0, v, flow, got 'noise'"):
        self_conditioned(mixer, COSINE, "noise")
    with pytest.raises(ValueError, match="with zero terminal SNR"):
        self_conditioned(mixer, Schedule.named("flow", 10))
    with pytest.raises(ValueError, match="images must lie in"):
        self_conditioned_loss(mixer, 10 * x_0, t, eps, COSINE, share=share)


def test_a_network_of_another_shape_is_refused_and_told_which():
    words = r"\(6, 2, 4, 4\) here, got \(6, 1, 4, 4\): build it with channels=2"
    with pytest.raises(ValueError, match=words):
        self_conditioned_loss(lambda x, t: x[:, :1], *batch())
    with pytest.raises(ValueError, match=words):
        self_conditioned(lambda x, t: x[:, :1], COSINE)(randn(6, 1, 4, 4), torch.full((6,), 5))
