# %% [markdown]
r"""
# 05 · The U-Net: wiring only, and how to tell that it is wired rightly

**After this chapter you can**

* wire the parts of chapter 04 to a network that takes a noisy image, a time and a label, and returns an image;
* say what the way down, the way up and the skips are for, and what each level costs in work and in parameters;
* catch three wrong wirings that raise no error, with one question to the network each.

*You need:* chapter 04. *Reading:* 50 minutes, 20 more with the exercises. *Running:* under half
a minute on a laptop, without a network. *You build and then import:* `UNet`.

---

The parts are made. What is missing is a plan in which order they are to be passed through. It fits on a page and contains no
arithmetic at all. That makes it look harmless, and it is where many a diffusion model was broken: a wrong plan runs, has the
right shapes, and learns. So besides building the network, this chapter collects questions that a wrong plan answers wrongly.
"""

# %% tags=["setup"]
import copy

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from course import check, guess, holds, same
from course.chapter_05 import draw_the_u
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
schedule = tinyddpm.Schedule.named("linear", T=1000)


def moved(piece, by=0.2):
    """The same piece with noise on every weight, so that nothing in it is zero (chapter 04)."""
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for p in piece.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    return piece


# %% [markdown]
r"""
## Why down, and up again?

To clean a pixel of a 7, the network should know that it *is* a 7, and for that it must see all of it. A 3 by 3 convolution
sees one pixel in each direction. The next one sees one further. After $n$ of them, a pixel of the output depends on a square
of the input of side

$$r = 1 + 2n \tag{5.1}$$

called its *receptive field*. To cover 32 pixels that way takes sixteen convolutions at full size. The cell measures it,
without trusting the argument: the gradient of one output pixel with respect to the input is different from zero exactly
where the input matters.
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
    convolutions = [nn.Conv2d(1, 1, 3, padding=1) for _ in range(n)]
    return nn.Sequential(*convolutions).double()


counts = torch.tensor([1, 4, 11, 16])
sides = [(field(stack_of_convolutions(n)) > 0).any(0).sum() for n in counts]
holds("5.1", sides, 1 + 2 * counts)

# %% [markdown]
r"""
On a map of half the size each convolution reaches twice as far, measured in pixels of the image, and on a quarter of the
size four times. That is the first reason to go down. The second is the cost. A convolution from $c$ to $c$ channels on a map
of side $s$ takes, at each of $s^2$ pixels and for each of $c$ outputs, $9c$ multiplications and as many additions:

$$\text{work} = 18\, c^2 s^2 \tag{5.2}$$

Halve the side and double the channels, and the work stays the same, $(2c)^2 (s/2)^2 = c^2 s^2$. So the usual U-Net has more
channels the further down it gets, and every level costs the same.
"""

# %%
levels = [(32, 16), (64, 8), (128, 4)]  # channels and side in the network of the course
work = []
for c, s in levels:
    with FlopCounterMode(display=False) as counter:
        F.conv2d(torch.zeros(1, c, s, s), torch.zeros(c, c, 3, 3), padding=1)
    work.append(counter.get_total_flops())
holds("5.2", work, [18 * c**2 * s**2 for c, s in levels])
print("work at each level:", work, " weights at each level:", [9 * c**2 for c, _ in levels])

# %% [markdown]
r"""
Down, the network sees far and can say *what* is in the image. But the answer it owes is an image of full size, in which
every pixel is in its place, so it goes up again. On the way up it meets a difficulty: where exactly was the edge of the
stroke? That was known at full size and is blurred now. The remedy has given the network its shape and its name (Ronneberger
et al. 2015): each block on the way up is also handed what its twin at the same size made on the way down. Those shortcuts
are the *skips*. Below is decided what, beside is remembered where.

## The wiring

Here is the plan in full. It is the network of the recipe `tiny`, which made the shipped weights: three levels with 32, 64
and 128 channels; space to depth in front (`patch`), so that the first level already works on 16 by 16 pixels; one residual
block a level on either way; attention at the lowest level only, where it is cheap. Read `forward` first.

* The **condition**, time plus label, is made once and handed to *every* block. Each block can then act on it afresh, and
  none needs to carry it along for the others. The **label may be left out**: `net(x_t, t)` takes the null class for all
  images. (The library's `UNet(num_classes=None)` knows no labels at all and is always called so.)
* On the **way down** each block's result is put on a pile, `skips`. Where attention follows the last block of a level, its
  result replaces that block's, both as `h` and on the pile: `h = skips[-1] = attend(h)`. On the **way up** the pile is emptied
  again, last in, first out: the first block on the way up is the twin of the last one on the way down.
* A block on the way up gets both things side by side, as twice as many channels. That is all that `join` does. After the top
  level one more block, `last`, is joined in the same way with what the **stem** had made before anything else.
* The **last convolution** starts at zero. We shall see why.
"""


# %%
class MyUNet(nn.Module):
    def __init__(self, dims=(32, 64, 128), num_classes=10, blocks=1):
        super().__init__()
        top, low = dims[0], dims[-1]
        cond_dim = 4 * top

        def resnets(c_in, c_out):
            return nn.ModuleList(ResnetBlock(c_in, c_out, cond_dim) for _ in range(blocks))

        def attend(c):
            return Attention(c) if c == low else nn.Identity()

        self.time = nn.Sequential(
            SinusoidalEmbedding(top), nn.Linear(top, cond_dim), nn.SiLU(), nn.Linear(cond_dim, cond_dim)
        )
        self.label = LabelEmbedding(num_classes, cond_dim)
        self.stem = nn.Sequential(SpaceToDepth(2), nn.Conv2d(4, top, 3, padding=1))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for c, below in zip(dims, (*dims[1:], None)):
            smaller = Downsample(c, below) if below else nn.Identity()
            larger = Upsample(below, c) if below else nn.Identity()
            self.down.append(nn.ModuleList([resnets(c, c), attend(c), smaller]))
            self.up.insert(0, nn.ModuleList([larger, resnets(2 * c, c), attend(c)]))
        self.middle1 = ResnetBlock(low, low, cond_dim)
        self.middle_attend = attend(low)
        self.middle2 = ResnetBlock(low, low, cond_dim)
        self.last = ResnetBlock(2 * top, top, cond_dim)
        self.out = nn.Sequential(nn.Conv2d(top, 4, 1), DepthToSpace(2))
        nn.init.zeros_(self.out[0].weight)
        nn.init.zeros_(self.out[0].bias)

    def condition(self, t, y):
        if y is None:
            y = torch.full_like(t, self.label.null_class)
        return self.time(t) + self.label(y)

    def join(self, h, skip):
        return torch.cat([h, skip], dim=1)

    def forward(self, x, t, y=None):
        cond = self.condition(t, y)
        h = stem = self.stem(x)
        skips = []
        for resnets, attend, smaller in self.down:
            for resnet in resnets:
                h = resnet(h, cond)
                skips.append(h)
            h = skips[-1] = attend(h)
            h = smaller(h)
        h = self.middle2(self.middle_attend(self.middle1(h, cond)), cond)
        for larger, resnets, attend in self.up:
            h = larger(h)
            for resnet in resnets:
                h = resnet(self.join(h, skips.pop()), cond)
            h = attend(h)
        return self.out(self.last(self.join(h, stem), cond))


# %% [markdown]
r"""
`same` gives both networks equal weights, every one of them moved off zero, and compares what they make of eight noisy
digits, each at a time and with a label of its own; then without labels; then with two blocks a level.
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

A *forward hook* is a function that PyTorch calls whenever a module has produced something. With a hook on each part the
network writes its own table of shapes: channels, height, width.

**Before you run the next cell:** the image consists of 1,024 numbers. How many times as many are in the smallest map of this
network, at the very bottom of the U?
"""

# %%
my_guess = None


def shapes_of(net, x, t):
    """(name, shape) of what each part makes, in the order of the forward pass."""
    rows, names = [], {net.stem: "stem", net.out: "out"}
    for part in net.modules():
        if isinstance(part, (ResnetBlock, Attention, Downsample, Upsample)):
            names[part] = type(part).__name__
    hooks = [
        part.register_forward_hook(lambda part, given, out: rows.append((names[part], tuple(out.shape[1:]))))
        for part in names
    ]
    with torch.no_grad():
        net(x, t)
    for hook in hooks:
        hook.remove()
    return rows


rows = shapes_of(MyUNet(), x_t[:1], t[:1])
c, h, w = min((shape for _, shape in rows), key=lambda shape: shape[1])
guess(my_guess, c * h * w / 1024, " times as many")
for name, (c, h, w) in rows:
    print(f"{' ' * {8: 4, 4: 8}.get(h, 0)}{name:11} {c:3} x {h:2} x {w:2} = {c * h * w:5,}")

# %% [markdown]
r"""
The bottom of the U is not a bottleneck: it holds twice as many numbers as the image. What is scarce there is not room but
*place*, 4 by 4 positions are left, each with 128 things to say.

The same rows as a picture. Height is the side of a map, width its channels, and the dashed lines are the skips.
"""

# %%
draw_the_u(rows)

# %% [markdown]
r"""
## An untrained network says 0

The network shall predict the noise $\varepsilon$ that went into $x_t$, and its loss is the mean square error. (The library's
`diffusion_loss` makes $x_t$ from a clean image and noise as in chapter 01, asks the network, and compares.)

**Before you run the next cell:** what is the loss before the first step of training?
"""

# %%
my_guess = None

untrained = MyUNet()
many, times = images[:256], torch.randint(1, 1001, (256,), generator=generator)
noise = torch.randn(many.shape, generator=generator)
with torch.no_grad():
    first_loss = tinyddpm.diffusion_loss(untrained, many, times, noise, schedule, predicts="eps")
    first_loss_x_0 = tinyddpm.diffusion_loss(untrained, many, times, noise, schedule, predicts="x_0")
guess(my_guess, round(first_loss.item(), 1))

# %% [markdown]
r"""
The last convolution starts at zero, so the network returns 0 for every image, time and label. If the target is
$\varepsilon$, its error is $\varepsilon$ itself, and the loss at the start needs no computer: it is the mean square of
standard normal numbers, 1 up to the luck of the draw.

$$L = \operatorname{mean}\bigl((\varepsilon - 0)^2\bigr) = \operatorname{mean}(\varepsilon^2) \approx 1 \tag{5.3}$$
"""

# %%
holds("5.3", first_loss, noise.square().mean(), within=1e-5)
print("with the clean image as target:", round(first_loss_x_0.item(), 1))
print("mean square of the images:     ", round(many.square().mean().item(), 1))

# %% [markdown]
r"""
A network that starts with random outputs spends its first steps on unlearning them; this one starts at the best constant
there is for the noise. And you have got a number to compare with: **if the first loss of a run is not 1, or not
$\operatorname{mean}(x_0^2)$ where the image is predicted, something is wrong before anything is trained**, with the scale of
the data, the reduction of the loss or the network.

## Is the time used?

At the start it is not: (4.10) said that every untrained block ignores it. Once the weights have moved, it must be. The test
is to hand out the same times to the wrong images.
"""


# %%
def time_is_used(net, x, t, y):
    return not torch.allclose(net(x, t, y), net(x, t.roll(1), y), atol=1e-5)


with torch.no_grad():
    print(
        "untrained:",
        time_is_used(MyUNet(), x_t, t, y),
        " with weights that have moved:",
        time_is_used(library, x_t, t, y),
    )

# %% [markdown]
r"""
## Bug museum: three wirings that raise no error

### A time that is computed and never used

Here is a way to put the condition together.

```python
cond = self.label(y)
cond + self.time(t)
return cond
```

The second line computes a sum and drops it. We train the right network and this one, made smaller so that it is quick, to
predict $\varepsilon$ from noisy digits, from the same initial weights, and look at two things: how much the output changes
with $t$, and the loss.
"""


# %%
class TimeNeverUsed(MyUNet):
    def condition(self, t, y):
        cond = self.label(torch.full_like(t, self.label.null_class) if y is None else y)
        cond + self.time(t)
        return cond


def train(net, data, steps=80, batch=16):
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x_0 = data[torch.randint(len(data), (batch,), generator=generator)]
        t = torch.randint(1, 1001, (batch,), generator=generator)
        eps = torch.randn(x_0.shape, generator=generator)
        loss = tinyddpm.diffusion_loss(net, x_0, t, eps, schedule, predicts="eps")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.3))
ends, grid = {}, torch.arange(1, 1000, 20)
for name, kind in (("right", MyUNet), ("time never used", TimeNeverUsed)):
    torch.manual_seed(0)
    small = kind(dims=(16, 32))
    losses = train(small, images)
    with torch.no_grad():
        answers = small(x_t[4:5].expand(len(grid), -1, -1, -1), grid)
    change = (answers - answers[:1]).square().mean((1, 2, 3)).sqrt()
    left.plot(grid, change, label=name)
    right.plot(range(10, 81, 5), torch.tensor(losses).unfold(0, 10, 5).mean(1), label=name)
    ends[name] = sum(losses[-30:]) / 30
left.set(title="change of the output with t, same image", xlabel="t")
right.set(title="training loss, means of 10 steps", xlabel="step", yscale="log")
right.legend()
plt.show()
print("losses at the end within a third:", ends["time never used"] < 4 / 3 * ends["right"])

# %% [markdown]
r"""
On the left the mistake is a flat line. On the right it is hardly to be seen: the network without the time learns almost as
well. How does it know how much noise to remove? It looks. Every digit has a border of background, where $x_0 = -1$, and
there $x_t = -\sqrt{\bar\alpha_t} + \sqrt{1 - \bar\alpha_t}\,\varepsilon$. How grainy the border is tells the time:

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
So a loss that goes down says nothing about whether the time arrives. `time_is_used` does, in one line.

### Skips from the wrong end

The pile of skips must be emptied from the top. Taken from the bottom, `skips.pop(0)`, the first map would have the wrong
size, and PyTorch would refuse it: no harm done. But let a network have two blocks a level and keep the skips of each level
in a list of their own. Then it is natural to write

```python
for resnet, skip in zip(resnets, skips_of_this_level):
```

and within the level the skips come out in the order in which they went in: the first block up gets the first block's, where
it should get the last one's. All sizes fit.
"""


# %%
class SkipsInWrongOrder(MyUNet):
    def forward(self, x, t, y=None):
        cond = self.condition(t, y)
        h = stem = self.stem(x)
        skips = []  # one list a level
        for resnets, attend, smaller in self.down:
            skips.append([])
            for resnet in resnets:
                h = resnet(h, cond)
                skips[-1].append(h)
            h = skips[-1][-1] = attend(h)
            h = smaller(h)
        h = self.middle2(self.middle_attend(self.middle1(h, cond)), cond)
        for larger, resnets, attend in self.up:
            h = larger(h)
            for resnet, skip in zip(resnets, skips.pop()):
                h = resnet(self.join(h, skip), cond)
            h = attend(h)
        return self.out(self.last(self.join(h, stem), cond))


def skips_come_from_the_twin(net, x, t, y):
    """Whether the maps that are joined on the way up are those made on the way down, last first."""
    net, made, joined = copy.deepcopy(net), [], []
    for resnets, attend, _ in net.down:
        for part in (*resnets[:-1], attend):
            part.register_forward_hook(lambda part, given, out: made.append(out))
    net.join = lambda h, skip: joined.append(skip) or torch.cat([h, skip], dim=1)
    net(x, t, y)
    return all(a is b for a, b in zip(reversed(made), joined))


right, wrong = moved(MyUNet(blocks=2)), SkipsInWrongOrder(blocks=2)
wrong.load_state_dict(right.state_dict())
with torch.no_grad():
    difference = (right(x_t, t, y) - wrong(x_t, t, y)).norm() / right(x_t, t, y).norm()
print("with equal weights the outputs differ by more than a tenth:", bool(difference > 0.1))

# %% [markdown]
r"""
A network that is *trained* in this order may well make do with it. But weights from anywhere else, a paper's, a colleague's,
your own before the last change, meet a wiring that they were not made for. The test asks each join where its map was made.

### Images that talk to each other

A group norm looks at one image at a time. *Batch* normalization, the older part, averages over all images of the batch as
well; the U-Net of a much-copied script of one file for MNIST has it. What the network says about one image then depends on
who else is in the batch.
"""


# %%
def with_batch_norm(net):
    """The same network with every group norm replaced."""
    net = copy.deepcopy(net)
    for part in list(net.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(part, name, nn.BatchNorm2d(child.num_channels))
    return net


def alone_as_in_company(net, x, t, y):
    alone, company = net(x[:1], t[:1], y[:1]), net(x, t, y)[:1]
    return bool((alone - company).norm() < 1e-2 * company.norm())


def change_by_company(net):
    """How much the output for image 0 changes when seven other images keep it company, relative to its size."""
    other = torch.cat([x_t[:1], tinyddpm.q_sample(images[100:107], t[1:], eps[1:], schedule)])
    with torch.no_grad():
        a, b = net(x_t, t, y)[0], net(other, t, y)[0]
    return ((a - b).norm() / a.norm()).item()


print("group norm: less than one in a thousand:", change_by_company(right) < 1e-3)
print("batch norm: more than one in a hundred:", change_by_company(with_batch_norm(right)) > 1e-2)

# %% [markdown]
r"""
In training that is noise on the prediction. In sampling it would mean that your 3 looks different when somebody else in the
batch asks for a 7, and that an image can never be made twice unless its whole batch is. A batch norm therefore has a second
mode, for use after training, with averages that it has kept. But those are averages over all times, and a network at work
sees one time at once.

The three questions, asked of all four networks:
"""

# %%
networks = {
    "right": right,
    "time never used": moved(TimeNeverUsed(blocks=2)),
    "skips in wrong order": wrong,
    "batch norm": with_batch_norm(right),
}
questions = (time_is_used, skips_come_from_the_twin, alone_as_in_company)
for name, network in networks.items():
    with torch.no_grad():
        answers = [question(network, x_t, t, y) for question in questions]
    failed = [question.__name__ for question, answer in zip(questions, answers) if not answer]
    print(f"{name:21} {'caught by ' + failed[0] if failed else 'passes'}")

# %% [markdown]
r"""
## What the network can see

Back to the receptive field, now of real networks, with moved weights. The figure shows for each pixel of the input how
strongly it moves one pixel in the middle of the output, on a logarithmic scale. A network of one level has eleven
convolutions in a row: the stem, and two in each of five residual blocks (down, two in the middle, up, last). By (5.1) they
see a square of side 23. Look at what lies outside of it:

1. one level, the norms taken out;
2. the same with its group norms;
3. three levels, with group norms;
4. three levels, with attention at the lowest.
"""


# %%
def without_norms(net):
    for part in list(net.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(part, name, nn.Identity())
    return net


def unet(dims, attention=()):
    torch.manual_seed(5)
    return moved(tinyddpm.UNet(dims, patch=1, attention=attention).double())


candidates = {
    "11 convolutions": without_norms(unet((16,))),
    "+ group norm": unet((16,)),
    "+ three levels": unet((16, 32, 64)),
    "+ attention": unet((16, 32, 64), attention=(8,)),
}
figure, axes = plt.subplots(1, 4, figsize=(8, 2.1))
outside = torch.ones(32, 32, dtype=torch.bool)
outside[5:28, 5:28] = False  # beyond the square of side 23 around pixel (16, 16)
for axis, (name, candidate) in zip(axes, candidates.items()):
    seen = field(lambda x, net=candidate: net(x, torch.full((len(x),), 300)), side=32)
    axis.imshow((seen / seen.max()).clamp(min=1e-5).log10(), cmap="magma", vmin=-4, vmax=0)
    axis.set_title(name)
    axis.axis("off")
    matter, share = (seen > 0).sum().item(), (seen[outside].sum() / seen.sum()).item()
    print(f"{name:16} {matter:4} pixels matter, {round(100 * share):2} % of the influence from beyond the square")
plt.show()

# %% [markdown]
r"""
The first picture is (5.1), to the pixel. The second is a surprise: with a group norm *every* pixel of the input matters to
every pixel of the output, through mean and variance of its group. It is a narrow channel, two numbers a group, but it tells
each pixel how bright and how grainy the whole image is. In the third the bright middle is wider, as the levels reach
further; and with attention the whole image takes part in earnest.

These networks are untrained. Trained ones decide for themselves how far they look, and the next figure asks the network that
ships with the library, at four levels of noise. (What it is trained for is the subject of chapter 06; here only its guess of
the clean image counts, as a denoiser's.) Look at how the bright part changes from little noise, left, to much, right.
"""

# %%
shipped = tinyddpm.load_pretrained()
guess_of_x_0 = tinyddpm.make_denoiser(shipped.model, shipped.schedule, shipped.predicts)
far = torch.ones(32, 32, dtype=torch.bool)
far[11:22, 11:22] = False  # more than five pixels away
figure, axes = plt.subplots(1, 4, figsize=(8, 2.1))
shares = []
for axis, alpha_bar in zip(axes, (0.99, 0.8, 0.3, 0.03)):
    step = int((shipped.schedule.alpha_bar - alpha_bar).abs().argmin())
    clean = images[:32]
    noise = torch.randn(clean.shape, generator=generator)
    noisy = tinyddpm.q_sample(clean, step, noise, shipped.schedule).requires_grad_()
    answer = guess_of_x_0(noisy, torch.full((32,), step))
    (gradient,) = torch.autograd.grad(answer[:, :, 16, 16].sum(), noisy)
    seen = gradient.square().mean((0, 1))
    axis.imshow((seen / seen.max()).clamp(min=1e-6).log10(), cmap="magma", vmin=-5, vmax=0)
    axis.set_title(f"alpha_bar = {alpha_bar}")
    axis.axis("off")
    shares.append((seen[far].sum() / seen.sum()).item())
plt.show()
print("under much noise it looks farther than under little:", shares[-1] > 3 * shares[0])

# %% [markdown]
r"""
With little noise left, a pixel is cleaned by asking its neighbours. Under much noise no neighbourhood says anything, and the
whole image is asked.

## What it costs

The parameters of a residual block, counted by its formula from chapter 04: two convolutions of 9 weights for each pair of
channels, a bias for each filter; two norms with a factor and an offset a channel; the modulation from the $m$ numbers of the
condition to $2c$; and a 1 by 1 convolution where $c_\text{in} \ne c$. (The bracket $[c_\text{in} \ne c]$ is 1 where that is
so, and 0 otherwise.)

$$N(c_\text{in}, c) = \underbrace{9\,c_\text{in} c + 9\,c^2 + 2c}_{\text{convolutions}}
 + \underbrace{4c}_{\text{norms}} + \underbrace{2c\,(m + 1)}_{\text{modulation}}
 + \underbrace{[c_\text{in} \ne c]\;c\,(c_\text{in} + 1)}_{\text{shortcut}} \tag{5.5}$$
"""


# %%
def block_parameters(c_in, c, m):
    return 9 * c_in * c + 9 * c**2 + 2 * c + 4 * c + 2 * c * (m + 1) + (c_in != c) * c * (c_in + 1)


def count(part):
    return sum(p.numel() for p in part.parameters())


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

with FlopCounterMode(display=False) as counter, torch.no_grad():
    library(x_t[:1], t[:1])
operations = {name: sum(kinds.values()) for name, kinds in counter.get_flop_counts().items()}


def side_of(name):
    """The side of the map that a part works on, from its name: down.0..., middle1, up.2..., last."""
    place, *rest = name.split(".")
    if place in ("down", "up"):
        level = int(rest[0]) if place == "down" else 2 - int(rest[0])
    else:
        level = 0 if place == "last" else 2
    return 16 // 2**level


per_level = {16: [0, 0], 8: [0, 0], 4: [0, 0]}  # side of the map -> operations, parameters
for name, part in library.named_modules():
    if isinstance(part, (ResnetBlock, Attention)):
        per_level[side_of(name)][0] += operations[f"UNet.{name}"]
        per_level[side_of(name)][1] += count(part)
work, weights = (torch.tensor(column, dtype=torch.float) for column in zip(*per_level.values()))
work, weights = 100 * work / work.sum(), 100 * weights / weights.sum()
guess(my_guess, round(weights[-1].item()), " %")

figure, axes = plt.subplots(figsize=(5.5, 2))
places = torch.arange(3)
axes.barh(places - 0.2, work, height=0.38, label="share of the work, %")
axes.barh(places + 0.2, weights, height=0.38, label="share of the parameters, %")
axes.set_yticks(places.tolist(), [f"{side} x {side}" for side in per_level])
axes.invert_yaxis()
axes.legend()
plt.show()

# %% [markdown]
r"""
The work is spread over the levels (the bottom has two blocks more, in the middle, and the attention; the top has one more,
`last`). The parameters are not: most of what the network knows sits where it looks at 4 by 4 positions.

The stem is the cheapest saving of all. It folds 2 by 2 pixels into channels before anything else happens, so that every level
works on a quarter of the positions with the same channels: by (5.2), for a quarter of the work.

## 28 or 32 pixels?

MNIST has 28 by 28 pixels, and this course works with 32 by 32. With a stem that folds $p \times p$ pixels and $K$ levels, a
side $S$ is divided by $p$ once and by two $K - 1$ times. It comes back to $S$ only if nothing was lost to rounding:

$$2^{K-1} p \left\lfloor \frac{S}{2^{K-1} p} \right\rfloor = S
\quad\Longleftrightarrow\quad S \text{ is a multiple of } 2^{K-1} p \tag{5.6}$$

For our network that is a multiple of 8. From 28 the way down is 14, 7, 3, and the 6 on the way up does not fit its twin of
side 7. So the library's data set pads the image once, with background.
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

The U-Net is a plan: down, to see far and cheaply; up, because an image is owed; skips, because down there nobody knows where
the edge was. A wrong plan is not found by its shapes and hardly by its loss, but by a question to the network.

## Exercises

**05a.** An image of side `size` is padded, as little as possible, so that a network with a stem that folds `patch` by `patch`
pixels and with `levels` levels takes it. Which sides have the maps at each level, from the top to the bottom?
"""


# %%
def answer_05a(size, patch, levels):
    """Returns the list of `levels` sides."""
    ...


check("05a", answer_05a)

# %% [markdown]
r"""
<details><summary>Solution 05a</summary>

```python
def answer_05a(size, patch, levels):
    divisor = patch * 2 ** (levels - 1)
    padded = -(-size // divisor) * divisor
    return [padded // patch // 2**level for level in range(levels)]
```

`-(-a // b)` is division rounded up. Three levels have two halvings between them, not three. For the network of the course and
MNIST's 28 pixels: 16, 8, 4.
</details>

**05b.** How many parameters has an `Attention(c, heads, head_dim)`? It has a norm with a factor and an offset a channel; a 1
by 1 convolution without bias that makes queries, keys and values for all heads; and a 1 by 1 convolution with bias back to
`c` channels.
"""


# %%
def answer_05b(c, heads, head_dim):
    """Returns the number of parameters."""
    ...


check("05b", answer_05b)

# %% [markdown]
r"""
<details><summary>Solution 05b</summary>

```python
def answer_05b(c, heads, head_dim):
    inner = heads * head_dim
    return 2 * c + 3 * c * inner + inner * c + c
```

The number of pixels is not in it: attention has the same weights for maps of any size, and only the work grows.
</details>

**05c.** Cut the skips. Write a `join` that has the shape the blocks expect, but lets nothing through from beside: in the
skip's place there shall be nothing at all. And guess: two networks are trained to predict the noise in eight digits, always
the same eight, for 80 steps. With a `join` that lets nothing through, will the loss be about the same, twice as high, or
worse?
"""


# %%
def answer_05c(h, skip):
    """h, skip: (b, c, height, width) each. Returns (b, 2 c, height, width), without what is in skip."""
    ...


check("05c", answer_05c)

# %% [markdown]
r"""
<details><summary>Solution 05c</summary>

```python
def answer_05c(h, skip):
    return torch.cat([h, torch.zeros_like(skip)], dim=1)
```

Much worse, as the next cell shows. There is room enough at the bottom for all of the image, as we have seen. But to predict
the noise of *this* image, pixel by pixel, its grain would have to be packed into 4 by 4 positions and unpacked again, and
that is hard to learn. With the skips it does not have to travel at all.
</details>

The comparison:
"""

# %%
end = []
for join in (MyUNet().join, lambda h, skip: torch.cat([h, 0 * skip], dim=1)):
    torch.manual_seed(0)
    network = MyUNet(dims=(16, 32, 64))
    network.join = join
    end.append(sum(train(network, digits, batch=8)[-20:]) / 20)
print("with skips below 0.2:", end[0] < 0.2, " without, more than three times as high:", end[1] > 3 * end[0])

# %% [markdown]
r"""
## Symbols

| symbol | variable | shape | where |
|---|---|---|---|
| $x_t$ | `x_t` | (b, 1, 32, 32) | the network's input |
| $t$ | `t` | (b,) | its time |
| $y$ | `y` | (b,) | its label, or the null class |
| $\text{cond}$ | `cond` | (b, cond_dim) | time plus label, into every block |
| $r$ | `field` | a number | (5.1), side of the receptive field |
| $L$ | `first_loss` | a number | (5.3) |
| $\varepsilon$ | `eps`, `noise` | (b, 1, 32, 32) | (5.3) |
| $\bar\alpha_t$ | `schedule.alpha_bar` | (T + 1,) | (5.4) |
| $N(c_\text{in}, c)$; $m$ | `block_parameters`; `m` | numbers | (5.5); $m$ is the length of the condition |
| $S, p, K$ | `size`, `patch`, `levels` | numbers | (5.6) |

**Next:** [06 · Training](06_training.ipynb). The network is wired, and says 0 to everything. Now it is trained, and drawn
from with the sampler that chapter 03 has proved already.
"""
