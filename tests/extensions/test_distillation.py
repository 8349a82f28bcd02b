"""Distillation: the direction is that of two exact denoisers, and following it moves a student onto its teacher."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import tinyddpm
from tinyddpm.diffusion import q_sample
from tinyddpm.extensions.distillation import Critic, DistributionMatchingLoss, GuidedNetwork, through_clip
from tinyddpm.extensions.few_steps import reflow_pairs
from tinyddpm.nn import UNet
from tinyddpm.oracle import dataset_oracle, gaussian_oracle
from tinyddpm.pipeline import DDPM
from tinyddpm.samplers import ddim, last
from tinyddpm.schedules import Schedule
from tinyddpm.training import train_steps

SCHEDULE = Schedule.named("flow", 100)
AT_T = torch.tensor(SCHEDULE.T)  # the first call
MEAN, VARIANCE = 0.1, 0.02
SHAPE = (1, 8, 8)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Exact(nn.Module):
    """The denoiser of a Gaussian as a network of x_0, with labels: each adds to the mean."""

    def __init__(self, mean=MEAN, variance=VARIANCE, num_classes=None):
        super().__init__()
        self.mean, self.variance, self.num_classes = mean, variance, num_classes
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x_t, t, y=None, scale=1.0):
        oracle = gaussian_oracle(self.mean, self.variance, SCHEDULE)
        shift = 0 if y is None else (0.1 * (y % 10) * (y < 10)).reshape(-1, 1, 1, 1)
        return oracle(x_t, t) + shift + 0 * self.weight


class Affine(nn.Module):
    """A student that sends noise to spread eps + mean."""

    num_classes = None

    def __init__(self, mean=-0.3, spread=0.4):
        super().__init__()
        self.mean, self.spread = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(spread))

    def forward(self, x_t, t, y=None, scale=1.0):
        return self.spread * x_t + self.mean


class Following(nn.Module):
    """The follower that is always exact: it reads the student."""

    def __init__(self, student):
        super().__init__()
        self.student, self.weight = [student], nn.Parameter(torch.zeros(()))

    def forward(self, x_t, t, y=None, scale=1.0):
        mean, spread = (float(p.detach()) for p in (self.student[0].mean, self.student[0].spread))
        return gaussian_oracle(mean, spread**2, SCHEDULE)(x_t, t) + 0 * self.weight


def loss_of(follower, teacher=None, **settings):
    teacher = DDPM(Exact(), SCHEDULE, "x_0", SHAPE) if teacher is None else teacher
    return DistributionMatchingLoss(teacher, follower, torch.optim.SGD(follower.parameters(), 0.0), **settings)


def pairs(n=64, seed=0, y=None):
    eps = torch.randn(n, *SHAPE, generator=seeded(seed))
    return torch.cat([MEAN + VARIANCE**0.5 * eps, eps], 1)


def trained(loss, student, steps=300, rate=0.05):
    optimizer = torch.optim.Adam(student.parameters(), rate)
    batches = ((pairs(64, k), None) for k in range(steps))
    for _ in train_steps(student, batches, loss, optimizer, lambda n: rate * (1 - n / (steps + 1)), generator=seeded()):
        pass
    return float(student.mean.detach()), abs(float(student.spread.detach()))


# --- the direction -------------------------------------------------------------------------------------------------


def test_a_student_as_its_teacher_has_no_direction_to_go():
    made = MEAN + VARIANCE**0.5 * torch.randn(8, *SHAPE, generator=seeded())
    direction = loss_of(Exact()).direction(made, None, AT_T, torch.ones(8), seeded(1))
    assert_close(direction, torch.zeros_like(made), rtol=0, atol=1e-6)


def test_the_direction_is_the_difference_of_two_exact_denoisers():
    made = 0.3 * torch.randn(8, *SHAPE, generator=seeded())
    found = loss_of(Exact(0.4, 0.09)).direction(made, None, AT_T, torch.ones(8), seeded(1))
    generator = seeded(1)
    u = 2 + torch.randint(1, 97, (8,), generator=generator)  # 3..98 of T = 100
    x_u = q_sample(made, u, torch.randn(made.shape, generator=generator), SCHEDULE)
    ours, theirs = (gaussian_oracle(m, v, SCHEDULE)(x_u, u).clamp(-1, 1) for m, v in ((0.4, 0.09), (MEAN, VARIANCE)))
    assert_close(found, (ours - theirs) / (made - theirs).abs().mean((1, 2, 3), keepdim=True), rtol=0, atol=1e-6)


def test_matching_moves_a_student_onto_the_mean_and_the_spread_of_its_teacher():
    student = Affine()
    mean, spread = trained(loss_of(Following(student), regress=0.0), student)
    assert abs(mean - MEAN) < 0.02 and abs(spread - VARIANCE**0.5) < 0.02, (mean, spread)


def test_matching_moves_two_points_onto_those_of_its_teacher():
    class Points(nn.Module):
        """One of two grey values, by the sign of the noise."""

        num_classes = None

        def __init__(self, *values):
            super().__init__()
            self.values = nn.Parameter(torch.tensor(values))

        def forward(self, x_t, t, y=None, scale=1.0):
            side = (x_t.mean((1, 2, 3)) > 0).long()
            return self.values[side].reshape(-1, 1, 1, 1).expand_as(x_t)

    class Between(nn.Module):
        """The exact denoiser of these points."""

        num_classes = None

        def __init__(self, points):
            super().__init__()
            self.points, self.weight = [points], nn.Parameter(torch.zeros(()))

        def forward(self, x_t, t, y=None, scale=1.0):
            x = self.points[0].values.detach().reshape(2, 1, 1, 1).expand(2, *SHAPE)
            return dataset_oracle(x, SCHEDULE)(x_t, t) + 0 * self.weight

    student, teacher = Points(-0.1, 0.2), DDPM(Between(Points(-0.5, 0.5)), SCHEDULE, "x_0", SHAPE)
    loss = loss_of(Between(student), teacher, regress=0.0)
    optimizer = torch.optim.Adam(student.parameters(), 0.05)
    batches = ((pairs(64, k), None) for k in range(150))
    last(train_steps(student, batches, loss, optimizer, lambda n: 0.05 * (1 - n / 151), generator=seeded()))
    assert_close(student.values.detach(), torch.tensor([-0.5, 0.5]), rtol=0, atol=0.03)


def test_the_other_sign_moves_it_away():
    class Backwards(DistributionMatchingLoss):
        def direction(self, *arguments):
            return -super().direction(*arguments)

    student = Affine()
    loss = loss_of(Following(student), regress=0.0)
    away = Backwards(loss.teacher, loss.follower, loss.optimizer, regress=0.0)
    mean, _ = trained(away, student, 30)
    assert abs(mean - MEAN) > 0.4


def test_a_follower_that_learns_leads_there_too():
    class Learning(nn.Module):
        """The denoiser of a Gaussian whose mean and variance are learned."""

        def __init__(self):
            super().__init__()
            self.mean, self.log_variance = nn.Parameter(torch.tensor(-0.3)), nn.Parameter(torch.tensor(-2.0))

        def forward(self, x_t, t, y=None, scale=1.0):
            return gaussian_oracle(self.mean, self.log_variance.exp(), SCHEDULE)(x_t, t)

    student, follower = Affine(), Learning()
    teacher = DDPM(Exact(), SCHEDULE, "x_0", SHAPE)
    loss = DistributionMatchingLoss(teacher, follower, torch.optim.Adam(follower.parameters(), 0.1), regress=0.0)
    mean, spread = trained(loss, student, 500, 0.005)
    assert abs(mean - MEAN) < 0.03 and abs(spread - VARIANCE**0.5) < 0.03, (mean, spread)


def test_no_gradient_flows_through_the_two_networks_that_are_compared():
    student, follower = Affine(), Exact(0.4, 0.09)
    loss = loss_of(follower, regress=0.0)
    losses, t = loss(student, pairs(8), None, seeded())
    losses.mean().backward()
    assert losses.shape == (8,) and (t == 100).all()
    assert loss.teacher.model.weight.grad is None and follower.weight.grad is None
    made = student(pairs(8)[:, 1:], t).detach()
    generator = seeded()
    loss.draw(pairs(8)[:, :1], None, generator)
    direction = loss.direction(made.clamp(-1, 1), None, t, torch.ones(8), generator)
    direction[(made.abs() > 1) & (direction * made < 0)] = 0  # see through_clip
    assert_close(student.mean.grad, direction.flatten(1).mean(1).mean(), rtol=1e-4, atol=1e-6)


def test_regression_alone_finds_the_pairs():
    class Still(DistributionMatchingLoss):
        def direction(self, made, *rest):
            return torch.zeros_like(made)

    student = Affine()
    loss = loss_of(Exact(), regress=1.0)
    mean, spread = trained(Still(loss.teacher, loss.follower, loss.optimizer, regress=1.0), student, 200)
    assert abs(mean - MEAN) < 0.01 and abs(spread - VARIANCE**0.5) < 0.01


def test_a_later_time_sees_the_students_own_image_with_the_noise_that_it_came_from():
    seen = {}

    class Spy(Affine):
        def forward(self, x_t, t, y=None, scale=1.0):
            seen[int(t[0])] = x_t.detach()
            return super().forward(x_t, t, y, scale)

    student = Spy()
    eps = pairs(8)[:, 1:]
    loss_of(Exact(), times=(40,), first=0.0)(student, pairs(8), None, seeded())
    made = (student.spread * eps + student.mean).detach().clamp(-1, 1)
    assert_close(seen[40], q_sample(made, 40, eps, SCHEDULE))


def test_the_images_of_each_call_are_matched_and_not_their_mixture():
    """One call is 0.3 too bright and the second as much too dark: the mixture has the right mean from the start."""

    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.means = nn.Parameter(MEAN + torch.tensor([0.3, -0.3]))

        def forward(self, x_t, t, y=None, scale=1.0):
            mean = self.means[(t < SCHEDULE.T).long()].reshape(-1, 1, 1, 1)
            return mean + VARIANCE**0.5 * (x_t - x_t.mean()) / x_t.std()

    class Follower(Following):
        def forward(self, x_t, t, y=None, scale=1.0):
            first, later = self.student[0].means.detach()
            mean = torch.where(scale < 1, later, first) if (scale < 1).any() else (first + later) / 2  # of the mixture
            mean, oracle = mean.reshape(-1, 1, 1, 1), gaussian_oracle(0.0, VARIANCE, SCHEDULE)
            return oracle(x_t - SCHEDULE.coefficients(t, x_t)[0] * mean, t) + mean + 0 * self.weight

    student = Student()
    loss = loss_of(Follower(student), times=(40,), first=0.5, regress=0.0)
    optimizer = torch.optim.Adam(student.parameters(), 0.02)
    batches = ((pairs(64, k), None) for k in range(100))
    last(train_steps(student, batches, loss, optimizer, lambda n: 0.02 * (1 - n / 101), generator=seeded()))
    assert_close(student.means.detach(), torch.full((2,), MEAN), rtol=0, atol=0.03)


def test_networks_are_compared_in_the_middle_of_the_times_and_the_follower_learns_all():
    loss, made = loss_of(Exact()), torch.zeros(20_000, *SHAPE)
    assert [int(v) for v in loss.noise(made, seeded(), edge=2)[0].aminmax()] == [3, 98]
    assert [int(v) for v in loss.noise(made, seeded())[0].aminmax()] == [1, 100]


def test_guidance_scales_the_teacher_and_is_shown_to_the_follower():
    teacher = DDPM(Exact(num_classes=10), SCHEDULE, "x_0", SHAPE)
    shown = []

    class Shown(Exact):
        def forward(self, x_t, t, y=None, scale=1.0):
            shown.append(scale)
            return super().forward(x_t, t, y, scale)

    made, y, scale = torch.zeros(4, *SHAPE), torch.tensor([1, 2, 3, 4]), torch.tensor([1.0, 1.5, 2.0, 3.0])
    loss = loss_of(Shown(num_classes=10), teacher)
    found = loss.direction(made, y, AT_T, scale, seeded(1))
    generator = seeded(1)
    u = 2 + torch.randint(1, 97, (4,), generator=generator)
    x_u = q_sample(made, u, torch.randn(made.shape, generator=generator), SCHEDULE)
    plain, shift = gaussian_oracle(MEAN, VARIANCE, SCHEDULE)(x_u, u), (0.1 * y).reshape(-1, 1, 1, 1)
    theirs = (plain + scale.reshape(-1, 1, 1, 1) * shift).clamp(-1, 1)
    wanted = ((plain + shift).clamp(-1, 1) - theirs) / theirs.abs().mean((1, 2, 3), keepdim=True)
    assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(shown[0], scale)


def test_an_image_without_a_label_is_regressed_to_no_pair():
    class Still(DistributionMatchingLoss):
        def direction(self, made, *rest):
            return torch.zeros_like(made)

    teacher = DDPM(Exact(num_classes=10), SCHEDULE, "x_0", SHAPE)
    optimizer = torch.optim.SGD([torch.zeros((), requires_grad=True)], 0.0)
    for plain, drop, paired in ((1.0, 1.0, False), (0.0, 0.0, False), (1.0, 0.0, True)):
        loss = Still(teacher, Exact(num_classes=10), optimizer, plain=plain, label_drop=drop, regress=1.0)
        losses, _ = loss(Affine(), pairs(8), torch.full((8,), 3), seeded())
        assert ((losses > 0.1) == paired).all()


def test_only_images_below_T_cost_a_second_call():
    sizes = []

    class Counted(Affine):
        def forward(self, x_t, t, y=None, scale=1.0):
            sizes.append(len(x_t))
            return super().forward(x_t, t, y, scale)

    loss_of(Exact())(Counted(), pairs(8), None, seeded())
    assert sizes == [8]
    _, t = loss_of(Exact(), times=(40,), first=0.5)(Counted(), pairs(8), None, seeded())
    assert sizes == [8, int((t < 100).sum()), 8]


@pytest.mark.parametrize("plain", [0.0, 1.0])
def test_labels_are_dropped_at_scale_1_alone(plain):
    loss = loss_of(Exact(), DDPM(Exact(num_classes=10), SCHEDULE, "x_0", SHAPE), plain=plain, label_drop=0.5)
    t, scale, y = loss.draw(torch.zeros(400, *SHAPE), torch.full((400,), 3), seeded())
    assert (t == 100).all() and set(y.tolist()) == ({3, 10} if plain else {3})
    assert (scale == 1).all() if plain else (scale.min() < 1.1 and scale.max() > 2.9 and (scale >= 1).all())


@pytest.mark.parametrize(("slope", "passed"), [(1.0, [0.0, 1.0, 1.0]), (-1.0, [-1.0, -1.0, 0.0])])
def test_the_clip_passes_the_gradient_but_for_what_leads_further_out(slope, passed):
    x = torch.tensor([-2.0, -0.5, 3.0], requires_grad=True)
    out = through_clip(x)
    (slope * out).sum().backward()
    assert out.tolist() == [-1.0, -0.5, 1.0] and x.grad.tolist() == passed


# --- the network that sees the scale -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    model = UNet((8, 16), image_size=8, attention=(2,), num_classes=3, patch=2, groups=4)
    for p in model.parameters():
        p.data += 0.05 * torch.randn_like(p)
    return model.eval()


@pytest.fixture
def guided(unet):
    return DDPM(GuidedNetwork.of(unet, steps=2).eval(), SCHEDULE, "x_0", SHAPE)


def test_a_copy_starts_as_its_teacher_at_every_scale_and_learns_to_tell_scales_apart(unet):
    model, x, t, y = GuidedNetwork.of(unet), torch.randn(3, *SHAPE), torch.tensor([100, 50, 1]), torch.tensor([0, 1, 3])
    for scale in (1.0, 2.5, torch.tensor([1.0, 2.0, 3.0])):
        assert_close(model(x, t, y, scale), unet(x, t, y))
    model(x, t, y, 2.0).sum().backward()
    weight = model.network.stem[1].weight
    assert weight.grad[:, 4:].abs().max() > 0
    weight.data[:, 4:] = 0.1
    assert (model(x, t, y, 2.0) - unet(x, t, y)).abs().max() > 1e-3
    assert_close(model(x, t, y), unet(x, t, y))


def test_a_scale_costs_no_second_call(guided, monkeypatch):
    sizes = []
    forward = guided.model.network.forward
    monkeypatch.setattr(guided.model.network, "forward", lambda x, *more: sizes.append(len(x)) or forward(x, *more))
    guided.sample([0, 1], scale=2.0, seeds=[1, 2])
    assert sizes == [2]
    guided.sample([0, 1], steps=2, scale=2.0, seeds=[1, 2])
    assert sizes == [2, 2, 2]


def test_one_step_is_one_call_at_T_and_two_steps_are_ddims(guided):
    x_T = torch.stack([torch.randn(SHAPE, generator=seeded(k)) for k in (1, 2)])
    one = guided.model(x_T, torch.full((2,), 100), torch.tensor([0, 1])).clamp(-1, 1)
    assert_close(guided.sample([0, 1], seeds=[1, 2]), one.detach())
    *_, two = ddim(guided.denoiser([0, 1]), x_T, SCHEDULE, SCHEDULE.grid(2))
    assert_close(guided.sample([0, 1], steps=2, seeds=[1, 2]), two.x_t)


def test_a_saved_network_is_read_again(guided, tmp_path):
    guided.save(tmp_path / "x.safetensors")
    again = DDPM.load(tmp_path / "x.safetensors")
    assert isinstance(again.model, GuidedNetwork) and again.model.steps == 2
    assert_close(again.sample([2], scale=1.5, seeds=[5]), guided.sample([2], scale=1.5, seeds=[5]))


def test_a_batch_of_pairs_trains_a_copy(unet):
    teacher = DDPM(unet, SCHEDULE, "x_0", SHAPE)
    student, follower = GuidedNetwork.of(unet), GuidedNetwork.of(unet)
    loss = DistributionMatchingLoss(teacher, follower, torch.optim.Adam(follower.parameters(), 1e-3), times=(50,))
    before = {name: p.clone() for name, p in (*student.named_parameters(), *follower.named_parameters("follower"))}
    y = torch.arange(16) % 3
    x = reflow_pairs(teacher.denoiser(y), torch.randn(16, *SHAPE), SCHEDULE, SCHEDULE.grid(3), ddim)
    steps = train_steps(student, [(x, y)] * 6, loss, torch.optim.Adam(student.parameters(), 1e-3), lambda n: 1e-3)
    assert all(step.losses.isfinite().all() for step in steps)
    after = dict((*student.named_parameters(), *follower.named_parameters("follower")))
    assert all((after[name] != p).any() for name, p in before.items() if p.numel() > 64)


# --- the weights that ship -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_shipped_student_draws_what_is_asked_and_never_copies(steps):
    from tinyddpm.evaluation.judges import reference_for

    ddpm = tinyddpm.load_pretrained("mnist-onestep")
    y = torch.arange(200) % 10
    x = ddpm.sample(y, steps=steps, seeds=range(200))
    batch = reference_for(ddpm).batch(x.round(decimals=4), y)
    assert (batch.probabilities.argmax(1) == y).float().mean() > 0.95
    assert torch.cdist(x.flatten(1), batch.train.flatten(1)).min() > 1.5
    guided = ddpm.sample(y, steps=steps, scale=2.0, seeds=range(200))
    assert (guided - x).abs().mean() > 0.01
    assert (reference_for(ddpm).batch(guided, y).probabilities.argmax(1) == y).float().mean() > 0.98
    with pytest.raises(ValueError, match="this network takes few steps: at most 4, got 5"):
        ddpm.sample([0], steps=5)


# --- the critic ----------------------------------------------------------------------------------------------------


@pytest.fixture
def critic(unet):
    x = torch.cat([torch.full((30, *SHAPE), k / 4) for k in range(3)])
    return Critic(DDPM(unet, SCHEDULE, "x_0", SHAPE), x, torch.arange(3).repeat_interleave(30), 1.0, (10,), 1e-3, 1)


def test_real_images_have_the_labels_that_are_asked_for(critic):
    y = torch.arange(4).repeat(50)
    found = critic.real(y, seeded())[:, 0, 0, 0].reshape(50, 4)
    assert (found[:, :3] == torch.tensor([0.0, 0.25, 0.5])).all()
    assert len(found[:, 3].unique()) == 3  # the null label: any


def test_a_student_like_real_images_loses_as_much_as_by_chance(critic):
    x = critic.real(y := torch.arange(64) % 3, seeded(1))
    critic.optimizer.param_groups[0]["lr"] = 0.0
    losses = torch.stack([critic(x, y, AT_T, seeded(k)) for k in range(20)])
    assert losses.shape == (20, 64) and abs(float(losses.detach().mean()) - 0.693) < 0.03


def test_a_critic_learns_to_tell_a_student_and_shows_it_the_way_to_real_images(critic):
    y = torch.arange(32) % 3
    made = (torch.zeros(32, *SHAPE) - 0.5).requires_grad_()
    losses = [float(critic(made, y, AT_T, seeded(k)).detach().mean()) for k in range(40)]
    assert losses[0] < 0.8 and losses[-1] > 1.5, losses
    critic(made, y, AT_T, seeded(50)).sum().backward()
    assert (made.grad.mean((1, 2, 3)) < 0).float().mean() > 0.9  # brighter is better
    others = [*critic.teacher[0].model.parameters(), *critic.parameters()]
    assert all(p.grad is None for p in others)


def test_a_critic_judges_each_call_by_itself(unet):
    """Half of the real images are bright, half dark; one call makes bright ones alone and the other dark ones."""
    shade = torch.tensor([0.5, -0.5]).repeat(48).reshape(-1, 1, 1, 1)
    x, y, call = shade.expand(-1, *SHAPE), torch.arange(96) % 3, torch.tensor([100, 50]).repeat(48)
    critic = Critic(DDPM(unet, SCHEDULE, "x_0", SHAPE), x, y, 1.0, (10,), 3e-3, 1)
    made = x.clone().requires_grad_()
    for k in range(40):
        losses = critic(made, y, call, seeded(k))
    losses.sum().backward()
    towards = -made.grad.mean((1, 2, 3)) * shade.flatten()
    assert losses.mean() > 1.5  # ln 2 where all calls are one
    assert (towards < 0).float().mean() > 0.9  # the bright ones darker, the dark ones brighter


def test_the_weight_of_a_critic_rises(unet):
    x, y = torch.zeros(6, *SHAPE), torch.arange(6) % 3
    critic = Critic(DDPM(unet, SCHEDULE, "x_0", SHAPE), x, y, weight=2.0, times=(10,), rate=0.0, ramp=4)
    found = [float(critic(x, y, AT_T, seeded()).mean()) for _ in range(6)]
    assert_close(torch.tensor(found), found[5] * torch.tensor([0.25, 0.5, 0.75, 1.0, 1.0, 1.0]))


@pytest.mark.parametrize("plain", [1.0, 0.0])
def test_a_critic_judges_batches_at_scale_1_alone(unet, critic, plain):
    teacher = DDPM(unet, SCHEDULE, "x_0", SHAPE)
    loss = loss_of(GuidedNetwork.of(unet), teacher, plain=plain, critic=critic)
    loss(GuidedNetwork.of(unet), pairs(6), torch.arange(6) % 3, seeded())
    assert critic.steps == int(plain)


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [3, 50])
def test_more_steps_than_a_network_was_made_for_are_refused(guided, steps):
    with pytest.raises(ValueError, match=f"this network takes few steps: at most 2, got {steps}"):
        guided.sample([0], steps=steps)
    with pytest.raises(ValueError, match="this network takes few steps: at most 2"):
        guided.sample_steps([0], grid=SCHEDULE.grid(steps))


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.5, lambda t: t * 0 + 1.0])
def test_scales_that_it_was_not_trained_for_are_refused(guided, scale):
    with pytest.raises(ValueError, match="guidance scales from 1 to 3, got"):
        guided.sample([0], scale=scale)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_smallest_and_the_largest_scale_are_taken(guided, scale):
    assert guided.sample([0], scale=scale).isfinite().all()


@pytest.mark.parametrize(("predicts", "schedule"), [("eps", "linear"), ("x_0", "linear-unscaled")])
def test_a_teacher_of_another_prediction_or_schedule_is_refused(unet, predicts, schedule, recwarn):
    teacher = DDPM(unet, Schedule.named(schedule, 100), predicts, SHAPE)
    assert any("this schedule leaves" in str(w.message) for w in recwarn) == (schedule == "linear-unscaled")
    with pytest.raises(ValueError, match=f"keeps at most a tenth of the signal, got {predicts} and") as error:
        loss_of(Exact(), teacher)
    assert "\n" not in str(error.value)


def test_a_batch_of_images_alone_is_refused():
    with pytest.raises(ValueError, match=r"batches of reflow_pairs, with twice the channels, got \(4, 1, 8, 8\)"):
        loss_of(Exact())(Affine(), torch.zeros(4, *SHAPE), None, seeded())


@pytest.mark.parametrize(
    ("teacher", "got"),
    [(Exact(num_classes=3), "Exact of 3 classes"), (UNet((8,), attention=()), "UNet of None classes")],
)
def test_a_critic_needs_a_unet_with_labels(teacher, got):
    with pytest.raises(ValueError, match=f"the maps of a U-Net with labels, got {got}"):
        Critic(DDPM(teacher, SCHEDULE, "x_0", SHAPE), torch.zeros(3, *SHAPE), torch.arange(3))


def test_times_beyond_T_are_refused(unet):
    with pytest.raises(ValueError, match="t=101"):
        loss_of(Exact(), times=(50, 101))
    with pytest.raises(ValueError, match="t=101"):
        Critic(DDPM(unet, SCHEDULE, "x_0", SHAPE), torch.zeros(3, *SHAPE), torch.arange(3), times=(101,))


def test_only_a_unet_is_copied():
    with pytest.raises(ValueError, match="only a U-Net is copied with the channels of the scale, got"):
        GuidedNetwork.of(Exact())
