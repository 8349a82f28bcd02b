# %% [markdown]
r"""
# 00 · Diffusion on one page

Diffusion models are behind most of today's image generators. On this page you make two small ones, which draw handwritten
digits out of noise: **first without a neural network, then with one.** In the film, the upper row is put together from 150
real digits of each kind, without network or training. The lower row is drawn by the trained network that comes with the
library; yours follows below. In each column both began with the same noise.
"""

# %% tags=["setup"]
from course import band, play, tiles
from course.chapter_00 import BLUE, GREEN, ORANGE, copies, film, nearest_of, read, windows

play(film(), alt="Film: two rows of ten digits form out of noise, often alike")

# %% [markdown]
r"""
*You need:* Python and a little PyTorch; no knowledge of diffusion. *Reading:* about MINUTES minutes. *Running:* about a minute on a
laptop, offline. Nothing is proved here: the other chapters do that.

Our material is 150 handwritten digits of each kind, 32 by 32 pixels, from -1 (black) to 1 (white).
"""

# %% tags=["setup"]
import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.oracle import local_oracle

torch.set_num_threads(1)  # our tensors are small: more threads would wait for each other
images, labels = mnist()[:]  # 60,000 digits
digits = torch.stack([images[:3000][labels[:3000] == digit][:150] for digit in range(10)])
noise = torch.randn(10, 20, 1, 32, 32, generator=torch.Generator().manual_seed(0))

# %% [markdown]
r"""
## Ruin it

A diffusion model draws by repairing, so something has to be ruined first. We mix an image with noise, and turn a knob from one to
the other.
"""


# %% tags=["setup"]
def mix(x_0, eps, angle):
    return math.cos(angle) * x_0 + math.sin(angle) * eps


# %% [markdown]
r"""
`x_0` is the clean image and `eps` the noise: one random number for each pixel, from a normal distribution. At angle 0 the image is
clean. At a quarter turn, π/2, it is nothing but noise. In between it is some of both.

## Repair it, as well as anybody can

Somebody hands you a noisy image and says that it was one of our 150 threes. Which one? You cannot be sure. But you can say
how *likely* each of them is: the smaller its distance from what you see, compared with the strength of the noise, the likelier. The
best answer, the one with the smallest squared error on average, is then the **average of all 150, weighted by how likely they are**.

A function that gives such an answer is a *denoiser*. This one is exact: for these digits no network can do better.
"""


# %% tags=["setup"]
def exact(x, angle, digit):
    """x: noisy images (n, 1, 32, 32) of one digit. Returns the best guess of what they were."""
    seen = digits[digit].flatten(1)  # (150, 1024)
    distance = torch.cdist(x.flatten(1), math.cos(angle) * seen)  # (n, 150)
    weight = (-(distance**2) / (2 * math.sin(angle) ** 2)).softmax(dim=1)
    return (weight @ seen).reshape(x.shape)


# %%
ladder = [0.1, 0.5, 0.9, 1.2, 1.4, 1.5, 1.54, math.pi / 2]
ruined = torch.cat([mix(digits[3, :1], noise[3, :1], angle) for angle in ladder])
repaired = torch.cat([exact(x[None], angle, 3) for x, angle in zip(ruined, ladder)])
rows, above = {"ruined": ruined, "repaired, exactly": repaired}, [f"angle {a:.2f}" for a in ladder]
tiles(rows, columns=above, alt="A three, more and more noisy, and its repair: at the end a blur")

# %% [markdown]
r"""
The `softmax` is the whole trick. It turns distances into weights that add up to 1. With little noise one digit takes all the
weight, and the answer is sharp. With much noise every digit gets a share, and the answer is a blur of them all: *the best guess
when nothing is known*.

## From noise to a digit

We cannot leap from pure noise to a digit: the best guess there is a blur. But we can take a small step. Ask for the best guess of
the image. Work out which noise would explain the rest. Mix this image with this noise, at a slightly smaller angle. Repeat.
"""


# %% tags=["setup"]
def sample(denoiser, x, digit, steps=16, start=math.pi / 2):
    angles = [start * (1 - step / steps) for step in range(steps + 1)]
    for angle, smaller in zip(angles, angles[1:]):
        x_0 = denoiser(x, angle, digit)  # the best guess of the image
        eps = (x - math.cos(angle) * x_0) / math.sin(angle)  # the noise that explains the rest
        x = mix(x_0, eps, smaller)
    return x


def draw(denoiser, noise, **options):
    """Every digit from its own noise (10, n, 1, h, w)."""
    return torch.stack([sample(denoiser, noise[digit], digit, **options) for digit in range(10)])


# %% [markdown]
r"""
This loop of four lines is a *sampler*, known as DDIM. It serves for the whole page.

**Guess first.** The denoiser is perfect, and we start from 200 noises. What will the 200 drawings be: new digits, blurs, or
something else?
"""

# %%
drawn = draw(exact, noise)
known = nearest_of(drawn[:, 0], digits)
rows = {"drawn by the exact denoiser": drawn[:, 0], "the nearest of the 1,500": known}
tiles(rows, alt="Ten drawings, and below each a digit from the 1,500 that looks exactly the same")

# %% [markdown]
r"""
They look like copies. How near is a copy? Measure, pixel by pixel, how far 10,000 other handwritten digits are from their nearest of the
1,500. A drawing nearer than all but one in a thousand of them counts as a *copy*. (Here and below, the brackets say what other machines
may find: they round differently.)
"""

# %%
band(copies(drawn, digits), 195, 200, "of 200 are copies")

# %% [markdown]
r"""
The perfect denoiser has a perfect memory, and in the end its best guess is always one of the 1,500. **A diffusion model that
learned its task perfectly would never draw anything new.** So why do real ones?

## Put blinkers on it

Let each pixel decide by itself, and see only a *window* around it. It compares what is in its window with the same
place in each of the 150 digits, makes its own weights, and takes its own average. While there is hardly anything but noise, the
window is the whole image, so that all pixels agree on what to draw. As the noise falls, the window shrinks.

The table was found by trying. It says how many pixels a window reaches to each side: 31, which is everything, while the noise is more than
5.8 times as strong as the image, then 9 down to 2.7 times, and 3 at the end.
"""

# %% tags=["setup"]
WINDOWS = {5.8: 31, 2.7: 9, 1.6: 6, 1.0: 5, 0.6: 4, 0.0: 3}  # where noise / image is above: reach


def radius(angle):
    return next(pixels for bound, pixels in WINDOWS.items() if math.tan(angle) > bound)


# %%
windows(digits[3, :1], noise[3, :1], mix, radius)

# %% [markdown]
r"""
In code it is the exact denoiser with one softmax for each pixel. Two matrix products sum over all windows at
once: `near` is 1 where two rows (or columns) are at most `radius` apart, and 0 elsewhere.
"""


# %% tags=["setup"]
def blinkered(x, angle, digit, wider=1.0):
    seen, place = digits[digit], torch.arange(32)  # (150, 1, 32, 32)
    near = ((place[:, None] - place).abs() <= wider * radius(angle)).float()
    answers = []
    for image in x:
        distance = near @ (image - math.cos(angle) * seen) ** 2 @ near  # in each pixel's window
        weight = (-distance / (2 * math.sin(angle) ** 2)).softmax(dim=0)  # one for each pixel
        answers.append((weight * seen).sum(0))
    return torch.stack(answers)


# %%
invented = draw(blinkered, noise)
band(read(invented), 190, 200, "of 200 are read as asked")
band(copies(invented, digits), 0, 6, "of 200 are copies")
known = nearest_of(invented[:, 0], digits)
rows = {"drawn with blinkers": invented[:, 0], "the nearest": known, "more": invented[:, 1]}
tiles(rows, alt="New digits, and the nearest known ones, which are not the same")

# %% [markdown]
r"""
New digits, in a few seconds, without a network. (The reader is a classifier that has seen real digits only.) The top
of an 8 may follow one writer and its foot another; where windows overlap they see the same pixels, and so the strokes
join. **Not knowing everything is what makes it invent.**

The idea is Kamb and Ganguli's ([An analytic theory of creativity in convolutional diffusion
models](https://proceedings.mlr.press/v267/kamb25a.html), 2025); they also let a window find its match elsewhere in the image. In
the library, `blinkered` is called `local_oracle`. It counts noise by a time `t` from 0 to 1000, and is otherwise the same function:
"""

# %%
schedule, t = tinyddpm.Schedule.named("cosine"), 600
angle = math.acos(schedule.sqrt_alpha_bar[t])
x = mix(digits[8, :5], noise[8, :5], angle)
theirs = local_oracle(digits[8], schedule)(x, torch.full((5,), t))
gap = (blinkered(x, angle, 8) - theirs).abs().max().item()
band(1e6 * gap, 0, 1000, "millionths is the largest difference of a pixel")

# %% [markdown]
r"""
## The window is a dial

**Guess first.** Make every window half as wide, or twice as wide. What happens to the copies, and what to the digits?
"""

# %%
narrow, wide = (draw(partial(blinkered, wider=wider), noise[:, :5]) for wider in (0.5, 2.0))
band(copies(narrow, digits), 0, 2, "of 50 are copies, windows half as wide")
band(copies(wide, digits), 25, 50, "of 50 are copies, windows twice as wide")
band(read(narrow), 35, 50, "of 50 are read as asked, windows half as wide")
rows = {"half": narrow[:, 2], "as above": invented[:, 2], "twice": wide[:, 2], "exact": drawn[:, 2]}
tiles(rows, alt="Windows wider and wider: broken digits, new digits, known digits")

# %% [markdown]
r"""
Through a keyhole, each part fits its neighbours and nothing else, and some digits fall apart. Through a wide window the old digits
come back. Invention lies in between.

## A convolution is a window

An image generator cannot look through all photographs of the world at each step. It has a network that *learns* the average: show it
ruined images, ask for the clean ones, and make the squared error small. The exact denoiser has the smallest error of all, so that
is what the network is pulled towards. It never becomes exact, and one reason is how it is built: a 3×3 convolution looks through a
window of 3×3 pixels. A stack of them sees more, but what is near counts most. **A convolution wears blinkers.**

Ours draws 16×16 pixels, to be quick. A `Block` is two convolutions, with a scale and a shift that depend on the condition: which digit, how
much noise. The `Net` is one block, three at half the resolution, where windows are twice as wide, and one more.
"""


# %% tags=["setup"]
class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.scale_shift = nn.GroupNorm(8, width), nn.Linear(128, 2 * width)
        self.conv_1, self.conv_2 = (nn.Conv2d(width, width, 3, 1, 1) for _ in range(2))
        nn.init.zeros_(self.conv_2.weight)  # it begins by changing nothing

    def forward(self, x, condition):
        scale, shift = self.scale_shift(condition)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.norm(x) * (1 + scale) + shift)
        return x + self.conv_2(F.silu(self.conv_1(h)))


# %% tags=["setup"]
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_digit = nn.Embedding(10, 128)
        self.embed_noise = nn.Sequential(nn.Linear(16, 128), nn.SiLU(), nn.Linear(128, 128))
        self.to_features = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 32, 3, 1, 1))
        self.first, self.last = Block(32), Block(32)
        self.down, self.up = nn.Conv2d(32, 64, 2, 2), nn.ConvTranspose2d(64, 32, 2, 2)
        self.middle = nn.ModuleList(Block(64) for _ in range(3))
        self.to_pixels = nn.Sequential(nn.SiLU(), nn.Conv2d(32, 4, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x, angle, digit):
        waves = angle[:, None] * torch.arange(1, 9)  # the angle, as sines and cosines
        noisy = self.embed_noise(torch.cat([waves.sin(), waves.cos()], dim=1))
        condition = F.silu(noisy + self.embed_digit(digit))
        x = self.first(self.to_features(x), condition)
        h = self.down(x)
        for block in self.middle:
            h = block(h, condition)
        return self.to_pixels(self.last(x + self.up(h), condition))


# %% [markdown]
r"""
The training loop: ruin, guess, compare, correct. The angles favour the middle of the turn, where it is decided what the drawing
will be. It takes half a minute.
"""

# %%
small, rounds = F.avg_pool2d(images, 2), 1000
torch.manual_seed(0)
net = Net()
adam = torch.optim.Adam(net.parameters(), lr=3e-3, betas=(0.9, 0.99))
rate = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, total_steps=rounds)  # up, then down to 0
for _ in range(rounds):
    chosen = torch.randint(60_000, (32,))
    x_0, eps = small[chosen], torch.randn(32, 1, 16, 16)
    angle = math.pi / 2 * torch.randn(32, 1, 1, 1).sigmoid()
    x_0_hat = net(angle.cos() * x_0 + angle.sin() * eps, angle.flatten(), labels[chosen])
    loss = (x_0_hat - x_0).square().mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
    rate.step()
print(f"{sum(p.numel() for p in net.parameters()):,} weights, {rounds * 32:,} ruined digits")

# %% [markdown]
r"""
And now the same sampler: it takes any denoiser, and a network is one. Next to yours stands the network that comes with the library. It is
six times as large, was trained for three and a half hours, and draws 32×32 pixels.
"""


# %%
@torch.no_grad()
def network(x, angle, digit):
    return net(x, torch.full((len(x),), angle), torch.full((len(x),), digit))


ddpm = tinyddpm.load_pretrained()


@torch.no_grad()
def shipped(x, angle, digit):
    t = (ddpm.schedule.sqrt_alpha_bar.acos() - angle).abs().argmin()  # it counts time, not angles
    return ddpm.denoiser([digit] * len(x), scale=1.5)(x, t.expand(len(x)))  # 1.5: chapter 07


yours = draw(network, torch.randn(10, 10, 1, 16, 16, generator=torch.Generator().manual_seed(1)))
trained = draw(shipped, noise[:, 1:3])
band(read(yours), 70, 100, "of 100 are read as asked: your network, at 16×16")
band(read(trained), 17, 20, "of 20 are read as asked: the library's network")
coarse = F.avg_pool2d(digits[:, 0], 2)
rows = {"your network": yours[:, 1], "real digits": coarse, "the library's network": trained[:, 0]}
tiles(rows, alt="Coarse digits of your network, real ones, sharp ones of the library's network")

# %% [markdown]
r"""
## Side by side

One noise for each column, three denoisers, one sampler. You know the first two rows.
"""

# %%
rows = {("exact: copies", ORANGE): drawn[:, 2], ("blinkers: invents", BLUE): invented[:, 2]}
rows |= {("the library's network: invents", GREEN): trained[:, 1]}
tiles(rows, alt="Known digits, then new ones, and the network's, often like the second row")

# %% [markdown]
r"""
Follow a column down. The network knows nothing of our windows, and yet it often draws much the same digit as the blinkers do. What
the drawing will be is already in the noise. The denoiser works it out.

## Five experiments, one line each

Each row is one line. Guess, look, then change a number and run it again.
"""

# %%
seven = torch.full((1, 1, 32, 32), -1.0)  # a 7 of your own: two straight bars
seven[..., 7:10, 9:23] = seven[..., 7:25, 20:23] = 1
worn = mix(seven, noise[7, :9], 1.2)
repaired = sample(blinkered, worn, 7, start=1.2)
rows = {
    "ten steps": draw(blinkered, noise[:, 3:4], steps=10)[:, 0],
    "three steps": draw(blinkered, noise[:, 3:4], steps=3)[:, 0],
    "no noise: it starts from zeros": draw(blinkered, 0 * noise[:, :1])[:, 0],
    "each noise of the first row, asked for a 4": sample(blinkered, noise[:, 3], 4),
    "your own 7, ruined; and repaired nine times": torch.cat([worn[:1], repaired]),
}
tiles(rows, alt="Ten steps: whole digits; three: ragged ones; no noise: plain ones; fours; sevens")

# %% [markdown]
r"""
## Where to go next

That is all: mix, guess the clean image, take a step, repeat. What is left is why it is right, and how to do it well.

* **Half an hour** was this page, with its experiments.
* **An evening:** [01](01_forward_process.ipynb) for the mixing, the first half of [03](03_reverse_process.ipynb) for the exact
  denoiser and the sampler, the training loop in [06](06_training.ipynb), and [07](07_conditional_generation.ipynb), where a label
  steers the network.
* **The book:** all chapters, in order. You build every piece of the library by hand, every equation is executed, and mistakes
  of published tutorials are caught by one line each.

**Next:** [01 · The forward process](01_forward_process.ipynb).
"""
