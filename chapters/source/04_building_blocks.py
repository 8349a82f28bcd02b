# %% [markdown]
r"""
# 04 · Building blocks: every part of the network, made by hand and measured

**After this chapter you can**

* say what each part of the network is for, write it in a few lines, and compare it with the library's;
* turn a time into a vector and explain why it is made of sines;
* test a part by its weights and not by its pictures, and tell how a wrong line hid in a popular tutorial for over a year.

*You need:* chapters 01 and 03, and what `nn.Linear` and `nn.Conv2d` do. *Reading:* 70 minutes, 25 more with the exercises.
*Running:* under 20 seconds on a laptop, without a network. *You build and then import:* `SinusoidalEmbedding`,
`LabelEmbedding`, `WeightStandardizedConv2d`, `ConvBlock`, `ResnetBlock`, `Attention`, `SpaceToDepth`, `DepthToSpace`.

---

A denoiser is a function: it takes a noisy image $x_t$ and the time $t$, and returns its guess of the clean image. The one in
chapter 03 was exact, and that was its limit: it needs all training images at hand and knows of nothing else. From here on a
neural network shall do the work, and a network is built from parts. There are eight of them. Each is a handful of lines and
makes a promise that can be measured, so we build them one at a time, from the bottom up, and measure the promise before we go
on. Chapter 05 wires them together.

One rule runs through the chapter: **a part is tested on its own, by what it promises**. The bug museum in the middle shows
what happens to people who test the finished network instead.
"""

# %% tags=["setup"]
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from course import check, guess, holds, same, show
from einops import rearrange
from torch import nn

import tinyddpm
from tinyddpm import nn as parts  # the ground floor of the library
from tinyddpm.data import mnist
from tinyddpm.viz import image_grid

# %%
images, labels = mnist(train=False).tensors()
digits = torch.cat([images[labels == k][:1] for k in range(8)])  # (8, 1, 32, 32)
schedule = tinyddpm.Schedule.named("linear", T=1000)
generator = torch.Generator().manual_seed(4)

# %% [markdown]
r"""
## Time as a vector

The network has to know how noisy its input is. Handing it the number $t$ would be possible, but a bad idea: a layer
multiplies what it is given by weights and adds it up, and of a single number such a layer can only make a straight line.
What we want is to do one thing around $t = 300$ and another elsewhere.

A clock has the answer. Its second hand tells neighbouring moments apart and says nothing of the hour; its hour hand does the
reverse; together they name every moment of half a day. The embedding is a clock with many hands. Let `dim` be its length,
$n$ = `dim` / 2 the number of hands, and $\omega_i$ the speed of hand $i$, falling by a constant factor from one radian a
step to $1/P$, with $P = 10{,}000$. The position of a hand on its circle is a sine and a cosine:

$$\operatorname{emb}(t) = \bigl[\sin \omega_0 t, \dots, \sin \omega_{n-1} t,\; \cos \omega_0 t, \dots, \cos \omega_{n-1} t\bigr],
\qquad \omega_i = P^{-i/(n-1)} \tag{4.1}$$

(Vaswani et al. 2017, section 3.5, who did it for the places of words; Ho et al. 2020 use it for time.) The cell executes the
right side number by number, with Python's own `math`, and compares it with the library's.
"""

# %%
dim, n, P = 32, 16, 10_000
speeds = [P ** (-i / (n - 1)) for i in range(n)]
by_hand = [[math.sin(w * t) for w in speeds] + [math.cos(w * t) for w in speeds] for t in (0, 1, 10, 100)]
holds("4.1", parts.SinusoidalEmbedding(dim)(torch.tensor([0, 1, 10, 100])), by_hand, within=1e-4)

# %% [markdown]
r"""
As a module it has no weights, only the table of speeds. A module keeps such a table as a *buffer*: it moves to a GPU with
the module, and no optimizer touches it.
"""


# %%
class MySinusoidalEmbedding(nn.Module):
    def __init__(self, dim, max_period=10_000.0):
        super().__init__()
        exponent = torch.arange(dim // 2) / (dim // 2 - 1)
        self.register_buffer("frequency", max_period**-exponent)

    def forward(self, t):
        angle = t[:, None] * self.frequency  # (b, 1) * (n,) -> (b, n)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


embed = parts.SinusoidalEmbedding(32)
t = torch.tensor([1, 2, 500, 1000])
same(MySinusoidalEmbedding(32), embed, t, within=1e-3)  # at 1000 radians float32 has 4 digits left

# %% [markdown]
r"""
In the figure each row is one sine or cosine and each column one time; blue is +1, red is -1. Look at the rows from the top:
fast hands first, then ever slower ones, and after the sines the same again as cosines.
"""

# %%
figure, axes = plt.subplots(figsize=(7, 2.2))
table = embed(torch.arange(0, 201)).T  # (32, 201)
axes.imshow(table, aspect="auto", cmap="RdBu", vmin=-1, vmax=1)
axes.set(xlabel="t", ylabel="component", title="emb(t), one column for each t from 0 to 200")
axes.grid(False)
plt.show()

# %% [markdown]
r"""
## Why sines?

**Before you run the cell after next:** the embeddings of $t = 10$ and $s = 20$ have some similarity (their cosine
similarity: 1 for equal vectors, 0 for unrelated ones). It is about 0.64. What will it be for $t = 510$ and $s = 520$?

Each vector has $n$ sines and $n$ cosines, and $\sin^2 + \cos^2 = 1$ for each hand, so that all have the same length,
$\sqrt n$. For two times the addition theorem does the rest, $\sin a \sin b + \cos a \cos b = \cos(a - b)$:

$$\operatorname{emb}(t) \cdot \operatorname{emb}(s) = \sum_{i=0}^{n-1} \cos\bigl(\omega_i\,(t - s)\bigr) \tag{4.2}$$

There is no $t$ and no $s$ on the right, only their difference. How alike two times look depends on how far apart they are
and not on where they lie: ten steps are ten steps, early or late.
"""

# %%
exact = parts.SinusoidalEmbedding(32).double()
t, s = torch.randint(1, 1001, (2, 500), generator=generator)
left = (exact(t) * exact(s)).sum(1)
right = torch.cos((t - s)[:, None] * exact.frequency).sum(1)
holds("4.2", left, right, within=1e-9)

# %%
my_guess = None

early, late = (F.cosine_similarity(*embed(torch.tensor([t, t + 10])), dim=0) for t in (10, 510))
print("t = 10, s = 20:", round(early.item(), 2))
guess(my_guess, round(late.item(), 2))

# %% [markdown]
r"""
The next figure shows the right side of (4.2), divided by $n$, and what one linear layer can make of the time. The layer is
asked for a bump around $t = 300$: its best attempt (by least squares, with a small penalty on large weights) from the number
$t / 1000$, and from the 32 sines and cosines.
"""

# %%
times = torch.arange(1, 1001)
target = torch.exp(-(((times - 300) / 80.0) ** 2) / 2).double()


def best_linear(inputs):
    design = torch.cat([inputs.double(), torch.ones(1000, 1)], dim=1)
    penalty = 0.1 * torch.eye(design.shape[1])
    return design @ torch.linalg.solve(design.T @ design + penalty, design.T @ target)


from_number, from_sines = best_linear(times[:, None] / 1000), best_linear(embed(times))
figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 2))
difference = torch.arange(-60, 61)
left.plot(difference, torch.cos(difference[:, None] * exact.frequency).mean(1), linewidth=1)
left.set(title="similarity of emb(t) and emb(s)", xlabel="t - s", ylim=(0, 1.05))
right.plot(times, target, "k", label="wanted", alpha=0.5)
right.plot(times, from_number, label="linear in t")
right.plot(times, from_sines, label="linear in emb(t)")
right.set(title="what one linear layer can make of it", xlabel="t")
right.legend()
plt.show()
for name, fit in (("t", from_number), ("emb(t)", from_sines)):
    share = 1 - ((target - fit).var() / target.var()).item()
    print(f"linear in {name:7}: {round(100 * share)} % of the bump's variance explained")

# %% [markdown]
r"""
Left: the peak at 0 is narrow, so neighbours can be told apart, and the hill under it is wide, so near times look more alike
than far ones. The curve is ragged because the fast hands come round again every few steps. Right: from the number a straight
line, from the hands of the clock nearly the bump itself. The network puts two linear layers with a bend between them behind
the embedding, and has all it needs to do one thing at one time and another at another.

## The label as a vector

Labels are simpler. There are ten of them, so the network keeps ten vectors, learns them, and looks up the one that is asked
for. A lookup is a matrix product in disguise: with $\operatorname{onehot}(y)$ the vector that is 1 at place $y$ and 0
elsewhere, and $E$ the table with one row for each class,

$$\operatorname{label}(y) = \operatorname{onehot}(y)\, E \tag{4.3}$$

The table has an eleventh row. It stands for "no label given" and is called the *null class*; chapter 07 will steer the
samples with the difference between what the network says with a label and without (Ho & Salimans 2022). Only the rows that a
batch has used are touched by the gradient: a row that never occurs in training is never trained.

Two tables of random numbers are not equal. So where a piece has weights, `same` first copies the library's into yours, in the
order in which they were made, and then compares what the two return.
"""


# %%
class MyLabelEmbedding(nn.Embedding):
    def __init__(self, num_classes, dim):
        super().__init__(num_classes + 1, dim)
        self.null_class = num_classes


torch.manual_seed(4)
label = parts.LabelEmbedding(10, 128)
y = torch.tensor([3, 1, 4, label.null_class])
holds("4.3", label(y), F.one_hot(y, 11).float() @ label.weight)
same(MyLabelEmbedding(10, 128), label, y)

label(y).sum().backward()
print("rows with a gradient:", label.weight.grad.abs().sum(1).nonzero().flatten().tolist())

# %% [markdown]
r"""
Time and label are added up, and the sum is the *condition*, the vector $\text{cond}$. Every block of the network receives
it and does not ask where it came from.

## A convolution whose filters cannot drift

A 3 by 3 convolution from 32 to 64 channels has 64 filters, one for each channel it returns, and each filter has
$32 \cdot 9 = 288$ weights $w$. Training moves them as it likes, also all of them together: a filter may grow as a whole, or
all its weights may rise by a constant. *Weight standardization* (Qiao et al. 2019, equation 5) takes those two freedoms
away. Whatever the stored weights are, the filter that is applied is

$$\hat w = \frac{w - \operatorname{mean}(w)}{\sqrt{\operatorname{var}(w) + \epsilon}} \tag{4.4}$$

with mean and variance over the 288 weights of one filter, and $\epsilon = 10^{-5}$ against a division by zero (a small
constant, not the noise $\varepsilon$ of the other chapters).

Batch normalization, which PyTorch has, computes the same expression over a batch of data. Fed with the weights in place of
data, it is an independent check of ours.
"""


# %%
class MyWeightStandardizedConv2d(nn.Conv2d):
    def standardized_weight(self):
        w = self.weight  # (c_out, c_in, 3, 3)
        mean = w.mean(dim=(1, 2, 3), keepdim=True)
        var = w.var(dim=(1, 2, 3), keepdim=True, unbiased=False)
        return (w - mean) / (var + 1e-5).sqrt()

    def forward(self, x):
        return F.conv2d(x, self.standardized_weight(), self.bias, self.stride, self.padding)


torch.manual_seed(4)
conv = parts.WeightStandardizedConv2d(32, 64, 3, padding=1)
mine = MyWeightStandardizedConv2d(32, 64, 3, padding=1)
filters = mine.weight.reshape(1, 64, 288)  # as if: one image, 64 channels, 288 pixels
as_batch_norm = F.batch_norm(filters, None, None, training=True, eps=1e-5)[0]  # (64, 288)
holds("4.4", mine.standardized_weight().flatten(1), as_batch_norm, within=1e-4)
x = torch.randn(2, 32, 8, 8, generator=generator)
same(mine, conv, x, within=1e-4)

# %% [markdown]
r"""
The promise follows from (4.4) in one line. Subtracting the mean makes the mean 0, and dividing by
$\sqrt{\sigma^2 + \epsilon}$ divides the variance $\sigma^2$ of the stored weights by $\sigma^2 + \epsilon$:

$$\operatorname{mean}(\hat w) = 0, \qquad \operatorname{var}(\hat w) = \frac{\sigma^2}{\sigma^2 + \epsilon} \approx 1 \tag{4.5}$$

It is a statement about weights, so it needs no image, no data and no training to be tested.
"""

# %%
var, mean = torch.var_mean(conv.standardized_weight(), dim=(1, 2, 3), unbiased=False)  # of 64 filters
stored = conv.weight.var(dim=(1, 2, 3), unbiased=False)
holds("4.5", torch.stack([mean, var]), torch.stack([torch.zeros(64), stored / (stored + 1e-5)]), within=1e-4)
print("all variances between 0.98 and 1:", bool(((var > 0.98) & (var < 1)).all()))

# %% [markdown]
r"""
What is a filter of mean 0 good for? It answers 0 where the image is flat, whatever the grey of it, and looks at differences
only. And scale and offset of the stored weights have no effect any more: they may drift as they like, the filter stays.
"""

# %%
inside = conv(torch.full((1, 32, 8, 8), 0.7))[0, :, 1:-1, 1:-1]  # away from the border
print("a flat image gives the bias alone:", bool((inside - conv.bias[:, None, None]).abs().max() < 1e-3))
before = conv(x)
with torch.no_grad():
    conv.weight.mul_(10).add_(3)
change = (conv(x) - before).abs().max() / before.std()
print("ten times the weights, plus 3: same outputs:", bool(change < 0.02))

# %% [markdown]
r"""
## Group normalization

The next part does to the feature maps what the last one did to the weights. The $c$ channels of one image are divided into
groups, and in each group all values, of all pixels and of all channels in it, get mean 0 and variance 1 (Wu & He 2018).
After that each channel has a factor $\gamma$ and an offset $\delta$ of its own, which are learned and start at 1 and 0:

$$\operatorname{norm}(h) = \gamma\,\frac{h - \operatorname{mean}_g(h)}{\sqrt{\operatorname{var}_g(h) + \epsilon}} + \delta \tag{4.6}$$

where $g$ is the group that a value belongs to. Nothing is averaged over the batch, so an image comes out the same alone or
in company. Chapter 05 shows what happens otherwise.
"""


# %%
def my_group_norm(h, groups, gamma, delta):
    g = rearrange(h, "b (g c) h w -> b g (c h w)", g=groups)
    var, mean = torch.var_mean(g, dim=2, keepdim=True, unbiased=False)
    g = (g - mean) / (var + 1e-5).sqrt()
    return g.reshape(h.shape) * gamma[:, None, None] + delta[:, None, None]


h = 5 * torch.randn(2, 64, 8, 8, generator=generator) + 3
gamma, delta = torch.randn(2, 64, generator=generator)
holds("4.6", my_group_norm(h, 8, gamma, delta), F.group_norm(h, 8, gamma, delta), within=1e-4)

# %% [markdown]
r"""
For what comes next one consequence matters. Multiply all of $h$ by a number $a > 0$: the mean and the root of the variance
are multiplied by $a$ as well, and $a$ cancels, up to the little that $\epsilon$ does.

$$\operatorname{norm}(a\,h) = \operatorname{norm}(h), \qquad a > 0 \tag{4.7}$$
"""

# %%
norm = nn.GroupNorm(8, 64)
holds("4.7", torch.stack([norm(0.1 * h), norm(1000 * h)]), torch.stack([norm(h), norm(h)]), within=1e-3)

# %% [markdown]
r"""
The norm forgets the size of what it is given. That is its purpose, and it is also a perfect hiding place.

## Bug museum: the division that was a multiplication

`rsqrt` is one divided by the square root. Fast code therefore *multiplies* by `rsqrt(var + eps)`. A popular tutorial, an
annotated implementation on a company's blog from which many projects copied their network, carried this line from October
2023 to November 2024:

```python
weight = (weight - mean) / (var + eps).rsqrt()
```

One character is wrong. Dividing by one over the root is multiplying by the root, so that every filter is multiplied by its
standard deviation where it should be divided by it. The tutorial has been repaired; copies of the line can still be found in
public repositories.

**Before you run the next cell:** how many times smaller than the right weights are the wrong ones, for 32 channels? (PyTorch
draws the initial weights of a filter evenly from $-1/\sqrt{288}$ to $1/\sqrt{288}$.)
"""

# %%
my_guess = None

torch.manual_seed(4)
conv = parts.WeightStandardizedConv2d(32, 32, 3, padding=1)
raw = conv.weight.detach()
var, mean = torch.var_mean(raw, dim=(1, 2, 3), keepdim=True, unbiased=False)
weights = {
    "stored": raw,
    "divided (right)": (raw - mean) / (var + 1e-5).sqrt(),
    "multiplied (wrong)": (raw - mean) / (var + 1e-5).rsqrt(),
}
right_weight, wrong_weight = weights["divided (right)"], weights["multiplied (wrong)"]
guess(my_guess, round((right_weight.std() / wrong_weight.std()).item(), -1), " times")

figure, axes = plt.subplots(1, 3, figsize=(8, 2))
for axis, (name, weight) in zip(axes, weights.items()):
    axis.hist(weight.flatten(), bins=40)
    axis.set(title=name, yticks=[])
    print(f"{name:19} standard deviation {weight.std().item():.2g}")
plt.show()

# %% [markdown]
r"""
Three histograms of one shape, and only the numbers under them differ. Right and wrong are apart by one over the variance, and
an even distribution from $-a$ to $a$ has the variance $a^2/3$: that makes $3 \cdot 288 = 864$, up to the luck of the draw.
Now the outputs. Each weight goes through the convolution and the group norm after it.

**Before you run the next cell:** without the convolution's bias, how strongly are the two outputs correlated? (1 is equal up
to scale, 0 is unrelated.)
"""

# %%
my_guess = None


maps = torch.randn(16, 32, 16, 16, generator=torch.Generator().manual_seed(5))


def normed(weight, bias):
    return F.group_norm(F.conv2d(maps, weight, bias, padding=1), num_groups=8)


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


bias = conv.bias.detach()
outputs = {"without bias": None, "with bias": bias}
pairs = {name: (normed(right_weight, b), normed(wrong_weight, b)) for name, b in outputs.items()}
guess(my_guess, round(correlation(*pairs["without bias"]), 3))

figure, axes = plt.subplots(1, 2, figsize=(7, 2.3), sharey=True)
for axis, (name, (right, wrong)) in zip(axes, pairs.items()):
    axis.scatter(right.flatten()[::400], wrong.flatten()[::400], s=3, alpha=0.6, linewidths=0)
    axis.set(title=f"normed outputs, {name}", xlabel="right weights", xlim=(-3, 3), ylim=(-3, 3))
    print(
        f"{name:13} correlation {correlation(right, wrong):.2f}"
        f"   mean and variance of the wrong one: {abs(wrong.mean().item()):.1f}, {wrong.var().item():.1f}"
    )
axes[0].set(ylabel="wrong weights")
plt.show()
for name, weight in (("right", right_weight), ("wrong", wrong_weight)):
    before_norm = F.conv2d(maps, weight, padding=1).std().item()
    print(f"{name}: outputs of size {before_norm:.2g} before the norm, beside a bias of size {bias.std().item():.2g}")

# %% [markdown]
r"""
Left, (4.7) at work: weights several hundred times too small, and the picture is nearly untouched, because all filters shrank
by nearly one factor. (Not exactly one: each was multiplied by its own standard deviation, which is the little that the
correlation lacks.)

Right, the convolution as the tutorial had it, with its bias. The bias did not shrink along. Next to outputs of the right
size it is nothing; next to outputs that are hundreds of times too small it is the larger part, and the norm then blows up a
map that is mostly constant offset. So the bug changes the outputs by a lot. And still it is not seen: mean 0 and variance 1
are there as ever.

But surely a network with such a bug does not learn? Two small denoisers, alike to the last initial weight, are trained for
100 steps on noisy digits at $t = 300$, one of them with the wrong line. (The loss is the mean square error of the guessed
clean image; chapter 06 is about training.)
"""


# %%
class Multiplied(MyWeightStandardizedConv2d):
    def standardized_weight(self):
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
        return (self.weight - mean) / (var + 1e-5).rsqrt()


def small_denoiser(kind):
    torch.manual_seed(0)
    blocks = [nn.Sequential(kind(16, 16, 3, padding=1), nn.GroupNorm(8, 16), nn.SiLU()) for _ in range(4)]
    first, last = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 4, 1)
    # PixelUnshuffle folds 2 x 2 pixels into 4 channels, PixelShuffle unfolds them: see the end of the chapter
    return nn.Sequential(nn.PixelUnshuffle(2), first, *blocks, last, nn.PixelShuffle(2))


def train(net, steps=100):
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x_0 = images[torch.randint(len(images), (32,), generator=generator)]
        x_t = tinyddpm.q_sample(x_0, 300, torch.randn(x_0.shape, generator=generator), schedule)
        loss = (net(x_t) - x_0).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


kinds = {"divided (right)": parts.WeightStandardizedConv2d, "multiplied (wrong)": Multiplied}
curves = {name: train(small_denoiser(kind)) for name, kind in kinds.items()}
figure, axes = plt.subplots(figsize=(5.5, 2))
for name, losses in curves.items():
    axes.plot(losses, label=name)
axes.set(title="training loss", xlabel="step", yscale="log")
axes.legend()
plt.show()
right, wrong = (sum(losses[-20:]) / 20 for losses in curves.values())
print("both learn (a quarter of the first loss or less):", all(c[-1] < c[0] / 4 for c in curves.values()))
print("and end within a third of each other:", 2 / 3 < wrong / right < 3 / 2)

# %% [markdown]
r"""
It learns, and the two curves can hardly be told apart. What is lost is what the part was there for, filters whose size cannot
drift, and with it the meaning of the weights: loaded into somebody else's correct code they make another network.

The line that catches it is the promise (4.5), tested on the weight. It takes a millisecond and no data:
"""

# %%
for name, kind in kinds.items():
    torch.manual_seed(4)
    weight = kind(32, 32, 3).standardized_weight()
    caught = not (weight.var(dim=(1, 2, 3), unbiased=False) - 1).abs().max() < 0.1  # the line that catches it
    print(f"{name:19} {'caught' if caught else 'passes'}")

# %% [markdown]
r"""
**Normalisation hides bugs. Test the part, not the picture.**

## Convolution, norm, scale and shift, SiLU

Here the condition enters for the first time. It sets, for each channel, a *scale* and a *shift* that are applied right after
the norm, where all channels have one size and a factor has a clear meaning: a channel can be turned up, turned down, or
pushed to one side, as if by the sliders of a mixing desk (Perez et al. 2018; for diffusion, Nichol & Dhariwal 2021). Then
comes the bend without which all layers would collapse into one, $\operatorname{SiLU}(z) = z / (1 + e^{-z})$, a smooth
version of "keep what is positive".

$$\operatorname{block}(x) =
\operatorname{SiLU}\bigl(\operatorname{norm}(\operatorname{conv}(x)) \cdot (1 + \text{scale}) + \text{shift}\bigr) \tag{4.8}$$

Why $1 + \text{scale}$? So that 0 means "leave it as it is", and a layer whose weights are 0 does no harm.
"""


# %%
class MyConvBlock(nn.Module):
    def __init__(self, c_in, c_out, groups=8):
        super().__init__()
        self.conv = MyWeightStandardizedConv2d(c_in, c_out, 3, padding=1)
        self.norm = nn.GroupNorm(groups, c_out)

    def forward(self, x, scale_shift=None):
        h = self.norm(self.conv(x))
        if scale_shift is not None:
            scale, shift = scale_shift  # (b, c_out) each
            h = h * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        return F.silu(h)


torch.manual_seed(4)
block = parts.ConvBlock(32, 64)
scale, shift = torch.randn(2, 2, 64, generator=generator)
z = my_group_norm(block.conv(x), 8, block.norm.weight, block.norm.bias)
z = z * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
holds("4.8", block(x, (scale, shift)), z / (1 + torch.exp(-z)), within=1e-4)
same(MyConvBlock(32, 64), block, x, (scale, shift), within=1e-4)

# %% [markdown]
r"""
## The residual block

Two of these blocks, and a way past them (He et al. 2016):

$$h = \operatorname{block}_2\bigl(\operatorname{block}_1(x,\; \text{scale}, \text{shift})\bigr) + x, \qquad
[\text{scale}, \text{shift}] = W \operatorname{SiLU}(\text{cond}) + b \tag{4.9}$$

The condition goes through one linear layer, whose weights $W$ and $b$ the library calls `modulation`, and the result is
cut into scale and shift for the first block. Where the number of channels changes, $x$ cannot be added as it is, and a 1 by
1 convolution adapts it. So the two blocks need to learn only *what to change* about $x$, and $x$ itself gets past them
unharmed.

`W` and `b` start at zero. This causes a small trouble with our comparisons. With $W = 0$ the condition has no effect, and
*any* wiring of it would pass. So before we compare, `moved` shifts every weight off its start.
"""


# %%
class MyResnetBlock(nn.Module):
    def __init__(self, c_in, c_out, cond_dim, groups=8):
        super().__init__()
        self.modulation = nn.Linear(cond_dim, 2 * c_out)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.block1 = MyConvBlock(c_in, c_out, groups)
        self.block2 = MyConvBlock(c_out, c_out, groups)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x, cond):
        scale, shift = self.modulation(F.silu(cond)).chunk(2, dim=1)
        return self.block2(self.block1(x, (scale, shift))) + self.shortcut(x)


def moved(piece, by=0.2):
    """The same piece with noise on every weight, so that nothing in it is zero."""
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for p in piece.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    return piece


torch.manual_seed(4)
resnet = moved(parts.ResnetBlock(32, 32, cond_dim=128))
cond = torch.randn(2, 128, generator=generator)
scale, shift = (resnet.modulation.weight @ F.silu(cond).T + resnet.modulation.bias[:, None]).T.chunk(2, dim=1)
holds("4.9", resnet(x, cond), resnet.block2(resnet.block1(x, (scale, shift))) + x, within=1e-4)
same(MyResnetBlock(32, 32, 128), resnet, x, cond, within=1e-4)
same(MyResnetBlock(32, 64, 128), moved(parts.ResnetBlock(32, 64, 128)), x, cond, within=1e-3)

# %% [markdown]
r"""
And what does a block do that has *not* been moved? Let $\text{cond}_t$ be the condition that belongs to time $t$.

**Before you run the next cell:** by how much does the output of an untrained block change if it is told $t = 1000$ instead
of $t = 1$?
"""

# %%
my_guess = None

untrained = parts.ResnetBlock(32, 32, cond_dim=128)
conds = parts.SinusoidalEmbedding(128)(torch.tensor([1, 1000]))  # cond_1 and cond_1000
one_image = x[:1].expand(2, -1, -1, -1)
out = untrained(one_image, conds)
guess(my_guess, round((out[0] - out[1]).abs().max().item(), 4))

# %% [markdown]
r"""
$$\text{untrained:}\quad \operatorname{block}(x, \text{cond}_t) = \operatorname{block}(x, \text{cond}_s) \quad \text{for all } t, s \tag{4.10}$$

An untrained block ignores the time, and is meant to. The network starts as one denoiser for all times and learns where they
differ, rather than starting with a random opinion about each. It *can* learn it: the output does not depend on the condition
yet, but the gradient of the weights $W$ is not zero.
"""

# %%
holds("4.10", out[0], out[1])
out.square().sum().backward()
print("the modulation has a gradient:", bool(untrained.modulation.weight.grad.abs().max() > 0))

# %% [markdown]
r"""
What the way past is worth shows when blocks are stacked. The next cell sends an image through up to 32 untrained blocks, with
their shortcuts and without, and asks two things: how strongly the output is correlated with the input, and how large a
gradient becomes on its way back to the input.
"""

# %%
torch.manual_seed(4)
stack = [parts.ResnetBlock(16, 16) for _ in range(32)]
start = torch.randn(2, 16, 12, 12, generator=generator)
push = torch.randn(start.shape, generator=generator)  # the gradient at the output
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.1))
results = {}
for name, past in (("with shortcut", 1), ("without", 0)):
    source = start.clone().requires_grad_()
    h, kept, growth = source, [], []
    for resnet_block in stack:
        h = resnet_block.block2(resnet_block.block1(h)) + past * h
        kept.append(correlation(source.detach(), h.detach()))
        (gradient,) = torch.autograd.grad((h * push).sum(), source, retain_graph=True)
        growth.append((gradient.norm() / push.norm()).item())
    left.plot(range(1, 33), kept, label=name)
    right.plot(range(1, 33), growth, label=name)
    results[name] = kept[15], growth[31]
left.set(title="correlation of output and input", xlabel="blocks")
right.set(title="size of the gradient at the input", xlabel="blocks", yscale="log")
left.legend()
plt.show()
(kept_with, growth_with), (kept_without, growth_without) = results.values()
print("correlation above 0.3 after 16 blocks:", kept_with > 0.3, "with,", abs(kept_without) > 0.3, "without")
print(
    "gradient after 32 blocks less than 20 times its size:", growth_with < 20, "with,", growth_without < 20, "without"
)

# %% [markdown]
r"""
Without shortcuts the output of a single block is already uncorrelated with its input, and the gradient grows by a constant
factor with each block: it explodes. With them the input stays in the sum, and the gradient that arrives has a size one can
learn with.

## Attention: every pixel looks at every other

A 3 by 3 convolution sees neighbours. Whether a stroke at the bottom belongs to a 4 or a 9 is decided at the top, and it
takes many convolutions to carry the news there. *Attention* has no distance at all. Every pixel asks a question, a vector
$q$ (the *query*); every pixel shows a sign, a vector $k$ (the *key*); and every pixel offers something, a vector $v$ (the
*value*). How well question and sign agree is their inner product, the softmax turns the agreements into shares that add up
to 1, and each pixel receives the mixture of all values with these shares. With one row for each of the $n$ pixels and
vectors of length $d$,

$$\operatorname{attend}(q, k, v) = \operatorname{softmax}\!\left(\frac{q\,k^\top}{\sqrt d}\right) v \tag{4.11}$$

(Vaswani et al. 2017, equation 1). The softmax runs along the rows: $n$ by $n$ shares, and each *row* adds up to 1. PyTorch
has the same as one function.
"""


# %%
def my_shares(q, k):
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (..., n, n): row i is pixel i's question
    return scores.softmax(dim=-1)


def my_attend(q, k, v):
    return my_shares(q, k) @ v


q, k, v = torch.randn(3, 2, 4, 16, 32, generator=generator)  # 2 images, 4 heads, 16 pixels, length 32
holds("4.11", my_attend(q, k, v), F.scaled_dot_product_attention(q, k, v), within=1e-5)
sums = my_shares(q, k).sum(-1)
print("every row adds up to 1:", bool((sums - 1).abs().max() < 1e-5))

# %% [markdown]
r"""
Why the root of $d$? If the $d$ numbers in $q$ and $k$ are independent with mean 0 and variance 1, each product $q_i k_i$ has
variance 1, and variances add up:

$$\operatorname{Var}[q \cdot k] = d \tag{4.12}$$

Undivided, the scores grow with $\sqrt d$, and a softmax of large numbers gives everything to the largest and nothing to the
others, with no gradient to change its mind. Dividing brings them back to variance 1, for every $d$.
"""

# %%
measured, largest = [], {}
for d in (4, 32, 256):
    a, b = torch.randn(2, 20_000, d, generator=generator)
    measured.append((a * b).sum(1).var() / d)
    scores = a[:500] @ b[:64].T  # 500 questions to 64 pixels
    largest[d] = [(scores * f).softmax(1).max(1).values.mean().item() for f in (1, d**-0.5)]
holds("4.12", measured, [1.0, 1.0, 1.0], within=0.05)
for d, (undivided, divided) in largest.items():
    print(f"d = {d:3}: largest of 64 shares, on average {undivided:.2f} undivided, {divided:.2f} divided")

# %% [markdown]
r"""
### You have met it before

The exact denoiser of chapter 03, the oracle, weighs all training images by how likely each is to have become $x_t$, and
returns their mixture. Weights from a softmax, times values: it *is* attention. The query is the noisy image, the keys and
the values are the training images $x_i$. Only the term that depends on the length of $x_i$ does not look like an inner
product, and an extra coordinate makes it one (the $\sqrt d$ in $q$ is there only to cancel that of (4.11)):

$$\hat x_0 = \operatorname{attend}(q, k, v), \quad
q = \sqrt d\,\Bigl[\tfrac{\sqrt{\bar\alpha_t}}{1-\bar\alpha_t}\,x_t,\; 1\Bigr], \quad
k_i = \Bigl[x_i,\; -\tfrac{\bar\alpha_t}{2(1-\bar\alpha_t)}\,\lVert x_i\rVert^2\Bigr], \quad
v_i = x_i \tag{4.13}$$

with $\bar\alpha_t$ as in chapter 01 and $\hat x_0$ the guess of the clean image. A network with attention looks at the
pixels of one image instead of at 60,000 images; the mechanism is the same.
"""

# %%
held = images[:500]  # the images that the oracle holds
time = torch.tensor([400, 400, 400])
x_t = tinyddpm.q_sample(images[:3], time, torch.randn(3, 1, 32, 32, generator=generator), schedule)
abar = schedule.alpha_bar[400].float()

flat = held.flatten(1)  # (500, 1024)
query = torch.cat([abar.sqrt() / (1 - abar) * x_t.flatten(1), torch.ones(3, 1)], dim=1)
keys = torch.cat([flat, -abar / (2 * (1 - abar)) * flat.square().sum(1, keepdim=True)], dim=1)
d = query.shape[1]  # 1025
x_0_hat = my_attend(d**0.5 * query, keys, flat).reshape(x_t.shape)
holds("4.13", x_0_hat, tinyddpm.dataset_oracle(held, schedule)(x_t, time), within=1e-3)

# %% [markdown]
r"""
### What one pixel looks at

An untrained attention layer looks at random. To see a sensible map without training anything, we choose queries and keys by
hand: let both be the 3 by 3 neighbourhood $p_i$ of a pixel, divided by 1.2 and again with an extra coordinate, so that the
shares become proportional to $\exp(-\lVert p_i - p_j \rVert^2 / 2)$. Every pixel then looks at pixels with *similar
surroundings*, wherever they are. The values are the grey levels. (As a method to remove noise this is known as non-local
means, Buades et al. 2005.)

The noisy image is an $x_t$ at $t = 150$, divided by $\sqrt{\bar\alpha_t}$. Look at the third and the fourth picture: each is
one row of the shares, the row of the pixel with the cross, folded back into an image. The first cross is on the edge of a
stroke, the second in the middle of one.
"""

# %%
t = 150
abar = schedule.alpha_bar[t].float()
three = digits[3:4]
noise = torch.randn(three.shape, generator=torch.Generator().manual_seed(7))
noisy = tinyddpm.q_sample(three, t, noise, schedule) / abar.sqrt()
padded = F.pad(noisy, (1, 1, 1, 1), value=-1.0)
p = F.unfold(padded, 3)[0].T / 1.2  # (1024, 9): the neighbourhood of each pixel
q = 10**0.5 * torch.cat([p, torch.ones(1024, 1)], dim=1)  # d = 10
k = torch.cat([p, -p.square().sum(1, keepdim=True) / 2], dim=1)
shares = my_shares(q, k).reshape(32, 32, 32, 32)  # [row, column] of who looks, then of what is looked at
attended = my_attend(q, k, noisy.reshape(1024, 1)).reshape(1, 1, 32, 32)
averaged = F.avg_pool2d(padded, 3, stride=1)

edge, middle = (8, 15), (14, 12)
pictures = {"clean": three, "noisy": noisy, "3x3 average": averaged, "attention": attended}
figure, axes = plt.subplots(1, 6, figsize=(8, 1.6))
for axis, name in zip(axes[[0, 1, 4, 5]], pictures):
    axis.imshow(pictures[name][0, 0], vmin=-1, vmax=1)
    axis.set_title(name)
for axis, (row, column), name in zip(axes[2:4], (edge, middle), ("what + looks at", "... and what x")):
    seen = shares[row, column]
    axis.imshow(seen, cmap="magma", vmax=seen.flatten().topk(2).values[1])  # the pixel itself is brighter still
    axis.set_title(name)
for axis in axes:
    axis.axis("off")
for (row, column), marker, axis in zip((edge, middle), "+x", axes[2:4]):
    axes[1].plot(column, row, marker, color="cyan", markersize=7)
    axis.plot(column, row, marker, color="cyan", markersize=7)
plt.show()
for name in ("noisy", "3x3 average", "attention"):
    print(f"mean square error, {name:12} {(pictures[name] - three).square().mean().item():.2g}")

# %% [markdown]
r"""
The pixel on the edge looks at edges that face the same way, up and to the right, on both bows of the 3; the one in the
middle looks along the stroke. An average over neighbours mixes ink with paper and blurs; attention averages what is *alike*,
over the whole image. Nobody has trained it. A network learns which questions to ask.

### As a block

In the network, $q$, $k$ and $v$ are made from the group-normed map by a 1 by 1 convolution, split into several *heads* that
attend independently, and the result is projected back and added to the input. The norm has a single group, all channels of an
image together, so that it leaves the channels' sizes relative to each other as they are. The projection starts at zero: an
untrained attention block returns its input.
"""


# %%
class MyAttention(nn.Module):
    def __init__(self, c, heads=4, head_dim=32):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(1, c)
        self.to_qkv = nn.Conv2d(c, 3 * heads * head_dim, 1, bias=False)
        self.project = nn.Conv2d(heads * head_dim, c, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def attend(self, q, k, v):
        return my_attend(q, k, v)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = rearrange(self.to_qkv(self.norm(x)), "b (three m d) h w -> three b m (h w) d", three=3, m=self.heads)
        out = rearrange(self.attend(q, k, v), "b m (h w) d -> b (m d) h w", h=h, w=w)
        return x + self.project(out)


torch.manual_seed(4)
attention = parts.Attention(32)
print("untrained, it returns its input:", torch.equal(attention(x), x))
same(MyAttention(32), moved(attention), x, within=1e-4)

# %% [markdown]
r"""
One thing attention does not know: where anything is. Shuffle the pixels by a permutation $\pi$, and the output is shuffled
in the same way, nothing else changes, since agreement of $q_i$ and $k_j$ does not ask for $i$ and $j$:

$$\operatorname{attention}(\pi x) = \pi \operatorname{attention}(x) \tag{4.14}$$

This is called permutation equivariance. The places are the business of the convolutions, which stand before and after it;
they are anything but equivariant under shuffling.
"""

# %%
order = torch.randperm(64, generator=generator)


def shuffled(maps):
    return maps.flatten(2)[:, :, order].reshape(maps.shape)


holds("4.14", attention(shuffled(x)), shuffled(attention(x)), within=1e-4)
moved_block = moved(parts.ResnetBlock(32, 32))
print("a ResnetBlock does the same:", torch.allclose(moved_block(shuffled(x)), shuffled(moved_block(x)), atol=0.1))

# %% [markdown]
r"""
> **Aside: a cost that is linear.** Attention has $n \times n$ shares: twice the side of a map, sixteen times the work. If the
> softmax stood on $q$ and on $k$ separately, instead of on their product, the product of the three matrices could be taken in
> the other order, first $k^\top v$, which is $d$ by $d$ whatever $n$ is (Shen et al. 2021). The library has this as
> `LinearAttention`, which is `Attention` with two lines in place of one. No pixel can then pick out one single other pixel, it
> can only choose among $d$ summaries, and below $n = d$ pixels it is not even cheaper. The network of the course attends in
> full, on its smallest map only.
"""


# %%
class MyLinearAttention(MyAttention):
    def attend(self, q, k, v):
        q, k = q.softmax(dim=-1) / q.shape[-1] ** 0.5, k.softmax(dim=-2)
        return q @ (k.transpose(-1, -2) @ v)


same(MyLinearAttention(32), moved(parts.LinearAttention(32)), x, within=1e-4)

# %% [markdown]
r"""
## Half the size without losing a pixel

The network looks at the image at several sizes. To halve the size, many networks average or skip: of four pixels one number
remains, and three are lost. *Space to depth* loses nothing. It moves each square of $p \times p$ pixels into the channels of
one pixel: the image gets smaller and thicker (Shi et al. 2016, who describe the way back). With $c$ the channel, $a$ and $b$
the row and column of the square, and $i$ and $j$ the place inside it,

$$y_{\,c p^2 + p\,i + j,\; a,\, b} = x_{\,c,\; p a + i,\; p b + j} \tag{4.15}$$

`einops` reads nearly like the sentence before: height is `(h p1)`, width is `(w p2)`, and both `p` move to the channels. Its
inverse is the same line with the two sides exchanged.
"""


# %%
class MySpaceToDepth(nn.Module):
    def forward(self, x):
        return rearrange(x, "b c (h p1) (w p2) -> b (c p1 p2) h w", p1=2, p2=2)


class MyDepthToSpace(nn.Module):
    def forward(self, y):
        return rearrange(y, "b (c p1 p2) h w -> b c (h p1) (w p2)", p1=2, p2=2)


feature_map = torch.randn(2, 3, 8, 12, generator=generator)
y = parts.SpaceToDepth(2)(feature_map)
by_slices = torch.stack([feature_map[:, c, i::2, j::2] for c in range(3) for i in range(2) for j in range(2)], dim=1)
holds("4.15", y, by_slices)
same(MySpaceToDepth(), parts.SpaceToDepth(2), feature_map)
same(MyDepthToSpace(), parts.DepthToSpace(2), y)
print("there and back:", torch.equal(parts.DepthToSpace(2)(y), feature_map))
print("equal to pixel_unshuffle:", torch.equal(y, F.pixel_unshuffle(feature_map, 2)))

# %% [markdown]
r"""
There and back is exact, to the bit. PyTorch calls it `pixel_unshuffle`. Other frameworks put the same numbers in another
order, with the channel last, which is fatal when weights are carried from one to the other (exercise 04b).

**Before you run the next cell:** halve the digits by averaging 2 by 2 pixels and enlarge them again. Which share of their
variance is lost, in per cent?

In the figure, the first picture is the digit, the next four are the channels after space to depth, and the last two are what
comes back: from the averages, and from the four channels.
"""

# %%
my_guess = None

averaged = F.interpolate(F.avg_pool2d(images[:1000], 2), scale_factor=2)
lost = ((images[:1000] - averaged).var() / images[:1000].var()).item()
guess(my_guess, round(100 * lost), " %")

seven = digits[7:8]
quarters = F.pad(parts.SpaceToDepth(2)(seven), (8, 8, 8, 8), value=-1.0).transpose(0, 1)  # (4, 1, 32, 32)
back = parts.DepthToSpace(2)(parts.SpaceToDepth(2)(seven))
pooled = F.interpolate(F.avg_pool2d(seven, 2), scale_factor=2)
show(
    image_grid(torch.cat([seven, quarters, pooled, back]), columns=7),
    "a digit | its four channels | back from averages | back from the channels",
)

# %% [markdown]
r"""
The library halves a map with space to depth and a 1 by 1 convolution that mixes the four times as many channels down to the
number wanted, and doubles it with the reverse. (The mixing may lose something; then it is a choice that training makes.)
Both are two parts in a row:
"""

# %%
torch.manual_seed(4)
down = nn.Sequential(MySpaceToDepth(), nn.Conv2d(4 * 32, 64, 1))
up = nn.Sequential(nn.Conv2d(32, 4 * 16, 1), MyDepthToSpace())
same(down, parts.Downsample(32, 64), x)
same(up, parts.Upsample(32, 16), x)

# %% [markdown]
r"""
## What this chapter showed

Each part kept its promise when it was tested on its own, by its weights, moved off zero. The one line that broke its promise
was found in the same way, when neither the outputs nor the loss gave it away.

## Exercises

**04a.** Repair this standardization. It has two mistakes: the museum's, and another. `weight` has the shape
`(c_out, c_in, h, w)`.

```python
def broken(weight, eps):
    mean, var = weight.mean(), weight.var(unbiased=False)
    return (weight - mean) / (var + eps).rsqrt()
```
"""


# %%
def answer_04a(weight, eps):
    """Returns the weights with every filter standardized."""
    ...


check("04a", answer_04a)

# %% [markdown]
r"""
<details><summary>Solution 04a</summary>

```python
def answer_04a(weight, eps):
    var, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
    return (weight - mean) * (var + eps).rsqrt()
```

The second mistake was to standardize all filters together: the whole then has mean 0 and variance 1, and no single filter
needs to. A test that looks at `weight.mean()` and `weight.var()` of the whole tensor would not have noticed.
</details>

**04b.** Write the way back from the *channel-last* order: `y` was made by
`rearrange(x, "b c (h p1) (w p2) -> b (p1 p2 c) h w", p1=p, p2=p)`. Return `x`.
"""


# %%
def answer_04b(y, p):
    """y: (b, p p c, h, w). Returns x: (b, c, h p, w p)."""
    ...


check("04b", answer_04b)

# %% [markdown]
r"""
<details><summary>Solution 04b</summary>

```python
def answer_04b(y, p):
    return rearrange(y, "b (p1 p2 c) h w -> b c (h p1) (w p2)", p1=p, p2=p)
```

`F.pixel_shuffle` would return the right shape and the wrong picture. A shape is not a test.
</details>

**04c.** An attention map: how much does pixel `i` take from each pixel? `q` and `k` are `(n, d)`, one row for each pixel;
return the `n` shares.
"""


# %%
def answer_04c(q, k, i):
    """Returns (n,): what pixel i looks at."""
    ...


check("04c", answer_04c)

# %% [markdown]
r"""
<details><summary>Solution 04c</summary>

```python
def answer_04c(q, k, i):
    return (k @ q[i] / q.shape[1] ** 0.5).softmax(dim=0)
```

One question, $q_i$, to all signs $k_j$. Row $i$ of the shares adds up to 1; column $i$ says how much everybody looks *at*
pixel $i$, and need not.
</details>

**04d.** The cosine similarity of $\operatorname{emb}(t)$ and $\operatorname{emb}(s)$ is their inner product divided by both
their lengths. Write it as a function of the difference `t - s` alone, for embeddings of length `dim`, without making the
embeddings.
"""


# %%
def answer_04d(difference, dim):
    """difference: (b,) floats. Returns (b,): the cosine similarity of two times that far apart."""
    ...


check("04d", answer_04d)

# %% [markdown]
r"""
<details><summary>Solution 04d</summary>

```python
def answer_04d(difference, dim):
    n = dim // 2
    speed = 10_000.0 ** (-torch.arange(n) / (n - 1))
    return torch.cos(difference[:, None] * speed).mean(dim=1)
```

The inner product is (4.2), and both lengths are $\sqrt n$, so that the sum becomes a mean. At difference 0 it is 1.
</details>

## Symbols

| symbol | variable | shape | where |
|---|---|---|---|
| $t, s$ | `t`, `s` | (b,) | times |
| $\operatorname{emb}(t)$ | `embed` | (b, dim) | (4.1); Vaswani et al. 2017, section 3.5 |
| $\omega_i$ | `frequency` | (dim / 2,) | (4.1), (4.2) |
| $E$ | `label.weight` | (classes + 1, dim) | (4.3) |
| $\text{cond}$ | `cond` | (b, cond_dim) | the condition: time plus label |
| $\hat w$ | `standardized_weight` | (c_out, c_in, 3, 3) | (4.4); Qiao et al. 2019, eq. 5 |
| $\gamma, \delta$ | `gamma`, `delta` | (c,) | (4.6), the norm's own factor and offset |
| $W, b$ | `modulation` | (2 c, cond_dim) | (4.9), start at zero |
| $q, k, v$ | `q`, `k`, `v` | (b, heads, n, d) | (4.11); Vaswani et al. 2017, eq. 1 |
| $c$; $n$, $d$ | `c`; `n`, `d` | numbers | channels; pixels and length of a head's vectors, in attention |
| $\pi$ | `shuffled`, `order` | (n,) | (4.14), a permutation of the pixels |

**Next:** [05 · The U-Net](05_unet.ipynb). One page of wiring makes these parts a denoiser, and three ways to wire it wrongly
are found by three questions.
"""
