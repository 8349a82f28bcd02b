# %% [markdown]
r"""
# 05 · The U-Net: wiring only, and how to tell that it is wired correctly

**After this chapter you can**

* wire the parts of chapter 04 to a network that takes a noisy image, a time and a label, and returns an image;
* say what the way down, the way up and the skips are for, and what each level costs in work and in parameters;
* catch three wrong wirings that raise no error, each with one question to the network.

*You need:* chapter 04. *Reading:* about MINUTES minutes, with the exercises. *Running:* under half a minute, offline. *You
build and then import:* `UNet`.

---

The parts are made. What is missing is the order in which they are passed through. Many a diffusion model was broken there,
since a wrong plan runs, has the right shapes, and learns. So this chapter also collects questions that a wrong plan answers
wrongly.
"""

# %% tags=["setup", "unet"]
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from course import NETWORK, SIGNAL, band, check, guess, holds, label_lines, same, show_figure
from course.chapter_05 import bars, draw_the_u, maps, per_level, shapes_of, with_batch_norm, without_norms
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.nn import (
    Attention,
    DepthToSpace,
    Downsample,
    LabelEmbedding,
    ResnetBlock,
    SinusoidalEmbedding,
    SpaceToDepth,
    Upsample,
)
from tinyddpm.trainer.recipes import get_recipe

# %% tags=["setup"]
images, labels = mnist(train=False).tensors()
digits = torch.cat([images[labels == k][:1] for k in range(8)])  # (8, 1, 32, 32)
schedule = tinyddpm.Schedule.named("cosine", T=1000)


def moved(piece, by=0.2):
    """The same piece with noise on every weight, so that nothing in it is zero (chapter 04)."""
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for weight in piece.parameters():
            weight.add_(by * torch.randn(weight.shape, generator=generator))
    return piece


# %% [markdown]
r"""
## Why down, and up again?

To clean a pixel of a 7, the network should know that it *is* a 7, so it must see all of it. A 3 by 3 convolution sees one
pixel in each direction. After $n$ of them, a pixel of the output depends on a square of the input, its *receptive field*, of
side

$$r = 1 + 2n \tag{5.1}$$

To cover 32 pixels takes sixteen convolutions at full size. The cell measures it: the gradient of one output pixel with
respect to the input differs from zero exactly where the input matters.
"""


# %%
def field(net, side=48):
    """How strongly each pixel of the input moves the middle pixel of the output: (side, side)."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(4, 1, side, side, generator=generator, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[:, :, side // 2, side // 2].sum(), x)
    return gradient.abs().sum((0, 1))


def stack_of_convolutions(n):
    torch.manual_seed(5)
    return nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1) for _ in range(n)]).double()


counts = torch.tensor([1, 4, 11, 16])
sides = [(field(stack_of_convolutions(n)) > 0).any(0).sum() for n in counts]
holds("5.1", sides, 1 + 2 * counts)

# %% [markdown]
r"""
On a map of half the size each convolution reaches twice as far: the first reason to go down. The second is the cost. A
convolution from $c$ to $c$ channels on a map of side $s$ takes, for each of $s^2$ pixels and $c$ outputs, $9c$
multiplications and as many additions:

$$\text{work} = 18\, c^2 s^2 \tag{5.2}$$

Halve the side and double the channels, and the work stays the same. So the usual U-Net has more channels the further down it
gets.
"""

# %%
levels = [(32, 16), (64, 8), (128, 4)]  # channels and side in the network that ships with the library
work = []
for c, s in levels:
    with FlopCounterMode(display=False) as counter:
        F.conv2d(torch.zeros(1, c, s, s), torch.zeros(c, c, 3, 3), padding=1)
    work.append(counter.get_total_flops())
holds("5.2", work, [18 * c**2 * s**2 for c, s in levels])
print("work at each level:", work, " weights at each level:", [9 * c**2 for c, _ in levels])

# %% [markdown]
r"""
Down there, the network can say *what* is in the image. But it owes an image of full size, so it goes up again. Where
exactly was the edge of the stroke? That was known at full size. So each block on the way up is also given what its twin at
the same size made on the way down ([Ronneberger et al. 2015](https://arxiv.org/abs/1505.04597)). Those shortcuts are the
*skips*: down below it is decided *what*, and the skips remember *where*.

## The wiring

First the parts, in three levels of 32, 64 and 128 channels. The stem folds 2 by 2 pixels into channels: by (5.2), that saves
three quarters of the work. Attention stands at the lowest level only, where it is cheap. The last convolution starts at zero;
we shall see why.
"""


# %% tags=["setup", "unet"]
class Parts(nn.Module):
    def __init__(self, dims=(32, 64, 128), num_classes=10, blocks=1, attention=True):
        super().__init__()
        top, low, m = dims[0], dims[-1], 4 * dims[0]  # the condition has m numbers

        def resnets(c_in, c_out):
            return nn.ModuleList(ResnetBlock(c_in, c_out, m) for _ in range(blocks))

        def attend(c):
            return Attention(c) if attention and c == low else nn.Identity()

        self.time = nn.Sequential(SinusoidalEmbedding(top), nn.Linear(top, m), nn.SiLU(), nn.Linear(m, m))
        self.label = LabelEmbedding(num_classes, m)
        self.stem = nn.Sequential(SpaceToDepth(2), nn.Conv2d(4, top, 3, padding=1))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for c, below in zip(dims, (*dims[1:], None)):
            smaller = Downsample(c, below) if below else nn.Identity()
            larger = Upsample(below, c) if below else nn.Identity()
            self.down.append(nn.ModuleList([resnets(c, c), attend(c), smaller]))
            self.up.insert(0, nn.ModuleList([larger, resnets(2 * c, c), attend(c)]))
        self.middle1, self.middle_attend = ResnetBlock(low, low, m), attend(low)
        self.middle2, self.last = ResnetBlock(low, low, m), ResnetBlock(2 * top, top, m)
        self.out = nn.Sequential(nn.Conv2d(top, 4, 1), DepthToSpace(2))
        for weight in self.out.parameters():
            nn.init.zeros_(weight)


# %% [markdown]
r"""
And now the plan; read `forward` first.

* The **condition**, time plus label, goes to *every* block. Without labels, all images get the null class.
* On the **way down** each block's result is put on a pile, `skips`. Where attention follows, its result replaces the block's.
* On the **way up** the pile is emptied, last in, first out. `join` puts both maps side by side, as twice as many channels. At
  the top, `last` is joined in the same way with the stem.
"""


# %% tags=["setup", "unet"]
class MyUNet(Parts):
    def condition(self, t, y):
        return self.time(t) + self.label(torch.full_like(t, self.label.null_class) if y is None else y)

    def join(self, h, skip):
        return torch.cat([h, skip], dim=1)

    def way_down(self, h, cond):
        skips = []
        for resnets, attend, smaller in self.down:
            for resnet in resnets:
                h = resnet(h, cond)
                skips.append(h)
            h = skips[-1] = attend(h)
            h = smaller(h)
        return h, skips

    def way_up(self, h, skips, cond):
        for larger, resnets, attend in self.up:
            h = larger(h)
            for resnet in resnets:
                h = resnet(self.join(h, skips.pop()), cond)
            h = attend(h)
        return h

    def forward(self, x, t, y=None):
        cond, stem = self.condition(t, y), self.stem(x)
        h, skips = self.way_down(stem, cond)
        h = self.middle2(self.middle_attend(self.middle1(h, cond)), cond)
        return self.out(self.last(self.join(self.way_up(h, skips, cond), stem), cond))


# %% [markdown]
r"""
Given equal weights, all moved off zero, both networks must agree on eight noisy digits, each with its own time and label;
then without labels; then with two blocks per level.
"""

# %%
torch.manual_seed(5)
generator = torch.Generator().manual_seed(5)
t = torch.tensor([1, 50, 100, 200, 300, 500, 700, 1000])
y = torch.arange(8)
eps = torch.randn(digits.shape, generator=generator)
x_t = tinyddpm.q_sample(digits, t, eps, schedule)

library = moved(get_recipe("tiny").network.build((1, 32, 32), num_classes=10))
same(MyUNet(), library, x_t, t, y, within=1e-3)
same(MyUNet(), library, x_t, t, within=1e-3)
two_blocks = tinyddpm.UNet(num_classes=10, blocks=2, attention=(4,))
same(MyUNet(blocks=2), moved(two_blocks), x_t, t, y, within=1e-3)

# %% [markdown]
r"""
## The shapes on the way

`shapes_of` lists what each part makes: channels, height, width. (It hangs a *forward hook* on each.)

**Before you run the next cell:** the image has 1,024 numbers. How many times as many has the map at the bottom of the U?
"""

# %%
my_guess = None

rows = shapes_of(MyUNet(), x_t[:1], t[:1])
c, h, w = min((shape for _, shape in rows), key=lambda shape: shape[1])
guess(my_guess, c * h * w / 1024, " times as many")

# %% [markdown]
r"""
Here are all of them. Height is the side of a map, width its channels, and the dashed lines are the skips.
"""

# %%
draw_the_u(rows)

# %% [markdown]
r"""
The bottom of the U is not a bottleneck: it has more numbers than the image. What is scarce there is *place*.

## An untrained network says 0

The network is to predict the clean image, $x_0$; its loss is the mean square error. (The library's `diffusion_loss` makes
$x_t$ as in chapter 01, asks the network, and compares.)

**Before you run the next cell:** what is the loss before the first step of training? And if the target were the noise?
"""

# %%
my_guess = None

untrained = MyUNet()
many, times = images[:256], torch.randint(1, 1001, (256,), generator=generator)
noise = torch.randn(many.shape, generator=generator)
with torch.no_grad():
    first_loss = tinyddpm.diffusion_loss(untrained, many, times, noise, schedule, predicts="x_0")
    first_loss_eps = tinyddpm.diffusion_loss(untrained, many, times, noise, schedule, predicts="eps")
guess(my_guess, round(first_loss.item(), 2))

# %% [markdown]
r"""
The last convolution starts at zero, so the network returns 0 for every image, time and label. Its error is the target
itself, and the first loss needs no network:

$$L = \operatorname{mean}\bigl((x_0 - 0)^2\bigr) = \operatorname{mean}(x_0^2) \tag{5.3}$$
"""

# %%
holds("5.3", first_loss, many.square().mean(), within=1e-5)
print(f"predicting x_0: {first_loss:.2f}, predicting the noise: {first_loss_eps:.2f}")

# %% [markdown]
r"""
**If the first loss of a run is not $\operatorname{mean}(x_0^2)$, or 1 where the noise is predicted, something is wrong before
anything is trained**: the scale of the data, the reduction of the loss, or the network.

## Is the time used?

At the start it is not: every untrained block ignores it (4.10). Later it must be. The test hands the times to the wrong
images.
"""


# %%
@torch.no_grad()
def moved_by_time(net, x, t, y):
    """How much the answer changes, relative to its size, when the images swap their times."""
    answer = net(x, t, y)
    return float((answer - net(x, t.roll(1), y)).norm() / answer.norm().clamp(min=1e-9))


for name, net in (("untrained", MyUNet()), ("weights that have moved", library)):
    print(f"{name}: other times change the answer by {100 * moved_by_time(net, x_t, t, y):.0f} %")

# %% [markdown]
r"""
## Bug museum: three wirings that raise no error

### A time that is computed and never used

```python
cond = self.label(y)
cond + self.time(t)
return cond
```

The second line computes a sum and drops it. We train the right network and this one from the same weights.
"""


# %% tags=["setup"]
class TimeNeverUsed(MyUNet):
    def condition(self, t, y):
        cond = self.label(torch.full_like(t, self.label.null_class) if y is None else y)
        cond + self.time(t)
        return cond


def train(net, data, steps=80, batch=16, predicts="x_0"):
    """The loss of each step. Chapter 06 takes this loop apart."""
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x_0 = data[torch.randint(len(data), (batch,), generator=generator)]
        t = torch.randint(1, 1001, (batch,), generator=generator)
        eps = torch.randn(x_0.shape, generator=generator)
        loss = tinyddpm.diffusion_loss(net, x_0, t, eps, schedule, predicts=predicts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.3))
ends, grid = [], torch.arange(1, 1000, 20)
styles = {"right": (MyUNet, NETWORK, "-"), "time never used": (TimeNeverUsed, SIGNAL, "--")}
for name, (kind, colour, style) in styles.items():
    torch.manual_seed(0)
    small = kind(dims=(16, 32))
    losses = torch.tensor(train(small, images))
    with torch.no_grad():
        answers = small(x_t[4:5].expand(len(grid), -1, -1, -1), grid)
    change = (answers - answers[:1]).square().mean((1, 2, 3)).sqrt()
    left.plot(grid, change, style, color=colour, label=name)
    right.plot(range(10, 81, 5), losses.unfold(0, 10, 5).mean(1), style, color=colour, label=name)
    ends.append(losses[-30:].mean().item())
log_snr = schedule.log_snr[[1, 981]].tolist()
left.set(
    title="change of the answer with t, same image",
    xlabel=f"t (log-SNR from {log_snr[0]:.0f} to {log_snr[1]:.0f})",
    ylabel="rms of a pixel",
)
right.set(title="training loss, means of 10 steps", xlabel="step", yscale="log")
label_lines(left)
show_figure("Left: the right network's answer changes with t, the other's is flat. Right: both losses fall alike.")
band(ends[1] / ends[0], 0.8, 1.4, "times the right network's loss, without the time")

# %% [markdown]
r"""
On the left the mistake is a flat line. On the right it is hardly to be seen. How does the network know how much noise to
remove? It looks. Every digit has a border of background, $x_0 = -1$, and how grainy the border is tells the time:

$$\operatorname{Var}_{\text{border}}[x_t] = 1 - \bar\alpha_t \tag{5.4}$$
"""

# %%
border = F.pad(torch.zeros(28, 28, dtype=torch.bool), (2, 2, 2, 2), value=True)  # 240 pixels
grain = []
for step in (50, 200, 500, 900):
    noise = torch.randn(images[:200].shape, generator=generator)
    grain.append(tinyddpm.q_sample(images[:200], step, noise, schedule)[:, :, border].var())
holds("5.4", grain, 1 - schedule.alpha_bar[[50, 200, 500, 900]], within=0.02)

# %% [markdown]
r"""
A falling loss does not say whether the time arrives. `moved_by_time` does.

### Skips from the wrong end

Keep the skips of each level in a list of their own, and with two blocks per level it is natural to write

```python
for resnet, skip in zip(resnets, skips_of_this_level):
```

and the first block on the way up gets the skip of the first block down, where it should get the last one's. All sizes fit.
"""


# %%
class SkipsInWrongOrder(MyUNet):
    def way_up(self, h, skips, cond):
        for larger, resnets, attend in self.up:
            h = larger(h)
            skips_of_this_level = [skips.pop() for _ in resnets][::-1]
            for resnet, skip in zip(resnets, skips_of_this_level):
                h = resnet(self.join(h, skip), cond)
            h = attend(h)
        return h


def from_the_twin(net, x, t, y):
    """Which share of the joins on the way up take the map of their twin: the last one down first."""
    cond, joined = net.condition(t, y), []
    h, made = net.way_down(net.stem(x), cond)
    net.join = lambda h, skip: joined.append(skip) or torch.cat([h, skip], dim=1)
    net.way_up(h, list(made), cond)
    del net.join
    return sum(skip is twin for skip, twin in zip(joined, reversed(made))) / len(made)


right, wrong = moved(MyUNet(blocks=2)), SkipsInWrongOrder(blocks=2)
wrong.load_state_dict(right.state_dict())
with torch.no_grad():
    difference = (right(x_t, t, y) - wrong(x_t, t, y)).norm() / right(x_t, t, y).norm()
print(f"equal weights, other order: the answers differ by {100 * difference:.0f} %")

# %% [markdown]
r"""
A network *trained* in this order may make do with it. But weights from anywhere else meet a wiring that they were not made
for.

### Images that talk to each other

A group norm looks at one image at a time. *Batch* normalization averages over the whole batch; the U-Net of a [much-copied
script for MNIST](https://github.com/TeaPearce/Conditional_Diffusion_MNIST) has it. Your 3 then looks different when somebody
else in the batch asks for a 7. (The averages that it keeps for use after training are over all times, and a network at work sees one.)

The three questions, asked of all four networks:
"""


# %%
@torch.no_grad()
def moved_by_company(net, x, t, y):
    """How much the answer for image 0 changes when seven other images keep it company, relative to its size."""
    other = torch.cat([x[:1], x[1:].flip(2)])
    answer = net(x, t, y)[0]
    return float((answer - net(other, t, y)[0]).norm() / answer.norm())


networks = {
    "right": right,
    "time never used": moved(TimeNeverUsed(blocks=2)),
    "skips in wrong order": wrong,
    "batch norm": with_batch_norm(right),
}
print("                      changed by time | skips from the twin | changed by company")
for name, network in networks.items():
    questions = (moved_by_time, from_the_twin, moved_by_company)
    by_time, twins, by_company = (round(100 * question(network, x_t, t, y)) for question in questions)
    print(f"{name:21} {by_time:12} %  | {twins:17} % | {by_company:14} %")

# %% [markdown]
r"""
## What the network can see

Back to the receptive field, now of U-Nets with moved weights: how strongly does each pixel of the input move one pixel in the
middle of the output? A network of one level has eleven convolutions in a row. By (5.1) they see a square of side 23.
"""


# %%
def unet(dims, attention=()):
    torch.manual_seed(5)
    return moved(tinyddpm.UNet(dims, patch=1, attention=attention).double())


candidates = {
    "11 convolutions": without_norms(unet((16,))),
    "+ group norm": unet((16,)),
    "+ three levels": unet((16, 32, 64)),
    "+ attention": unet((16, 32, 64), attention=(8,)),
}
outside = torch.ones(32, 32, dtype=torch.bool)
outside[5:28, 5:28] = False  # beyond the square of side 23 around pixel (16, 16)
seen = {}
for name, candidate in candidates.items():
    seen[name] = field(lambda x, net=candidate: net(x, torch.full((len(x),), 300)), side=32)
    share = seen[name][outside].sum() / seen[name].sum()
    print(f"{name:16} {(seen[name] > 0).sum():4} pixels matter, {100 * share:2.0f} % of the influence from outside")
maps(seen, "Four maps: a square of side 23, then faint influence everywhere, then wider, then the whole image")

# %% [markdown]
r"""
The first map is (5.1), to the pixel. The second is a surprise: with a group norm *every* pixel matters to every other,
through mean and variance of its group. It is a narrow channel, but it tells each pixel how bright and how grainy the whole
image is. With attention the whole image takes part in earnest.

Trained networks decide for themselves how far they look. Here is the one that ships with the library, at four levels of
noise.
"""

# %% tags=["share"]
shipped = tinyddpm.load_pretrained()
answer_of = tinyddpm.make_denoiser(shipped.model, shipped.schedule, shipped.predicts)
far = torch.ones(32, 32, dtype=torch.bool)
far[11:22, 11:22] = False  # more than five pixels away
looks, shares = {}, []
for wanted in (5, 1.4, -0.8, -3.5):
    step = int((shipped.schedule.log_snr - wanted).abs().argmin())
    noise = torch.randn(images[:32].shape, generator=generator)
    noisy = tinyddpm.q_sample(images[:32], step, noise, shipped.schedule).requires_grad_()
    answer = answer_of(noisy, torch.full((32,), step))
    (gradient,) = torch.autograd.grad(answer[:, :, 16, 16].sum(), noisy)
    influence = gradient.square().mean((0, 1))
    looks[f"t = {step}, log-SNR {wanted}"] = influence
    shares.append((influence[far].sum() / influence.sum()).item())
maps(looks, "With little noise a trained network looks at a few pixels, with much noise at the whole image")
band(shares[-1] / shares[0], 3, 1e3, "times as much influence from afar under the most noise as under the least")

# %% [markdown]
r"""
With little noise left, a pixel is cleaned by asking its neighbours. Under much noise the whole image is asked. (Chapter 11
makes a theory of that.)

## What it costs

The parameters of a residual block, by its parts in chapter 04; $m$ is the length of the condition, and the bracket is 1
where $c_\text{in} \ne c$, and 0 otherwise:

$$N(c_\text{in}, c) = \underbrace{9\,c_\text{in} c + 9\,c^2 + 2c}_{\text{convolutions}}
 + \underbrace{4c}_{\text{norms}} + \underbrace{2c\,(m + 1)}_{\text{modulation}}
 + \underbrace{[c_\text{in} \ne c]\;c\,(c_\text{in} + 1)}_{\text{shortcut}} \tag{5.5}$$
"""


# %%
def block_parameters(c_in, c, m):
    return 9 * c_in * c + 9 * c**2 + 2 * c + 4 * c + 2 * c * (m + 1) + (c_in != c) * c * (c_in + 1)


def count(part):
    return sum(weight.numel() for weight in part.parameters())


resnet_blocks = [part for part in library.modules() if isinstance(part, ResnetBlock)]
formula = []
for block in resnet_blocks:
    c, c_in = block.block1.conv.weight.shape[:2]
    formula.append(block_parameters(c_in, c, m=128))
holds("5.5", [count(block) for block in resnet_blocks], formula)
share = sum(formula) / count(library)
print(f"{count(library):,} parameters, {round(100 * share)} % of them in the {len(formula)} residual blocks")

# %% [markdown]
r"""
**Before you run the next cell:** by (5.2) a convolution costs the same at every level. Which share of the *parameters* sits
at the lowest level, in per cent?
"""

# %%
my_guess = None

work, weights = per_level(library, x_t[:1], t[:1])
guess(my_guess, round(weights[-1].item()), " %")

# %% [markdown]
r"""
All levels, in per cent:
"""

# %%
bars(work, weights)

# %% [markdown]
r"""
The work is spread over the levels, the parameters are not.

## 28 or 32 pixels?

With a stem that folds $f \times f$ pixels and $K$ levels, a side $S$ is divided by $f$ once and by two $K - 1$ times. It
comes back to $S$ only if nothing was lost to rounding:

$$2^{K-1} f \left\lfloor \frac{S}{2^{K-1} f} \right\rfloor = S
\quad\Longleftrightarrow\quad S \text{ is a multiple of } 2^{K-1} f \tag{5.6}$$

For our network that is a multiple of 8. From MNIST's 28 the way down is 14, 7, 3, and the 6 on the way up does not fit its
twin of side 7. So the library pads its images to 32.
"""

# %%
small_net = MyUNet(dims=(8, 16, 32))


def comes_back(side):
    try:
        with torch.no_grad():
            return small_net(torch.zeros(1, 1, side, side), torch.tensor([1])).shape[-1] == side
    except ValueError:
        return False


sides = torch.arange(8, 49)
holds("5.6", [comes_back(int(side)) for side in sides], sides % 8 == 0)

# %% [markdown]
r"""
## What this chapter showed

Down, to see far and cheaply; up, because an image is owed; skips, because down there nobody knows where the edge was. A
wrong plan is found neither by its shapes nor by its loss, but by a question to the network.

## Exercises

**05a.** An image of side `size` is padded, as little as possible, for a network with `levels` levels whose stem folds `patch`
by `patch` pixels. What are the sides of the maps at the levels, from top to bottom?
"""


# %%
def answer_05a(size, patch, levels):
    """Returns the list of `levels` sides."""
    ...


check("05a", answer_05a)

# %% [markdown]
r"""
<details><summary>Hint 05a</summary>

By (5.6), which number must divide the side? Round up to a multiple of it.
</details>

<details><summary>Solution 05a</summary>

```python
def answer_05a(size, patch, levels):
    divisor = patch * 2 ** (levels - 1)
    padded = -(-size // divisor) * divisor
    return [padded // patch // 2**level for level in range(levels)]
```

`-(-a // b)` is division rounded up. Three levels have two halvings between them, not three.
</details>

**05b. Wire it.** The parts of a small U-Net are functions: `stem`; `down`, a list of blocks, one per level; `smaller`, one
fewer, between the levels; `middle`; `larger` and `up`, in the order of the way up; and `out`. A block in `up` takes two maps,
joined along the channels. Write the forward pass with its skips.
"""


# %%
def answer_05b(x, stem, down, smaller, middle, larger, up, out):
    """x: (b, 1, h, w). Returns what out makes, (b, 1, h, w)."""
    ...


check("05b", answer_05b)

# %% [markdown]
r"""
<details><summary>Hint 05b</summary>

`larger` is one shorter than `up`: the first block up works at the size of the middle. Which map did the last block down make?
</details>

<details><summary>Solution 05b</summary>

```python
def answer_05b(x, stem, down, smaller, middle, larger, up, out):
    h, skips = stem(x), []
    for level, block in enumerate(down):
        h = block(smaller[level - 1](h) if level else h)
        skips.append(h)
    h = middle(h)
    for level, block in enumerate(up):
        h = larger[level - 1](h) if level else h
        h = block(torch.cat([h, skips.pop()], dim=1))
    return out(h)
```

The skip is taken *before* the map shrinks, and joined *after* it has grown: both have the same side there.
</details>

**05c. Experiment.** Cut the skips: give `MyUNet(dims=(16, 32))` a `join` with zeros in the skip's place, and train it with
`train(net, images, steps=150, predicts="eps")`, so that it must find the noise. How many times as high is the mean loss
of the last 50 steps as with skips, from the same weights (`torch.manual_seed(0)`)? Afterwards, try `predicts="x_0"`.
"""

# %%
prediction = None  # first write down what you expect
measured = None  # then train both, divide, and put the number here
check("05c", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 05c</summary>

`net.join = lambda h, skip: ...` replaces the method of one network.
</details>

<details><summary>Solution 05c</summary>

```python
prediction, loss = 3, {}
for skips in (1, 0):
    torch.manual_seed(0)
    net = MyUNet(dims=(16, 32))
    net.join = lambda h, skip: torch.cat([h, skips * skip], dim=1)
    loss[skips] = sum(train(net, images, steps=150, predicts="eps")[-50:]) / 50
measured = loss[0] / loss[1]
```

Noise differs in every pixel, so it cannot be packed into the few positions below; with skips it need not travel. A clean
digit is simple enough to be made from below, and there the skips matter less.
</details>

## Symbols

| symbol | variable | where |
|---|---|---|
| $x_t, t, y$ | `x_t`, `t`, `y` | what the network takes |
| $r$ | `field` | (5.1), side of the receptive field |
| $L$ | `first_loss` | (5.3) |
| $\bar\alpha_t$ | `schedule.alpha_bar` | (5.4) |
| $N$; $m$ | `block_parameters`; `m` | (5.5); $m$: length of the condition |
| $S, f, K$ | `size`, `patch`, `levels` | (5.6) |

**Next:** [06 · Training](06_training.ipynb). The network is wired, and says 0 to everything. Now it is trained, and draws.
"""
