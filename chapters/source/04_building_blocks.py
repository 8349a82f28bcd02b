# %% [markdown]
r"""
# 04 · Building blocks: every part of the network, made by hand and measured

**After this chapter you can**

* say what each part of the network is for, write it in a few lines, and compare it with the library's;
* turn a time into a vector, and explain why it is made of sines;
* test a part by its weights and not by its pictures, and tell how a wrong line hid in a popular tutorial for a year.

*You need:* chapters 01 and 03, and what `nn.Linear` and `nn.Conv2d` do. *Reading:* about MINUTES minutes. *You build and then
import:* `SinusoidalEmbedding`, `LabelEmbedding`, `WeightStandardizedConv2d`, `ConvBlock`, `ResnetBlock`, `Attention`,
`SpaceToDepth`, `DepthToSpace`.

---

The denoiser of chapter 03 was exact, and that was its limit: it knows its 2,000 images and nothing else. From here on a neural
network does the work. This is the one that ships with the library, a *U-Net*
([Ronneberger et al. 2015](https://arxiv.org/abs/1505.04597); [Ho et al. 2020](https://arxiv.org/abs/2006.11239)), caught while it
looks at a noisy three.
"""

# %% tags=["setup"]
import math

import torch
import torch.nn.functional as F
from course import NETWORK, NOISE, REST, TEXT, check, guess, holds, same, show_figure, tiles
from course.chapter_04 import curves, looks, table_of_hands, unet_diagram
from einops import rearrange
from torch import nn

import tinyddpm
from tinyddpm import nn as parts  # the ground floor of the library
from tinyddpm.data import mnist

images, labels = mnist(train=False).tensors()
digits = torch.cat([images[labels == y][1:2] for y in range(8)])  # (8, 1, 32, 32)
schedule = tinyddpm.Schedule.named("linear", T=1000)
generator = torch.Generator().manual_seed(4)

# %% tags=["share"]
unet_diagram(tinyddpm.load_pretrained(), digits[3:4], t=400, y=3)
show_figure(
    "The U-Net as a diagram: a noisy three is folded to 16 x 16, 8 x 8 and 4 x 4, and unfolded to its prediction"
)

# %% [markdown]
r"""
Each picture is one channel of a real feature map; below it stand the part that made it, and channels × side². On the left
the maps get smaller and thicker, on the right they grow again, and each gets a copy of its counterpart (dashed). Parts with a
dot are told the time and the label.

It is built from eight parts. Each is a handful of lines and makes a promise that can be measured. We build them one at a time and
measure the promise before we go on: **a part is tested on its own, by what it promises**. Chapter 05 does the wiring.

## Time as a vector

The network must know how noisy its input is. The number $t$ alone will not do: of a single number a layer can only make a straight
line. What we want is to do one thing around $t=300$ and another elsewhere.

A clock has the answer. Its second hand tells neighbouring moments apart and says nothing of the hour; its hour hand does the
reverse. The embedding is a clock with $m$ hands, whose speeds $\omega_i$ fall by a constant factor from one radian a step to
$1/P$, $P=10{,}000$. A hand's position is a sine and a cosine:

$$\operatorname{emb}(t)=[\sin\omega_0t,\dots,\sin\omega_{m-1}t,\;\cos\omega_0t,\dots,\cos\omega_{m-1}t],\qquad\omega_i=P^{-i/(m-1)}\tag{4.1}$$

This is the variant of the DDPM code. The formula of [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), section 3.5, who did it
for the places of words, alternates sines and cosines and has $i/m$ in the exponent, so that its slowest hand is nearly twice as fast. Both
work; weights trained with one do not fit the other.
"""


# %%
class MySinusoidalEmbedding(nn.Module):
    def __init__(self, dim, max_period=10_000.0):
        super().__init__()
        exponent = torch.arange(dim // 2) / (dim // 2 - 1)
        self.register_buffer("frequency", max_period**-exponent)  # a buffer: moves to a GPU, and is not trained

    def forward(self, t):
        angle = t[:, None] * self.frequency  # (b, 1) * (m,) -> (b, m)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


m, P, embed = 16, 10_000, parts.SinusoidalEmbedding(32)
speeds = [P ** (-i / (m - 1)) for i in range(m)]
by_hand = [[math.sin(w * t) for w in speeds] + [math.cos(w * t) for w in speeds] for t in (0, 1, 10, 100)]
holds("4.1", embed(torch.tensor([0, 1, 10, 100])), by_hand, within=1e-4)
same(MySinusoidalEmbedding(32), embed, torch.tensor([1, 2, 500, 1000]), within=1e-3)  # float32: 4 digits at 1000
print(f"slowest hand: one turn in {2 * math.pi * P:,.0f} steps; Vaswani's: {2 * math.pi * P ** (1 - 1 / m):,.0f}")
table_of_hands(embed(torch.arange(0, 201)).T)
show_figure(
    "The embedding of the times 0 to 200, a column each: fast hands above, slow ones below, sines and then cosines"
)

# %% [markdown]
r"""
## Why sines?

Each vector has $m$ sines and cosines, and $\sin^2+\cos^2=1$, so all have the same length, $\sqrt m$. For two times the addition
theorem, $\sin a\sin b+\cos a\cos b=\cos(a-b)$, gives

$$\operatorname{emb}(t)\cdot\operatorname{emb}(s)=\sum_{i=0}^{m-1}\cos\bigl(\omega_i(t-s)\bigr)\tag{4.2}$$

**Before you run the cell:** the cosine similarity (1 for equal vectors, 0 for unrelated ones) of times 10 and 20 is printed. What is
it for 510 and 520?
"""

# %%
my_guess = None

exact = parts.SinusoidalEmbedding(32).double()
t, s = torch.randint(1, 1001, (2, 500), generator=generator)
holds("4.2", (exact(t) * exact(s)).sum(1), torch.cos((t - s)[:, None] * exact.frequency).sum(1), within=1e-9)
early, late = (F.cosine_similarity(*embed(torch.tensor([t, t + 10])), dim=0).item() for t in (10, 510))
print(f"t = 10, s = 20: {early:.2f}")
guess(my_guess, round(late, 2))

# %% [markdown]
r"""
On the right of (4.2) stands only the difference: ten steps are ten steps, early or late. And a linear layer can now do what it could
not: the cell asks it (by least squares) for a bump around $t=300$.
"""

# %% tags=["setup"]
times = torch.arange(1, 1001)
target = torch.exp(-(((times - 300) / 80.0) ** 2) / 2).double()


def best_linear(inputs):
    design = torch.cat([inputs.double(), torch.ones(len(inputs), 1)], dim=1)
    penalty = 0.1 * torch.eye(design.shape[1])  # on large weights
    return design @ torch.linalg.solve(design.T @ design + penalty, design.T @ target)


def explained(fit):
    """Per cent of the bump's variance."""
    return 100 * (1 - (target - fit).var() / target.var()).item()


# %%
difference = torch.arange(-60, 61)
similarity = torch.cos(difference[:, None] * exact.frequency).mean(1)
fits = {"wanted": target, "from t": best_linear(times[:, None] / 1000), "from emb(t)": best_linear(embed(times))}
curves(
    {"similarity, against t - s": (difference, {"": similarity}), "a bump, against t": (times, fits)},
    {"wanted": (TEXT, ":"), "from t": (REST, "--"), "from emb(t)": (NETWORK, "-"), "": (TEXT, "-")},
)
show_figure(
    "Left: similarity peaks at equal times. Right: a line from t misses the bump, the fit from emb(t) follows it"
)
print(
    f"of the bump is explained: {explained(fits['from t']):.0f} % from t, {explained(fits['from emb(t)']):.0f} % from emb(t)"
)

# %% [markdown]
r"""
Behind the embedding, the network puts two linear layers with a bend between them (SiLU, below).

## The label as a vector

There are ten labels, so the network keeps ten vectors, learns them, and looks up the one that is asked for. A lookup is a matrix
product in disguise. With $\operatorname{onehot}(y)$ the vector that is 1 at place $y$ and 0 elsewhere, and $E$ the table,

$$\operatorname{label}(y)=\operatorname{onehot}(y)\,E\tag{4.3}$$

An eleventh row stands for "no label given", the *null class* ([Ho & Salimans 2022](https://arxiv.org/abs/2207.12598), chapter 07). A
row that never occurs in training is never trained. (Where a piece has weights, `same` first copies the library's into yours.)
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
Time and label are added up. The sum is the *condition*, $\text{cond}$, and every block receives it.

## A convolution whose filters cannot drift

A 3 × 3 convolution from 32 channels has $32\cdot9=288$ weights $w$ per filter. *Weight standardization*
([Qiao et al. 2019](https://arxiv.org/abs/1903.10520), equation 5) keeps training from scaling or shifting a filter as a whole. It applies

$$\hat w=\frac{w-\operatorname{mean}(w)}{\sqrt{\operatorname{var}(w)+\epsilon}}\tag{4.4}$$

with mean and variance over one filter, and $\epsilon=10^{-5}$ against a division by zero. The promise:

$$\operatorname{mean}(\hat w)=0,\qquad\operatorname{var}(\hat w)=\frac{\operatorname{var}(w)}{\operatorname{var}(w)+\epsilon}\approx1\tag{4.5}$$

Where all its inputs are equal, a filter of mean 0 answers its bias, whatever the grey: it sees differences only. The promise is about weights, so no
image, no data, no training is needed to test it. (Batch normalization, fed with weights in place
of data, is an independent check.)
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
conv, mine = (kind(32, 64, 3, padding=1) for kind in (parts.WeightStandardizedConv2d, MyWeightStandardizedConv2d))
filters = mine.weight.reshape(1, 64, 288)  # as if: one image, 64 channels, 288 pixels
as_batch_norm = F.batch_norm(filters, None, None, training=True, eps=1e-5)[0]  # (64, 288)
holds("4.4", mine.standardized_weight().flatten(1), as_batch_norm, within=1e-4)
var, mean = torch.var_mean(conv.standardized_weight(), dim=(1, 2, 3), unbiased=False)  # of 64 filters
stored = conv.weight.var(dim=(1, 2, 3), unbiased=False)
holds("4.5", torch.stack([mean, var]), torch.stack([torch.zeros(64), stored / (stored + 1e-5)]), within=1e-4)
x = torch.randn(2, 32, 8, 8, generator=generator)
same(mine, conv, x, within=1e-4)

# %% [markdown]
r"""
## Group normalization

The same for feature maps. The channels of one image are divided into groups $g$, and in each group all values get mean 0 and variance
1 ([Wu & He 2018](https://arxiv.org/abs/1803.08494)). Then each channel has a factor $\gamma$ and an offset $\delta$, learned from 1
and 0:

$$\operatorname{norm}(h)=\gamma\,\frac{h-\operatorname{mean}_g(h)}{\sqrt{\operatorname{var}_g(h)+\epsilon}}+\delta\tag{4.6}$$

Nothing is averaged over the batch. And one consequence matters below: multiply all of $h$ by $\lambda>0$, and mean and root are
multiplied, too. So $\lambda$ cancels, up to the little that $\epsilon$ does:

$$\operatorname{norm}(\lambda h)=\operatorname{norm}(h)\tag{4.7}$$
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
norm = nn.GroupNorm(8, 64)
holds("4.7", torch.stack([norm(0.1 * h), norm(1000 * h)]), torch.stack([norm(h), norm(h)]), within=1e-3)

# %% [markdown]
r"""
The norm forgets the size of what it is given. It is also a perfect hiding place.

## Bug museum: the division that was a multiplication

`rsqrt` is one *over* the square root. A popular tutorial, from which many projects copied their network, carried this line from
[October 2023](https://github.com/huggingface/blog/pull/1526) to [November 2024](https://github.com/huggingface/blog/pull/2484), and
its copies can still be found:

```python
weight = (weight - mean) / (var + eps).rsqrt()
```

Dividing by one over the root multiplies by it: each filter is multiplied by its standard deviation, where it should be divided.

**Before you run the cell:** how many times too small are the weights, for 32 channels? (PyTorch draws them evenly from
$-1/\sqrt{288}$ to $1/\sqrt{288}$.)
"""


# %%
class Multiplied(MyWeightStandardizedConv2d):
    def standardized_weight(self):
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
        return (self.weight - mean) / (var + 1e-5).rsqrt()


my_guess = None

kinds = {"divided (right)": MyWeightStandardizedConv2d, "multiplied (wrong)": Multiplied}
convs = []
for kind in kinds.values():
    torch.manual_seed(4)
    convs.append(kind(32, 32, 3, padding=1).requires_grad_(False))
right, wrong = (conv.standardized_weight() for conv in convs)
guess(my_guess, round((right.std() / wrong.std()).item(), -1), " times")

# %% [markdown]
r"""
One over the variance, and an even distribution from $-r$ to $r$ has the variance $r^2/3$. Does a network with such weights still
learn? Two small denoisers, alike to the last initial weight, are trained on noisy digits.
"""


# %%
def small_denoiser(kind):
    torch.manual_seed(0)
    blocks = [nn.Sequential(kind(16, 16, 3, padding=1), nn.GroupNorm(8, 16), nn.SiLU()) for _ in range(4)]
    first, last = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 4, 1)
    return nn.Sequential(nn.PixelUnshuffle(2), first, *blocks, last, nn.PixelShuffle(2))  # the end of the chapter


def train(net, steps=100):
    optimizer, generator = torch.optim.Adam(net.parameters(), lr=3e-3), torch.Generator().manual_seed(1)
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


losses = {name: train(small_denoiser(kind)) for name, kind in kinds.items()}
drawn = {"training loss, against the step": (range(1, 101), losses)}
curves(drawn, {"divided (right)": (NETWORK, "-"), "multiplied (wrong)": (NOISE, "--")}, log=True)
show_figure("Training losses of the right and the wrong network: two curves that can hardly be told apart")

# %% [markdown]
r"""
It learns, because the norm after the convolution undoes the size (4.7). What is lost is what the part was there for, and the meaning of the
weights: loaded into correct code they make another network. The line that catches it is the promise (4.5), on the weight:
"""

# %%
for name, conv in zip(kinds, convs):
    variance = conv.standardized_weight().var(dim=(1, 2, 3), unbiased=False)  # this line
    band_norm = [F.group_norm(c(x), 8) for c in (convs[0], conv)]
    apart = torch.corrcoef(torch.stack([part.flatten() for part in band_norm]))[0, 1]
    print(f"{name:18} variance of a filter {variance.mean():.2g}, output after the norm: ", end="")
    print(f"variance {band_norm[1].var():.2f}, correlation with the right one {apart:.2f}")

# %% [markdown]
r"""
Mean 0 and variance 1 after the norm, as ever. (The correlation is lower than (4.7) would have it because the bias did not shrink along:
next to weights hundreds of times too small it is the larger part.) **Normalization hides bugs. Test the part, not the picture.**

## Convolution, norm, scale and shift, SiLU

Here the condition enters. It sets, for each channel, a *scale* and a *shift* right after the norm, where all channels have one size: a
channel can be turned up, turned down or pushed to one side, as on a mixing desk ([Perez et al. 2018](https://arxiv.org/abs/1709.07871);
[Nichol & Dhariwal 2021](https://arxiv.org/abs/2102.09672)). Then comes the bend without which all layers would collapse into one,
$\operatorname{SiLU}(z)=z/(1+e^{-z})$.

$$\operatorname{block}(x)=\operatorname{SiLU}\bigl(\operatorname{norm}(\operatorname{conv}(x))\cdot(1+\text{scale})+\text{shift}\bigr)\tag{4.8}$$

Because of the $1+{}$, a scale of 0 means "leave it as it is".
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

Two of these blocks, and a way past them ([He et al. 2016](https://arxiv.org/abs/1512.03385)), so that they need to learn only *what to
change* about $x$:

$$h=\operatorname{block}_2\bigl(\operatorname{block}_1(x,\text{scale},\text{shift})\bigr)+x,\qquad[\text{scale},\text{shift}]=W\operatorname{SiLU}(\text{cond})+b\tag{4.9}$$

Where the number of channels changes, a 1 × 1 convolution adapts $x$. $W$ and $b$, called `modulation`, start at zero, so at first
*any* wiring of the condition would pass a comparison. Before we compare, `moved` shifts every weight off its start.
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
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for p in piece.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    return piece


torch.manual_seed(4)
resnet, cond = moved(parts.ResnetBlock(32, 32, cond_dim=128)), torch.randn(2, 128, generator=generator)
scale, shift = (resnet.modulation.weight @ F.silu(cond).T + resnet.modulation.bias[:, None]).T.chunk(2, dim=1)
holds("4.9", resnet(x, cond), resnet.block2(resnet.block1(x, (scale, shift))) + x, within=1e-4)
same(MyResnetBlock(32, 64, 128), moved(parts.ResnetBlock(32, 64, 128)), x, cond, within=1e-3)

# %% [markdown]
r"""
A block that has *not* been moved ignores the time, and is meant to: the network starts as one denoiser for all times and learns where
they differ. It *can* learn it, since the gradient of $W$ is not zero.

$$\text{untrained:}\quad\operatorname{block}(x,\text{cond}_t)=\operatorname{block}(x,\text{cond}_s)\quad\text{for all }t,s\tag{4.10}$$
"""

# %%
untrained = parts.ResnetBlock(32, 32, cond_dim=128)
out = untrained(x[:1].expand(2, -1, -1, -1), parts.SinusoidalEmbedding(128)(torch.tensor([1, 1000])))
holds("4.10", out[0], out[1])
out.square().sum().backward()
print(f"largest gradient of the modulation: {untrained.modulation.weight.grad.abs().max():.1g}")

# %% [markdown]
r"""
What is the way past worth? Send an image through 32 untrained blocks, with shortcuts and without.
"""

# %%
torch.manual_seed(4)
stack = [parts.ResnetBlock(16, 16) for _ in range(32)]
start = torch.randn(2, 16, 12, 12, generator=generator)
push = torch.randn(start.shape, generator=generator)  # the gradient at the output
kept, growth = {"with shortcut": [], "without": []}, {"with shortcut": [], "without": []}
for name, past in (("with shortcut", 1), ("without", 0)):
    source = start.clone().requires_grad_()
    h = source
    for resnet_block in stack:
        h = resnet_block.block2(resnet_block.block1(h)) + past * h
        kept[name].append(torch.corrcoef(torch.stack([start.flatten(), h.detach().flatten()]))[0, 1].item())
    (gradient,) = torch.autograd.grad((h * push).sum(), source)
    growth[name] = (gradient.norm() / push.norm()).item()
depth = "correlation of output and input, against the number of blocks"
curves({depth: (range(1, 33), kept)}, {"with shortcut": (NETWORK, "-"), "without": (NOISE, "--")})
show_figure(
    "With shortcuts the output stays correlated with the input over 32 blocks, without them it is lost after one"
)
for name in kept:
    print(
        f"{name:13} correlation after 16 blocks {kept[name][15]:.1f}, gradient after 32 blocks times {growth[name]:.0e}"
    )

# %% [markdown]
r"""
Without shortcuts the output of a single block is already unrelated to its input, and the gradient grows by a constant factor per block: it
explodes. With them the input stays in the sum, and the gradient that arrives has a size one can learn with.

## Attention: every pixel looks at every other

A convolution sees neighbours. Whether a stroke at the bottom belongs to a 4 or a 9 is decided at the top. *Attention* has no distance.
Think of an archive: the **query** is what you look for, a **key** is the label on a drawer, by which it is found, and a **value** is
what lies in the drawer, which you take home. They are three because what makes a thing findable is not what one wants from it. Every
pixel makes all three, each a vector of length $d$. How well a query fits a key is their inner product. The softmax turns the fits into
shares that add up to 1, and each pixel takes home the mixture of all values with its shares. With one row per pixel,

$$\operatorname{attend}(Q,K,V)=\operatorname{softmax}\!\left(\frac{QK^\top}{\sqrt d}\right)V\tag{4.11}$$

(Vaswani et al. 2017, equation 1). Why the root? For independent numbers of mean 0 and variance 1 each product has variance 1, and
variances add up:

$$\operatorname{Var}[q\cdot k]=d\tag{4.12}$$

Undivided, the softmax gives nearly everything to the largest, with no gradient to change its mind.
"""


# %%
def my_shares(query, key):
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1)  # (..., n, n): row i, pixel i's


def my_attend(query, key, value):
    return my_shares(query, key) @ value


query, key, value = torch.randn(3, 2, 4, 16, 32, generator=generator)  # 2 images, 4 heads, 16 pixels, d = 32
holds("4.11", my_attend(query, key, value), F.scaled_dot_product_attention(query, key, value), within=1e-5)
measured = []
for d in (4, 32, 256):
    a, b = torch.randn(2, 20_000, d, generator=generator)
    measured.append((a * b).sum(1).var() / d)
    scores = a[:500] @ b[:64].T  # 500 queries to 64 pixels
    undivided, divided = ((scores * f).softmax(1).max(1).values.mean().item() for f in (1, d**-0.5))
    print(f"d = {d:3}: largest of 64 shares, on average {undivided:.2f} undivided, {divided:.2f} divided")
holds("4.12", measured, [1.0, 1.0, 1.0], within=0.05)

# %% [markdown]
r"""
### You have met it before

The oracle of chapter 03 weighs all training images by a softmax and returns their mixture. It *is* attention: the query is the noisy
image, keys and values are the training images $x_i$. One extra coordinate takes in the term with the length of $x_i$ (and $\sqrt d$
cancels the one in (4.11)):

$$\hat x_0=\operatorname{attend}(Q,K,V),\quad Q=\sqrt d\,\bigl[\tfrac{\sqrt{\bar\alpha_t}}{1-\bar\alpha_t}x_t,\,1\bigr],\quad K_i=\bigl[x_i,\,-\tfrac{\bar\alpha_t}{2(1-\bar\alpha_t)}\lVert x_i\rVert^2\bigr],\quad V_i=x_i\tag{4.13}$$
"""

# %%
flat = images[:500].flatten(1)  # (500, 1024): what the oracle holds
time = torch.tensor([400, 400, 400])
x_t = tinyddpm.q_sample(images[:3], time, torch.randn(3, 1, 32, 32, generator=generator), schedule)
abar = schedule.alpha_bar[400].float()
query = torch.cat([abar.sqrt() / (1 - abar) * x_t.flatten(1), torch.ones(3, 1)], dim=1)
keys = torch.cat([flat, -abar / (2 * (1 - abar)) * flat.square().sum(1, keepdim=True)], dim=1)
x_0_hat = my_attend(query.shape[1] ** 0.5 * query, keys, flat).reshape(x_t.shape)
holds("4.13", x_0_hat, tinyddpm.dataset_oracle(images[:500], schedule)(x_t, time), within=1e-3)

# %% [markdown]
r"""
### What one pixel looks at

To see a map without training, choose query and key by hand: both are the 3 × 3 surroundings of a pixel, with an extra coordinate as
above, so that each pixel looks at pixels with *similar surroundings*, wherever they are. (As a way to remove noise this is known as
non-local means, Buades et al. 2005.) The third and fourth pictures are each one row of the shares, folded back into an image.
"""

# %%
abar, three = schedule.alpha_bar[150].float(), images[labels == 3][:1]
eps = torch.randn(three.shape, generator=torch.Generator().manual_seed(7))
noisy = tinyddpm.q_sample(three, 150, eps, schedule) / abar.sqrt()
padded = F.pad(noisy, (1, 1, 1, 1), value=-1.0)
around = F.unfold(padded, 3)[0].T / 1.2  # (1024, 9): the surroundings of each pixel
query = 10**0.5 * torch.cat([around, torch.ones(1024, 1)], dim=1)  # d = 10
key = torch.cat([around, -around.square().sum(1, keepdim=True) / 2], dim=1)
shares = my_shares(query, key).reshape(32, 32, 32, 32)  # [row, column] of who looks, then of what is looked at
pictures = {"clean": three, "noisy": noisy, "3x3 average": F.avg_pool2d(padded, 3, stride=1)}
pictures["attention"] = my_attend(query, key, noisy.reshape(1024, 1)).reshape(1, 1, 32, 32)
looks(pictures, {"+": (8, 15), "x": (14, 12)}, shares, f"t = 150, log-SNR {schedule.log_snr[150]:.1f}")
show_figure(
    "A noisy 3, what two of its pixels look at, and the 3 after averaging neighbours (blurred) and after attention"
)
for name in ("noisy", "3x3 average", "attention"):
    print(f"mean square error, {name:12} {(pictures[name] - three).square().mean().item():.2g}")

# %% [markdown]
r"""
The pixel on an edge looks at edges that face the same way; the one in the middle looks along the stroke. Nobody has trained this. A network
learns which questions to ask.

### As a block

In the network a 1 × 1 convolution makes queries, keys and values from the normed map, split into *heads* that attend independently. The
result is projected back and added to the input. The projection starts at zero: an untrained attention block returns its input.

One thing attention does not know: where anything is. Shuffle the pixels by a permutation $\pi$, and the output is shuffled in the same way:

$$\operatorname{attention}(\pi x)=\pi\operatorname{attention}(x)\tag{4.14}$$

The places are the business of the convolutions around it.
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

    def forward(self, x):
        to_heads = "b (three m d) h w -> three b m (h w) d"
        query, key, value = rearrange(self.to_qkv(self.norm(x)), to_heads, three=3, m=self.heads)
        out = rearrange(my_attend(query, key, value), "b m (h w) d -> b (m d) h w", h=x.shape[2])
        return x + self.project(out)


torch.manual_seed(4)
attention = parts.Attention(32)
print(f"untrained, it changes its input by {(attention(x) - x).abs().max():g}")
same(MyAttention(32), moved(attention), x, within=1e-4)
order = torch.randperm(64, generator=generator)
shuffled = [maps.flatten(2)[:, :, order].reshape(maps.shape) for maps in (x, attention(x))]
holds("4.14", attention(shuffled[0]), shuffled[1], within=1e-4)

# %% [markdown]
r"""
> **Aside.** Attention has $n\times n$ shares: twice the side, sixteen times the work. `LinearAttention`
> ([Shen et al. 2021](https://arxiv.org/abs/1812.01243)) takes the softmax of queries and keys separately and multiplies $K^\top V$ first,
> which is $d\times d$ whatever $n$ is. The network above attends in full, on its smallest map only.

## Half the size without losing a pixel

Many networks halve an image by averaging or skipping: of four pixels one number remains. *Space to depth* loses nothing. It moves each
square of $r\times r$ pixels into the channels of one ([Shi et al. 2016](https://arxiv.org/abs/1609.05158) describe the way back). With $c$
the channel, $u,w$ the square, and $i,j$ the place inside it,

$$y_{c\,r^2+r\,i+j,\;u,\,w}=x_{c,\;r\,u+i,\;r\,w+j}\tag{4.15}$$

`einops` reads like the sentence: height is `(h p1)`, width is `(w p2)`, and both `p` move to the channels. PyTorch calls it
`pixel_unshuffle`.
"""


# %%
class MySpaceToDepth(nn.Module):
    def forward(self, x):
        return rearrange(x, "b c (h p1) (w p2) -> b (c p1 p2) h w", p1=2, p2=2)


class MyDepthToSpace(nn.Module):
    def forward(self, y):
        return rearrange(y, "b (c p1 p2) h w -> b c (h p1) (w p2)", p1=2, p2=2)


maps = torch.randn(2, 3, 8, 12, generator=generator)
folded = parts.SpaceToDepth(2)(maps)
by_slices = torch.stack([maps[:, c, i::2, j::2] for c in range(3) for i in range(2) for j in range(2)], dim=1)
holds("4.15", folded, by_slices)
same(MySpaceToDepth(), parts.SpaceToDepth(2), maps)
same(MyDepthToSpace(), parts.DepthToSpace(2), folded)
torch.manual_seed(4)
down = nn.Sequential(MySpaceToDepth(), nn.Conv2d(4 * 32, 64, 1))  # a 1 x 1 convolution mixes the channels
up = nn.Sequential(nn.Conv2d(32, 4 * 16, 1), MyDepthToSpace())
same(down, parts.Downsample(32, 64), x)
same(up, parts.Upsample(32, 16), x)

# %% [markdown]
r"""
**Before you run the cell:** halve the digits by averaging 2 × 2 pixels and enlarge them again. How many per cent of their variance is lost?
"""

# %%
my_guess = None

averaged = F.interpolate(F.avg_pool2d(images[:1000], 2), scale_factor=2)
guess(my_guess, round(100 * ((images[:1000] - averaged).var() / images[:1000].var()).item()), " %")
seven = digits[7:8]
quarters = parts.SpaceToDepth(2)(seven).transpose(0, 1)  # (4, 1, 16, 16)
back = parts.DepthToSpace(2)(parts.SpaceToDepth(2)(seven))
pooled = F.interpolate(F.avg_pool2d(seven, 2), scale_factor=2)
rows = {"there and back": torch.cat([seven, pooled, back]), "its four channels": quarters}
columns = ["a seven", "back from\naverages", "back from\nchannels"]
tiles(rows, 4, columns, alt="A 7, the same back from averages (coarse) and from its four channels (exact)")

# %% [markdown]
r"""
## What this chapter showed

Each part kept its promise when it was tested on its own, by its weights, moved off zero. The one line that broke its promise was found in
the same way, when neither the outputs nor the loss gave it away.

## Exercises

**04a.** Repair this standardization. It has two mistakes: the museum's, and another. `weight` is `(c_out, c_in, h, w)`.

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
<details><summary>Hint 04a</summary>

Whose mean is it? There are `c_out` filters.
</details>

<details><summary>Solution 04a</summary>

```python
def answer_04a(weight, eps):
    var, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
    centred = weight - mean
    return centred * (var + eps).rsqrt()
```

The second mistake standardized all filters together. A test of `weight.var()` as a whole would not notice.
</details>

**04b.** Other frameworks put the channel last: `y` was made by `rearrange(x, "b c (h r1) (w r2) -> b (r1 r2 c) h w", r1=r, r2=r)`. Write the way
back with `reshape` and `permute` alone.
"""


# %%
def answer_04b(y, r):
    """y: (b, r r c, h, w). Returns x: (b, c, h r, w r)."""
    ...


check("04b", answer_04b)

# %% [markdown]
r"""
<details><summary>Hint 04b</summary>

Split the channels into three axes first, in the order of the bracket. Then each pair that becomes one side must stand together.
</details>

<details><summary>Solution 04b</summary>

```python
def answer_04b(y, r):
    b, _, h, w = y.shape
    split = y.reshape(b, r, r, -1, h, w)  # b r1 r2 c h w
    return split.permute(0, 3, 4, 1, 5, 2).reshape(b, -1, h * r, w * r)
```

`F.pixel_shuffle` would return the right shape and the wrong picture. A shape is not a test.
</details>

**04c.** An attention map: how much does pixel `i` take from each pixel, on average over the heads?
"""


# %%
def answer_04c(query, key, i):
    """query, key: (heads, n, d), one row for each pixel. Returns (n,): the shares of what pixel i looks at."""
    ...


check("04c", answer_04c)

# %% [markdown]
r"""
<details><summary>Hint 04c</summary>

One question per head, `query[:, i]`, to all keys. Average shares, not scores.
</details>

<details><summary>Solution 04c</summary>

```python
def answer_04c(query, key, i):
    scores = key @ query[:, i, :, None] / query.shape[-1] ** 0.5  # (heads, n, 1)
    shares = scores.squeeze(-1).softmax(dim=-1)
    return shares.mean(0)
```

Row $i$ adds up to 1. Column $i$ says how much everybody looks *at* pixel $i$, and need not.
</details>

**04d.** Write the cosine similarity of $\operatorname{emb}(t)$ and $\operatorname{emb}(s)$ as a function of `t - s` alone, without making the
embeddings.
"""


# %%
def answer_04d(difference, dim):
    """difference: (b,) floats. Returns (b,): the similarity of two times that far apart, for embeddings of length dim."""
    ...


check("04d", answer_04d)

# %% [markdown]
r"""
<details><summary>Hint 04d</summary>

(4.2), divided by both lengths.
</details>

<details><summary>Solution 04d</summary>

```python
def answer_04d(difference, dim):
    m = dim // 2
    speed = 10_000.0 ** (-torch.arange(m) / (m - 1))
    return torch.cos(difference[:, None] * speed).mean(dim=1)
```

Both lengths are $\sqrt m$, so that the sum becomes a mean.
</details>

**04e, an experiment.** Much code runs time from 0 to 1 and hands $t/1000$ to the same embedding. How many per cent of the bump can a linear
layer explain then? `best_linear(embed(times))` explains nearly all.
"""

# %%
prediction = None  # first write down what you expect
measured = None  # then change the fit from emb(t), run it, and put the number here, in per cent

check("04e", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 04e</summary>

`explained(best_linear(...))`, with `times / 1000` inside the embedding. How far does the fastest hand turn now?
</details>

<details><summary>Solution 04e</summary>

```python
clock = parts.SinusoidalEmbedding(32)
prediction = 90
measured = explained(best_linear(clock(times / 1000)))
```

The fastest hand now turns by one radian in all, and the others stand still: little more than $t$ and $t^2$ is left. Code with a time from 0
to 1 multiplies it by 1000 first; where that is forgotten the network trains, and is nearly blind to time.
</details>

## Symbols

| symbol | code name | meaning |
|---|---|---|
| $\omega_i$ | `frequency` | (4.1), speed of hand $i$ of $m$ |
| $\text{cond}$ | `cond` | the condition: time plus label |
| $\hat w$ | `standardized_weight` | (4.4), the filter that is applied |
| $W$, $b$ | `modulation` | (4.9), start at zero |
| $Q$, $K$, $V$ | `query`, `key`, `value` | (4.11), one row per pixel |
| $\pi$ | `order` | (4.14), a permutation of the pixels |

**Next:** [05 · The U-Net](05_unet.ipynb). One page of wiring makes these parts a denoiser.
"""
