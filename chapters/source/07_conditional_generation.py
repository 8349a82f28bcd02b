# %% [markdown]
r"""
# 07 · Conditional generation: a label is a smaller data set, and guidance overdoes it

**After this chapter you can**

* say exactly what a label changes in the reverse process, and at which noise levels it changes anything;
* train one network that works with and without labels, and catch three published ways of getting that wrong;
* derive classifier-free guidance from Bayes' rule, build it, and measure what it buys and what it costs.

*You need:* chapters 01, 03 and 06: the jump to $x_t$, denoisers and samplers, the loss; 02 for the word log-SNR, 04 for the
label as a vector. *Reading:* 55 minutes, and 15 for the exercises. *Running:* about a minute on a laptop, most of it
sampling. *You build and then import:* `drop_labels`, `classifier_free_guidance`.

---

A model that draws some digit or other is a curiosity; a model that draws the digit you ask for is a tool. The step from one
to the other is small, and it is usually taught as a trick: feed the label to the network, now and then leave it out, and at
the end extrapolate with a number that somebody found to work. Behind each of the three stands an equation, and because we
own exact denoisers we can execute all of them on real digits before we trust them to a network. At the end stands the
question *which distribution* guided samples come from. The answer is not the one that the derivation suggests.
"""

# %% tags=["setup"]
import functools

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from course import check, guess, holds, same, show

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.evaluation.classifier import classify, features, load_classifier
from tinyddpm.evaluation.metrics import label_accuracy
from tinyddpm.samplers import noise_like
from tinyddpm.training import drop_labels
from tinyddpm.viz import image_grid

images, labels = mnist(train=False).tensors()
data, data_labels = images[:2000].double(), labels[:2000]  # the whole world, for the exact part
schedule = tinyddpm.Schedule.named("cosine")

# %% [markdown]
r"""
## A label is a smaller data set

Write $y$ for the label of an image, one of ten classes. Asking for a seven means sampling from the sevens: the data set
becomes smaller, and nothing else changes. The forward process does not look at the label, and so every formula of the first
three chapters holds inside a class as it does for all digits together. In particular the best denoiser *given the label*,
$\mathbb E[x_0 \mid x_t, y]$, is the exact denoiser of chapter 03 with only the images of class $y$ in its sum.

If I do not know the class of a noisy image, I can consider each class in turn, ask what the clean image would be, and
average the ten answers by how likely each class is:

$$\mathbb E[x_0 \mid x_t] = \sum_{y} p(y \mid x_t)\; \mathbb E[x_0 \mid x_t, y] \tag{7.1}$$

This is the law of total expectation. The weights $p(y \mid x_t)$ are what a perfect classifier of *noisy* images would
answer; by Bayes' rule they are proportional to $p(y)\, q(x_t \mid y)$, the share of the class in the data times the density
of $x_t$ within the class. For a finite data set that density is a mean of bells, one around each image of the class.

The next cell takes 2,000 digits as the whole world. It writes the denoiser with and without a label, and the perfect
classifier, and then compares the left side of (7.1), by the library's oracle of all 2,000 images, with the right side, by
ten oracles of one class each.
"""


# %%
def log_bells(x_t, t):
    """(b, n): the log density of each x_t under the bell around each data image, up to a constant of its row."""
    signal = schedule.at(schedule.sqrt_alpha_bar, t, x_t).flatten(1)  # `at`: the table at t, one value an image,
    noise = schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_t).flatten(1)  # shaped to multiply images
    x, d = x_t.flatten(1), data.flatten(1)
    distance = x.square().sum(1, keepdim=True) - 2 * signal * (x @ d.T) + signal**2 * d.square().sum(1)
    return -distance / (2 * noise**2)


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
x_0, y = data[:50], data_labels[:50]
eps = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
t = torch.randint(300, 1000, (50,), generator=generator)  # one time an image
x_t = tinyddpm.q_sample(x_0, t, eps, schedule)

oracle = tinyddpm.dataset_oracle(data, schedule)  # knows no labels
of_class = [tinyddpm.dataset_oracle(data[data_labels == k], schedule) for k in range(10)]  # each one class
p = class_posterior(x_t, t)
mixture = sum(p[:, k, None, None, None] * of_class[k](x_t, t) for k in range(10))
holds("7.1", oracle(x_t, t), mixture, within=1e-9)
same(lambda x_t, t: exact_denoiser(x_t, t, torch.full((50,), 7)), of_class[7], x_t, t)

# %% [markdown]
r"""
## Where the label matters

Here is one digit under four amounts of noise. The columns show $x_t$, then what the exact denoiser sees without a label,
then what it sees when it is told 0, 1, ... 9. In the top row there is almost only noise: told nothing, it answers with a
blur of many digits, and told a class, with a blur of that class. In the bottom row the label is no news any more: without it
the answer is the same three. Told a wrong class, it can only offer the images of that class that fit best, one or a blend.
"""

# %%
times = torch.tensor([960, 870, 740, 500])
one = data[18:19].expand(4, -1, -1, -1)
noisy = tinyddpm.q_sample(one, times, eps[:1].expand(4, -1, -1, -1), schedule)
columns = [noisy / 2, exact_denoiser(noisy, times)]
columns += [exact_denoiser(noisy, times, torch.full((4,), k)) for k in range(10)]
show(
    image_grid(torch.stack(columns, 1).flatten(0, 1), columns=12, levels=16),
    "x_t (half contrast), seen without a label, seen when told 0, 1, ..., 9",
    width=7.5,
)

# %% [markdown]
r"""
Chapter 03 watched the class being decided on the way of a sampler, in a window from log-SNR $-4.8$ to $-2.1$. How far apart
are the two denoisers, with and without the label, before it, inside and after? The cell asks the exact one, in the world of
2,000 digits, and the network that ships with the library, which was trained with labels.
"""

# %%
ddpm = tinyddpm.load_pretrained()
window = (-4.8, -2.1)
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
net = rms_of_label(ddpm.denoiser(labels[:50]), ddpm.denoiser(), ddpm.schedule, images[:50])
figure, axes = plt.subplots(figsize=(4.6, 2.2))
axes.plot(log_snrs, exact, label="exact, 2,000 digits")
axes.plot(log_snrs, net, "--", label="the shipped network")
axes.axvspan(*window, color="C1", alpha=0.12)
axes.set(title="with label minus without, rms", xlabel="log-SNR", ylim=(0, 0.35))
axes.legend()
plt.show()
print("at log-SNR -8 the two curves agree within 15 %:", abs(net[0] / exact[0] - 1) < 0.15)
print("at log-SNR 0 the label moves the network less than a third as much:", net[16] < net[0] / 3)

# %% [markdown]
r"""
Before the window, shaded in the plot, the label is news, and moves the answer from the mean of all digits to the mean of one
class; after it the image says itself what it is. For the network the label fades later than for the exact denoiser of 2,000
digits, and does not stop to matter where the window ends.

## Two denoisers in one network: drop labels

The network receives its label as chapter 04 built it: one learned vector a class, added to that of the time, and an eleventh
for "no label", the *null class*, number 10 in our count, which we write $\varnothing$.

Guidance will need both denoisers, with and without the label. Ho and Salimans (2022) train one network for both, and pay for
it with one line: during training each image loses its label with a small probability $p$, independently of everything else
(their algorithm 1). Why does this give both? The loss is a mean of squares, and the function that makes it smallest answers
each input with the mean of the targets that come with it. An image that arrives *with* the label $y$ is an image of that
class. An image that arrives with $\varnothing$ can be any image, in the proportions of the data, since the coin knew nothing
of it. Therefore the best function $f(x_t, \cdot)$ is, on the two kinds of input,

$$f(x_t, y) = \mathbb E[x_0 \mid x_t, y], \qquad f(x_t, \varnothing) = \mathbb E[x_0 \mid x_t] \tag{7.2}$$

The value of $p$ decides how much practice each of the two gets, not what they learn.

We can watch this without a network. The smallest world with labels has two classes and one pixel: normal with mean $+1$ in
class 0 and with mean $-1$ in class 1, with variance 0.25 in both, and each class as likely. Both exact denoisers are known
there: the library's Gaussian oracle within a class, and (7.1) for the mixture. The cell draws four million such pixels,
noises them, drops three labels in ten, and "trains" the dullest function there is: cut the axis of $x_t$ into narrow bins
and remember the mean $x_0$ of each bin, once for each label.
"""

# %%
variance = 0.25
plus, minus = (tinyddpm.gaussian_oracle(1.0, variance, schedule), tinyddpm.gaussian_oracle(-1.0, variance, schedule))


def posterior_of_plus(x_t, t):
    """p(y = 0 | x_t): for two bells of equal width Bayes' rule is a logistic function of x_t."""
    signal = schedule.at(schedule.sqrt_alpha_bar, t, x_t)
    return torch.sigmoid(2 * signal * x_t / (signal**2 * variance + 1 - signal**2))


def both(x_t, t):
    p = posterior_of_plus(x_t, t)
    return p * plus(x_t, t) + (1 - p) * minus(x_t, t)


n, t = 4_000_000, 500
generator = torch.Generator().manual_seed(2)
y = torch.randint(0, 2, (n,), generator=generator)
x_0 = 1 - 2 * y + variance**0.5 * torch.randn(n, generator=generator)
x_t = schedule.sqrt_alpha_bar[t] * x_0 + schedule.sqrt_one_minus_alpha_bar[t] * torch.randn(n, generator=generator)
dropped = torch.rand(n, generator=generator) < 0.3
label = torch.where(dropped, 2, y)  # classes 0 and 1, null class 2

bins = ((x_t + 1.5) / 0.1).floor().long()  # thirty bins of width 0.1 on [-1.5, 1.5]
inside = (bins >= 0) & (bins < 30)
cell = (30 * label + bins)[inside]
learned = torch.zeros(90).double().index_add(0, cell, x_0[inside].double()) / cell.bincount(minlength=90)
middle = (-1.45 + 0.1 * torch.arange(30, dtype=torch.float64)).reshape(-1, 1, 1, 1)
exact = torch.cat([f(middle, torch.full((30,), t)).flatten() for f in (plus, minus, both)])
holds("7.2", learned, exact, within=0.03)

figure, axes = plt.subplots(figsize=(5.6, 2.2))
for values, dots, name in zip(exact.reshape(3, 30), learned.reshape(3, 30), ("told 0", "told 1", "told nothing")):
    (line,) = axes.plot(middle.flatten(), values, label=name)
    axes.plot(middle.flatten(), dots, "o", markersize=3, color=line.get_color())
axes.set(xlabel="x_t", ylabel="x_0_hat", title="lines: exact; dots: mean x_0 of a bin")
figure.legend(loc="outside right center")
plt.show()

# %% [markdown]
r"""
Told nothing, the best answer is cautious: in the middle it is 0, half way between the classes, although few clean pixels are
near 0. Told the class it is decided.

The one line, then, by hand and beside the library's.
"""


# %%
def my_drop_labels(y, num_classes, p, generator):
    dropped = torch.rand(y.shape, generator=generator) < p  # a coin for each image
    return torch.where(dropped, num_classes, y)


def seeded(drop):
    """The same function with a new generator at each call, so that both sides of `same` see the same coins."""
    return functools.wraps(drop)(lambda *arguments: drop(*arguments, torch.Generator().manual_seed(3)))


same(seeded(my_drop_labels), seeded(drop_labels), labels, 10, 0.1)

# %% [markdown]
r"""
## Bug museum: three ways to lose a label

All three come from published teaching code, and a model trained with any of them still draws something.

1. **One coin for the whole batch.** A widely copied implementation draws a single random number a step and drops all labels
   of the batch, or none. The average rate is right, but a step without any label teaches the conditional half nothing.
2. **The probability inverted.** In the material of a university course a label was *replaced* with probability $1 - p$ where
   $p$ was meant. The conditional denoiser saw a tenth of the data.
3. **A mask that flips the sign.** A popular script multiplies one-hot vectors with `-1 * (1 - mask)`: dropped rows become 0,
   as intended, and all others $-1$ where the one-hot had its 1. The network learns that language without complaint. Whoever
   samples from it with ordinary one-hot vectors asks for something that it has never seen.

What should hold of a batch of one-hot rows after dropping: each row adds up to 1 or 0; the mean rate of zeros is $p$; and
from batch to batch this rate varies as that of independent coins, with standard deviation $\sqrt{p(1-p)/b}$ for batches of
$b$ images. Three numbers, and each bug fails at another one.
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
    rows = set(sums.unique().tolist()) == {0.0, 1.0}
    rate = abs(rates.mean().item() - 0.1) < 0.02
    spread = abs(rates.std().item() / (0.1 * 0.9 / 64) ** 0.5 - 1) < 0.2
    print(f"{name:13} rows are 0 or one-hot: {rows!s:6} rate: {rate!s:6} spread: {spread}")

# %% [markdown]
r"""
The mean rate, the first thing one would test, passes the one coin, and no test of rates sees the flipped sign.

## From denoisers to scores

The derivation of guidance is a single application of Bayes' rule, in the language of *scores*. The score of a density is the
gradient of its logarithm with respect to the image: the direction in which $x_t$ becomes more probable. A denoiser knows it.
For a single clean image $x_0$ the density of $x_t$ is a bell around $\sqrt{\bar\alpha_t}\,x_0$ with variance
$1-\bar\alpha_t$, and the gradient of its logarithm is $(\sqrt{\bar\alpha_t}\,x_0 - x_t)/(1-\bar\alpha_t)$. The density of
the noisy data is the average of such bells $b_i$, one for each clean image, and

$$\nabla\log\sum_i b_i = \frac{\sum_i \nabla b_i}{\sum_j b_j} = \sum_i\frac{b_i}{\sum_j b_j}\,\nabla\log b_i$$

since $\nabla b_i = b_i\,\nabla\log b_i$. The weights are the probabilities of the clean images given $x_t$. So $x_0$ is
replaced by its conditional mean:

$$\nabla_{x_t} \log q(x_t) = \frac{\sqrt{\bar\alpha_t}\;\mathbb E[x_0 \mid x_t] - x_t}{1 - \bar\alpha_t} = -\frac{\hat\varepsilon}{\sqrt{1-\bar\alpha_t}} \tag{7.3}$$

with $\hat\varepsilon$ the noise that belongs to $\hat x_0 = \mathbb E[x_0 \mid x_t]$ (this is Tweedie's formula; Karras et
al. 2022, appendix B.3, have it for a data set). The same holds inside a class, with $q(x_t \mid y)$ and
$\mathbb E[x_0\mid x_t, y]$. The cell differentiates the log density of 2,000 noisy digits for the left side, and asks the
library's oracle for the right.
"""


# %%
def gradient(log_density, x_t):
    x = x_t.clone().requires_grad_()
    return torch.autograd.grad(log_density(x).sum(), x)[0]


def score(denoiser, x_t, t):
    """The right side of (7.3)."""
    noise = schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_t)
    return -tinyddpm.eps_from_x_0(denoiser(x_t, t), x_t, t, schedule) / noise


generator = torch.Generator().manual_seed(6)
t = torch.tensor([600, 650, 700, 750, 800, 850, 900, 950])
x_t = tinyddpm.q_sample(data[:8], t, torch.randn(data[:8].shape, generator=generator, dtype=torch.float64), schedule)
by_autograd = gradient(lambda x: log_bells(x, t).logsumexp(1), x_t)
holds("7.3", by_autograd, score(oracle, x_t, t), within=1e-9)

# %% [markdown]
r"""
## Bayes' rule, with a dial on it

Bayes' rule says $q(x_t \mid y) = q(x_t)\,p(y \mid x_t)/p(y)$. Take logarithms and then gradients; $p(y)$ does not depend on
$x_t$ and falls out:

$$\nabla \log q(x_t \mid y) = \nabla \log q(x_t) + \nabla \log p(y \mid x_t) \tag{7.4}$$

In words: *with the label* is *without the label* plus a push towards images which a classifier of noisy images would take
for a $y$. The left side below comes from the library's oracle of the class, the right side from its oracle of everything and
from automatic differentiation of our classifier.
"""

# %%
y = (data_labels[:8] + 3) % 10  # labels that are wrong on purpose, so that there is something to push


def of_y(x_t, t):
    return exact_denoiser(x_t, t, y)


def log_p(x):
    return class_posterior(x, t)[torch.arange(8), y].log()


with_label = torch.cat([score(of_class[int(k)], x_t[i : i + 1], t[i : i + 1]) for i, k in enumerate(y)])
holds("7.4", with_label, score(oracle, x_t, t) + gradient(log_p, x_t), within=1e-7)

# %% [markdown]
r"""
Read (7.4) the other way round, with (7.3): up to a factor that depends on $t$ alone, *the difference of the two denoisers is
the gradient of a classifier* that nobody has trained. Here is that difference for one noisy digit and all ten labels, white
where the classifier wants more ink and black where it wants less; for what the digit is already, it wants nothing.
"""

# %%
x_10 = tinyddpm.q_sample(data[18:19], 740, eps[:1], schedule).expand(10, -1, -1, -1)
t_10 = torch.full((10,), 740)
push = exact_denoiser(x_10, t_10, torch.arange(10)) - exact_denoiser(x_10, t_10)
show(
    image_grid(torch.cat([data[18:19], push / 1.5]), columns=11, levels=16),
    f"a {data_labels[18]}, and what has to change, at t = 740, for it to be a 0, 1, ..., 9",
)

# %% [markdown]
r"""
Now the dial. What if the classifier's push counted double? Multiply it by a number $w$, the *guidance scale*. That is the
score of a density in which the classifier's probability has been raised to the power $w$:

$$q_w(x_t \mid y) \propto q(x_t)\; p(y \mid x_t)^w, \qquad
\nabla \log q_w = \nabla\log q(x_t) + w\,\bigl(\nabla\log q(x_t \mid y) - \nabla\log q(x_t)\bigr) \tag{7.5}$$

where (7.4) has replaced the classifier by the difference. At $w = 1$ this is the plain conditional score, at $w = 0$ the
unconditional one; above 1, images of which the classifier is certain become more probable still. No classifier appears in it
any more, hence the name: *classifier-free guidance* (Ho and Salimans 2022).
"""

# %%
w = 3.0
tilted = gradient(lambda x: log_bells(x, t).logsumexp(1) + w * log_p(x), x_t)
plain = score(oracle, x_t, t)
holds("7.5", tilted, plain + w * (with_label - plain), within=1e-7)

# %% [markdown]
r"""
A network speaks of $\hat\varepsilon$ or of $\hat x_0$, not of scores. But by (7.3) the score is, at a fixed $x_t$, a
constant times $\hat\varepsilon$, or a constant times $\hat x_0$ plus something that depends on $x_t$ alone. Write $u$ for
the answer without the label and $v$ for the one with it. In $u + w\,(v - u)$ the factors in front of $u$ and $v$ are $1 - w$
and $w$; they add up to 1, so the part that depends on $x_t$ alone survives unchanged. The rule is the same in every
language:

$$\hat\varepsilon_w = \hat\varepsilon_\varnothing + w\,(\hat\varepsilon_y - \hat\varepsilon_\varnothing)
\quad\Longleftrightarrow\quad
\hat x_{0,w} = \hat x_{0,\varnothing} + w\,(\hat x_{0,y} - \hat x_{0,\varnothing}) \tag{7.6}$$

Ho and Salimans write it as $(1 + w)\,\hat\varepsilon_y - w\,\hat\varepsilon_\varnothing$ (equation 6), which is the same
with their $w$ being ours less one. When you read "guidance 2" somewhere, find out whose $w$ it is.

A denoiser is a function $(x_t, t) \to \hat x_0$, and guidance makes a new one out of two, which every sampler takes. At the
scales 1 and 0 the library returns the plain denoisers themselves, which saves half of the work.
"""

# %%
eps_y = tinyddpm.eps_from_x_0(of_y(x_t, t), x_t, t, schedule)
eps_null = tinyddpm.eps_from_x_0(oracle(x_t, t), x_t, t, schedule)
through_eps = tinyddpm.x_0_from_eps(eps_null + w * (eps_y - eps_null), x_t, t, schedule)
through_x_0 = oracle(x_t, t) + w * (of_y(x_t, t) - oracle(x_t, t))
holds("7.6", through_eps, through_x_0, within=1e-9)


def my_guidance(conditional, unconditional, scale):
    def guided(x_t, t):
        u = unconditional(x_t, t)
        return u + scale * (conditional(x_t, t) - u)

    return guided


same(my_guidance(of_y, oracle, 3.0), tinyddpm.classifier_free_guidance(of_y, oracle, 3.0), x_t, t)
same(my_guidance(of_y, oracle, 1.0), of_y, x_t, t)
same(my_guidance(of_y, oracle, 0.0), oracle, x_t, t)

# %% [markdown]
r"""
## Bug museum: clipping the branches

Images lie in $[-1, 1]$, so a tidy mind clips each of the two predictions to that range, and then combines them. Both
predictions come from one network and share its errors, which cancel in the *difference*. Clip first, and where both
overshoot they are set to the same $\pm 1$: a part of the push that the label asks for is gone. So clip after combining. The
line that catches the bug gives both exact branches the same large error, which must leave their difference as it was.
"""

# %%
error = 0.7 * torch.randn(x_t.shape, generator=generator, dtype=torch.float64)
push = of_y(x_t, t) - oracle(x_t, t)
for name, clip in {"clip after combining": lambda x: x, "clip the branches": lambda x: x.clamp(-1, 1)}.items():
    difference = clip(of_y(x_t, t) + error) - clip(oracle(x_t, t) + error)
    caught = (difference - push).abs().max().item() > 1e-9
    share = 100 * (difference.norm() / push.norm()).item()
    print(f"{name:20} {share:3.0f} % of the push is left: {'caught' if caught else 'passes'}")

# %% [markdown]
r"""
## What guidance does to a distribution

Equation (7.5) holds at every single $t$. It is tempting to conclude that guided sampling draws from
$q_w(x_0 \mid y) \propto q(x_0)\,p(y \mid x_0)^w$, the tilted density of *clean* images. In the world of one pixel and two
classes we can look, since both denoisers are exact there. Class 0 has its mean at $+1$. The tilted density hardly moves when
$w$ grows, because most of class 0 was never in doubt; the cell computes its mean for $w = 4$ by a sum.

**Before you run the next cell:** what will the mean of guided samples of class 0 be at scale 4, by DDIM?
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

figure, axes = plt.subplots(1, 3, figsize=(7.4, 2.1), sharey=True)
for panel, (scale, (by_ddim, by_ddpm, density)) in zip(axes, samples.items()):
    panel.hist(by_ddim, bins=40, range=(-1, 3), density=True, histtype="step", label="DDIM")
    panel.hist(by_ddpm, bins=40, range=(-1, 3), density=True, histtype="step", label="DDPM")
    panel.plot(values, density, "k--", label="tilted density")
    panel.set(title=f"scale {scale:g}", xlabel="x_0", xlim=(-1, 3))
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
plt.show()


def moment(name, scale, sampler=0):
    return getattr(samples[scale][sampler], name)().item()


of_tilted = (values * samples[4.0][2]).sum().item() * 0.01
print(f"mean of the tilted density at w = 4: {of_tilted:.2f}")
print("samples move away from the other class:", moment("mean", 1.0) < moment("mean", 2.0) < moment("mean", 4.0))
print(f"and crowd together: their spread shrinks to {100 * moment('std', 4.0) / moment('std', 1.0):.0f} %")
off = [moment("mean", 4.0, sampler) - of_tilted for sampler in (0, 1)]
print("DDIM is off by more than 0.5, DDPM by more than 0.1:", off[0] > 0.5, off[1] > 0.1)

# %% [markdown]
r"""
At scale 1 all three agree, as they must. Above it they part: guided samples run away from the other class, far beyond what
the tilted density asks for, and crowd together, DDIM's more than DDPM's. (Bradley and Nakkiran 2024 prove that neither
sampler draws from the tilted density, and describe what guidance does instead.)

What is wrong with the tempting conclusion? A sampler needs the scores of *one* density under more and more noise. Let us
noise the tilted clean density. Since $q(x_0)\,q(x_t\mid x_0) = q(x_t)\,q(x_0\mid x_t)$, both being the joint density,

$$\int q(x_0)\,p(y\mid x_0)^w\,q(x_t\mid x_0)\,dx_0 = q(x_t)\int q(x_0\mid x_t)\,p(y\mid x_0)^w\,dx_0 = q(x_t)\;\mathbb E\bigl[\,p(y\mid x_0)^w \mid x_t\,\bigr]$$

That is what the sampler would need the score of. Guidance uses the score of $q(x_t)\, p(y \mid x_t)^w$, and

$$p(y \mid x_t)^w = \bigl(\mathbb E[\,p(y \mid x_0) \mid x_t\,]\bigr)^w \;\ne\; \mathbb E\bigl[\,p(y \mid x_0)^w \mid x_t\,\bigr] \quad\text{unless } w \in \{0, 1\} \tag{7.7}$$

The power of a mean is not the mean of the powers. The cell checks the equality for $w = 1$ by a sum over all clean values,
and how far the two sides are apart for $w = 4$.
"""

# %%
x_t, t = torch.linspace(-2, 2, 9, dtype=torch.float64), 700
signal, noise = schedule.sqrt_alpha_bar[t], schedule.sqrt_one_minus_alpha_bar[t]
weights = bells.sum(0) * torch.exp(-((x_t[:, None] - signal * values) ** 2) / (2 * noise**2))
weights = weights / weights.sum(1, keepdim=True)  # of each x_0, given x_t
at_t = posterior_of_plus(x_t.reshape(-1, 1, 1, 1), torch.full((9,), t)).flatten()
holds("7.7", at_t, weights @ p_plus, within=1e-3)  # w = 1
ratio = (weights @ p_plus**4) / at_t**4
print("at w = 4 the mean of the powers is the larger everywhere:", bool((ratio > 1).all()))
print(f"for x_t = 0, half way between the classes, {ratio[4]:.1f} times as large")

# %% [markdown]
r"""
So guidance is no sampler of a sharpened distribution. It is a useful exaggeration: it leaves the doubtful region between the
classes early and vigorously, and pays with variety. How much of each, on digits, we measure next.

## Same noise, ten labels

The network that ships with the library was trained as described, and takes the place of the exact denoiser. In the figure
each row has one label, each column one noise: all ten images of a column start from the same $x_T$, and the DDIM sampler
adds nothing random on the way.
"""

# %%
rows = torch.arange(10).repeat_interleave(10)
table = ddpm.sample(rows, steps=10, scale=1.0, seeds=list(range(10)) * 10)
show(image_grid(table, columns=10, levels=16), "rows: the label; columns: the noise", width=4.5)
amount = (table + 1).mean((1, 2, 3)).reshape(10, 10)  # of ink
amount = amount - amount.mean(1, keepdim=True)  # beside the mean of its row
share = (amount.mean(0).square().mean() / amount.square().mean()).item()
print("the column explains at least a quarter of the variance of ink within the rows:", share > 0.25)

# %% [markdown]
r"""
Nearly all are the digit that was asked for; at scale 1 a few are broken. Now look down the columns: where one digit is bold
or slanted, the others tend to be. The label decides *what* is written, and the noise has a say in *how*, though not the only
one. The printed line tests it for the amount of ink; columns with nothing in common would explain about a tenth.

## A sweep of the scale

Each setting of the dial draws the same 100 images: ten a digit, the same noise. *Is it the digit that was asked for?* The
library's classifier, which has never seen a sample, reads it. *How different are images of one class from each other?* The
mean distance between pairs, in the classifier's features. *How much ink is there?* Below are four of these noises at every
scale: the first four from which scale 0, deaf to the label, drew another digit than the one asked for. (In one case of ten
or so it draws the right one by chance; do not take that for a label that works.)
"""

# %%
judge = load_classifier()
asked = torch.arange(100) % 10


def diversity(x, y):
    f = features(judge, x)
    return torch.stack([torch.pdist(f[y == k]).mean() for k in range(10)]).mean().item()


scales = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 8.0)
swept = {scale: ddpm.sample(asked, steps=10, scale=scale, seeds=range(100)) for scale in scales}
accuracy = {scale: label_accuracy(judge, x, asked) for scale, x in swept.items()}
spread = {scale: diversity(x, asked) for scale, x in swept.items()}
ink = {scale: (x + 1).mean().item() / 2 for scale, x in swept.items()}
real = torch.cat([images[labels == k][:50] for k in range(10)])
of_real = {"distance": diversity(real, torch.arange(10).repeat_interleave(50)), "ink": (real + 1).mean().item() / 2}

figure, axes = plt.subplots(1, 3, figsize=(7.4, 2.1))
for panel, curve, title in zip(
    axes, (accuracy, spread, ink), ("read as asked", "distance within a class", "share of ink")
):
    panel.plot(scales, list(curve.values()), "o-")
    panel.set(title=title, xlabel="scale")
axes[0].axhline(0.1, linestyle=":", color="grey")
axes[1].axhline(of_real["distance"], linestyle="--", color="grey", label="real digits")
axes[2].axhline(of_real["ink"], linestyle="--", color="grey", label="real digits")
axes[1].legend()
plt.show()
print("scale 0 does not know the label: read as asked at most 25 %:", accuracy[0.0] <= 0.25)
print("scale 1: at least 93 %:", accuracy[1.0] >= 0.93, "and scale 2: at least 97 %:", accuracy[2.0] >= 0.97)
print("variety at scale 1 is within 20 % of real digits:", abs(spread[1.0] / of_real["distance"] - 1) < 0.2)
print("variety at scale 3 is below nine tenths of that at scale 1:", spread[3.0] < 0.9 * spread[1.0])
print("from scale 1 on ink rises with the scale:", ink[1.0] < ink[2.0] < ink[3.0] < ink[8.0])
print("at scale 8 to at least 1.25 times that of real digits:", ink[8.0] > 1.25 * of_real["ink"])

deaf = classify(judge, swept[0.0]).argmax(1) != asked
chosen = deaf.nonzero()[:4, 0]
film = torch.stack([swept[scale][chosen] for scale in scales], 1).flatten(0, 1)
show(image_grid(film, columns=len(scales), levels=16), "scale " + ", ".join(f"{scale:g}" for scale in scales), width=6)

# %% [markdown]
r"""
At scale 0 the noise alone decides what is drawn. Between 0 and 1 lie mixtures (the distance within a "class" is large there
because other digits are among them), and 1 is the plain conditional model, already right nearly always and as varied as real
digits. From there on more guidance makes digits bolder, and up to 3 or so more like each other; at large scales the strokes
thicken beyond what the data hold. It is the pixel that ran away from the other class. Somewhere between 1 and 2 is a
sensible place for digits.

## Guidance in a part of the way

Should the dial matter in the window alone, where the class is decided? Kynkäänniemi et al. (2024) limit guidance to an
interval of noise levels; for photographs they found it harmful at high noise and needless at low. The cell draws the same
images with scale 3 only before the window, only inside, and only after it; nowhere and everywhere are the sweep's 1 and 3.
"""

# %%
log_snr = ddpm.schedule.log_snr
plain, strong = ddpm.denoiser(asked), ddpm.denoiser(asked, scale=3.0)
x_T = noise_like(torch.empty(100, 1, 32, 32), [torch.Generator().manual_seed(seed) for seed in range(100)])


def only_between(low, high):
    """The sampler's steps carry one t for the whole batch, so that a plain `if` does."""
    return lambda x_t, t: strong(x_t, t) if low <= log_snr[t[0]] <= high else plain(x_t, t)


drawn = {"nowhere": swept[1.0], "everywhere": swept[3.0]}
parts = {"before": (-torch.inf, window[0]), "inside": window, "after": (window[1], torch.inf)}
for name, part in parts.items():
    walk = tinyddpm.ddim(only_between(*part), x_T, ddpm.schedule, ddpm.schedule.grid(10))
    drawn[name] = tinyddpm.last(walk).x_t
certainty = {name: classify(judge, x)[torch.arange(100), asked].mean().item() for name, x in drawn.items()}
variety = {name: diversity(x, asked) for name, x in drawn.items()}

figure, axes = plt.subplots(figsize=(4.2, 2.2))
for name in drawn:
    axes.plot(variety[name], certainty[name], "o", label=name)
axes.set(xlabel="distance within a class", ylabel="the judge's certainty")
figure.legend(loc="outside right center")
plt.show()
lost = {name: variety["nowhere"] - variety[name] for name in drawn}
gained = {name: certainty[name] - certainty["nowhere"] for name in drawn}
bolder = {name: (drawn[name] - drawn["nowhere"]).mean().item() for name in drawn}  # ink
share = min(lost[name] for name in parts) / lost["everywhere"]
print("each part alone loses a fifth or more of the variety that the whole way loses:", share > 0.2)
print("after the window certainty gains two fifths or more:", gained["after"] > 0.4 * gained["everywhere"])
print("and before it the push adds twice the ink or more:", bolder["before"] > 2 * bolder["after"])

# %% [markdown]
r"""
So the dial matters everywhere: each part of the way costs variety and buys certainty. Before the window most of the
thickening happens, and there our digits agree with the photographs. After it guidance is not needless here; the network still
listens to the label when the window of the exact denoiser has closed, as the figure at the beginning showed. (A hundred
images and one network; the printed lines held for two further hundreds of noises and two other networks.)

## What this chapter showed

A label is a smaller data set, and the denoiser without labels is the mixture of those with (7.1). One network learns both if
labels are dropped image by image (7.2). The difference of the two is the gradient of a classifier (7.4), and turning it up
is guidance (7.5, 7.6). Guided samples come from no tilted density (7.7): they avoid the neighbouring classes and give up
variety for it.

## Exercises

**07a.** Write the line that drops labels, for any number of classes. The check looks at rates over many batches, at what the
dropped labels become, and at whether images of a batch are independent. All coins come from `generator`.
"""


# %%
def answer_07a(y, num_classes, p, generator):
    """y: (b,), integers in 0..num_classes-1. Returns (b,) with each label dropped with probability p."""
    ...


check("07a", answer_07a)

# %% [markdown]
r"""
<details><summary>Solution 07a</summary>

```python
def answer_07a(y, num_classes, p, generator):
    dropped = torch.rand(len(y), generator=generator) < p
    return torch.where(dropped, num_classes, y)
```

A uniform number is below $p$ with probability $p$. The null class is one more than the largest label, so that it takes no
row from a digit.
</details>

**07b.** Write the perfect classifier of noisy images: $p(y \mid x_t)$ for a world of a few images `data` with labels
`data_labels`, each image as likely, with $\sqrt{\bar\alpha_t}$ given as `signal` and $\sqrt{1 - \bar\alpha_t}$ as `noise`.
"""


# %%
def answer_07b(x_t, signal, noise, data, data_labels):
    """x_t: (b, d); data: (n, d); data_labels: (n,), integers in 0..9. Returns (b, 10); each row adds up to 1."""
    ...


check("07b", answer_07b)

# %% [markdown]
r"""
<details><summary>Solution 07b</summary>

```python
def answer_07b(x_t, signal, noise, data, data_labels):
    weights = (-torch.cdist(x_t, signal * data) ** 2 / (2 * noise**2)).softmax(1)  # of each image
    return weights @ F.one_hot(data_labels, 10).to(weights)  # added up in each class
```

The softmax gives the probability of each clean image, given $x_t$; the probability of a class is the sum over its images.
</details>

**07c.** Make guidance a function of time. `scale` is now a function that takes the times `t`, shape `(b,)`, and returns one
scale for each image, `(b,)`. With `lambda t: torch.where((t > 300) & (t < 700), 4.0, 1.0)` your function limits guidance to
an interval.
"""


# %%
def answer_07c(conditional, unconditional, scale):
    """Two denoisers (x_t, t) -> x_0_hat and a function t -> scale. Returns a denoiser."""
    ...


check("07c", answer_07c)

# %% [markdown]
r"""
<details><summary>Solution 07c</summary>

```python
def answer_07c(conditional, unconditional, scale):
    def guided(x_t, t):
        u = unconditional(x_t, t)
        return u + scale(t).reshape(-1, 1, 1, 1) * (conditional(x_t, t) - u)

    return guided
```

The scale is looked up inside, where `t` is known, and gets the shape `(b, 1, 1, 1)`, to multiply images.
</details>

## Symbols

| symbol | variable | shape | where |
|---|---|---|---|
| $y$ | `y`, `labels` | (b,) | the label, 0..9; the null class $\varnothing$ is 10 |
| $p(y \mid x_t)$ | `class_posterior` | (b, 10) | (7.1), the perfect classifier of noisy images |
| $p$ | `p` | a number | (7.2), how often a label is dropped; Ho and Salimans 2022, algorithm 1 |
| $\nabla \log q(x_t)$ | `score` | (b, 1, 32, 32) | (7.3) |
| $\hat x_0$ | `exact_denoiser`, `oracle` | (b, 1, 32, 32) | $\mathbb E[x_0 \mid x_t]$, with or without $y$ |
| $\hat\varepsilon$ | `eps_y`, `eps_null` | (b, 1, 32, 32) | (7.6); Ho and Salimans 2022, eq. 6 |
| $w$ | `w`, `scale` | a number | (7.5); their $w$ is ours less one |

**Next:** [08 · Making GIFs](08_making_gifs.ipynb). The sampler passes through hundreds of images on its way, and most of
them are noise or finished. The last chapter picks those that tell the story, and makes the ten animations that you can show
to others.
"""
