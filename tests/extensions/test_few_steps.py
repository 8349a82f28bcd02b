"""Few steps: each network is replaced by the flow map in closed form, and what it is trained on holds; every mistake in
the objective is shown to be far from that."""

import contextlib
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.testing import assert_close

import tinyddpm
from tinyddpm.diffusion import loss_weight, q_sample
from tinyddpm.extensions import few_steps
from tinyddpm.extensions.few_steps import (
    ConsistencyLoss,
    MeanFlowLoss,
    ReflowLoss,
    TwoTimes,
    average_velocity,
    consistency_sampling,
    flow_time,
    mean_flow,
    mean_flow_target,
    reflow_pairs,
)
from tinyddpm.nn import UNet
from tinyddpm.oracle import dataset_oracle, gaussian_oracle
from tinyddpm.pipeline import DDPM
from tinyddpm.samplers import ddim, heun, last
from tinyddpm.schedules import Schedule
from tinyddpm.training import train_steps

SCHEDULES = {name: Schedule.named(name, 100) for name in ("flow", "cosine", "linear")}
FLOW = SCHEDULES["flow"]
schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
MEAN, VARIANCE = 0.3, 0.25
TIMES = [(100, 0), (100, 60), (80, 30), (37, 36), (30, 0), (50, 50), (1, 0)]  # (t, s)
EXACT = {"rtol": 0, "atol": 1e-6}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def at(t, n):
    return torch.full((n,), t)


# --- flow maps in closed form, in z = (1 - u) x_0 + u eps ----------------------------------------------------------


class Gaussian:
    """Pixels of N(MEAN, VARIANCE): at u they are normal, and the ODE keeps each at its quantile."""

    @staticmethod
    def flow(z, u, u_s):
        """z at u_s of the path through z at u: affine in z."""
        spread, spread_s = ((VARIANCE * (1 - a) ** 2 + a**2).sqrt() for a in (u, u_s))
        return (1 - u_s) * MEAN + spread_s / spread * (z - (1 - u) * MEAN)

    @staticmethod
    def velocity(z, u):
        """E[eps - x_0 | z]."""
        k = (u - (1 - u) * VARIANCE) / (VARIANCE * (1 - u) ** 2 + u**2)
        return k * (z - (1 - u) * MEAN) - MEAN

    oracle = staticmethod(partial(gaussian_oracle, MEAN, VARIANCE))


class TwoPoints:
    """Pixels of -1 or 1, equally likely: on a line the ODE keeps each at its quantile of the two bells."""

    @staticmethod
    def rank(z, u):
        """P(Z <= z), and its density."""
        a = torch.stack([(z + 1 - u) / u, (z - 1 + u) / u])
        return torch.special.ndtr(a).mean(0), (torch.exp(-(a**2) / 2) / (2 * torch.pi) ** 0.5).mean(0) / u

    @classmethod
    def flow(cls, z, u, u_s):
        if u_s.min() == 0:  # the clean end
            return z.sign()
        low, high, p = torch.full_like(z, -9).detach(), torch.full_like(z, 9).detach(), cls.rank(z, u)[0]
        for _ in range(60):
            middle = (low + high) / 2
            below = cls.rank(middle, u_s)[0] < p
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        found, density = cls.rank(((low + high) / 2).detach(), u_s)
        return ((low + high) / 2).detach() + (p - found) / density  # Newton's step, which carries the derivative

    @staticmethod
    def velocity(z, u):
        x_0 = torch.tanh(z * (1 - u) / u**2)
        return (z - x_0) / u

    @staticmethod
    def oracle(schedule):
        return dataset_oracle(torch.tensor([-1.0, 1.0]).double().reshape(2, 1, 1, 1), schedule)


worlds = pytest.mark.parametrize("world", [Gaussian, TwoPoints])


class Exact:
    """The exact average velocity of a world, in place of a network."""

    num_classes = None

    def __init__(self, world, T=100):
        self.world, self.T = world, T

    def __call__(self, x_t, t, y=None, s=None):
        u, u_s = (torch.as_tensor(a).double().reshape(-1, 1, 1, 1) / self.T for a in (t, 0 * t if s is None else s))
        z = x_t * ((1 - u) ** 2 + u**2).sqrt()
        moved = (z - self.world.flow(z, u, u_s)) / torch.where(u > u_s, u - u_s, 1)
        return torch.where(u > u_s, moved, self.world.velocity(z, u))


def point(world, schedule, t, n=64, seed=0):
    """x_t of n single pixels, its z, and its u as (n,)."""
    x_0 = MEAN + VARIANCE**0.5 * randn(n, 1, 1, 1, seed=seed) if world is Gaussian else randn(n, 1, 1, 1).sign()
    x_t, u = q_sample(x_0, t, randn(n, 1, 1, 1, seed=seed + 1), schedule), flow_time(t, x_0, schedule)
    return x_t, x_t / sum(schedule.coefficients(t, x_t)), u


def wide(u):
    return u.reshape(-1, 1, 1, 1)


@worlds
def test_the_closed_forms_are_the_ode_of_the_oracle(world):
    schedule = Schedule.named("flow", 1000)
    x_t, z, u = point(world, schedule, 900)
    assert_close(
        world.velocity(z, wide(u)), (z - world.oracle(schedule)(x_t, at(900, 64))) / wide(u), rtol=0, atol=1e-9
    )
    steps = [(t, t - 1) for t in range(900, 400, -1)]
    walked = last(heun(world.oracle(schedule), x_t, schedule, steps)).x_t
    u_s = flow_time(400, x_t, schedule)
    flown = world.flow(z, wide(u), wide(u_s)) * sum(schedule.coefficients(400, x_t))
    assert_close(walked, flown, rtol=0, atol=1e-4)


@schedules
def test_the_clock_puts_every_schedule_on_the_straight_path(schedule):
    x_0, eps, t = randn(5, 1, 2, 2), randn(5, 1, 2, 2, seed=1), torch.tensor([1, 20, 50, 99, 100])
    u = flow_time(t, x_0, schedule)
    z = q_sample(x_0, t, eps, schedule) / sum(schedule.coefficients(t, x_0))
    assert_close(z, (1 - wide(u)) * x_0 + wide(u) * eps)
    if schedule is FLOW:
        assert_close(u, t.double() / 100, rtol=0, atol=1e-12)


# --- average velocity ----------------------------------------------------------------------------------------------


def identity(world, schedule, t, s, sign=1.0, swapped=False, velocity_sign=1.0):
    """The two sides of the MeanFlow identity at the exact average velocity, or at a wrong version of it."""
    _, z, u = point(world, schedule, t)
    u_s, exact = flow_time(s, z, schedule), Exact(world)
    model = (lambda x_t, t, y, s: exact(x_t, s, y, t)) if swapped else lambda *inputs: sign * exact(*inputs)
    average = partial(average_velocity, model, None, 100, u_s)
    return mean_flow_target(average, z, u, u_s, velocity_sign * world.velocity(z, wide(u)))


@worlds
@schedules
@pytest.mark.parametrize(("t", "s"), TIMES)
def test_the_identity_of_mean_flow_holds(world, schedule, t, s):
    found, target = identity(world, schedule, t, s)
    assert_close(found, target, **EXACT)


@worlds
@pytest.mark.parametrize("mistake", [{"sign": -1.0}, {"velocity_sign": -1.0}])
def test_a_wrong_sign_is_far_from_the_identity(world, mistake):
    found, target = identity(world, FLOW, 80, 30, **mistake)
    assert float((found - target).square().mean()) > 0.1


def test_swapped_times_are_far_from_the_identity():
    found, target = identity(Gaussian, FLOW, 80, 30, swapped=True)
    assert float((found - target).abs().mean()) > 0.1


def test_the_sign_before_the_derivative_matters(monkeypatch):
    jvp = torch.func.jvp
    monkeypatch.setattr(torch.func, "jvp", lambda *arguments: (lambda a, b: (a, -b))(*jvp(*arguments)))
    found, target = identity(Gaussian, FLOW, 80, 30)
    assert float((found - target).abs().mean()) > 0.1


def test_the_derivative_in_time_matters(monkeypatch):
    monkeypatch.setattr(torch, "ones_like", torch.zeros_like)
    found, target = identity(Gaussian, FLOW, 80, 30)
    assert float((found - target).abs().mean()) > 0.1


@worlds
def test_the_target_is_right_on_average_for_the_velocity_of_one_pair(world):
    """The loss has eps - x_0 where the identity has its mean given z; the target is affine in it."""
    _, z, u = point(world, FLOW, 80)
    u_s, v, off = flow_time(30, z, FLOW), world.velocity(z, wide(u)), randn(64, 1, 1, 1, seed=9)
    average = partial(average_velocity, Exact(world), None, 100, u_s)
    targets = [mean_flow_target(average, z, u, u_s, v + d)[1] for d in (-off, 0 * off, off)]
    assert_close((targets[0] + targets[2]) / 2, targets[1])
    assert (targets[2] - targets[0]).abs().min() > 0


def test_the_loss_of_the_exact_average_velocity_is_zero_where_nothing_is_random(monkeypatch):
    monkeypatch.setitem(globals(), "VARIANCE", 0.0)
    x_0 = torch.full((200, 1, 2, 2), MEAN).double()
    for schedule in SCHEDULES.values():
        exact = Exact(Gaussian)
        losses, t = MeanFlowLoss(schedule)(exact, x_0, None, seeded(0))
        assert losses.shape == t.shape == (200,) and losses.max() < 1e-10 and 1 <= t.min() and t.max() == 100
    monkeypatch.setattr(few_steps, "mean_flow_target", lambda *given: mean_flow_target(*given[:-1], -given[-1]))
    assert MeanFlowLoss(FLOW)(Exact(Gaussian), x_0, None, seeded(0))[0].mean() > 0.1


class Scaled(torch.nn.Module):
    """w x_t: a network whose gradients are known."""

    num_classes = None

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(0.7).double())

    def forward(self, x_t, t, y=None, s=None):
        return self.w * x_t


def slope_of(loss, x_0):
    """The gradient of a loss of Scaled in w."""
    model = Scaled()
    return torch.autograd.grad(loss(model, x_0, None, seeded(3))[0].mean(), model.w)[0]


@pytest.mark.parametrize("kept", [True, False])
def test_no_gradient_flows_through_the_target_of_mean_flow(kept, monkeypatch):
    """The average velocity w z k(u) has a derivative along the path in closed form, with which the target is held."""
    x_0, loss, model = randn(50, 1, 2, 2), MeanFlowLoss(FLOW, instant=0.0), Scaled()
    generator = seeded(3)
    t, eps, _ = loss.draw(model, x_0, None, generator)
    s = torch.randint(1, 101, (50,), generator=generator) - 1
    u, u_s = wide(t.maximum(s) / 100.0).double(), wide(t.minimum(s) / 100.0).double()
    z, k = (1 - u) * x_0 + u * eps, ((1 - u) ** 2 + u**2) ** -0.5
    change = k * (eps - x_0) + z * (1 - 2 * u) * k**3
    target = eps - x_0 - (u - u_s) * 0.7 * change
    by_hand = (2 * (0.7 * z * k - target) * z * k).mean()
    if not kept:
        monkeypatch.setattr(torch.Tensor, "detach", lambda self: self)
    slope = slope_of(loss, x_0)
    if kept:
        assert_close(slope, by_hand, rtol=1e-6, atol=0)
    else:
        assert abs(float(slope - by_hand)) > 0.1 * abs(float(by_hand))


def test_where_both_times_are_one_it_is_flow_matching():
    x_0 = randn(40, 1, 2, 2)
    losses, t = MeanFlowLoss(FLOW, instant=1.0, weights="clamped-snr")(Scaled(), x_0, None, seeded(1))
    generator = seeded(1)
    t_1, eps, _ = MeanFlowLoss(FLOW).draw(Scaled(), x_0, None, generator)
    t = t_1.maximum(torch.randint(1, 101, (40,), generator=generator) - 1)
    plain = tinyddpm.diffusion_loss(
        Scaled(), x_0, t, eps, FLOW, predicts="flow", weights="clamped-snr", reduction="none"
    )
    assert_close(losses, plain)


@worlds
@schedules
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_mean_flow_lands_exactly_in_any_number_of_steps(world, schedule, steps):
    x_T = randn(64, 1, 1, 1)
    denoiser = TwoTimes.make_denoiser(Exact(world), schedule)
    u, z = flow_time(100, x_T, schedule), x_T / sum(schedule.coefficients(100, x_T))
    end = world.flow(z, wide(u), torch.zeros(64, 1, 1, 1).double())
    walk = list(mean_flow(denoiser, x_T, schedule, schedule.grid(steps)))
    assert [step.t for step in walk] == [t for t, _ in schedule.grid(steps)] + [0]
    assert_close(walk[-1].x_t, end, **EXACT)
    if steps > 1:
        middle = walk[1]
        u_s = wide(flow_time(middle.t, x_T, schedule))
        on_path = world.flow(z, wide(u), u_s) * sum(schedule.coefficients(middle.t, x_T))
        assert_close(middle.x_t, on_path, **EXACT)
        chord = list(ddim(denoiser, x_T, schedule, schedule.grid(steps)))[1].x_t  # towards the end, not towards s
        assert (chord - on_path).abs().max() > 0.01


# --- consistency ---------------------------------------------------------------------------------------------------


def consistent(world, schedule):
    """The consistency function as the "flow" prediction that gives it."""
    return tinyddpm.make_denoiser(Straight(world, schedule), schedule, "flow")


class Straight:
    """The exact end of the path, as a network of one time."""

    num_classes = None

    def __init__(self, world, schedule):
        self.denoiser = TwoTimes.make_denoiser(Exact(world, schedule.T), schedule)
        self.schedule = schedule

    def __call__(self, x_t, t, y=None):
        signal, noise = self.schedule.coefficients(t, x_t)
        end = torch.where(wide(t) > 0, self.denoiser(x_t, t.clamp(min=1)), 0)
        return (x_t - signal * end) / noise.clamp(min=1e-9) - end


@worlds
@schedules
def test_the_end_is_the_same_from_all_along_the_path(world, schedule):
    x_T, f = randn(64, 1, 1, 1), consistent(world, schedule)
    path = mean_flow(TwoTimes.make_denoiser(Exact(world), schedule), x_T, schedule, schedule.grid(10))
    ends = torch.stack([f(step.x_t, at(step.t, 64)) for step in path])
    assert_close(ends, ends[-1:].expand_as(ends), **EXACT)
    assert_close(ends[-1], step_0(world, schedule, x_T), **EXACT)


def step_0(world, schedule, x_T):
    u, z = flow_time(100, x_T, schedule), x_T / sum(schedule.coefficients(100, x_T))
    return world.flow(z, wide(u), torch.zeros(64, 1, 1, 1).double())


def test_distillation_is_exact_for_two_points():
    """A DDIM step of the oracle crosses no border between the points."""
    loss = ConsistencyLoss(FLOW, "flow", teacher=lambda y: TwoPoints.oracle(FLOW), gap=10)
    x_0 = randn(300, 1, 1, 1).sign()
    losses, t = loss(Straight(TwoPoints, FLOW), x_0, None, seeded(0))
    assert losses.max() < 1e-10 and t.min() >= 1
    # training has the noise of one pair in place of the teacher: another path in the few that cross, and no other
    losses, _ = ConsistencyLoss(FLOW, "flow", gap=10)(Straight(TwoPoints, FLOW), x_0, None, seeded(0))
    assert 0 < float((losses > 1).double().mean()) < 0.2


def test_distillation_on_a_gaussian_errs_by_the_teacher_s_step_alone():
    schedule, x_0 = Schedule.named("flow", 1000), MEAN + VARIANCE**0.5 * randn(500, 1, 1, 1)

    def rms(gap):
        model = Straight(Gaussian, schedule)
        loss = ConsistencyLoss(schedule, "flow", teacher=lambda y: Gaussian.oracle(schedule), gap=gap)
        loss = replace(loss, times=lambda n, T, g: at(500, n))
        return float(loss(model, x_0, None, seeded(0))[0].mean().sqrt())

    assert rms(1) < 1e-6 and 3.9 < rms(20) / rms(10) < 4.1


@pytest.mark.parametrize("mistake", ["sign", "time", "end"])
def test_an_inconsistent_network_is_found(mistake):
    exact = Straight(Gaussian, FLOW)
    wrong = {
        "sign": lambda x_t, t, y=None: -exact(x_t, t),
        "time": lambda x_t, t, y=None: exact(x_t, (100 - t).clamp(1, 100)),
        "end": lambda x_t, t, y=None: 0 * x_t,
    }[mistake]
    wrong.num_classes = None
    loss, x_0 = ConsistencyLoss(FLOW, "flow", teacher=lambda y: Gaussian.oracle(FLOW), gap=10), randn(300, 1, 1, 1)
    right = loss(exact, x_0, None, seeded(0))[0].mean()
    assert right < 2e-3 and loss(wrong, x_0, None, seeded(0))[0].mean() > 10 * right


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("teacher", [None, lambda y: Gaussian.oracle(FLOW)])
def test_no_gradient_flows_through_the_target_of_consistency(kept, teacher, monkeypatch):
    x_0, loss = randn(50, 1, 2, 2), ConsistencyLoss(FLOW, "flow", teacher=teacher, gap=20)
    generator = seeded(3)
    t, eps, _ = loss.draw(Scaled(), x_0, None, generator)
    x_t, s = q_sample(x_0, t, eps, FLOW), (t - 20).clamp(min=0)
    model = Scaled()
    f = tinyddpm.make_denoiser(model, FLOW, "flow")
    clean = x_0 if teacher is None else teacher(None)(x_t, t)
    x_s = q_sample(clean, s, tinyddpm.eps_from_x_0(clean, x_t, t, FLOW), FLOW)
    by_hand = torch.autograd.grad((f(x_t, t) - f(x_s, s).detach()).square().mean(), model.w)[0]
    if not kept:
        monkeypatch.setattr(torch, "no_grad", contextlib.nullcontext)
    slope = slope_of(loss, x_0)
    if kept:
        assert_close(slope, by_hand)
    else:
        assert abs(float(slope - by_hand)) > 0.1 * abs(float(by_hand))


def test_the_consistency_loss_weighs_errors_in_x_0():
    x_0, plain = randn(50, 1, 2, 2), ConsistencyLoss(FLOW, "flow")
    losses, t = plain(Scaled(), x_0, None, seeded(3))
    weighed, _ = replace(plain, weights="clamped-snr")(Scaled(), x_0, None, seeded(3))
    weight = loss_weight(t, x_0, FLOW, "x_0", "clamped-snr")
    assert_close(weighed, weight * losses)
    assert weight.max() > 2 * weight.min()


@pytest.mark.parametrize("objective", [ConsistencyLoss, MeanFlowLoss, ReflowLoss])
def test_the_difference_is_measured_as_asked(objective):
    x_0 = randn(50, 2, 2, 2)
    model = stand_in(lambda x_t, t, y=None, s=None: 0.7 * x_t)
    plain, absolute, huber = (
        objective(FLOW, "flow", loss=loss)(model, x_0, None, seeded(3))[0] for loss in ("mse", "l1", "huber")
    )
    assert (absolute**2 < plain).all() and (huber < 0.6 * plain).all() and (huber < absolute).all()


def test_the_second_network_pass_of_consistency_is_not_the_cached_one(monkeypatch):
    # autocast caches the weights of a pass without gradients, through which older torch lets none flow
    conv, events, clear = torch.nn.Conv2d(1, 1, 3, padding=1), [], torch.clear_autocast_cache
    monkeypatch.setattr("torch.clear_autocast_cache", lambda: clear() or events.append("clear"))
    model = stand_in(lambda x_t, t, y=None: events.append("pass") or conv(x_t))
    with torch.autocast("cpu", torch.bfloat16):
        ConsistencyLoss(FLOW)(model, torch.ones(3, 1, 4, 4), None, seeded(1))[0].mean().backward()
    assert events[:3] == ["pass", "clear", "pass"]
    assert (conv.weight.grad != 0).all()


def test_consistency_sampling_goes_to_the_end_and_back():
    x_T, f = randn(4000, 1, 1, 1), consistent(Gaussian, FLOW)
    one = list(consistency_sampling(f, x_T, FLOW, FLOW.grid(1)))
    assert len(one) == 2 and torch.equal(one[-1].x_t, one[0].x_0_hat)
    walk = list(consistency_sampling(f, x_T, FLOW, FLOW.grid(4), seeded(1)))
    noise = torch.randn(4000, 1, 1, 1, generator=seeded(1), dtype=torch.float64)
    assert_close(walk[1].x_t, q_sample(walk[0].x_0_hat, 75, noise, FLOW))
    late = list(consistency_sampling(f, x_T, FLOW, [(100, 1), (1, 0)], seeded(1)))
    assert_close(late[1].x_t, q_sample(late[0].x_0_hat, 1, noise, FLOW))
    x_0 = walk[-1].x_t
    assert abs(float(x_0.mean()) - MEAN) < 0.03 and abs(float(x_0.var()) - VARIANCE) < 0.02
    assert_close(one[-1].x_t, MEAN + VARIANCE**0.5 * x_T, **EXACT)


# --- reflow --------------------------------------------------------------------------------------------------------


@worlds
def test_reflowed_paths_are_straight(world):
    """The exact flow couples x_T with its end; a network that has learned these pairs, of which no two cross, goes
    straight."""
    schedule = Schedule.named("flow", 1000)
    x_T = torch.linspace(-2, 2, 41).double().reshape(-1, 1, 1, 1)[torch.arange(41) != 20]
    pairs = reflow_pairs(world.oracle(schedule), x_T, schedule, schedule.grid(1000))
    x_0, eps = pairs.chunk(2, dim=1)
    assert_close(eps, x_T)
    end = world.flow(x_T, torch.ones(1).double(), torch.zeros(1).double())
    assert_close(x_0, end, rtol=0, atol=1e-4)

    def straight(x_t, t):  # E[x_0 | x_t] of the pairs: along the one line through x_t
        signal, noise = schedule.coefficients(t, x_t)
        z, u = x_t / (signal + noise), noise / (signal + noise)
        if world is TwoPoints:  # from [-2, 0) and (0, 2], z - (1 - u) x_0 = u eps
            return z.sign()
        return MEAN + VARIANCE**0.5 * (z - (1 - u) * MEAN) / ((1 - u) * VARIANCE**0.5 + u)

    model = stand_in(lambda x_t, t, y=None: straight(x_t, t))
    losses, _ = ReflowLoss(schedule, "x_0")(model, torch.cat([end, x_T], 1), None, seeded(0))
    assert losses.max() < 1e-12
    one, forty = (last(ddim(straight, x_T, schedule, schedule.grid(steps))).x_t for steps in (1, 40))
    assert_close(one, forty, **EXACT)
    assert_close(one, end, **EXACT)
    curved = [last(ddim(world.oracle(schedule), x_T, schedule, schedule.grid(steps))).x_t for steps in (1, 40)]
    assert (curved[0] - curved[1]).abs().mean() > 0.3


def stand_in(model):
    model.num_classes = None
    return model


def test_reflow_is_the_loss_of_the_pair_s_own_noise():
    pairs, seen = randn(20, 2, 2, 2), []
    model = stand_in(lambda x_t, t, y=None: seen.append((x_t, t)) or 0 * x_t)
    losses, t = ReflowLoss(FLOW, "flow", weights="clamped-snr")(model, pairs, None, seeded(0))
    x_0, eps = pairs.chunk(2, 1)
    assert_close(seen[0][0], q_sample(x_0, t, eps, FLOW))
    expected = tinyddpm.diffusion_loss(
        model, x_0, t, eps, FLOW, predicts="flow", weights="clamped-snr", reduction="none"
    )
    assert_close(losses, expected)
    swapped, _ = ReflowLoss(FLOW, "flow")(model, torch.cat([eps, x_0], 1), None, seeded(0))
    assert not torch.allclose(seen[-1][0], seen[0][0], atol=0.1)


@schedules
def test_a_pair_leads_back_to_its_noise_in_any_schedule(schedule):
    x_T = randn(10, 1, 2, 2)
    x_0, eps = reflow_pairs(Gaussian.oracle(schedule), x_T, schedule, schedule.grid(5)).chunk(2, 1)
    assert_close(q_sample(x_0, 100, eps, schedule), x_T)


def test_pairs_are_made_by_the_sampler_that_is_asked_for():
    x_T, oracle = randn(5, 1, 2, 2), Gaussian.oracle(FLOW)
    pairs = {sampler: reflow_pairs(oracle, x_T, FLOW, FLOW.grid(3), sampler) for sampler in (heun, ddim)}
    for sampler, found in pairs.items():
        assert_close(found[:, :1], last(sampler(oracle, x_T, FLOW, FLOW.grid(3))).x_t)
    assert (pairs[heun] - pairs[ddim]).abs().max() > 0.01
    assert torch.equal(reflow_pairs(oracle, x_T, FLOW, FLOW.grid(3)), pairs[heun])


# --- networks, pipeline, bad input ---------------------------------------------------------------------------------


def small_network(**arguments):
    torch.manual_seed(0)
    unet = UNet((8,), num_classes=3, patch=1, attention=(8,), heads=1, groups=4, image_size=8, **arguments)
    with torch.no_grad():
        for weight in unet.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return unet


def network_of_two_times():
    return TwoTimes(small_network(channels=2, out_channels=1))


def objectives(schedule):
    exact = gaussian_oracle(MEAN, VARIANCE, schedule)
    return {
        "mean flow": (MeanFlowLoss(schedule), network_of_two_times(), 1),
        "consistency": (ConsistencyLoss(schedule, "flow", gap=4), small_network(), 1),
        "distillation": (ConsistencyLoss(schedule, teacher=lambda y: exact, gap=4), small_network(), 1),
        "reflow": (ReflowLoss(schedule, "flow"), small_network(), 2),
    }


@pytest.mark.parametrize("name", ["mean flow", "consistency", "distillation", "reflow"])
def test_every_pass_is_told_the_labels_of_which_some_are_dropped(name):
    seen, y = [], torch.arange(3).repeat(40)

    def model(x_t, t, y=None, s=None):
        seen.append(y)
        return 0 * x_t

    model.num_classes = 3
    loss, _, images = objectives(FLOW)[name]
    if name == "distillation":
        loss = replace(loss, teacher=lambda y: seen.append(y) or Gaussian.oracle(FLOW))
    replace(loss, label_drop=0.3)(model, torch.ones(120, images, 2, 2), y, seeded(1))
    assert len(seen) == {"consistency": 2, "distillation": 3}.get(name, 1)
    assert all(torch.equal(told, seen[0]) for told in seen)
    dropped = seen[0] == 3
    assert torch.equal(seen[0][~dropped], y[~dropped]) and 15 < int(dropped.sum()) < 60


@pytest.mark.parametrize("name", ["mean flow", "consistency", "distillation", "reflow"])
def test_a_network_learns_by_each(name):
    schedule = Schedule.named("flow", 20)
    loss, model, images = objectives(schedule)[name]
    x_0 = torch.randn(16, images, 8, 8, generator=seeded(0)).sign() / 2
    y, optimizer = torch.arange(16) % 3, torch.optim.Adam(model.parameters())
    steps = list(train_steps(model, [(x_0, y)] * 30, loss, optimizer, lambda n: 3e-3, generator=seeded(0)))
    assert all(step.losses.isfinite().all() and step.losses.shape == (16,) for step in steps)
    assert all(weight.grad is None for weight in model.parameters())
    first, end = (torch.cat([step.losses for step in part]).mean() for part in (steps[:5], steps[-5:]))
    assert end < first


def test_a_network_of_two_times_is_sampled_saved_and_loaded(tmp_path):
    model, schedule = network_of_two_times(), Schedule.named("flow", 20)
    x, t, y = torch.randn(2, 1, 8, 8, generator=seeded(0)), torch.tensor([20, 10]), torch.tensor([0, 2])
    assert torch.equal(model(x, t, y), model(x, t, y, torch.zeros(2)))
    assert not torch.allclose(model(x, t, y, torch.tensor([5, 5])), model(x, t, y))
    assert torch.equal(model(x, t), model(x, t, torch.tensor([3, 3])))
    s = torch.tensor([10, 5])  # each image has its own two times
    assert_close(
        model(x, t, y, s), torch.cat([model(x[k : k + 1], t[k : k + 1], y[k : k + 1], s[k : k + 1]) for k in (0, 1)])
    )
    assert model(x, t.double(), y).dtype == torch.float32
    ddpm = DDPM(model, schedule, "flow", (1, 8, 8))
    ddpm.save(tmp_path / "ddpm.safetensors")
    again = DDPM.load(tmp_path / "ddpm.safetensors")
    how = {"y": [0, 2], "steps": 1, "scale": 2.0, "seeds": [1, 2]}
    assert isinstance(again.model, TwoTimes) and torch.equal(again.sample(**how), ddpm.sample(**how))
    x_T = torch.cat([torch.randn(1, 1, 8, 8, generator=seeded(seed)) for seed in (1, 2)])
    end = last(mean_flow(model.make_denoiser(model, schedule, "flow", y), x_T, schedule, schedule.grid(1))).x_t
    assert_close(ddpm.sample([0, 2], steps=1, seeds=[1, 2]), end.clamp(-1, 1))
    images = ddpm.sample([0, 2], steps=3, seeds=[1, 2], sampler=consistency_sampling)
    assert images.shape == (2, 1, 8, 8) and images.isfinite().all()


def test_a_model_follows_the_chords_of_its_network():
    """Those to s > 0 point beyond the image, and are not clipped."""
    ddpm = DDPM(network_of_two_times(), Schedule.named("flow", 20), "flow", (1, 8, 8))
    ddpm.model.network.out[0].bias.data += 3.0
    x_T, y = torch.stack([torch.randn(1, 8, 8, generator=seeded(seed)) for seed in (1, 2)]), torch.tensor([0, 2])
    plain = ddpm.model.make_denoiser(ddpm.model, ddpm.schedule, "flow", y)
    end = last(mean_flow(plain, x_T, ddpm.schedule, ddpm.schedule.grid(3))).x_t.clamp(-1, 1)
    assert_close(ddpm.sample(y, steps=3, sampler=mean_flow, seeds=[1, 2]), end)
    *_, clipped = ddim(lambda x_t, t: plain(x_t, t).clamp(-1, 1), x_T, ddpm.schedule, ddpm.schedule.grid(3))
    assert (clipped.x_t - end).abs().max() > 0.1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ConsistencyLoss(FLOW, "x_0"), "a prediction other than 'x_0'.*got 'x_0' and 20: predict v or flow"),
        (lambda: ConsistencyLoss(FLOW, gap=0), "a gap of at least 1, got 'v' and 0"),
        (lambda: MeanFlowLoss(FLOW, "v"), "unknown prediction of two times 'v': choose one of flow"),
        (lambda: MeanFlowLoss(FLOW, instant=1.5), r"share of images with s = t must be in \[0, 1\], got 1.5"),
        (lambda: TwoTimes.make_denoiser(None, FLOW, "eps"), "unknown prediction of two times 'eps'"),
        (lambda: mean_flow(Gaussian.oracle(FLOW), randn(1, 1, 1, 1), FLOW), r"a denoiser \(x_t, t, s\) of two times"),
        (lambda: mean_flow(lambda x_t, t, s: x_t, randn(1, 1, 1, 1), FLOW, [(3, 5)]), "step"),
        (lambda: consistency_sampling(None, randn(1, 1, 1, 1), FLOW, []), "time grid"),
        (lambda: ReflowLoss(FLOW)(None, randn(2, 3, 4, 4), None, seeded(0)), r"twice the channels, got \(2, 3, 4, 4\)"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(make, says):
    with pytest.raises(ValueError, match=says) as error:
        make()
    assert "\n" not in str(error.value)


def test_its_names_are_public():
    names = "ConsistencyLoss MeanFlowLoss ReflowLoss TwoTimes consistency_sampling mean_flow reflow_pairs".split()
    assert all(getattr(tinyddpm, name) is getattr(few_steps, name) for name in names)
    code = "import tinyddpm, sys; tinyddpm.Schedule; assert 'tinyddpm.extensions.few_steps' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
