# %% [markdown]
r"""
# 07 · Conditional generation: a label is a smaller data set, and guidance overdoes it

**After this chapter you can**

* say exactly what a label changes in the reverse process, and at which noise levels;
* train one network that works with and without labels, and catch three published ways of getting that wrong;
* derive classifier-free guidance, read anybody's scale, negative prompt and rescale, and measure what they cost.

*You need:* chapters 01, 03 and 06: the jump to $x_t$, denoisers and samplers, the loss.
*Reading:* about MINUTES minutes. *Running:* under a minute on a laptop. *You build and then import:* `drop_labels`,
`classifier_free_guidance`.

---

Drawing the digit you ask for is usually taught as three tricks: feed the label to the network, now and then leave it out,
extrapolate at the end. Behind each stands an equation, and with exact denoisers we can execute all of them on real digits.
"""

# %% tags=["setup"]
import functools

import torch
import torch.nn.functional as F
from course import band, check, clock, guess, holds, same, tiles
from course.chapter_07 import costs, densities, label_against_noise, three_answers

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.evaluation.classifier import classify, features, load_classifier
from tinyddpm.evaluation.metrics import label_accuracy
from tinyddpm.samplers import noise_like
from tinyddpm.training import drop_labels

images, labels = mnist(train=False).tensors()
data, data_labels = images[:2000].double(), labels[:2000]  # the whole world, for the exact part
schedule = tinyddpm.Schedule.named("cosine")
ddpm = tinyddpm.load_pretrained()

# %% [markdown]
r"""
## A label is a smaller data set

Write $y$ for the label of an image. Asking for a seven means sampling from the sevens: the data set becomes smaller, and nothing
else changes. Every formula of chapters 01 to 03 holds inside a class, and the best denoiser *given the label*,
$\mathbb E[x_0 \mid x_t, y]$, is the exact denoiser of chapter 03 with only the images of class $y$ in its sum.

Not knowing the class of a noisy image, we can ask each class for the clean image, and average the answers by how likely each
class is:

$$\mathbb E[x_0 \mid x_t] = \sum_{y} p(y \mid x_t)\; \mathbb E[x_0 \mid x_t, y] \tag{7.1}$$

The weights are what a perfect classifier of *noisy* images would answer. In the next cell 2,000 digits are the whole world, and the
density of $x_t$ is a mean of bells, one around each.
"""


# %%
def log_bells(x_t, t):
    """(b, n): the log density of each x_t under the bell around each data image, up to a constant of its row."""
    signal = schedule.at(schedule.sqrt_alpha_bar, t, x_t).flatten(1)  # `at`: the table at t, one value an image
    noise = schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_t).flatten(1)
    return -(torch.cdist(x_t.flatten(1) / signal, data.flatten(1)) ** 2) * signal**2 / (2 * noise**2)


def exact_denoiser(x_t, t, y=None):
    """E[x_0 | x_t], or E[x_0 | x_t, y] for one label an image."""
    weights = log_bells(x_t, t)
    if y is not None:
        weights = weights.masked_fill(data_labels != y[:, None], -torch.inf)  # the other classes do not exist
    return (weights.softmax(1) @ data.flatten(1)).reshape(x_t.shape)


def class_posterior(x_t, t):
    """p(y | x_t): (b, 10)."""
    bells = log_bells(x_t, t)
    return torch.stack([bells[:, data_labels == k].logsumexp(1) for k in range(10)], 1).softmax(1)


generator = torch.Generator().manual_seed(1)
eps = torch.randn(50, 1, 32, 32, generator=generator, dtype=torch.float64)
t = torch.randint(300, 1000, (50,), generator=generator)  # one time an image
x_t = tinyddpm.q_sample(data[:50], t, eps, schedule)
oracle = tinyddpm.dataset_oracle(data, schedule)  # knows no labels
of_class = [tinyddpm.dataset_oracle(data[data_labels == k], schedule) for k in range(10)]
mixture = torch.einsum("bk,kbchw->bchw", class_posterior(x_t, t), torch.stack([f(x_t, t) for f in of_class]))
holds("7.1", oracle(x_t, t), mixture, within=1e-9)
same(lambda x_t, t: exact_denoiser(x_t, t, torch.full((50,), 7)), of_class[7], x_t, t)

# %% [markdown]
r"""
## Where the label matters

One three under three amounts of noise: what the exact denoiser sees in it without a label, and when told 0 to 9.
"""

# %%
rows = {}
for time in (960, 800, 440):
    at = torch.full((11,), time)
    noisy = tinyddpm.q_sample(data[18:19], time, eps[:1], schedule).expand(11, -1, -1, -1)
    told = exact_denoiser(noisy[1:], at[1:], torch.arange(10))
    untold = exact_denoiser(noisy[:1], at[:1])
    rows[clock(time, schedule).replace("\n", ", ")] = torch.cat([noisy[:1] / 2, untold, told])
columns = ["x_t, faint", "no label", *(f"told {k}" for k in range(10))]
tiles(rows, columns=columns, alt="Told a class, the denoiser sees its blur in strong noise; in weak noise only 3 fits")

# %% [markdown]
r"""
At the top the label is all that is known; at the bottom it is no news, and a wrong one gets the images of its class that fit best.
Chapter 03 found the window in which the class is decided, log-SNR $-4.5$ to $-2.2$. How far does the label move the answer, before
and after it?
"""

# %%
window = (-4.5, -2.2)
log_snrs = torch.arange(-8, 4.1, 0.5)


def rms_of_label(with_label, without, schedule, x_0):
    """How far the label moves the answer, at each log-SNR."""
    apart = []
    for level in log_snrs:
        t = (schedule.log_snr - level).abs().argmin().expand(len(x_0))
        eps = torch.randn(x_0.shape, generator=generator, dtype=x_0.dtype)
        x_t = tinyddpm.q_sample(x_0, t, eps, schedule)
        with torch.no_grad():
            apart.append((with_label(x_t, t) - without(x_t, t)).square().mean().sqrt().item())
    return apart


exact = rms_of_label(lambda x, t: exact_denoiser(x, t, data_labels[:200]), oracle, schedule, data[:200])
net = rms_of_label(ddpm.denoiser(labels[:30]), ddpm.denoiser(), ddpm.schedule, images[:30])
label_against_noise(log_snrs, exact, net, window)
band(net[0] / exact[0], 0.85, 1.15, "times as far for the network as for the exact denoiser at log-SNR -8")
band(100 * net[16] / net[0], 0, 33, "% of that is left for the network at log-SNR 0")

# %% [markdown]
r"""
Before the window the label moves the answer from the mean of all digits to that of one class; after it the image itself says what
it is. For the network the label matters somewhat longer.

## Two denoisers in one network: drop labels

The network receives its label as a learned vector (chapter 04), with an eleventh for "no label", the *null class* $\varnothing$,
number 10. [Ho and Salimans (2022, algorithm 1)](https://arxiv.org/abs/2207.12598) train both denoisers with one line: each image
loses its label with a small probability $p_\text{uncond}$.

Why does this give both? The function with the smallest mean square answers each input with the mean of its targets. An image that
arrives with $y$ is one of that class; one that arrives with $\varnothing$ can be any, since the coin knew nothing of it. So the best
$f(x_t, \cdot)$ is

$$f(x_t, y) = \mathbb E[x_0 \mid x_t, y], \qquad f(x_t, \varnothing) = \mathbb E[x_0 \mid x_t] \tag{7.2}$$

whatever $p_\text{uncond}$ is. The smallest world shows it: one pixel, normal around $+1$ in class 0 and around $-1$ in class 1. Draw
four million, noise them, drop three labels in ten, cut the axis of $x_t$ into bins, and "learn" the mean $x_0$ of each bin and label.
"""

# %%
variance = 0.25
plus, minus = (tinyddpm.gaussian_oracle(1.0, variance, schedule), tinyddpm.gaussian_oracle(-1.0, variance, schedule))


def posterior_of_plus(x_t, t):
    """p(y = 0 | x_t): for two bells of equal width Bayes' rule is a logistic function of x_t."""
    signal = schedule.at(schedule.sqrt_alpha_bar, t, x_t)
    return torch.sigmoid(2 * signal * x_t / (signal**2 * variance + 1 - signal**2))


def both(x_t, t):
    return minus(x_t, t) + posterior_of_plus(x_t, t) * (plus(x_t, t) - minus(x_t, t))  # (7.1)


n, t, generator = 4_000_000, 500, torch.Generator().manual_seed(2)
y = torch.randint(0, 2, (n,), generator=generator)
x_0 = 1 - 2 * y + variance**0.5 * torch.randn(n, generator=generator)
x_t = schedule.sqrt_alpha_bar[t] * x_0 + schedule.sqrt_one_minus_alpha_bar[t] * torch.randn(n, generator=generator)
label = torch.where(torch.rand(n, generator=generator) < 0.3, 2, y)  # classes 0 and 1, null class 2
bins = ((x_t + 1.5) / 0.1).floor().long()  # thirty bins of width 0.1 on [-1.5, 1.5]
inside = (bins >= 0) & (bins < 30)
cell = (30 * label + bins)[inside]
learned = torch.zeros(90).double().index_add(0, cell, x_0[inside].double()) / cell.bincount(minlength=90)
middle = (-1.45 + 0.1 * torch.arange(30, dtype=torch.float64)).reshape(-1, 1, 1, 1)
exact = torch.cat([f(middle, torch.full((30,), t)).flatten() for f in (plus, minus, both)])
holds("7.2", learned, exact, within=0.03)
three_answers(middle.flatten(), exact.reshape(3, 30), learned.reshape(3, 30))

# %% [markdown]
r"""
Told nothing, the best answer half way between the classes is 0, although few clean pixels are near 0. The one line by hand:
"""


# %%
def my_drop_labels(y, num_classes, p_uncond, generator):
    dropped = torch.rand(y.shape, generator=generator) < p_uncond  # a coin for each image
    return torch.where(dropped, num_classes, y)


def seeded(drop):
    """The same function with a new generator at each call, so that both sides of `same` see the same coins."""
    return functools.wraps(drop)(lambda *arguments: drop(*arguments, torch.Generator().manual_seed(3)))


same(seeded(my_drop_labels), seeded(drop_labels), labels, 10, 0.1)

# %% [markdown]
r"""
## Bug museum: three ways to lose a label

Trained with any of them, a model still draws digits.

1. **One coin for the whole batch**, in [a widely copied script](https://github.com/dome272/Diffusion-Models-pytorch/blob/main/ddpm_conditional.py):
   a step drops all labels or none.
2. **The probability inverted**: a function that [takes the rate of keeping was given the rate of
   dropping](https://github.com/lucidrains/DALLE2-pytorch/issues/35).
3. **A mask that flips the sign**: [`-1 * (1 - mask)`](https://github.com/TeaPearce/Conditional_Diffusion_MNIST/issues/1) turns the 1
   of each one-hot row into $-1$. Whoever asks for samples with ordinary rows speaks a foreign language.

Rows should add up to 1 or 0, and the rate of zeros be $p_\text{uncond}$ and vary between batches as independent coins do.
"""

# %%
museum = {
    "right": lambda hot, p, g: hot * (torch.rand(len(hot), 1, generator=g) >= p),
    "one coin": lambda hot, p, g: hot * (torch.rand((), generator=g) >= p),
    "inverted": lambda hot, p, g: hot * (torch.rand(len(hot), 1, generator=g) >= 1 - p),
    "sign flipped": lambda hot, p, g: hot * (-1 * (1 - (torch.rand(len(hot), 1, generator=g) < p).float())),
}
hot = F.one_hot(labels[:64], 10).float()
for name, drop in museum.items():
    generator = torch.Generator().manual_seed(5)
    sums = torch.stack([drop(hot, 0.1, generator) for _ in range(2000)]).sum(2)  # (2000 batches, 64 images)
    rates = (sums == 0).float().mean(1)
    spread = rates.std().item() / (0.1 * 0.9 / 64) ** 0.5
    rows = " or ".join(f"{value:.0f}" for value in sums.unique())
    print(f"{name:12}  rows: {rows:7}  dropped: {100 * rates.mean():2.0f} %  spread: {spread:3.1f} times that of coins")

# %% [markdown]
r"""
## Bayes' rule, with a dial on it

The *score* $\nabla \log q(x_t)$ is the direction in which $x_t$ becomes more probable. A denoiser knows it (Tweedie's formula,
[derived here](course/derivations/07.md)):

$$\nabla_{x_t} \log q(x_t) = \frac{\sqrt{\bar\alpha_t}\;\mathbb E[x_0 \mid x_t] - x_t}{1 - \bar\alpha_t} = -\frac{\hat\varepsilon}{\sqrt{1-\bar\alpha_t}} \tag{7.3}$$

Take logarithms and gradients of Bayes' rule $q(x_t \mid y) = q(x_t)\,p(y \mid x_t)/p(y)$; $p(y)$ falls out:

$$\nabla \log q(x_t \mid y) = \nabla \log q(x_t) + \nabla \log p(y \mid x_t) \tag{7.4}$$

*With the label* is *without* plus a push towards images that a classifier of noisy images takes for a $y$. Let the push count $w$
times, the *guidance scale*. That is the score of a density with the classifier raised to the power $w$:

$$q_w(x_t \mid y) \propto q(x_t)\; p(y \mid x_t)^w, \qquad
\nabla \log q_w = \nabla\log q(x_t) + w\,\bigl(\nabla\log q(x_t \mid y) - \nabla\log q(x_t)\bigr) \tag{7.5}$$

(7.4) has replaced the classifier by a difference: *classifier-free guidance*. The cell asks automatic differentiation for one side
of each equation.
"""


# %%
def gradient(log_density, x_t):
    x = x_t.clone().requires_grad_()
    return torch.autograd.grad(log_density(x).sum(), x)[0]


def score(denoiser, x_t, t):
    """The right side of (7.3)."""
    noise = schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_t)
    return -tinyddpm.eps_from_x_0(denoiser(x_t, t), x_t, t, schedule) / noise


def log_q(x):
    return log_bells(x, t).logsumexp(1)


def log_p(x, y):
    return class_posterior(x, t)[torch.arange(8), y].log()


t = torch.arange(600, 960, 50)  # eight images, with labels that are wrong on purpose: there is something to push
x_t, wrong = tinyddpm.q_sample(data[:8], t, eps[:8], schedule), (data_labels[:8] + 3) % 10
of_y = functools.partial(exact_denoiser, y=wrong)
plain, with_label = score(oracle, x_t, t), score(of_y, x_t, t)
holds("7.3", gradient(log_q, x_t), plain, within=1e-9)
holds("7.4", with_label, plain + gradient(functools.partial(log_p, y=wrong), x_t), within=1e-7)
w = 3.0
tilted = gradient(lambda x: log_q(x) + w * log_p(x, wrong), x_t)
holds("7.5", tilted, plain + w * (with_label - plain), within=1e-7)

# %% [markdown]
r"""
So, up to a factor, *the difference of the two denoisers is the gradient of a classifier that nobody has trained*. Here it is for
one noisy three and all labels: white where it wants more ink, black where less. For the 3 it wants nothing.
"""

# %%
x_10 = tinyddpm.q_sample(data[18:19], 740, eps[:1], schedule).expand(10, -1, -1, -1)
t_10 = torch.full((10,), 740)
push = exact_denoiser(x_10, t_10, torch.arange(10)) - exact_denoiser(x_10, t_10)
rows = {f"what has to change in a 3, at {clock(740, schedule)}".replace("\n", ", "): push / 1.5}
columns = [f"to be a {k}" for k in range(10)]
tiles(rows, columns=columns, alt="Ten maps of changes: grey for 3, the outline of the digit for the others")

# %% [markdown]
r"""
## w or 1 + w?

By (7.3) the score is linear in $\hat\varepsilon$ and in $\hat x_0$, so the rule is the same for either:

$$\hat\varepsilon_w = \hat\varepsilon_\varnothing + w\,(\hat\varepsilon_y - \hat\varepsilon_\varnothing)
\quad\Longleftrightarrow\quad
\hat x_{0,w} = \hat x_{0,\varnothing} + w\,(\hat x_{0,y} - \hat x_{0,\varnothing}) \tag{7.6}$$

Ho and Salimans write $(1 + w)\,\hat\varepsilon_y - w\,\hat\varepsilon_\varnothing$ instead (equation 6). *Which is right?* is asked
[again](https://github.com/huggingface/diffusers/issues/5882) and [again](https://github.com/lucidrains/denoising-diffusion-pytorch/issues/207).
Both are: their $w$ is ours less one. To tell whose it is, look for the value that changes nothing.
"""

# %%
eps_y, eps_null = (tinyddpm.eps_from_x_0(f(x_t, t), x_t, t, schedule) for f in (of_y, oracle))
through_eps = tinyddpm.x_0_from_eps(eps_null + w * (eps_y - eps_null), x_t, t, schedule)
holds("7.6", through_eps, oracle(x_t, t) + w * (of_y(x_t, t) - oracle(x_t, t)), within=1e-9)


def my_guidance(conditional, unconditional, scale):
    def guided(x_t, t):
        u = unconditional(x_t, t)
        return u + scale * (conditional(x_t, t) - u)

    return guided


for scale in (3.0, 1.0, 0.0):
    same(my_guidance(of_y, oracle, scale), tinyddpm.classifier_free_guidance(of_y, oracle, scale), x_t, t)
conventions = {
    "Ho and Salimans": lambda null, y, w: (1 + w) * y - w * null,
    "Imagen, Stable Diffusion, tinyddpm": lambda null, y, w: null + w * (y - null),
}
for whose, rule in conventions.items():
    nothing = next(w for w in (0, 1) if torch.allclose(rule(eps_null, eps_y, w), eps_y))
    print(f"{whose:34}  no guidance: w = {nothing}   w = 7.5 is our scale {rule(0, 1, 7.5)}")

# %% [markdown]
r"""
Stable Diffusion's customary 7.5 is 7.5 here, and 6.5 in the paper.

## What guidance does to a distribution

(7.5) holds at every single $t$. Does guided sampling therefore draw from $q_w(x_0 \mid y) \propto q(x_0)\,p(y \mid x_0)^w$, the tilted density
of *clean* images? In the world of one pixel we can look. For class 0, around $+1$, the tilted density hardly moves with $w$: most of
the class was never in doubt.

**Guess first:** what is the mean of guided samples of class 0 at scale 4, by DDIM?
"""

# %%
my_guess = None

x_T = torch.randn(20_000, 1, 1, 1, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
grid = schedule.grid(100)
values = torch.linspace(-3, 4, 701, dtype=torch.float64)
bells = torch.stack([torch.exp(-((values - m) ** 2) / (2 * variance)) for m in (1.0, -1.0)])
p_plus = bells[0] / bells.sum(0)  # p(y = 0 | x_0)
samples = {}
for scale in (1.0, 2.0, 4.0):
    guided = tinyddpm.classifier_free_guidance(plus, both, scale)
    by_ddim = tinyddpm.last(tinyddpm.ddim(guided, x_T, schedule, grid)).x_t.flatten()
    walk = tinyddpm.p_sample_loop(guided, x_T, schedule, grid, generator=torch.Generator().manual_seed(8))
    density = bells.sum(0) * p_plus**scale
    samples[scale] = by_ddim, tinyddpm.last(walk).x_t.flatten(), density / density.sum() / 0.01
guess(my_guess, round(samples[4.0][0].mean().item(), 1))

# %% [markdown]
r"""
A number on paper? Look.
"""

# %%
densities(values, samples)
for scale, (by_ddim, by_ddpm, density) in samples.items():
    print(f"scale {scale:g}: the tilted density has mean {(values * density).sum() * 0.01:.2f}, ", end="")
    print(f"DDIM {by_ddim.mean():.2f} with spread {by_ddim.std():.2f}, DDPM {by_ddpm.mean():.2f}, {by_ddpm.std():.2f}")

# %% [markdown]
r"""
Above scale 1 guided samples run away from the other class, far beyond the tilted density, and crowd together. ([Bradley and
Nakkiran 2024](https://arxiv.org/abs/2408.09000) prove that neither sampler draws from it.) A sampler needs the scores of *one*
density under more and more noise. Noise the tilted density, with $q(x_0)\,q(x_t\mid x_0) = q(x_t)\,q(x_0\mid x_t)$:

$$\int q(x_0)\,p(y\mid x_0)^w\,q(x_t\mid x_0)\,dx_0 = q(x_t)\;\mathbb E\bigl[\,p(y\mid x_0)^w \mid x_t\,\bigr]$$

Guidance uses the score of $q(x_t)\, p(y \mid x_t)^w$ instead, and the power of a mean is not the mean of the powers:

$$p(y \mid x_t)^w = \bigl(\mathbb E[\,p(y \mid x_0) \mid x_t\,]\bigr)^w \;\ne\; \mathbb E\bigl[\,p(y \mid x_0)^w \mid x_t\,\bigr] \quad\text{unless } w \in \{0, 1\} \tag{7.7}$$
"""

# %%
x_t, t = torch.linspace(-2, 2, 9, dtype=torch.float64), 700
signal, noise = schedule.sqrt_alpha_bar[t], schedule.sqrt_one_minus_alpha_bar[t]
weights = bells.sum(0) * torch.exp(-((x_t[:, None] - signal * values) ** 2) / (2 * noise**2))
weights = weights / weights.sum(1, keepdim=True)  # of each x_0, given x_t
at_t = posterior_of_plus(x_t.reshape(-1, 1, 1, 1), torch.full((9,), t)).flatten()
holds("7.7", at_t, weights @ p_plus, within=1e-3)  # w = 1
ratio = (weights @ p_plus**4) / at_t**4
print(f"at w = 4 the mean of the powers is {ratio.min():.2f} to {ratio.max():.0f} times the power of the mean,")
print(f"and {ratio[4]:.1f} times for x_t = 0, half way between the classes")

# %% [markdown]
r"""
So guidance does not sample a sharpened distribution. It is a useful exaggeration: it leaves the doubtful region between the classes early,
and pays with variety. How much, on digits?

## Same noise, ten labels

From here on the shipped network is the denoiser. It draws eight noises under ten labels, at six guidance scales: 0 is deaf to the
label, 1 listens, more exaggerates. DDIM adds nothing random on the way.
"""

# %%
scales, noises = (0.0, 0.5, 1.0, 2.0, 3.0, 7.5), range(8)
asked = torch.arange(10).repeat_interleave(8)
swept = {scale: ddpm.sample(asked, steps=10, scale=scale, seeds=list(noises) * 10) for scale in scales}
table = swept[1.0].reshape(10, 8, 1, 32, 32)
columns = [f"noise {k}" for k in noises]
tiles({f"asked for {k}": table[k] for k in (2, 3, 5, 8)}, columns=columns, alt="Columns of one noise are of one hand")
amount = (table + 1).mean((2, 3, 4))  # of ink
amount = amount - amount.mean(1, keepdim=True)  # beside the mean of its row
share = (amount.mean(0).square().mean() / amount.square().mean()).item()
band(100 * share, 25, 85, "% of the variance of ink within the rows is the column's; chance would give 10")

# %% [markdown]
r"""
Look down the columns: where one digit is bold or slanted, the others tend to be. The label decides *what* is written; the noise has
a say in *how*. Now one noise, and the dial turned:
"""

# %% tags=["share"]
names = {0.0: "deaf to the label", 0.5: "undecided", 1.0: "as asked", 2.0: "bolder", 7.5: "far too bold"}
dial = {f"scale {scale:g}: {name}": swept[scale].reshape(10, 8, 1, 32, 32)[:, 5] for scale, name in names.items()}
about = "From one noise: ten times the same 6 at scale 0, mixtures at 0.5, ten digits at 1, bolder ones above"
tiles(dial, columns=[f"asked for {k}" for k in range(10)], alt=about)

# %% [markdown]
r"""
**Guess first:** by how many per cent does scale 7.5 raise the amount of ink over that of real digits?
"""

# %%
my_guess = None

judge = load_classifier()  # has seen real digits only


def diversity(x, y):
    """The mean distance between two images of a class, in the classifier's features."""
    f = features(judge, x)
    return torch.stack([torch.pdist(f[y == k]).mean() for k in range(10)]).mean().item()


def ink(x):
    return (x + 1).mean().item() / 2


real, real_labels = torch.cat([images[labels == k][:50] for k in range(10)]), torch.arange(10).repeat_interleave(50)
curves = {
    "read as asked": [label_accuracy(judge, x, asked) for x in swept.values()],
    "distance within a class": [diversity(x, asked) for x in swept.values()],
    "share of ink": [ink(x) for x in swept.values()],
}
of_real = {"distance within a class": diversity(real, real_labels), "share of ink": ink(real)}
guess(my_guess, round(100 * (curves["share of ink"][-1] / of_real["share of ink"] - 1)), " %")

# %% [markdown]
r"""
The whole sweep (scale 0 draws one digit ten times, and one label in ten is right):
"""

# %%
costs(scales, curves, of_real)
read, apart, inked = ({scale: value for scale, value in zip(scales, curve)} for curve in curves.values())
band(100 * read[0.0], 9, 11, "% read as asked at scale 0")
band(100 * read[1.0], 90, 100, "% at scale 1")
band(100 * read[2.0], 95, 100, "% at scale 2")
band(apart[1.0] / of_real["distance within a class"], 0.8, 1.25, "times the variety of real digits at scale 1")
band(apart[3.0] / apart[1.0], 0.5, 0.9, "of that is left at scale 3")
band(inked[7.5] / of_real["share of ink"], 1.2, 1.7, "times the ink of real digits at scale 7.5")

# %% [markdown]
r"""
Scale 1 is right nearly always, and as varied as real digits. More makes digits bolder and more alike: it is the pixel again, running away
from the other class. For digits, stay between 1 and 2; images from text, harder to get right, are customarily drawn at 7.5.

## The negative prompt

Programs for images from text have a field for what must *not* appear. It [takes the place of
$\varnothing$](https://github.com/huggingface/diffusers/pull/549). With a label $k$ there, (7.4) gives

$$\nabla\log q(x_t\mid k) + w\,\bigl(\nabla\log q(x_t \mid y) - \nabla\log q(x_t\mid k)\bigr) = \nabla\log\bigl[\,q(x_t)\;p(y \mid x_t)^{w}\,p(k \mid x_t)^{1-w}\bigr] \tag{7.8}$$

The negative label is divided out $w - 1$ times, and at $w = 1$ the field does nothing. Below, the prompt is empty ($\varnothing$, whose
$p$ is 1): each of 30 noises first draws what it likes, and then that digit becomes its negative label.
"""

# %%
t, k = torch.arange(600, 960, 50), torch.full((8,), 9)
x_t, of_k = tinyddpm.q_sample(data[:8], t, eps[:8], schedule), functools.partial(exact_denoiser, y=k)
product = gradient(lambda x: log_q(x) + w * log_p(x, wrong) + (1 - w) * log_p(x, k), x_t)
holds("7.8", score(my_guidance(of_y, of_k, w), x_t, t), product, within=1e-7)

x_T = noise_like(torch.empty(30, 1, 32, 32), [torch.Generator().manual_seed(seed) for seed in range(30)])


def network(y=None):
    return tinyddpm.make_denoiser(ddpm.model, ddpm.schedule, ddpm.predicts, y)


def drawn(denoiser):
    walk = tinyddpm.ddim(tinyddpm.clip_x_0(denoiser), x_T, ddpm.schedule, ddpm.schedule.grid(10))
    return tinyddpm.last(walk).x_t


free = drawn(network())
unwanted = classify(judge, free).argmax(1)
without = {scale: drawn(my_guidance(network(), network(unwanted), scale)) for scale in (1.5, 2.0)}
for scale, x in without.items():
    left = int((classify(judge, x).argmax(1) == unwanted).sum())
    band(left, 0, {1.5: 12, 2.0: 4}[scale], f"of 30 are still read as the unwanted digit at scale {scale}")
rows = {"no label": free[:10], "the same noise: anything but that, scale 2": without[2.0][:10]}
tiles(rows, alt="Ten digits drawn without a label, and below each another digit from the same noise")

# %% [markdown]
r"""
## Clip and rescale

*Bug museum: clipping the branches.* Both predictions come from one network and share its errors, which cancel in the difference,
unless both are first cut at the same $\pm 1$. Clip after combining. The line that catches it: the same error in both exact branches must leave
the push as it was.

Stable Diffusion works on compressed images, *latents*, which have no range to clip to, and the contrast of
$\hat x_{0,w}$ grows with $w$. [Lin et al. (2023, section 3.4)](https://arxiv.org/abs/2305.08891) *rescale* it towards the standard deviation $\sigma_y$ of the conditional answer, by
a share $\phi = 0.7$ of the way:

$$\hat x_0 = \hat x_{0,w}\,\Bigl(\phi\,\frac{\sigma_y}{\sigma_w} + 1 - \phi\Bigr), \qquad \sigma = \phi\,\sigma_y + (1 - \phi)\,\sigma_w \tag{7.9}$$
"""

# %%
error = 0.7 * torch.randn(x_t.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
push = of_y(x_t, t) - oracle(x_t, t)
for name, clip in {"clip after combining": lambda x: x, "clip the branches": lambda x: x.clamp(-1, 1)}.items():
    left = clip(of_y(x_t, t) + error) - clip(oracle(x_t, t) + error)
    print(f"{name:20} {100 * left.norm() / push.norm():3.0f} % of the push is left")


def std(x):
    return x.std((1, 2, 3), keepdim=True)


def rescaled(conditional, unconditional, scale, phi=0.7):
    def denoiser(x_t, t):
        u, c = unconditional(x_t, t), conditional(x_t, t)
        guided = u + scale * (c - u)
        return guided * (phi * std(c) / std(guided) + 1 - phi)

    return denoiser


wide = my_guidance(of_y, oracle, 7.5)(x_t, t)
holds("7.9", std(rescaled(of_y, oracle, 7.5)(x_t, t)), 0.7 * std(of_y(x_t, t)) + 0.3 * std(wide))
print(f"standard deviation: {std(of_y(x_t, t)).mean():.2f} with the label, {std(wide).mean():.2f} at scale 7.5")
x = ddpm.sample(asked, steps=10, scale=7.5, seeds=list(noises) * 10, guidance=rescaled)
band(ink(x) / inked[7.5], 0.9, 1.15, "times the ink of scale 7.5 without rescale")
band(diversity(x, asked) / apart[7.5], 0.95, 1.4, "times its variety")

# %% [markdown]
r"""
Rescale tames the contrast of each answer. It does not undo the exaggeration: our digits stay as bold as they were, and clipping had
kept the contrast in bounds already.

## What this chapter showed

The denoiser without labels is a mixture of those with (7.1), and one network learns both if labels are dropped image by image (7.2).
Their difference is the gradient of a classifier (7.4); turned up it is guidance (7.5, 7.6). Guided samples come from no tilted density
(7.7): they avoid the neighbouring classes and give up variety for it.

## Exercises

**07a.** A network is told a digit `y` (null class 10) *and* a style 0 to 3 (null class 4). To guide by each alone, drop both with
probability `p`, only `y` with `p`, only the style with `p` ([Brooks et al. 2023](https://arxiv.org/abs/2211.09800)).
"""


# %%
def answer_07a(y, style, p, generator):
    """y, style: (b,) integers. Returns (y, style), each with some dropped."""
    ...


check("07a", answer_07a)

# %% [markdown]
r"""
<details><summary>Hint 07a</summary>

One uniform number per image is enough, if you cut $[0, 1)$ into four parts.
</details>

<details><summary>Solution 07a</summary>

```python
def answer_07a(y, style, p, generator):
    u = torch.rand(len(y), generator=generator)
    no_y = u < 2 * p  # both below p, the label alone from p to 2p
    no_style = (u < p) | ((u >= 2 * p) & (u < 3 * p))
    return torch.where(no_y, 10, y), torch.where(no_style, 4, style)
```

Two independent coins would drop both only as often as they happen to agree.
</details>

**07b.** Write the perfect classifier of noisy images, $p(y \mid x_t)$, for a world of a few images `data` with labels
`data_labels`; $\sqrt{\bar\alpha_t}$ is `signal` and $\sqrt{1 - \bar\alpha_t}$ is `noise`.
"""


# %%
def answer_07b(x_t, signal, noise, data, data_labels):
    """x_t: (b, d); data: (n, d); data_labels: (n,), integers in 0..9. Returns (b, 10); each row adds up to 1."""
    ...


check("07b", answer_07b)

# %% [markdown]
r"""
<details><summary>Hint 07b</summary>

First the probability of each *image* given $x_t$, as in chapter 03; a class is the sum over its images.
</details>

<details><summary>Solution 07b</summary>

```python
def answer_07b(x_t, signal, noise, data, data_labels):
    distance = torch.cdist(x_t, signal * data) ** 2
    weights = (-distance / (2 * noise**2)).softmax(1)  # of each image
    return weights @ F.one_hot(data_labels, 10).to(weights)  # added up in each class
```

Larger classes have more bells: that is how their share enters.
</details>

**07c.** Somebody forgot to drop labels: there is no null class. But you own a classifier of noisy images. Guide all the same.
"""


# %%
def answer_07c(of_class, p, y, w):
    """of_class: (10, b, 1, h, w), x_0_hat when told each class; p: (b, 10), p(y | x_t); y: (b,). Returns (b, 1, h, w)."""
    ...


check("07c", answer_07c)

# %% [markdown]
r"""
<details><summary>Hint 07c</summary>

Which equation makes the answer without a label out of ten answers with one?
</details>

<details><summary>Solution 07c</summary>

```python
def answer_07c(of_class, p, y, w):
    conditional = of_class[y, torch.arange(len(y))]
    unconditional = torch.einsum("bk,kbchw->bchw", p, of_class)  # (7.1)
    return unconditional + w * (conditional - unconditional)
```

Ten calls of the network, and dropping labels saves nine.
</details>

**07d, an experiment.** [Kynkäänniemi et al. (2024)](https://arxiv.org/abs/2404.07724) guide in an interval of times. Guide with scale 3
before the window alone, $t \ge 885$, which is two of ten steps. How many per cent of the ink that scale 3 adds everywhere is added
there?
"""

# %%
prediction = None  # first write down what you expect
measured = None  # then draw with the scales 1.0, 3.0 and tinyddpm.interval(3.0, 885, 1000), and put the number here
check("07d", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 07d</summary>

`ddpm.sample(..., scale=tinyddpm.interval(3.0, 885, 1000))`, the same seeds for all three, and `(x + 1).mean()` for ink.
</details>

<details><summary>Solution 07d</summary>

```python
prediction = 20
asked_for, seeds = torch.arange(10).repeat_interleave(4), list(range(4)) * 10
amounts = []
for scale in (1.0, 3.0, tinyddpm.interval(3.0, 885, 1000)):
    amounts.append((ddpm.sample(asked_for, steps=10, scale=scale, seeds=seeds) + 1).mean().item())
measured = 100 * (amounts[2] - amounts[0]) / (amounts[1] - amounts[0])
```

In almost pure noise the push is the difference of two *means*, as large as it gets. Inside the window scale 3 adds about 45, after
it 12: a bold beginning leaves less to push.
</details>

## Symbols

| symbol | variable | meaning |
|---|---|---|
| $y$, $\varnothing$ | `y`, `labels` | the label, 0 to 9; the null class is 10 |
| $p(y \mid x_t)$ | `class_posterior` | (7.1), the perfect classifier of noisy images |
| $p_\text{uncond}$ | `p_uncond` | (7.2), how often a label is dropped |
| $w$ | `w`, `scale` | (7.5); Ho and Salimans' $w$ is ours less one |
| $k$ | `k`, `unwanted` | (7.8), the negative label |
| $\phi$, $\sigma$ | `phi`, `std` | (7.9), rescale |

**Next:** [08 · Making GIFs](08_making_gifs.ipynb): the ten animations of the front page, made by you.
"""
