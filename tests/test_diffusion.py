"""The algebra at one t, against diffusers (whose t is ours - 1), exact recursions and torch's own losses."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tinyddpm.datasets.named import torchvision_datasets
from tinyddpm.diffusion import (
    PREDICTIONS,
    WEIGHTS,
    diffusion_loss,
    eps_from_x_0,
    loss_weight,
    make_denoiser,
    q_posterior,
    q_sample,
    q_step,
    v_from,
    x_0_from_eps,
    x_0_from_flow,
    x_0_from_v,
)
from tinyddpm.nn import UNet
from tinyddpm.pipeline import DDPM
from tinyddpm.samplers import ddim
from tinyddpm.schedules import Schedule

LINEAR = Schedule.named("linear", 50)
COSINE = Schedule.named("cosine", 50)
SCHEDULES = (LINEAR, COSINE, Schedule.named("linear", 1000), Schedule.named("cosine", 1000))
PURE_NOISE = (Schedule.named("linear-zero-snr", 50), Schedule.named("flow", 50))  # x_T is noise alone


def images(b=3, dtype=torch.float64, seed=0):
    """b images in [-1, 1] and as much noise."""
    g = torch.Generator().manual_seed(seed)
    x_0 = torch.rand(b, 1, 4, 4, generator=g, dtype=dtype) * 2 - 1
    return x_0, torch.randn(b, 1, 4, 4, generator=g, dtype=dtype)


def reference(schedule, **kwargs):
    """The scheduler of diffusers with our float64 tables, so that only the algebra is compared."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(schedule.T, **kwargs)
    scheduler.betas, scheduler.alphas_cumprod = schedule.beta[1:], schedule.alpha_bar[1:]
    return scheduler


def zeros_model(x_t, t):
    return torch.zeros_like(x_t)


# The way to noise


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_q_sample_is_add_noise_of_diffusers(schedule):
    x_0, eps = images()
    t = torch.tensor([1, schedule.T // 2, schedule.T])
    expected = reference(schedule).add_noise(x_0, eps, t - 1)
    assert_close(q_sample(x_0, t, eps, schedule), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_v_is_get_velocity_of_diffusers(schedule):
    x_0, eps = images()
    t = torch.tensor([1, schedule.T // 2, schedule.T])
    expected = reference(schedule).get_velocity(x_0, eps, t - 1)
    assert_close(v_from(x_0, eps, t, schedule), expected, rtol=1e-12, atol=1e-12)


def test_q_sample_at_0_is_the_image():
    x_0, eps = images()
    assert torch.equal(q_sample(x_0, 0, eps, COSINE), x_0)


def test_q_sample_at_T_is_noise():
    x_0, eps = images()
    assert_close(q_sample(x_0, 50, eps, COSINE), eps, rtol=0, atol=3e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_q_step_again_and_again_has_the_moments_of_q_sample(schedule):
    # trap 6: x_t = signal x_0 + N(0, variance), each step read off by a unit image and unit noise
    one, zero = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    signal, variance = 1.0, 0.0
    for t in range(1, schedule.T + 1):
        keep = float(q_step(one, t, zero, schedule))
        signal, variance = keep * signal, keep**2 * variance + float(q_step(zero, t, one, schedule)) ** 2
        assert float(q_sample(one, t, zero, schedule)) == pytest.approx(signal, rel=1e-10, abs=0)
        assert float(q_sample(zero, t, one, schedule)) ** 2 == pytest.approx(variance, rel=1e-10, abs=0)


# The way back


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_q_posterior_is_bayes_rule(schedule):
    # p(x_s | x_t, x_0) of two Gaussians that are known: x_s given x_0, and x_t given x_s
    x_0, x_t = (torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (0.7, -1.3))
    abar = schedule.alpha_bar.tolist()
    for t, s in [(2, 1), (schedule.T, schedule.T - 1), (schedule.T, 1), (schedule.T // 2, schedule.T // 3)]:
        keep = abar[t] / abar[s]
        precision = 1 / (1 - abar[s]) + keep / (1 - keep)
        mean = (math.sqrt(abar[s]) * 0.7 / (1 - abar[s]) + math.sqrt(keep) * -1.3 / (1 - keep)) / precision
        got, variance = q_posterior(x_0, x_t, t, s, schedule)
        assert float(got) == pytest.approx(mean, rel=1e-9)
        assert variance == pytest.approx(1 / precision, rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_q_posterior_to_the_clean_image_is_x_0_without_noise(schedule):
    # trap 3: an alpha_bar padded with 0 would leave a variance of 1 here
    one, zero = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for t in (1, 2, schedule.T):
        assert float(q_posterior(one, zero, t, 0, schedule)[0]) == pytest.approx(1, abs=1e-15)
        mean, variance = q_posterior(zero, one, t, 0, schedule)
        assert float(mean) == 0 and variance == 0


def test_q_posterior_mean_is_the_papers_mean_in_eps():
    # trap 1: (x_t - beta / sqrt(1 - alpha_bar_t) eps) / sqrt(1 - beta) (Ho et al. 2020, eq. 11)
    x_0, eps = images()
    for t in (2, 17, 50):
        beta, abar = float(LINEAR.beta[t]), float(LINEAR.alpha_bar[t])
        x_t = q_sample(x_0, t, eps, LINEAR)
        expected = (x_t - beta / math.sqrt(1 - abar) * eps) / math.sqrt(1 - beta)
        assert_close(q_posterior(x_0, x_t, t, t - 1, LINEAR)[0], expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(t=st.integers(1, 49), seed=st.integers(0, 99))  # at t = T the cosine keeps too little of x_0
def test_eps_x_0_v_and_flow_are_four_names_for_one_thing(t, seed):
    x_0, eps = images(seed=seed)
    x_t = q_sample(x_0, t, eps, COSINE)
    v = v_from(x_0, eps, t, COSINE)
    assert_close(x_0_from_eps(eps, x_t, t, COSINE), x_0, rtol=0, atol=1e-11)
    assert_close(eps_from_x_0(x_0, x_t, t, COSINE), eps, rtol=0, atol=1e-11)
    assert_close(x_0_from_v(v, x_t, t, COSINE), x_0, rtol=0, atol=1e-11)
    assert_close(eps_from_x_0(x_0_from_v(v, x_t, t, COSINE), x_t, t, COSINE), eps, rtol=0, atol=1e-11)
    assert_close(x_0_from_flow(eps - x_0, x_t, t, COSINE), x_0, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["cosine", "linear", "linear-zero-snr", "flow"])
def test_x_0_from_v_and_from_flow_is_as_exact_at_T_as_anywhere_in_float32(name):
    # trap 9: x_0 from eps divides by sqrt(alpha_bar_T) instead
    schedule = Schedule.named(name, 1000)
    x_0, eps = images(dtype=torch.float32)
    x_T = q_sample(x_0, 1000, eps, schedule)
    assert_close(x_0_from_v(v_from(x_0, eps, 1000, schedule), x_T, 1000, schedule), x_0, rtol=0, atol=1e-6)
    assert_close(x_0_from_flow(eps - x_0, x_T, 1000, schedule), x_0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", PURE_NOISE)
def test_where_no_signal_is_left_x_T_is_the_noise_and_v_minus_the_image(schedule):
    x_0, eps = images()
    assert torch.equal(q_sample(x_0, 50, eps, schedule), eps)
    assert torch.equal(v_from(x_0, eps, 50, schedule), -x_0)
    assert torch.equal(q_step(x_0, 50, eps, schedule), eps)
    mean, variance = q_posterior(x_0, eps, 50, 20, schedule)  # q(x_s | x_0): x_T says nothing
    assert_close(mean, schedule.sqrt_alpha_bar[20] * x_0, rtol=0, atol=1e-12)
    assert variance == pytest.approx(float(1 - schedule.alpha_bar[20]), abs=1e-12)


@pytest.mark.parametrize("schedule", [*SCHEDULES, *PURE_NOISE])
def test_flow_is_the_velocity_of_the_straight_line_between_image_and_noise(schedule):
    # z = x_t / (signal + noise) = (1 - u) x_0 + u eps with u = noise / (signal + noise), dz / du = eps - x_0
    x_0, eps = images()
    ends = []
    for t in (schedule.T // 3, schedule.T // 3 + 1):
        signal, noise = float(schedule.sqrt_alpha_bar[t]), float(schedule.sqrt_one_minus_alpha_bar[t])
        ends.append((noise / (signal + noise), q_sample(x_0, t, eps, schedule) / (signal + noise)))
    (u, z), (u_next, z_next) = ends
    velocity = (z_next - z) / (u_next - u)
    x_t = q_sample(x_0, schedule.T // 3, eps, schedule)
    assert_close(x_0_from_flow(velocity, x_t, schedule.T // 3, schedule), x_0, rtol=0, atol=1e-9)


def flow_network(z, u):
    """Stands for a network of flow matching, which knows the straight line alone."""
    return (1.3 * z + u).sin()


@pytest.mark.parametrize("name, spacing", [("flow", "uniform"), ("flow", "log-snr"), ("cosine", "uniform")])
def test_ddim_on_a_flow_denoiser_is_euler_along_the_straight_line(name, spacing):
    # x_t / (signal + noise) is a point of the line of flow matching, on every schedule
    torchvision_datasets()  # so that torchvision, which diffusers imports, can be there without its operators
    diffusers = pytest.importorskip("diffusers")
    schedule = Schedule.named(name, 50)
    norm = schedule.sqrt_alpha_bar + schedule.sqrt_one_minus_alpha_bar
    share = schedule.sqrt_one_minus_alpha_bar / norm
    if name == "flow":
        assert_close(share, torch.arange(51, dtype=torch.float64) / 50)

    def network(x_t, t):
        n, u = (a[t].reshape(-1, 1, 1, 1) for a in (norm, share))
        return flow_network(x_t / n, u)

    grid, (_, x_T) = schedule.grid(9, spacing), images()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(50, shift=1.0)
    scheduler.set_timesteps(sigmas=[float(share[t]) for t, _ in grid])
    z = theirs = x_T / norm[grid[0][0]]
    steps = list(ddim(make_denoiser(network, schedule, "flow"), x_T, schedule, grid))
    for (t, s), timestep, step in zip(grid, scheduler.timesteps, steps[1:], strict=True):
        z = z + (share[s] - share[t]) * flow_network(z, share[t])
        assert_close(step.x_t / norm[s], z, rtol=0, atol=1e-10)
        theirs = scheduler.step(flow_network(theirs, share[t]), timestep, theirs).prev_sample  # in float32
        assert_close(step.x_t / norm[s], theirs, rtol=0, atol=1e-5)


def test_what_is_tested_here_is_all_that_a_network_may_predict():
    assert list(PREDICTIONS) == ["eps", "x_0", "v", "flow"]


@pytest.mark.parametrize("predicts", ["eps", "x_0", "v"])
@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
def test_a_denoiser_sees_the_x_0_that_diffusers_sees(predicts, schedule):
    prediction_type = {"eps": "epsilon", "x_0": "sample", "v": "v_prediction"}[predicts]
    scheduler = reference(schedule, prediction_type=prediction_type, clip_sample=False)
    out, x_t = images()
    for t in (1, 20, 50):
        got = make_denoiser(lambda x_t, t: out, schedule, predicts)(x_t, torch.full((3,), t))
        expected = scheduler.step(out, t - 1, x_t).pred_original_sample
        assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_a_denoiser_hands_on_labels_only_where_there_are_some():
    x_t, _ = images()
    t, y = torch.full((3,), 5), torch.tensor([2, 0, 1])
    plain = make_denoiser(lambda x_t, t: 2 * x_t, COSINE, "x_0")
    assert torch.equal(plain(x_t, t), 2 * x_t)
    labelled = make_denoiser(lambda x_t, t, y: y.double().reshape(-1, 1, 1, 1) + 0 * x_t, COSINE, "x_0", y=y)
    assert torch.equal(labelled(x_t, t)[:, 0, 0, 0], y.double())


# A batch is its images, each by itself


@pytest.mark.parametrize("f", [q_step, q_sample, eps_from_x_0, x_0_from_eps, v_from, x_0_from_v, x_0_from_flow])
def test_mixed_times_in_a_batch_are_those_of_each_image(f):
    # trap 31
    a, b = images()
    t = torch.tensor([50, 1, 13])
    args = (lambda k: (a[k], t[k], b[k])) if f in (q_step, q_sample) else (lambda k: (a[k], b[k], t[k]))
    batch = f(*args(slice(None)), COSINE)
    for k in range(3):
        assert torch.equal(batch[k : k + 1], f(*args(slice(k, k + 1)), COSINE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_of_the_images_is_kept(dtype):
    x_0, eps = images(dtype=dtype)
    for f in (q_step, q_sample):
        assert f(x_0, 7, eps, COSINE).dtype == dtype
    for f in (eps_from_x_0, x_0_from_eps, v_from, x_0_from_v, x_0_from_flow):
        assert f(x_0, eps, 7, COSINE).dtype == dtype
    assert q_posterior(x_0, eps, 7, 3, COSINE)[0].dtype == dtype
    for weights in WEIGHTS:
        t = torch.tensor([1, 2, 50])
        assert diffusion_loss(zeros_model, x_0, t, eps, COSINE, weights=weights).dtype == dtype


def test_inputs_stay_as_they_were():
    # trap 30
    a, b = images()
    t = torch.tensor([50, 1, 13])
    before = a.clone(), b.clone(), t.clone()
    q_step(a, t, b, COSINE)
    q_sample(a, t, b, COSINE)
    for f in (eps_from_x_0, x_0_from_eps, v_from, x_0_from_v, x_0_from_flow):
        f(a, b, t, COSINE)
    q_posterior(a, b, 13, 5, COSINE)
    for predicts in PREDICTIONS:
        make_denoiser(lambda x_t, t: x_t, COSINE, predicts)(b, t)
        diffusion_loss(lambda x_t, t: x_t, a, t, b, COSINE, predicts=predicts, weights="min-snr")
    assert all(torch.equal(x, y) for x, y in zip((a, b, t), before))


# The loss


@pytest.mark.parametrize("loss, expected", [("mse", 1.0), ("l1", math.sqrt(2 / math.pi))])
def test_a_model_that_predicts_no_noise_pays_what_the_noise_weighs(loss, expected):
    # trap 26: .798 for l1
    g = torch.Generator().manual_seed(0)
    eps = torch.randn(16, 1, 32, 32, generator=g)
    t = torch.randint(1, 51, (16,), generator=g)
    got = diffusion_loss(zeros_model, torch.zeros(16, 1, 32, 32), t, eps, COSINE, loss=loss)
    assert float(got) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize("loss, torchs", [("mse", F.mse_loss), ("l1", F.l1_loss), ("huber", F.huber_loss)])
def test_each_loss_is_torchs_own_against_the_target(predicts, loss, torchs):
    x_0, eps = images()
    t = torch.tensor([50, 1, 13])
    target = {"eps": eps, "x_0": x_0, "v": v_from(x_0, eps, t, COSINE), "flow": eps - x_0}[predicts]

    def model(x_t, t):
        return 0.3 * x_t + t.reshape(-1, 1, 1, 1) / 50

    expected = torchs(model(q_sample(x_0, t, eps, COSINE), t), target)
    got = diffusion_loss(model, x_0, t, eps, COSINE, predicts=predicts, loss=loss)
    assert got.shape == ()
    assert_close(got, expected)


def test_a_model_that_knows_the_target_pays_nothing():
    x_0, eps = images()
    t = torch.tensor([50, 1, 13])
    targets = {"eps": eps, "x_0": x_0, "v": v_from(x_0, eps, t, COSINE), "flow": eps - x_0}
    for predicts, target in targets.items():
        assert diffusion_loss(lambda x_t, t, out=target: out, x_0, t, eps, COSINE, predicts=predicts) == 0


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_batch_twice_as_large_costs_the_same(weights):
    # trap 26
    x_0, eps = images()
    t = torch.tensor([40, 1, 13])
    once = diffusion_loss(zeros_model, x_0, t, eps, COSINE, weights=weights)
    twice = [torch.cat([a, a]) for a in (x_0, t, eps)]
    assert_close(diffusion_loss(zeros_model, *twice, COSINE, weights=weights), once)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_the_loss_of_a_batch_is_the_mean_of_its_images(weights, predicts):
    # trap 26: weights multiply the loss of an image before the mean
    x_0, eps = images()
    t = torch.tensor([40, 1, 13])
    kwargs = dict(schedule=COSINE, predicts=predicts, weights=weights)
    alone = [diffusion_loss(zeros_model, x_0[k : k + 1], t[k : k + 1], eps[k : k + 1], **kwargs) for k in range(3)]
    assert_close(diffusion_loss(zeros_model, x_0, t, eps, **kwargs), torch.stack(alone).mean())


@pytest.mark.parametrize("schedule", [LINEAR, COSINE, Schedule.named("cosine", 1000)])
@pytest.mark.parametrize(("weights", "low"), [("min-snr", 0), ("clamped-snr", 1)])
def test_weights_weigh_the_error_in_x_0_alike_for_all_predictions(schedule, weights, low):
    # trap 27: an error in x_0 counts SNR times in eps, SNR + 1 times in v and (sqrt(SNR) + 1)^2 times in flow
    t = torch.arange(1, schedule.T + 1)
    x_0 = torch.zeros(schedule.T, 1, 1, 1, dtype=torch.float64)
    abar = schedule.alpha_bar[1:]
    snr = abar / (1 - abar)
    owns = {"x_0": torch.ones_like(snr), "eps": snr, "v": snr + 1, "flow": (snr.sqrt() + 1) ** 2}
    for predicts, own in owns.items():
        weight = loss_weight(t, x_0, schedule, predicts, weights)
        assert_close(weight * own, snr.clamp(low, 5), rtol=1e-9, atol=0)


def test_min_snr_costs_the_same_error_in_x_0_the_same_whatever_is_predicted():
    # trap 27, through the loss itself
    x_0, eps = images()
    t = torch.tensor([40, 2, 13])
    x_t, x_0_hat = q_sample(x_0, t, eps, COSINE), 0.8 * x_0 + 0.1
    eps_hat = eps_from_x_0(x_0_hat, x_t, t, COSINE)
    outs = {"x_0": x_0_hat, "eps": eps_hat, "v": v_from(x_0_hat, eps_hat, t, COSINE)}
    outs["flow"] = eps_hat - x_0_hat
    snr = COSINE.log_snr[t].exp()
    expected = (snr.clamp(max=5) * (x_0_hat - x_0).square().flatten(1).mean(1)).mean()
    for predicts, out in outs.items():
        got = diffusion_loss(lambda x_t, t, out=out: out, x_0, t, eps, COSINE, predicts=predicts, weights="min-snr")
        assert_close(got, expected, rtol=1e-9, atol=0)


def test_no_weights_are_ones():
    weight = loss_weight(torch.tensor([1, 50]), torch.zeros(2, 1, 2, 2), COSINE, "eps", "none")
    assert torch.equal(weight, torch.ones(2))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_weights_are_finite_in_float32_at_both_ends(predicts, weights):
    t = torch.tensor([1, 2, 999, 1000])
    weight = loss_weight(t, torch.zeros(4, 1, 1, 1), Schedule.named("cosine", 1000), predicts, weights)
    assert weight.dtype == torch.float32 and weight.isfinite().all() and (weight > 0).all()


@pytest.mark.parametrize("schedule", PURE_NOISE)
@pytest.mark.parametrize("predicts", ["x_0", "v", "flow"])
def test_weights_where_no_signal_is_left_are_those_of_an_error_in_x_0(predicts, schedule):
    # there v = -x_0 and flow = x_T - x_0, so that an error in either is one in x_0; the SNR is 0
    t, x_0 = torch.tensor([50]), torch.zeros(1, 1, 1, 1)
    for weights, expected in (("none", 1.0), ("min-snr", 0.0), ("clamped-snr", 1.0)):
        assert loss_weight(t, x_0, schedule, predicts, weights).tolist() == [expected]


@pytest.mark.parametrize("weights", ["min-snr", "clamped-snr"])
@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_weights_are_finite_at_the_clean_image(predicts, weights):
    # where the SNR is infinite: an error in x_0 counts 5, the most, and the others' own weight exceeds all
    weight = loss_weight(torch.tensor([0]), torch.zeros(1, 1, 1, 1), COSINE, predicts, weights)
    assert weight.tolist() == [5.0 if predicts == "x_0" else 0.0]


@pytest.mark.parametrize("schedule", PURE_NOISE)
@pytest.mark.parametrize("predicts", ["x_0", "v", "flow"])
def test_a_run_and_a_loss_from_pure_noise_are_finite(predicts, schedule):
    x_0, eps = images(dtype=torch.float32)
    t = torch.tensor([50, 49, 1])

    def model(x_t, t):
        return (2 * x_t).sin()

    for weights in WEIGHTS:
        loss = diffusion_loss(model, x_0, t, eps, schedule, predicts=predicts, weights=weights, reduction="none")
        assert loss.isfinite().all()
    x_0_hat = make_denoiser(model, schedule, predicts)(eps, t)
    assert x_0_hat.isfinite().all() and x_0_hat.abs().max() < 10
    expected = {"x_0": model(eps, t), "v": -model(eps, t), "flow": eps - model(eps, t)}[predicts]
    assert torch.equal(x_0_hat[0], expected[0])


def test_the_loss_hands_on_labels_and_times():
    x_0, eps = images()
    t, y = torch.tensor([50, 1, 13]), torch.tensor([2, 0, 1])
    seen = []

    def model(x_t, *rest):
        seen.append((x_t, *rest))
        return x_t

    diffusion_loss(model, x_0, t, eps, COSINE, y=y)
    diffusion_loss(model, x_0, t, eps, COSINE)
    assert torch.equal(seen[0][1], t) and torch.equal(seen[0][2], y) and len(seen[1]) == 2
    assert torch.equal(seen[0][0], q_sample(x_0, t, eps, COSINE))


def test_the_loss_reaches_the_model():
    x_0, eps = images()
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    diffusion_loss(lambda x_t, t: scale * x_t, x_0, torch.tensor([50, 1, 13]), eps, COSINE).backward()
    assert scale.grad.abs() > 0


def test_nothing_here_looks_at_values_on_a_device():
    # trap 31: meta tensors have no values, so that a look (a stall on a GPU) raises
    x_0, eps = (x.to("meta") for x in images())
    t = torch.ones(3, dtype=torch.long, device="meta")
    for predicts in PREDICTIONS:
        loss = diffusion_loss(lambda x_t, t: x_t, x_0, t, eps, COSINE, predicts=predicts, weights="min-snr")
        assert loss.device.type == "meta"


# What is refused, and in which words


@pytest.mark.parametrize("schedule", PURE_NOISE)
def test_eps_is_refused_where_x_T_is_noise_alone_at_every_door(schedule):
    # x_0 = (x_T - eps) / 0
    x_0, eps = images()
    words = r"x_T is pure noise \(zero terminal SNR\), .*: predict v, x_0 or flow"
    with pytest.raises(ValueError, match=words):
        make_denoiser(zeros_model, schedule, "eps")
    with pytest.raises(ValueError, match=words):
        make_denoiser(zeros_model, schedule)  # eps is what it takes where nothing is said
    with pytest.raises(ValueError, match=words):
        diffusion_loss(zeros_model, x_0, torch.tensor([1, 2, 3]), eps, schedule)
    unet = UNet((8, 16), attention=(8,), heads=1)
    with pytest.raises(ValueError, match=words):
        DDPM(unet, schedule, "eps")
    for predicts in ("x_0", "v", "flow"):
        assert DDPM(unet, schedule, predicts).predicts == predicts
