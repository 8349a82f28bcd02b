# %% [markdown]
r"""
# 07 · Conditional generation: a label is a smaller data set, and guidance overdoes it

**After this chapter you can**

* say exactly what a label changes in the reverse process, and at which noise levels it changes anything;
* train one network that works with and without labels, and catch three published ways of getting that wrong;
* derive classifier-free guidance from Bayes' rule, build it, and measure what it buys and what it costs.

*You need:* chapters 01, 03 and 06: the jump to $x_t$, denoisers and samplers, the loss; 02 for the word log-SNR. *Reading:*
40 minutes. *Running:* about a minute on a laptop, most of it sampling. *You build and then import:* `LabelEmbedding`,
`drop_labels`, `classifier_free_guidance`.

---

A model that draws some digit or other is a curiosity; a model that draws the digit you ask for is a tool. The step from one
to the other is small, and it is usually taught as a trick: feed the label to the network, now and then leave it out, and at
the end extrapolate with a number that somebody found to work. Behind each of the three stands an equation, and because we
own exact denoisers we can execute all of them on real digits before we trust them to a network. That includes the question
which most texts leave out: when guidance sharpens the picture, *which distribution* do the samples come from? The answer is
not the one that the derivation suggests.
"""

# %% tags=["setup"]
import functools
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from course import check, guess, holds, same, show
from torch import nn

import tinyddpm
from tinyddpm.classifier import classify, features, load_classifier
from tinyddpm.data import mnist
from tinyddpm.metrics import label_accuracy
from tinyddpm.samplers import noise_like
from tinyddpm.train import drop_labels
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

How are the two related, the one that knows the label and the one that does not? If I do not know the class of a noisy image,
I can consider each class in turn, ask what the clean image would be, and average the ten answers by how likely each class
is:

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
    signal, noise = (
        schedule.at(s, t, x_t).reshape(-1, 1)
        for s in (schedule.sqrt_alpha_bar, schedule.sqrt_one_minus_alpha_bar)
    )
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
That the denoiser of one class samples only from that class needs no network either. Ten images start from the same noise,
each with another oracle, and all of them end on a digit of the class they were asked for.
"""

# %%
x_T = torch.randn(1, 1, 32, 32, generator=generator, dtype=torch.float64)
drawn = torch.cat(
    [tinyddpm.last(tinyddpm.ddim(of_class[k], x_T, schedule, schedule.grid(50))).x_t for k in range(10)]
)
found = torch.cdist(drawn.flatten(1), data.flatten(1)).min(1)
print("each sample is one of the 2,000 images:", bool((found.values < 0.05).all()))
print("their labels, asked for 0 to 9:", data_labels[found.indices].tolist())

# %% [markdown]
r"""
## Where the label matters

Here is one digit under four amounts of noise. The columns show $x_t$, then what the exact denoiser sees without a label,
then what it sees when it is told 0, 1, ... 9. In the top row there is almost only noise: told nothing, it answers with a
blur of many digits, and told a class, with a blur of that class. In the bottom row it needs no label any more, and a wrong
label cannot change its mind about where the strokes are: it returns the nearest digit of the wrong class.
"""


# %%
def nine_greys(x):
    """Rounded to nine grey levels: the pictures of this chapter take a quarter of the space that way."""
    return (4 * x).round() / 4


times = torch.tensor([960, 870, 740, 500])
one = data[18:19].expand(4, -1, -1, -1)
noisy = tinyddpm.q_sample(one, times, eps[:1].expand(4, -1, -1, -1), schedule)
columns = [noisy / 2, exact_denoiser(noisy, times)]
columns += [exact_denoiser(noisy, times, torch.full((4,), k)) for k in range(10)]
show(
    image_grid(nine_greys(torch.stack(columns, 1).flatten(0, 1)), columns=12),
    "x_t (half contrast), seen without a label, seen when told 0, 1, ..., 9",
    width=7.5,
)

# %% [markdown]
r"""
To measure it, go along the log-SNR of chapter 02, $\log\bigl(\bar\alpha_t / (1 - \bar\alpha_t)\bigr)$, which means the same
in every schedule, and ask two questions at each noise level. How uncertain is the perfect classifier? That is the entropy of
$p(y \mid x_t)$, in bits: $\log_2 10 \approx 3.3$ for no idea, 0 for certainty. And how far apart are the two denoisers, with
and without the label?

**Before you run the next cell:** on the way from noise to image the log-SNR rises from $-20$ to $+10$ or so. At which
log-SNR is the perfect classifier down to less than half of its doubt, 1.5 bits?
"""

# %%
my_guess = None

levels = torch.arange(-8, 4.1, 0.5)
entropy, apart = [], []
x_0, y = data[:200], data_labels[:200]
for level in levels:
    t = (schedule.log_snr - level).abs().argmin().expand(200)
    x_t = tinyddpm.q_sample(
        x_0, t, torch.randn(x_0.shape, generator=generator, dtype=torch.float64), schedule
    )
    entropy.append(torch.special.entr(class_posterior(x_t, t)).sum(1).mean().item() / math.log(2))
    apart.append((exact_denoiser(x_t, t, y) - exact_denoiser(x_t, t)).square().mean().sqrt().item())
entropy = torch.tensor(entropy)
guess(my_guess, levels[entropy < 1.5][0].item())
window = levels[entropy > 2.9][-1].item(), levels[entropy < 0.2][0].item()
print(f"from 2.9 bits of doubt to 0.2: log-SNR from {window[0]:g} to {window[1]:g}")

# %%
ddpm = tinyddpm.load_pretrained()  # the network that ships with the library; it was trained with labels
net_apart = []
x_0, y = images[:50], labels[:50]
for level in levels:
    t = (ddpm.schedule.log_snr - level).abs().argmin().expand(50)
    x_t = tinyddpm.q_sample(x_0, t, torch.randn(x_0.shape, generator=generator), ddpm.schedule)
    with torch.no_grad():
        net_apart.append((ddpm.denoiser(y)(x_t, t) - ddpm.denoiser()(x_t, t)).square().mean().sqrt().item())

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.2))
left.plot(levels, entropy)
left.set(title="doubt about the class, in bits", xlabel="log-SNR", ylim=(0, 3.5))
right.plot(levels, apart, label="exact, 2,000 digits")
right.plot(levels, net_apart, "--", label="the shipped network")
right.set(title="with label minus without, rms", xlabel="log-SNR", ylim=(0, 0.35))
right.legend()
for axes in (left, right):
    axes.axvspan(*window, color="C1", alpha=0.12)
plt.show()
print("in pure noise the two curves agree within 15 %:", abs(net_apart[0] / apart[0] - 1) < 0.15)
print("at log-SNR 0 the label moves the network less than a third as much:", net_apart[16] < net_apart[0] / 3)

# %% [markdown]
r"""
The class is decided in a narrow window, shaded in the plot: the window that chapter 03 found on the way of a sampler. Before
it the label is news, and moves the answer from the mean of all digits to the mean of one class; after it the image says
itself what it is. (On the way back the exact denoiser of 2,000 digits is through with it somewhat earlier than the network,
which has seen 60,000: few digits are easier to tell apart than many.) Keep the window in mind: it is where guidance will do
its work.

## A network that takes a label

A network has to receive the label somehow. The usual way is the way of the time: a vector of numbers that is added to the
vector of the time, and that every residual block then sees. One such vector for each class, learned like any other weight: a
table $e$ with a row a class. And one row more, for the case that there is no label. This *null class* has the number 10 in
our count, and we write it $\varnothing$:

$$c(t, y) = \text{MLP}\bigl(\text{sines}(t)\bigr) + e_y, \qquad y \in \{0, \dots, 9\} \text{ or } \varnothing = 10 \tag{7.2}$$

where $c$ is the condition that chapter 05's network hands to its blocks. Looking up a row is the same as multiplying the
table by a *one-hot* vector, zeros with a single 1, and that is how we build it first.
"""


# %%
class MyLabelEmbedding(nn.Module):
    def __init__(self, num_classes, dim):
        super().__init__()
        self.table = nn.Parameter(torch.randn(num_classes + 1, dim))  # the last row is the null class

    def forward(self, y):
        return F.one_hot(y, len(self.table)).float() @ self.table


network = ddpm.model
y = torch.tensor([7, 0, 10])  # a seven, a zero, no label
t = torch.tensor([1, 500, 1000])
table = network.label.weight
holds("7.2", network.condition(t, y), network.time(t) + torch.stack([table[7], table[0], table[10]]))
holds("7.2", network.condition(t, None), network.time(t) + table[10])
same(MyLabelEmbedding(10, 16), tinyddpm.nn.embedding.LabelEmbedding(10, 16), y)

# %% [markdown]
r"""
## Two denoisers in one network: drop labels

Guidance will need both denoisers, with and without the label. One could train two networks. Ho and Salimans (2022) train
one, and pay for it with one line: during training each image loses its label with a small probability $p$, independently of
everything else (their algorithm 1). Why does this give both? The loss is a mean of squares, and the function that makes a
mean of squares smallest answers each input with the mean of the targets that come with it. An image that arrives *with* the
label $y$ is an image of that class. An image that arrives with $\varnothing$ can be any image, in the proportions of the
data, since the coin knew nothing of it. Therefore the best function $f(x_t, \cdot)$ is, on the two kinds of input,

$$f(x_t, y) = \mathbb E[x_0 \mid x_t, y], \qquad f(x_t, \varnothing) = \mathbb E[x_0 \mid x_t] \tag{7.3}$$

The value of $p$ decides how much practice each of the two gets, not what they learn.

We can watch this without a network. The smallest world with labels has two classes and one pixel: normal with mean $+1$ in
class 0 and with mean $-1$ in class 1, with variance 0.25 in both, and each class as likely. Both exact denoisers are known
there: the library's Gaussian oracle within a class, and (7.1) for the mixture. The next cell draws four million such pixels,
noises them, drops three labels in ten, and "trains" the dullest function there is: cut the axis of $x_t$ into narrow bins
and remember the mean $x_0$ of each bin, once for each label.
"""

# %%
variance = 0.25
plus, minus = (
    tinyddpm.gaussian_oracle(1.0, variance, schedule),
    tinyddpm.gaussian_oracle(-1.0, variance, schedule),
)


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
x_t = schedule.sqrt_alpha_bar[t] * x_0 + schedule.sqrt_one_minus_alpha_bar[t] * torch.randn(
    n, generator=generator
)
dropped = torch.rand(n, generator=generator) < 0.3
label = torch.where(dropped, 2, y)  # classes 0 and 1, null class 2

bins = ((x_t + 1.5) / 0.1).floor().long()  # thirty bins of width 0.1 on [-1.5, 1.5]
inside = (bins >= 0) & (bins < 30)
cell = (30 * label + bins)[inside]
learned = torch.zeros(90).double().index_add(0, cell, x_0[inside].double()) / cell.bincount(minlength=90)
middle = (-1.45 + 0.1 * torch.arange(30, dtype=torch.float64)).reshape(-1, 1, 1, 1)
exact = torch.cat([f(middle, torch.full((30,), t)).flatten() for f in (plus, minus, both)])
holds("7.3", learned, exact, within=0.03)

# %%
figure, axes = plt.subplots(figsize=(5.6, 2.2))
for values, dots, name in zip(
    exact.reshape(3, 30), learned.reshape(3, 30), ("told 0", "told 1", "told nothing")
):
    (line,) = axes.plot(middle.flatten(), values, label=name)
    axes.plot(middle.flatten(), dots, "o", markersize=3, color=line.get_color())
axes.set(xlabel="x_t", ylabel="x_0_hat", title="lines: exact; dots: mean x_0 of a bin")
figure.legend(loc="outside right center")
plt.show()

# %% [markdown]
r"""
The dots lie on the lines. Told nothing, the best answer is cautious: in the middle it is 0, half way between the classes,
although no clean pixel need be near 0. Told the class it is decided.

The one line, then, by hand and beside the library's. A random number for each image, compared with $p$; where it is smaller,
the null class.
"""


# %%
def my_drop_labels(y, num_classes, p, generator):
    dropped = torch.rand(y.shape, generator=generator) < p  # a coin for each image
    return torch.where(dropped, num_classes, y)


def seeded(drop):
    """The same function with a new generator at each call, so that both sides of `same` see the same coins."""
    return functools.wraps(drop)(lambda *arguments: drop(*arguments, torch.Generator().manual_seed(3)))


same(seeded(my_drop_labels), seeded(drop_labels), labels, 10, 0.1)
rate = (drop_labels(labels, 10, 0.1, torch.Generator().manual_seed(4)) == 10).double().mean().item()
print("of 10,000 labels one in ten is gone, give or take half a percent:", abs(rate - 0.1) < 0.005)

# %% [markdown]
r"""
## Bug museum: three ways to lose a label

All three come from published teaching code, and a model trained with any of them still draws something, which is why nobody
noticed for a while.

1. **One coin for the whole batch.** A widely copied implementation draws a single random number a step and drops all labels
   of the batch, or none. The average rate is right. But a step without any label teaches the conditional half nothing, and
   the gradient changes its character at random from step to step.
2. **The probability inverted.** In the material of a university course a label was *replaced* with probability $1 - p$ where
   $p$ was meant. The conditional denoiser saw a tenth of the data.
3. **A mask that flips the sign.** A popular script builds one-hot vectors and multiplies them with `-1 * (1 - mask)`:
   dropped rows become 0, as intended, and all others $-1$ where the one-hot had its 1. The network learns that language
   without complaint. Whoever samples from it with ordinary one-hot vectors asks for something that it has never seen.

What should hold of a batch of one-hot rows after dropping: each row adds up to 1 or 0, the mean rate of zeros is $p$, and
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
figure, axes = plt.subplots(1, 4, figsize=(8, 1.9), sharex=True)
for (name, drop), panel in zip(museum.items(), axes):
    generator = torch.Generator().manual_seed(5)
    batches = torch.stack([drop(hot, 0.1, generator) for _ in range(2000)])  # (2000, 64, 10)
    sums = batches.sum(2)
    rates = (sums == 0).float().mean(1)
    panel.hist(rates, bins=32, range=(0, 1))
    panel.set(title=name, xlabel="share dropped", xticks=(0, 0.5, 1), yticks=[])
    rows = set(sums.unique().tolist()) == {0.0, 1.0}
    rate = abs(rates.mean().item() - 0.1) < 0.02
    spread = abs(rates.std().item() / (0.1 * 0.9 / 64) ** 0.5 - 1) < 0.2
    print(f"{name:13} rows are 0 or one-hot: {rows!s:6} rate: {rate!s:6} spread: {spread}")
plt.show()

# %% [markdown]
r"""
The histograms show the share of labels dropped in each of 2,000 batches of 64. Notice that the mean rate, the first thing
one would test, passes the one coin, and that no test of rates sees the flipped sign.

## From denoisers to scores

The derivation of guidance is a single application of Bayes' rule, in the language of *scores*. The score of a density is the
gradient of its logarithm with respect to the image: the direction in which $x_t$ becomes more probable. A denoiser knows it.
For a single clean image $x_0$ the density of $x_t$ is a bell around $\sqrt{\bar\alpha_t}\,x_0$ with variance
$1-\bar\alpha_t$, and the gradient of its logarithm is $(\sqrt{\bar\alpha_t}\,x_0 - x_t)/(1-\bar\alpha_t)$. The density of
the noisy data is the average of such bells, and the gradient of the logarithm of an average is an average of gradients,
weighted by how much each bell contributes at $x_t$; these weights are the probabilities of $x_0$ given $x_t$. So $x_0$ is
replaced by its conditional mean:

$$\nabla_{x_t} \log q(x_t) = \frac{\sqrt{\bar\alpha_t}\;\mathbb E[x_0 \mid x_t] - x_t}{1 - \bar\alpha_t} = -\frac{\hat\varepsilon}{\sqrt{1-\bar\alpha_t}} \tag{7.4}$$

with $\hat\varepsilon$ the noise that belongs to $\hat x_0 = \mathbb E[x_0 \mid x_t]$ (this is Tweedie's formula; Karras et
al. 2022, appendix B.3, have it for a data set). The same holds inside a class, with $q(x_t \mid y)$ and
$\mathbb E[x_0\mid x_t, y]$. The cell compares automatic differentiation of the log density of 2,000 noisy digits, on the
left, with the library's oracle on the right.
"""


# %%
def gradient(log_density, x_t):
    x = x_t.clone().requires_grad_()
    return torch.autograd.grad(log_density(x).sum(), x)[0]


def score(denoiser, x_t, t):
    """The right side of (7.4)."""
    noise = schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_t)
    return -tinyddpm.eps_from_x_0(denoiser(x_t, t), x_t, t, schedule) / noise


generator = torch.Generator().manual_seed(6)
t = torch.tensor([600, 650, 700, 750, 800, 850, 900, 950])
x_t = tinyddpm.q_sample(
    data[:8], t, torch.randn(data[:8].shape, generator=generator, dtype=torch.float64), schedule
)
by_autograd = gradient(lambda x: log_bells(x, t).logsumexp(1), x_t)
holds("7.4", by_autograd, score(oracle, x_t, t), within=1e-9)

# %% [markdown]
r"""
## Bayes' rule, with a dial on it

Bayes' rule says $q(x_t \mid y) = q(x_t)\,p(y \mid x_t)/p(y)$. Take logarithms and then gradients; $p(y)$ does not depend on
$x_t$ and falls out:

$$\nabla \log q(x_t \mid y) = \nabla \log q(x_t) + \nabla \log p(y \mid x_t) \tag{7.5}$$

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
holds("7.5", with_label, score(oracle, x_t, t) + gradient(log_p, x_t), within=1e-7)

# %% [markdown]
r"""
Read (7.5) the other way round, with (7.4), and it is a discovery: up to a factor that depends on $t$ alone, *the difference
of the two denoisers is the gradient of a classifier* that nobody has trained. Here is that difference for one noisy digit
and all ten labels, white where the classifier wants more ink and black where it wants less; for what the digit is already,
it wants nothing.
"""

# %%
x_10 = tinyddpm.q_sample(data[18:19], 740, eps[:1], schedule).expand(10, -1, -1, -1)
t_10 = torch.full((10,), 740)
push = exact_denoiser(x_10, t_10, torch.arange(10)) - exact_denoiser(x_10, t_10)
show(
    image_grid(nine_greys(torch.cat([data[18:19], push / 1.5])), columns=11),
    f"a {data_labels[18]}, and what has to change, at t = 740, for it to be a 0, 1, ..., 9",
)

# %% [markdown]
r"""
Now the dial. What if the classifier's push counted double? Multiply it by a number $w$, the *guidance scale*. That is the
score of a density in which the classifier's probability has been raised to the power $w$:

$$q_w(x_t \mid y) \propto q(x_t)\; p(y \mid x_t)^w, \qquad
\nabla \log q_w = \nabla\log q(x_t) + w\,\bigl(\nabla\log q(x_t \mid y) - \nabla\log q(x_t)\bigr) \tag{7.6}$$

where (7.5) has replaced the classifier by the difference. At $w = 1$ this is the plain conditional score, at $w = 0$ the
unconditional one; above 1, images of which the classifier is certain become more probable still. No classifier appears in it
any more, hence the name: *classifier-free guidance* (Ho and Salimans 2022).
"""

# %%
w = 3.0
tilted = gradient(lambda x: log_bells(x, t).logsumexp(1) + w * log_p(x), x_t)
plain = score(oracle, x_t, t)
holds("7.6", tilted, plain + w * (with_label - plain), within=1e-7)

# %% [markdown]
r"""
A network speaks of $\hat\varepsilon$ or of $\hat x_0$, not of scores. But by (7.4) the score is, at a fixed $x_t$, a
straight-line function of either: a constant times $\hat\varepsilon$, or a constant times $\hat x_0$ plus something that
depends on $x_t$ alone. In $u + w\,(c - u)$ the factors in front of $u$ and $c$ are $1 - w$ and $w$; they add up to 1, so the
part that depends on $x_t$ alone survives unchanged. The rule is therefore the same rule in every language:

$$\hat\varepsilon_w = \hat\varepsilon_\varnothing + w\,(\hat\varepsilon_y - \hat\varepsilon_\varnothing)
\quad\Longleftrightarrow\quad
\hat x_{0,w} = \hat x_{0,\varnothing} + w\,(\hat x_{0,y} - \hat x_{0,\varnothing}) \tag{7.7}$$

Ho and Salimans write it as $(1 + w)\,\hat\varepsilon_y - w\,\hat\varepsilon_\varnothing$ (equation 6), which is the same
with their $w$ being ours less one. When you read "guidance 2" somewhere, find out whose $w$ it is.
"""

# %%
eps_y = tinyddpm.eps_from_x_0(of_y(x_t, t), x_t, t, schedule)
eps_null = tinyddpm.eps_from_x_0(oracle(x_t, t), x_t, t, schedule)
through_eps = tinyddpm.x_0_from_eps(eps_null + w * (eps_y - eps_null), x_t, t, schedule)
through_x_0 = oracle(x_t, t) + w * (of_y(x_t, t) - oracle(x_t, t))
holds("7.7", through_eps, through_x_0, within=1e-9)

# %% [markdown]
r"""
## Build it

A denoiser is a function $(x_t, t) \to \hat x_0$, and guidance makes a new one out of two. Because the result is a denoiser
again, every sampler takes it as it is.
"""


# %%
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
The library returns the plain denoisers themselves at scales 1 and 0, which saves half of the work.

## Bug museum: clipping the branches

The fourth mistake of this chapter is tidy-looking. Images lie in $[-1, 1]$, so one clips each of the two predictions to that
range, and then combines them. The combination leaves the range again, so nothing is gained, and something is lost. Both
predictions come from one network and share its errors: where both overshoot, their *difference* is still right. Clipping
sets both to the same $\pm 1$, and the push that the label had asked for is gone.

The cell gives both exact branches the same error, of the size that a small error in $\hat\varepsilon$ has at high noise, and
asks how much of the push is left. The line that catches it is (7.7): through $\hat\varepsilon$ and through $\hat x_0$ must
come out the same.
"""

# %%
error = 0.7 * torch.randn(x_t.shape, generator=generator, dtype=torch.float64)
c, u = of_y(x_t, t) + error, oracle(x_t, t) + error  # two answers of one network share its error
for name, (cc, uu) in {"clip outside": (c, u), "clip the branches": (c.clamp(-1, 1), u.clamp(-1, 1))}.items():
    left_over = ((cc - uu).norm() / (of_y(x_t, t) - oracle(x_t, t)).norm()).item()
    e_c, e_u = (tinyddpm.eps_from_x_0(x, x_t, t, schedule) for x in (c, u))
    by_eps = tinyddpm.x_0_from_eps(e_u + w * (e_c - e_u), x_t, t, schedule).clamp(-1, 1)
    caught = ((uu + w * (cc - uu)).clamp(-1, 1) - by_eps).abs().max().item() > 1e-6
    print(f"{name:18} {100 * left_over:3.0f} % of the push is left: {'caught' if caught else 'passes'}")

# %% [markdown]
r"""
## What guidance does to a distribution

Equation (7.6) holds at every single $t$. It is tempting to conclude that guided sampling draws from
$q_w(x_0 \mid y) \propto q(x_0)\,p(y \mid x_0)^w$, the tilted density of *clean* images, and many texts do. In the world of
one pixel and two classes we can look, since both denoisers are exact there. Class 0 has its mean at $+1$. The tilted density
hardly moves when $w$ grows, because most of class 0 was never in doubt; the cell computes its mean for $w = 4$ by a sum.

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
print(
    "samples move away from the other class:", moment("mean", 1.0) < moment("mean", 2.0) < moment("mean", 4.0)
)
print(f"and crowd together: their spread shrinks to {100 * moment('std', 4.0) / moment('std', 1.0):.0f} %")
off = [moment("mean", 4.0, sampler) - of_tilted for sampler in (0, 1)]
print("DDIM is off by more than 0.5, DDPM by more than 0.1:", off[0] > 0.5, off[1] > 0.1)

# %% [markdown]
r"""
At scale 1 all three agree, as they must. Above it they part: guided samples run away from the other class, far beyond what
the tilted density asks for, and crowd together; DDIM does it more than DDPM, although at scale 1 the two draw from the same
distribution. (Bradley and Nakkiran 2024 prove that neither sampler draws from the tilted density, and describe what guidance
does instead.)

What is wrong with the tempting conclusion? A sampler needs the scores of *one* density under more and more noise. Noise
applied to the tilted clean density gives, at time $t$, a density proportional to
$q(x_t)\,\mathbb E[p(y\mid x_0)^w \mid x_t]$. Guidance uses $q(x_t)\, p(y \mid x_t)^w$, and

$$p(y \mid x_t)^w = \bigl(\mathbb E[\,p(y \mid x_0) \mid x_t\,]\bigr)^w \;\ne\; \mathbb E\bigl[\,p(y \mid x_0)^w \mid x_t\,\bigr] \quad\text{unless } w \in \{0, 1\} \tag{7.8}$$

The power of a mean is not the mean of the powers. The cell checks the equality for $w = 1$ by a sum over all clean values,
and how far the two sides are apart for $w = 4$.
"""

# %%
x_t, t = torch.linspace(-2, 2, 9, dtype=torch.float64), 700
signal, noise = schedule.sqrt_alpha_bar[t], schedule.sqrt_one_minus_alpha_bar[t]
weights = bells.sum(0) * torch.exp(-((x_t[:, None] - signal * values) ** 2) / (2 * noise**2))
weights = weights / weights.sum(1, keepdim=True)  # of each x_0, given x_t
at_t = posterior_of_plus(x_t.reshape(-1, 1, 1, 1), torch.full((9,), t)).flatten()
holds("7.8", at_t, weights @ p_plus, within=1e-3)  # w = 1
ratio = (weights @ p_plus**4) / at_t**4
print("at w = 4 the mean of the powers is the larger everywhere:", bool((ratio > 1).all()))
print(f"for x_t = 0, half way between the classes, {ratio[4]:.1f} times as large")

# %% [markdown]
r"""
So guidance is no sampler of a sharpened distribution. It is a useful exaggeration: it leaves the doubtful region between the
classes early and vigorously, and pays with variety. How much of each, on digits, we measure next.

## Same noise, ten labels

Everything is in place, and the network that ships with the library was trained as described: it takes the place of the exact
denoiser. The figure below has a label a row and a noise a column: all ten images of a column start from the same $x_T$, and
the DDIM sampler adds nothing random on the way.
"""

# %%
rows = torch.arange(10).repeat_interleave(10)
grid_of_digits = ddpm.sample(rows, steps=20, scale=1.0, seeds=list(range(10)) * 10)
show(image_grid(nine_greys(grid_of_digits), columns=10), "rows: the label; columns: the noise", width=5)

# %% [markdown]
r"""
The rows are the digits asked for. Now look down the columns: thickness of the stroke and slant stay the same from digit to
digit. The label decides *what* is written, the noise *how*. Nobody told the network to keep the two apart. To be sure that
the eye does not deceive itself, measure: remove each row's mean and ask which share of the variance that remains is
explained by the column. For columns that have nothing in common, with ten rows, it would be about a tenth.
"""


# %%
def slant(x):
    """How far a digit leans to the right: the shear that its ink has, by second moments."""
    ink = (x[:, 0] + 1).clamp(min=0)
    ink = ink / ink.sum((1, 2), keepdim=True)
    place = torch.arange(32.0)
    dy = place[None, :, None] - (ink.sum(2) * place).sum(1)[:, None, None]
    dx = place[None, None, :] - (ink.sum(1) * place).sum(1)[:, None, None]
    return -(ink * dx * dy).sum((1, 2)) / (ink * dy * dy).sum((1, 2))


def explained_by_columns(values):
    values = values.reshape(10, 10)
    values = values - values.mean(1, keepdim=True)
    return (values.mean(0).square().mean() / values.square().mean()).item()


amount = (grid_of_digits + 1).mean((1, 2, 3))  # of ink
print(
    "the noise decides at least a fifth of the slant's variance:",
    explained_by_columns(slant(grid_of_digits)) > 0.2,
)
print("and at least a third of that of the amount of ink:", explained_by_columns(amount) > 1 / 3)

# %% [markdown]
r"""
## A sweep of the scale

Each setting of the dial draws the same 100 images: ten a digit, the same noise. We ask three questions. *Is it the digit
that was asked for?* The library's classifier, a separate network that has never seen a sample, reads it. *How different are
images of one class from each other?* The mean distance between pairs, in the classifier's features. *How much ink is there?*
Real digits answer the last two for comparison.
"""

# %%
judge = load_classifier()
asked = torch.arange(100) % 10


def diversity(x, y):
    f = features(judge, x)
    return torch.stack([torch.pdist(f[y == k]).mean() for k in range(10)]).mean().item()


scales = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 8.0)
swept = {scale: ddpm.sample(asked, steps=10, scale=scale, seeds=range(100)) for scale in scales}
accuracy = {scale: label_accuracy(judge, x, asked) for scale, x in swept.items()}
spread = {scale: diversity(x, asked) for scale, x in swept.items()}
ink = {scale: (x + 1).mean().item() / 2 for scale, x in swept.items()}
real = torch.cat([images[labels == k][:50] for k in range(10)])
real_labels = torch.arange(10).repeat_interleave(50)

figure, axes = plt.subplots(1, 3, figsize=(7.4, 2.1))
for panel, curve, title in zip(
    axes, (accuracy, spread, ink), ("read as asked", "distance within a class", "share of ink")
):
    panel.plot(scales, list(curve.values()), "o-")
    panel.set(title=title, xlabel="scale")
axes[0].axhline(0.1, linestyle=":", color="grey")
axes[1].axhline(diversity(real, real_labels), linestyle="--", color="grey", label="real digits")
axes[2].axhline((real + 1).mean().item() / 2, linestyle="--", color="grey", label="real digits")
axes[1].legend()
plt.show()
print("scale 0 does not know the label: read as asked at most 25 %:", accuracy[0.0] <= 0.25)
print("scale 1: at least 93 %:", accuracy[1.0] >= 0.93, "and scale 2: at least 97 %:", accuracy[2.0] >= 0.97)
print("variety at scale 3 is below nine tenths of that at scale 1:", spread[3.0] < 0.9 * spread[1.0])
print("at scale 1 within 20 % of real digits:", abs(spread[1.0] / diversity(real, real_labels) - 1) < 0.2)
print("ink rises with the scale:", ink[1.0] < ink[2.0] < ink[3.0] < ink[8.0])
print(
    "at scale 8 to at least 1.25 times that of real digits:", ink[8.0] > 1.25 * (real + 1).mean().item() / 2
)

# %% [markdown]
r"""
Here are four of those noises at every scale: the first four of which scale 0, deaf to the label, made another digit than the
one asked for.
"""

# %%
deaf = classify(judge, swept[0.0]).argmax(1) != asked
chosen = deaf.nonzero()[:4, 0]
film = torch.stack([swept[scale][chosen] for scale in scales], 1).flatten(0, 1)
show(
    image_grid(nine_greys(film), columns=len(scales)),
    "scale " + ", ".join(f"{scale:g}" for scale in scales),
    width=6,
)

# %% [markdown]
r"""
At scale 0 the noise alone decides what is drawn. Between 0 and 1 lie mixtures (the distance within a "class" is large there
because other digits are among them), and 1 is the plain conditional model, already right nearly always and as varied as real
digits. From there on more guidance makes digits more typical, bolder, and more like each other: it is the pixel that ran
away from the other class, a thousand times over. At large scales the strokes thicken beyond what the data hold. Somewhere
between 1 and 2 is a sensible place for digits.

## Guidance where the digit is decided

The second figure of this chapter showed a window of noise levels in which the class is decided. Should the dial not matter
there and nowhere else? Kynkäänniemi et al. (2024) limit guidance to an interval for this reason. The cell draws at scale 4
with guidance everywhere, then only before the window, only inside, and only after it. The sampler's steps all carry one $t$
for the whole batch, so that a plain `if` does.
"""

# %%
log_snr = ddpm.schedule.log_snr
plain, strong = ddpm.denoiser(asked), ddpm.denoiser(asked, scale=4.0)
x_T = noise_like(torch.empty(100, 1, 32, 32), [torch.Generator().manual_seed(seed) for seed in range(100)])


def only_between(low, high):
    return lambda x_t, t: strong(x_t, t) if low <= log_snr[t[0]] <= high else plain(x_t, t)


places = {
    "nowhere": plain,
    "before": only_between(-torch.inf, window[0]),
    "inside": only_between(*window),
    "after": only_between(window[1], torch.inf),
    "everywhere": strong,
}
steps = ddpm.schedule.grid(20)
limited = {name: tinyddpm.last(tinyddpm.ddim(d, x_T, ddpm.schedule, steps)).x_t for name, d in places.items()}
spread_in = {name: diversity(x, asked) for name, x in limited.items()}
certainty = {name: classify(judge, x)[torch.arange(100), asked].mean().item() for name, x in limited.items()}

figure, axes = plt.subplots(1, 2, figsize=(7, 1.9), sharey=True)
for panel, values_of, title in zip(
    axes, (certainty, spread_in), ("the judge's certainty", "distance within a class")
):
    panel.plot(list(values_of.values()), list(places), "o")
    panel.set(title=title)
    panel.margins(0.12)
plt.show()
lost = {
    name: (spread_in["nowhere"] - s) / (spread_in["nowhere"] - spread_in["everywhere"])
    for name, s in spread_in.items()
}
print("guidance inside the window alone costs at least 60 % of the variety lost:", lost["inside"] > 0.6)
print("the other two cost less than it:", max(lost["before"], lost["after"]) < lost["inside"])
gained = {name: certainty[name] - certainty["nowhere"] for name in places}
print("before the window certainty gains less:", gained["before"] < 0.75 * gained["inside"])

# %% [markdown]
r"""
Guidance inside the window does most of what guidance everywhere does, for better and for worse, and saves the second call of
the network at all other steps. Before the window it costs variety and buys less certainty: nothing can be decided yet, and
the push only moves all images of a class the same way. After it the class is settled, and all that is left to do is to make
the strokes of a settled digit more typical.

## What this chapter showed

A label is a smaller data set, and the denoiser without labels is the mixture of those with (7.1). One network learns both if
labels are dropped image by image (7.3). The difference of the two is the gradient of a classifier (7.5), and turning it up
is guidance (7.6, 7.7). Guided samples come from no tilted density (7.8): they avoid the neighbouring classes and give up
variety for it.

## Exercises

**07a.** Write the line that drops labels, for any number of classes. The check looks at rates over many batches, at what the
dropped labels become, and at whether images of a batch are independent.
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

**07c.** `torch.lerp(a, b, w)` computes $a + w\,(b - a)$. Write the rule of Ho and Salimans,
$(1 + w)\,\hat\varepsilon_y - w\,\hat\varepsilon_\varnothing$ with *their* $w$, as one call of `torch.lerp`.
"""


# %%
def answer_07c(eps_y, eps_null, w):
    """Two images of one shape and a number. Returns an image."""
    ...


check("07c", answer_07c)

# %% [markdown]
r"""
<details><summary>Solution 07c</summary>

```python
def answer_07c(eps_y, eps_null, w):
    return torch.lerp(eps_null, eps_y, 1 + w)
```

From the null prediction towards the labelled one and beyond it:
$\hat\varepsilon_\varnothing + (1 + w)(\hat\varepsilon_y - \hat\varepsilon_\varnothing)$. The library's `scale` is $1 + w$.
</details>

**07d.** Make guidance a function of time. `scale` is now a function that takes the times `t`, shape `(b,)`, and returns one
scale for each image, `(b,)`. With `lambda t: torch.where((t > 300) & (t < 700), 4.0, 1.0)` your function limits guidance to
an interval.
"""


# %%
def answer_07d(conditional, unconditional, scale):
    """Two denoisers (x_t, t) -> x_0_hat and a function t -> scale. Returns a denoiser."""
    ...


check("07d", answer_07d)

# %% [markdown]
r"""
<details><summary>Solution 07d</summary>

```python
def answer_07d(conditional, unconditional, scale):
    def guided(x_t, t):
        u = unconditional(x_t, t)
        return u + scale(t).reshape(-1, 1, 1, 1) * (conditional(x_t, t) - u)

    return guided
```

The scale is looked up inside, where `t` is known, and gets the shape `(b, 1, 1, 1)` as every number a image does.
</details>

## Symbols

| symbol | variable | shape | where |
|---|---|---|---|
| $y$ | `y`, `labels` | (b,) | the label, 0..9; the null class $\varnothing$ is 10 |
| $p(y \mid x_t)$ | `class_posterior` | (b, 10) | (7.1), the perfect classifier of noisy images |
| $e_y$ | `table` | (11, dim) | (7.2), one row a class and one for none |
| $p$ | `p` | a number | (7.3), how often a label is dropped; Ho and Salimans 2022, algorithm 1 |
| $\nabla \log q(x_t)$ | `score` | (b, 1, 32, 32) | (7.4) |
| $\hat x_0$ | `exact_denoiser`, `oracle` | (b, 1, 32, 32) | $\mathbb E[x_0 \mid x_t]$, with or without $y$ |
| $\hat\varepsilon$ | `eps_y`, `eps_null` | (b, 1, 32, 32) | (7.7); Ho and Salimans 2022, eq. 6 |
| $w$ | `w`, `scale` | a number | (7.6); their $w$ is ours less one |

**Next:** [08 · Making GIFs](08_making_gifs.ipynb). The sampler passes through hundreds of images on its way, and most of
them are noise or finished. The last chapter picks those that tell the story, and makes the ten animations that you can show
to others.
"""
