# %% [markdown]
r"""
# 14 · One step

**After this chapter you can**

* say why one step of a perfect model draws an average, and what a network must learn so that one step is enough;
* prove the identity behind average velocities on a Gaussian, with a derivative along the path by `jvp`;
* distil a teacher of forty steps into a student of one, and see when a student has collapsed.

*You need:* chapter 09 for DDIM and its grids, 10 for the straight path. *Reading:* about MINUTES minutes. *Running:* about
a minute on a laptop. *You build and then import:* `mean_flow_target`, `reflow_pairs`, `consistency_sampling`.

---

Chapter 09 went from a thousand steps to ten. This one goes to one, and a better solver will not do it: the fault is in the
question. A denoiser says what the clean image is *on average*. We shall ask instead where the *path* through this noise
ends.

Our digits are 32 numbers each here, the 32 directions in which handwriting varies most (principal components, the simplest
autoencoder). Networks then train in seconds, and nothing else changes: the samplers see images of 32 channels and one pixel.
"""

# %% tags=["setup"]
import copy

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from course import EXACT, NETWORK, REST, STEERED, band, check, guess, holds, label_lines, same, show_figure, tiles
from torch import nn

import tinyddpm
from tinyddpm import ddim, last
from tinyddpm.data import mnist
from tinyddpm.evaluation import classify, load_classifier
from tinyddpm.extensions import few_steps

schedule = tinyddpm.Schedule.named("flow", T=1000)  # of chapter 10: x_T is pure noise


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# %%
images, labels = mnist()[:20_000]
middle = images.flatten(1).mean(0)
off = images.flatten(1) - middle
strength, directions = torch.linalg.eigh(off.T @ off / len(off))  # the weakest first
directions, unit = directions[:, -32:], strength[-32:].mean().sqrt()


def encode(x):
    """Images (n, 1, 32, 32) as 32 numbers each, of variance 1 on average: (n, 32, 1, 1)."""
    return ((x.flatten(1) - middle) @ directions / unit)[:, :, None, None]


def decode(code):
    return (code.flatten(1) * unit @ directions.T + middle).reshape(-1, 1, 32, 32).clamp(-1, 1)


judge = load_classifier()


def read(code, y):
    """How many in a hundred the library's classifier reads as y."""
    return 100 * (classify(judge, decode(code)).argmax(1) == y).float().mean().item()


codes = encode(images)
band(read(codes[:1000], labels[:1000]), 95, 100, "of 100 real digits are read right after this compression")

# %% [markdown]
r"""
## The average is grey

**If it predicts the image at once, why take steps?** Pure noise says nothing about the image, and so the best guess is the
mean of all of them. One step of DDIM returns that guess:

$$\hat x_0(x_T, T) = \mathbb E[x_0 \mid x_T] = \mathbb E[x_0] \tag{14.1}$$

**Guess first.** We draw ten threes in one step of the *exact* denoiser of all our threes. How far do the ten drawings vary,
in per cent of how far real threes do?
"""

# %%
threes = codes[labels == 3].double()
oracle, x_T = tinyddpm.dataset_oracle(threes, schedule), noise(10, 32, 1, 1).double()
one, forty = (last(ddim(oracle, x_T, schedule, schedule.grid(steps))).x_t for steps in (1, 40))
holds("14.1", one, threes.mean(0).expand_as(one))


def variety(code):
    return code.std(0).square().mean().sqrt().item()


my_guess = None
guess(my_guess, round(100 * variety(one) / variety(threes)), " %")

# %% [markdown]
r"""
The drawings themselves, from the same ten noises:
"""

# %%
rows = {"one step of the exact denoiser": decode(one.float()), "forty steps": decode(forty.float())}
tiles(rows, enlarge=2, alt="Ten threes in one step are the same grey average; in forty steps, ten different threes")

# %% [markdown]
r"""
The exact denoiser is not to blame, and no training would help. Ten different noises get one answer. Forty steps undo that:
after each small step the guess is asked for anew, and *which* three it will be is decided on the way.

And yet nothing random happens on the way. DDIM is an ordinary differential equation. The noise fixes the path, and the path
has one end: a function from $x_T$ to $x_0$, which a network may learn.

## Where a path ends, in closed form

We need a world in which that function is known. Take pixels from a normal distribution of mean $m$ and standard deviation
$\sigma$. On the straight path $z = (1-u)\,x_0 + u\,\varepsilon$, where the clock $u$ runs from 0 (clean) to 1 (noise), $z$ is
normal, too, with mean $(1-u)\,m$ and standard deviation $\sigma_u$. (Chapter 10 wrote $\tau$ for this clock, and $u$ for the velocity,
which is $\dot z$ here.) The differential equation keeps each pixel at its place among the
others, so many standard deviations from the mean:

$$z_{u'} = (1-u')\,m + \frac{\sigma_{u'}}{\sigma_u}\,\bigl(z_u - (1-u)\,m\bigr), \qquad \sigma_u^2 = (1-u)^2\sigma^2 + u^2 \tag{14.2}$$

The cell walks the exact denoiser's path with Heun's method from $u = 0.9$ to $0.3$, and compares. (For the schedule `flow`,
$u = t/T$, and $x_t$ is $z$ over $\sqrt{(1-u)^2 + u^2}$.)
"""

# %%
m, sigma = 0.3, 0.5


def spread(u):
    return ((1 - u) ** 2 * sigma**2 + u**2) ** 0.5


def flow_map(z, u, u_s):
    """z at the clock u_s, on the path through z at u."""
    return (1 - u_s) * m + spread(u_s) / spread(u) * (z - (1 - u) * m)


def length(u):
    return ((1 - u) ** 2 + u**2) ** 0.5


bell = tinyddpm.gaussian_oracle(m, sigma**2, schedule)
z = (1 - 0.9) * (m + sigma * noise(6, 1, 1, 1).double()) + 0.9 * noise(6, 1, 1, 1, seed=1).double()
grid = [(t, t - 1) for t in range(900, 300, -1)]
walked = last(tinyddpm.heun(bell, z / length(0.9), schedule, grid)).x_t * length(0.3)
holds("14.2", walked, flow_map(z, 0.9, 0.3), within=1e-5)

# %% [markdown]
r"""
Flow matching (chapter 10) learns the velocity *now*, $\dot z = \mathbb E[\varepsilon - x_0 \mid z]$. Geng et al.
([2025](https://arxiv.org/abs/2505.13447)) learn its **average** $A$ from the clock $u'$ to $u$. With it a step of any length
is exact, since it is distance over time:

$$A(z_u, u, u') = \frac{1}{u-u'}\int_{u'}^{u} \dot z_r\, dr = \frac{z_u - z_{u'}}{u-u'} \tag{14.3}$$
"""


# %%
def average(z, u, u_s):
    return (z - flow_map(z, u, u_s)) / (u - u_s)


def velocity(z, u):
    """E[eps - x_0 | z], for this world."""
    return (u - (1 - u) * sigma**2) / spread(u) ** 2 * (z - (1 - u) * m) - m


clocks = torch.linspace(0.3, 0.9, 2001).double()
now = torch.stack([velocity(flow_map(z, 0.9, r), r) for r in clocks])
holds("14.3", torch.trapezoid(now, clocks, dim=0) / 0.6, average(z, 0.9, 0.3))
first = velocity(z, torch.tensor(0.9)).flatten()
print(f"velocity at the start {first[0]:.2f}, on average {average(z, 0.9, 0.3).flatten()[0]:.2f}")

# %% [markdown]
r"""
## An identity to train on

The integral needs the whole path, which is what we wanted to be rid of. Multiply (14.3) by $u - u'$, and differentiate along
the path, $u'$ held. The product rule gives $A + (u-u')\,\frac{dA}{du} = \dot z$. So

$$A = \dot z - (u-u')\,\frac{dA}{du}, \qquad \frac{dA}{du} = \frac{\partial A}{\partial z}\,\dot z + \frac{\partial A}{\partial u} \tag{14.4}$$

Everything on the right is at one point: the integral is gone. The derivative is in the direction $(\dot z, 1)$, and
`torch.func.jvp` has it in one forward pass. In training the network stands for $A$ on both sides, the right side is the
target, **without gradient**, and $\varepsilon - x_0$ of the training pair stands for $\dot z$ (its mean is $\dot z$, and the
target is linear in it).
"""


# %%
def my_target(average, z, u, u_s, velocity):
    found, change = torch.func.jvp(average, (z, u), (velocity, torch.ones_like(u)))
    return found, (velocity - (u - u_s).reshape(-1, 1, 1, 1) * change).detach()


u, u_s = torch.full((6,), 0.9).double(), torch.full((6,), 0.3).double()


def network(z, u):
    """The exact average down to 0.3, in place of a network."""
    return average(z, u.reshape(-1, 1, 1, 1), 0.3)


now = velocity(z, 0.9)
holds("14.4", *my_target(network, z, u, u_s, now))
same(my_target, few_steps.mean_flow_target, network, z, u, u_s, now)


def residual(network, u_s=u_s, now=now):
    found, target = my_target(network, z, u, u_s, now)
    return (found - target).square().mean().sqrt().item()


print(f"residual of the exact average {residual(network):.3f}")
print(f"with u - u_s of the wrong sign {residual(network, u_s=2 * u - u_s):.3f}")
print(f"with the velocity backwards {residual(network, now=-now):.3f}")
print(f"of the velocity now in place of the average {residual(lambda z, u: velocity(z, u.reshape(-1, 1, 1, 1))):.3f}")

# %% [markdown]
r"""
The wrong ones are far off, and each would have trained without complaint. The library's `MeanFlowLoss` is this target; its
network sees two times (`TwoTimes`), and `mean_flow` is DDIM with $A$ in place of $\dot z$. On Gaussians it lands exactly, in
any number of steps. For digits we take two shorter roads, on which a network of *one* time is enough.

## Reflow: make the paths straight

One step is wrong because paths bend, and they bend because straight lines between *random* pairs of noise and image cross: at
a crossing the average of two directions is learned. Liu et al. ([2022](https://arxiv.org/abs/2209.03003)) let the teacher
pair each noise with *its own* image, the end of its path. Paths of an ODE never cross, so these pairs mostly do not, either.
Train on them again (**reflow**), and the average is of one image only. In our world, $x_0 = m + \sigma\varepsilon$, and

$$\mathbb E[x_0 \mid z] = m + \sigma\,\frac{z - (1-u)\,m}{(1-u)\,\sigma + u} \tag{14.5}$$

gives each pair its own $x_0$ back, from every point of its line. One step is forty steps.
"""

# %%
eps = noise(500, 1, 1, 1).double()
x_0 = m + sigma * eps


def reflowed(x_t, t):
    u = t.double().reshape(-1, 1, 1, 1) / schedule.T
    return m + sigma * (length(u) * x_t - (1 - u) * m) / ((1 - u) * sigma + u)


t = torch.arange(1, 501) * 2
holds("14.5", reflowed(tinyddpm.q_sample(x_0, t, eps, schedule), t), x_0)
for name, denoiser in {"before": bell, "after": reflowed}.items():
    one, forty = (last(ddim(denoiser, eps, schedule, schedule.grid(steps))).x_t for steps in (1, 40))
    print(f"{name} reflow: one step and forty differ by {(one - forty).square().mean().sqrt():.3f} (rms)")

# %%
points = tinyddpm.dataset_oracle(torch.tensor([-1.0, 1.0]).double().reshape(2, 1, 1, 1), schedule)
starts = torch.linspace(-1.6, 1.6, 12).double().reshape(-1, 1, 1, 1)
path = [step.x_t.flatten() * length(step.t / 1000) for step in ddim(points, starts, schedule, schedule.grid(200))]
figure, axes = plt.subplots(1, 2, figsize=(7, 2.3), sharey=True)
axes[0].plot(torch.linspace(1, 0, 201), torch.stack(path), "-", color=EXACT)
axes[1].plot([1, 0], torch.stack([path[0], path[-1]]), "-", color=STEERED)
axes[0].set(title="paths of the exact model of two points", ylabel="z")
axes[1].set(title="after reflow")
for panel in axes:
    panel.invert_xaxis()
    panel.set_xlabel("clock u (log-SNR is 0 at 0.5, and minus infinity at 1)")
show_figure("Paths from noise to the points -1 and 1: bent towards the middle first, and straight after reflow")

# %% [markdown]
r"""
On the left every path first heads for the grey middle, 0, and turns away late. That is the grey average of the first section.

## A teacher, its pairs, a student

The teacher is a small network that learns the flow velocity of digits by chapter 10's loss.
"""


# %%
class Net(nn.Module):
    num_classes = 10

    def __init__(self, width=192):
        super().__init__()
        self.time, self.label = nn.Linear(16, width), nn.Embedding(11, width)
        self.enter, self.leave = nn.Linear(32, width), nn.Linear(width, 32)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(3)
        )

    def forward(self, x_t, t, y):
        waves = t[:, None] / schedule.T * torch.arange(1, 9) * torch.pi / 2
        facts = self.time(torch.cat([waves.sin(), waves.cos()], 1)) + self.label(y)
        h = self.enter(x_t.flatten(1))
        for block in self.blocks:
            h = h + block(h + facts)
        return self.leave(F.silu(h)).reshape(x_t.shape)


# %%
def fit(model, loss, data, labels, rounds, rate):
    """The averaged weights after so many batches of 128."""
    generator = torch.Generator().manual_seed(0)
    choices = (torch.randint(len(data), (128,), generator=generator) for _ in range(rounds))
    batches = ((data[chosen], labels[chosen]) for chosen in choices)
    adam, ema = torch.optim.Adam(model.parameters()), tinyddpm.EMA(model, 0.99)
    for step in tinyddpm.train_steps(
        model, batches, loss, adam, tinyddpm.warmup_cosine(rate, 100, rounds), ema, generator
    ):
        pass
    return ema.model


# %%
torch.manual_seed(0)
teacher = fit(Net(), tinyddpm.DenoisingLoss(schedule, "flow", label_drop=0.0), codes, labels, 1700, 2e-3)
asked = torch.arange(1000) % 10
x_T = noise(1000, 32, 1, 1, seed=5)


def draw(model, steps, sampler=ddim):
    denoiser = tinyddpm.make_denoiser(model, schedule, "flow", asked)
    return last(sampler(denoiser, x_T, schedule, schedule.grid(steps), torch.Generator().manual_seed(1))).x_t


def varied(code):
    """The variety within a digit, in per cent of that of forty steps of the teacher."""
    return 100 * variety(code.reshape(100, 10, 32)) / variety(by_teacher[40].reshape(100, 10, 32))


by_teacher = {steps: draw(teacher, steps) for steps in (1, 2, 4, 8, 40)}
score = {"teacher": {steps: read(code, asked) for steps, code in by_teacher.items()}}
band(score["teacher"][40], 78, 96, "of 100 read as asked, forty steps of the teacher")
band(score["teacher"][1], 35, 75, "of 100, one step")

# %% [markdown]
r"""
Now reflow, once. The teacher makes 16,000 pairs (20 steps of DDIM), and a copy of it learns them. Three quarters of
each batch are at $t = T$: that is where the one step will start.

**Guess first.** How many of 100 will one step of the student get right?
"""

# %%
labels_of_pairs = torch.arange(16_000) % 10
pairs = tinyddpm.reflow_pairs(
    tinyddpm.make_denoiser(teacher, schedule, "flow", labels_of_pairs),
    noise(16_000, 32, 1, 1, seed=9),
    schedule,
    schedule.grid(20),
    ddim,
)


def mostly_at_T(n, T, generator):
    t = torch.randint(1, T + 1, (n,), generator=generator)
    return torch.where(torch.arange(n) < 3 * n // 4, T, t)


def pupil():
    return copy.deepcopy(teacher).requires_grad_(True)


loss = tinyddpm.ReflowLoss(schedule, "flow", label_drop=0.0, times=mostly_at_T)
student = fit(pupil(), loss, pairs, labels_of_pairs, 1700, 2e-3)
by_student = {steps: draw(student, steps) for steps in (1, 2, 4)}
score["reflow"] = {steps: read(code, asked) for steps, code in by_student.items()}
my_guess = None
guess(my_guess, round(score["reflow"][1], -1), " of 100, rounded to tens")

# %% tags=["share"]
sure = classify(judge, decode(by_teacher[40]))[torch.arange(1000), asked].reshape(100, 10)
shown = 10 * sure.argmax(0) + torch.arange(10)  # for each digit, the noise whose forty steps are the surest
rows = {
    "one step of the teacher: grey": decode(by_teacher[1][shown]),
    "forty steps of the teacher": decode(by_teacher[40][shown]),
    "one step of the student, from the same noise": decode(by_student[1][shown]),
}
columns = [f"asked: {digit}" for digit in range(10)]
tiles(
    rows,
    columns=columns,
    alt="The digits 0 to 9: blurred in one step of the teacher; sharp in forty steps, and in one of the student",
)

# %% [markdown]
r"""
(Of 100 noises for each digit, the one from which forty steps of the teacher are read with most certainty.) The second and the
third row are nearly the same digits: the student has learned where the teacher's paths end. In numbers, over all 1,000:
"""

# %%
band(score["reflow"][1], 74, 96, "of 100 read as asked, one step of the student")
band(score["teacher"][40] - score["reflow"][1], -5, 5, "points behind forty steps of the teacher")
band(varied(by_student[1]), 80, 120, "% of forty steps' variety, one step of the student")
band(varied(by_teacher[1]), 5, 40, "% of forty steps' variety, one step of the teacher")

# %% [markdown]
r"""
One call of the network in place of forty. The student is only as good as its teacher, and knows only the pairs that were made
for it.

## Consistency: one end for a whole path

Song et al. ([2023](https://arxiv.org/abs/2303.01469)) need no pairs. A path has one end, whatever point of it you hold:

$$f(x_t, t) = f(x_s, s) \quad\text{on one path}, \qquad f(x, 0) = x \tag{14.6}$$

So take $x_t$, let one small step of the teacher lead to $x_s$, and train $f(x_t, t)$ towards $f(x_s, s)$, again without
gradient. From $t = 0$, where the answer is known, it spreads to $T$. The network's $\hat x_0$ serves as $f$: with `flow` or
`v` predicted it is $x$ itself at $t = 0$. For more than one step, go to the end, add fresh noise, go again.
"""


# %%
def f(x_t, t):
    """The end of the path, in our world."""
    u = t.double().reshape(-1, 1, 1, 1) / schedule.T
    return flow_map(length(u) * x_t, u, 0.0)


u = torch.linspace(0.1, 1, 10).double().reshape(-1, 1, 1, 1)
on_path = flow_map(torch.ones(10, 1, 1, 1).double(), 1.0, u) / length(u)
holds("14.6", f(on_path, torch.arange(100, 1001, 100)), torch.full((10, 1, 1, 1), m + sigma))


# %%
def my_consistency_sampling(f, x_T, grid, generator):
    x = x_T
    for t, s in grid:
        x_0_hat = f(x, torch.full((len(x),), t))
        x = x_0_hat
        if s > 0:
            fresh = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = tinyddpm.q_sample(x_0_hat, s, fresh, schedule)
    return x


def mine(seed):
    return my_consistency_sampling(f, eps, schedule.grid(4), torch.Generator().manual_seed(seed))


def consistency_sampling(seed):
    walk = tinyddpm.consistency_sampling(f, eps, schedule, schedule.grid(4), torch.Generator().manual_seed(seed))
    return last(walk).x_t


same(mine, consistency_sampling, 3)

# %%
loss = tinyddpm.ConsistencyLoss(
    schedule, "flow", label_drop=0.0, teacher=lambda y: tinyddpm.make_denoiser(teacher, schedule, "flow", y), gap=50
)
consistent = fit(pupil(), loss, codes, labels, 800, 1e-3)
by_consistency = {steps: draw(consistent, steps, tinyddpm.consistency_sampling) for steps in (1, 2, 4)}
score["consistency"] = {steps: read(code, asked) for steps, code in by_consistency.items()}
for steps, found in score["consistency"].items():
    band(
        found, {1: 72, 2: 76, 4: 80}[steps], 98, f"of 100 read as asked, consistency in {steps} step{'s' * (steps > 1)}"
    )

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 2.4))
drawn = {"teacher": by_teacher, "reflow": by_student, "consistency": by_consistency}
styles = {"teacher": ("o-", REST), "reflow": ("s--", STEERED), "consistency": ("^-.", NETWORK)}
for name, (style, color) in styles.items():
    axes[0].plot(list(score[name]), list(score[name].values()), style, color=color, label=name)
    axes[1].plot(list(score[name]), [varied(code) for code in drawn[name].values()], style, color=color, label=name)
for panel, title in zip(axes, ("of 100 read as asked", "variety, % of the teacher's forty steps")):
    panel.set(xscale="log", xlabel="calls of the network", title=title)
    panel.set_xticks([1, 2, 4, 8, 40], ["1", "2", "4", "8", "40"])
    panel.minorticks_off()
label_lines(axes[1])
show_figure(
    "Share read as asked and variety against calls: at one call both students have nearly all, the teacher little"
)

# %% [markdown]
r"""
Look at both panels: two steps of the teacher are read at least as easily as forty, but they are more alike. Whoever measures only one of
the two is misled (chapter 13).
"""

# %% [markdown]
r"""
## Museum

**A target that learns, too.** Leave out the one line that stops the gradient, and both sides of (14.6) move. The cheapest
way to agree is to say less. Both students below start from the teacher; look at the loss, and then at what is drawn.
"""


# %%
def consistency(held):
    def objective(model, x_0, y, generator):
        t = torch.randint(1, schedule.T + 1, (len(x_0),), generator=generator)
        eps, s = torch.randn(x_0.shape, generator=generator), (t - 50).clamp(min=0)
        f = tinyddpm.make_denoiser(model, schedule, "flow", y)
        end, target = (f(tinyddpm.q_sample(x_0, at, eps, schedule), at) for at in (t, s))
        target = target.detach() if held else target
        return (end - target).square().flatten(1).mean(1), t

    return objective


rows = {}
for name, held in {"target held": True, "target learns": False}.items():
    model = fit(pupil(), consistency(held), codes, labels, 250, 1e-3)
    with torch.no_grad():
        last_loss = consistency(held)(model, codes[:2000], labels[:2000], torch.Generator().manual_seed(2))[0]
    code = draw(model, 1)
    rows[name] = decode(code[shown])
    band(1000 * last_loss.mean().item(), *((3, 9) if held else (1, 4)), f"thousandths of loss, {name}")
    band(varied(code), *((75, 120) if held else (15, 70)), f"% of forty steps' variety, {name}")
tiles(rows, enlarge=2, alt="One step of two students: digits where the target is held; fainter blurs where it learns")

# %% [markdown]
r"""
The lower loss draws the worse digits: **a loss whose target depends on the network says nothing by itself.** Measure what is
drawn. The line that catches it: `assert not target.requires_grad`.

**NaN at the first step.** One step starts from pure noise, where $x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\varepsilon) /
\sqrt{\bar\alpha_t}$ divides by 0. A network that predicts noise cannot say what the image is when all is noise. (NaN is usually saved as black, and black images are a
[frequent report](https://github.com/lucidrains/denoising-diffusion-pytorch/issues/92), whatever their cause.) The library refuses.
"""

# %%
pure = noise(10, 32, 1, 1)
code = tinyddpm.x_0_from_eps(pure, pure, schedule.T, schedule)
print(f"of {code.numel()} numbers, {int(code.isnan().sum())} are NaN, if the noise is predicted perfectly")
try:
    tinyddpm.make_denoiser(teacher, schedule, "eps")
except ValueError as refusal:
    print(refusal)

# %% [markdown]
r"""
## What this chapter showed

One step of an exact denoiser is the mean (14.1). Paths have ends, in closed form on a Gaussian (14.2); their average velocity
(14.3) obeys an identity at one point (14.4). Straight paths (14.5) or one end for a whole path (14.6) gave one step nearly as
good as forty.

## Exercises

**14a.** Walk with average velocities. `clocks` descends, such as `[1.0, 0.5, 0.0]`; `average(z, u, u_s)` is exact.
"""


# %%
def answer_14a(average, z, clocks):
    """z: (n,), at the clock clocks[0]. Returns z at clocks[-1], one call of `average` for each step: (n,)."""
    ...


check("14a", answer_14a)

# %% [markdown]
r"""
<details><summary>Hint 14a</summary>

(14.3), solved for $z_{u'}$. Which two clocks does each step belong to?
</details>

<details><summary>Solution 14a</summary>

```python
def answer_14a(average, z, clocks):
    for u, u_s in zip(clocks, clocks[1:]):
        z = z - (u - u_s) * average(z, u, u_s)
    return z
```

Distance is time times average velocity, over *this* step. The average down to 0 belongs to the step down to 0 only.
</details>

**14b.** How straight is a path? Liu et al. measure the mean squared difference between the velocity on the way and that of
the straight line from start to end. The clock falls from 1 to 0 in equal steps.
"""


# %%
def answer_14b(path):
    """path: (k + 1, n), n paths at k + 1 clocks from noise to clean. Returns one number, 0 for straight paths."""
    ...


check("14b", answer_14b)

# %% [markdown]
r"""
<details><summary>Hint 14b</summary>

A velocity is a difference over the time it took, $1/k$. The straight line takes the whole time, 1.
</details>

<details><summary>Solution 14b</summary>

```python
def answer_14b(path):
    steps = (path[1:] - path[:-1]) * (len(path) - 1)
    line = path[-1] - path[0]
    return (steps - line).square().mean()
```

Without the factor $k$ the steps are distances, and the number would depend on how finely the path was looked at.
</details>

**14c.** The mean-flow target without a library: replace the `jvp` of a *one-dimensional* average velocity by central
differences along the path, of width `h`.
"""


# %%
def answer_14c(average, z, u, u_s, velocity, h):
    """All (n,), and average(z, u, u_s). Returns the right side of (14.4), (n,)."""
    ...


check("14c", answer_14c)

# %% [markdown]
r"""
<details><summary>Hint 14c</summary>

A little later on the path, $u$ is $u + h$. Where is $z$ then?
</details>

<details><summary>Solution 14c</summary>

```python
def answer_14c(average, z, u, u_s, velocity, h):
    later, earlier = (average(z + k * velocity, u + k, u_s) for k in (h, -h))
    return velocity - (u - u_s) * (later - earlier) / (2 * h)
```

Both arguments move: $z$ by $h\,\dot z$ and the clock by $h$. That is what the pair of tangents in `jvp` says.
</details>

**14d.** *Experiment.* Data of the bell $(m, \sigma) = (0.3, 0.5)$, its exact denoiser, DDIM on a uniform grid. One step gives
standard deviation 0. What is the least number of steps after which it is at least 99 % of $\sigma$? Write down your guess,
then measure; start all walks from the same two noises, $-1$ and $1$.
"""

# %%
prediction = None  # first write down what you expect
measured = None  # then walk, for 1, 2, 3, ... steps, and put the number here
check("14d", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 14d</summary>

The ends of the two walks lie symmetrically about $m$, half their distance apart from it. That half is the standard
deviation, as for any two noises of variance 1.
</details>

<details><summary>Solution 14d</summary>

```python
bell = tinyddpm.gaussian_oracle(0.3, 0.25, schedule)
two = torch.tensor([-1.0, 1.0]).double().reshape(2, 1, 1, 1)


def width(steps):
    low, high = last(ddim(bell, two, schedule, schedule.grid(steps))).x_t.flatten().tolist()
    return (high - low) / 2


prediction = 20
measured = next(steps for steps in range(1, 200) if width(steps) >= 0.99 * 0.5)
```

DDIM goes straight on where the path bends, and falls short towards the mean at each step. Its error falls like one over the
number of steps, so that the last per cent is dear; a network of the average velocity has it in one call.
</details>

## Symbols

| symbol | code name | meaning |
|---|---|---|
| $u$, $u'$ | `u`, `u_s` | the clock: 0 clean, 1 noise |
| $z$ | `z` | a point of the straight path; $x_t$ is $z$ over its length |
| $m$, $\sigma$, $\sigma_u$ | `m`, `sigma`, `spread` | mean and standard deviation of the bell, and at the clock $u$ |
| $\dot z$ | `velocity` | the velocity now |
| $A$ | `average` | the average velocity between two clocks |
| $f$ | `f` | the end of the path |

**Next:** you have read the course. The [README](../README.md) says what else the library draws, and the pages in
[docs](../docs/house.md) how it is built, so that your own sampler, objective or network takes one file.
"""
