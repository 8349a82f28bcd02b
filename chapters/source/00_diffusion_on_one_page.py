# %% [markdown]
r"""
# 00 · Diffusion on one page

Diffusion models are behind most of today's image generators. On this page you make two small ones, which draw handwritten
digits out of noise: **first without a neural network, then with one.** The film shows both. The upper row is made of averages of
1,500 handwritten digits, and of nothing else: no network, no training. The lower row is a trained network. In each column both
began with the same noise.
"""

# %% tags=["setup"]
# Opened alone, in Colab for example? First run, in a cell of its own, and with the address of the repository:
#     pip install "PATH-OF-THE-REPOSITORY[notebooks]"
from course import band, play, tiles
from course.chapter_00 import BLUE, GREEN, ORANGE, copies, film, read, windows

play(film())

# %% [markdown]
r"""
*You need:* Python and a little PyTorch; no knowledge of diffusion. *Reading:* 30 minutes. *Running:* about a minute on a laptop,
offline. Nothing is proved here: chapters 01 to 08 do that.

Our material is 150 handwritten digits of each kind, 32 by 32 pixels, from -1 (black) to 1 (white).
"""

# %% tags=["setup"]
import math
import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.evaluation import nearest
from tinyddpm.oracle import local_oracle

torch.set_num_threads(1)  # our tensors are small: more threads would wait for each other
images, labels = mnist()[:3000]
digits = torch.stack([images[labels == digit][:150] for digit in range(10)])  # (10, 150, 1, 32, 32)
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
how *likely* each of them is: the nearer it is to what you see, the likelier, by the bell curve of the noise. The best answer, the
one with the smallest squared error on average, is then the **average of all 150, weighted by how likely they are**.

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
ladder = [0.1, 0.4, 0.7, 1.0, 1.2, 1.3, 1.4, 1.5, 1.54, math.pi / 2]
ruined = torch.cat([mix(digits[3, :1], noise[3, :1], angle) for angle in ladder])
repaired = torch.cat([exact(x[None], angle, 3) for x, angle in zip(ruined, ladder)])
tiles({"ruined: more noise to the right": ruined, "repaired, exactly: a blur where little can be known": repaired})

# %% [markdown]
r"""
The `softmax` is the whole trick. It turns distances into weights that add up to 1. With little noise one digit takes all the
weight, and the answer is sharp. With much noise every digit gets a share, and the answer is a blur of them all: *the best guess
when nothing is known*.

## From noise to a digit

So we cannot leap from pure noise to a digit: the best guess there is a blur. But we can take a small step. Ask for the best guess.
Work out which noise would explain the rest. Mix the two again, at a slightly smaller angle. Repeat.
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

**Guess first.** The denoiser is perfect, and we start from 200 different noises. What will the 200 drawings be: new digits, blurs, or
something else? Decide before you scroll.
"""

# %%
drawn = draw(exact, noise)
twins = digits.flatten(0, 1)[nearest(drawn[:, 0], digits.flatten(0, 1))[1]]
tiles({"drawn by the exact denoiser": drawn[:, 0], "the nearest of the 1,500 digits that it knows": twins})

# %% [markdown]
r"""
They look like copies. Let us count, and call a drawing a *copy* if it is nearer to one of the 1,500 digits than 999 of 1,000
other handwritten digits are. (Here and below, the brackets say what other machines may find: they round differently.)
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
"""

# %% tags=["setup"]
WINDOWS = {5.8: 31, 2.7: 9, 1.6: 6, 1.0: 5, 0.6: 4, 0.0: 3}  # where noise / signal is above: pixels to each side


def radius(angle):
    return next(pixels for bound, pixels in WINDOWS.items() if math.tan(angle) > bound)


# %%
levels = [1.5, 1.3, 1.1, 0.9, 0.7, 0.3]
noisy = torch.cat([mix(digits[3, :1], noise[3, :1], angle) for angle in levels])
sides = [min(2 * radius(angle) + 1, 32) for angle in levels]
windows(noisy, [radius(angle) for angle in levels], [f"{side} × {side}" for side in sides])

# %% [markdown]
r"""
In code it is the exact denoiser again, with one softmax for each pixel. Two matrix products sum over all windows at
once: `near` is 1 where two rows (or two columns) are at most `radius` apart, and 0 elsewhere.
"""


# %% tags=["setup"]
def blinkered(x, angle, digit, wider=1.0):
    seen, place = digits[digit], torch.arange(32)  # (150, 1, 32, 32)
    near = ((place[:, None] - place).abs() <= wider * radius(angle)).float()
    answers = []
    for image in x:
        distance = near @ (image - math.cos(angle) * seen) ** 2 @ near  # in the window of each pixel
        weight = (-distance / (2 * math.sin(angle) ** 2)).softmax(dim=0)  # one softmax for each pixel
        answers.append((weight * seen).sum(0))
    return torch.stack(answers)


# %%
started = time.process_time()
invented = draw(blinkered, noise)
band(time.process_time() - started, 0.5, 10, "seconds of one core for 200 digits")
band(read(invented), 190, 200, "of 200 are read as asked")
band(copies(invented, digits), 0, 6, "of 200 are copies")
twins = digits.flatten(0, 1)[nearest(invented[:, 0], digits.flatten(0, 1))[1]]
tiles({"drawn with blinkers": invented[:, 0], "the nearest of the 1,500 digits": twins, "more": invented[:, 1]})

# %% [markdown]
r"""
New digits, without a network and without training. (The reader is a classifier that has seen real digits only.) The top
of an 8 may follow one writer and its foot another; where windows overlap they see the same pixels, and so the strokes
join. **Not knowing everything is what makes it invent.**

The idea is Kamb and Ganguli's ([An analytic theory of creativity in convolutional diffusion
models](https://proceedings.mlr.press/v267/kamb25a.html), 2025); they also let a window find its match elsewhere in the image. In
the library, `blinkered` is called `local_oracle`. It counts noise by a time `t` from 0 to 1000, and is otherwise the same function:
"""

# %%
schedule = tinyddpm.Schedule.named("cosine", T=1000)
theirs = local_oracle(digits[8], schedule)
for t in (950, 600, 200):
    angle = math.acos(schedule.sqrt_alpha_bar[t])
    x = mix(digits[8, :5], noise[8, :5], angle)
    gap = (blinkered(x, angle, 8) - theirs(x, torch.full((5,), t))).abs().max()
    print(f"angle {angle:.2f}: equal to within 0.001:", bool(gap < 1e-3))

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
tiles({"half as wide": narrow[:, 2], "as above": invented[:, 2], "twice as wide": wide[:, 2], "exact": drawn[:, 2]})

# %% [markdown]
r"""
Through a keyhole, each part fits its neighbours and nothing else, and some digits fall apart. Through a wide window the old digits
come back. Invention lies in between.

## A convolution is a window

An image generator cannot look through all photographs of the world at each step. It has a network that *learns* the average: show it
ruined images, ask for the clean ones, and make the squared error small. The exact denoiser has the smallest error of all, so that
is what the network is pulled towards. It does not arrive, and one reason is its build: a 3×3 convolution looks through a window of
3×3 pixels. A stack of them sees more, but what is near counts most. **A convolution wears blinkers.**

Ours draws 16×16 pixels, to be quick. A `Block` is two convolutions, with a scale and a shift that depend on the digit and on the
noise. The `Net` is one block, three at half the resolution, where windows are twice as wide, and one block more.
"""


# %% tags=["setup"]
class Block(nn.Module):
    def __init__(self, width, facts):
        super().__init__()
        self.norm, self.told = nn.GroupNorm(8, width), nn.Linear(facts, 2 * width)
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.second.weight)  # it begins by changing nothing

    def forward(self, x, facts):
        scale, shift = self.told(facts)[:, :, None, None].chunk(2, dim=1)
        return x + self.second(F.silu(self.first(F.silu(self.norm(x) * (1 + scale) + shift))))


class Net(nn.Module):
    def __init__(self, width=32, facts=128):
        super().__init__()
        self.of_digit = nn.Embedding(10, facts)
        self.of_noise = nn.Sequential(nn.Linear(16, facts), nn.SiLU(), nn.Linear(facts, facts))
        self.enter = nn.Conv2d(4, width, 3, padding=1)
        self.before, self.after = Block(width, facts), Block(width, facts)
        self.shrink, self.grow = nn.Conv2d(width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.middle = nn.ModuleList(Block(2 * width, facts) for _ in range(3))
        self.leave = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, x, angle, digit):
        waves = angle[:, None] * torch.arange(1, 9)  # the angle, as a network likes it
        facts = F.silu(self.of_noise(torch.cat([waves.sin(), waves.cos()], dim=1)) + self.of_digit(digit))
        x = self.before(self.enter(F.pixel_unshuffle(x, 2)), facts)  # 2×2 pixels become 4 channels
        inner = self.shrink(x)
        for block in self.middle:
            inner = block(inner, facts)
        return F.pixel_shuffle(self.leave(F.silu(self.after(x + self.grow(inner), facts))), 2)


# %% [markdown]
r"""
The training loop: ruin, guess, compare, correct. The angles favour the middle of the turn, where it is decided what the drawing
will be. It takes half a minute.
"""

# %%
all_images, all_labels = mnist()[:]  # 60,000 digits
all_small, rounds = F.avg_pool2d(all_images, 2), 1000
torch.manual_seed(0)
net = Net()
adam = torch.optim.Adam(net.parameters(), lr=3e-3, betas=(0.9, 0.99))
rate = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=3e-3, total_steps=rounds)  # up, then down to 0
for _ in range(rounds):
    chosen = torch.randint(60_000, (32,))
    x_0, eps = all_small[chosen], torch.randn(32, 1, 16, 16)
    angle = math.pi / 2 * torch.randn(32, 1, 1, 1).sigmoid()
    x_0_hat = net(angle.cos() * x_0 + angle.sin() * eps, angle.flatten(), all_labels[chosen])
    loss = (x_0_hat - x_0).square().mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
    rate.step()
print(f"{sum(p.numel() for p in net.parameters()):,} weights, trained on {rounds * 32:,} ruined digits")

# %% [markdown]
r"""
And now the same sampler, not a line changed: it takes any denoiser, and a network is one. Next to yours we
put the network that comes with the library. It is six times as large, was trained for three and a half hours, and draws 32×32 pixels.
"""


# %%
@torch.no_grad()
def network(x, angle, digit):
    return net(x, torch.full((len(x),), angle), torch.full((len(x),), digit))


ddpm = tinyddpm.load_pretrained()
angle_at = ddpm.schedule.sqrt_alpha_bar.acos()  # for the times t = 0, 1, ..., 1000 by which it was trained


def shipped(x, angle, digit):
    t = (angle_at - angle).abs().argmin()
    return ddpm.denoiser([digit] * len(x), scale=1.5)(x, t.expand(len(x)))  # 1.5: chapter 07 says why


yours = draw(network, torch.randn(10, 10, 1, 16, 16, generator=torch.Generator().manual_seed(1)))
trained = draw(shipped, noise[:, 1:3])
band(read(yours), 70, 100, "of 100 are read as asked: your network, at 16×16")
band(read(trained), 17, 20, "of 20 are read as asked: the library's network")
tiles(
    {
        "your network, half a minute of training": yours[:, 1],
        "real digits at this size": F.avg_pool2d(digits[:, 0], 2),
        "the library's network": trained[:, 0],
    }
)

# %% [markdown]
r"""
## Side by side

One noise for each column, three denoisers, one sampler. You know the first two rows.
"""

# %%
tiles(
    {
        ("exact: copies", ORANGE): drawn[:, 2],
        ("blinkers: invents", BLUE): invented[:, 2],
        ("the library's network: invents", GREEN): trained[:, 1],
    }
)

# %% [markdown]
r"""
Follow a column down. The network knows nothing of our windows, and yet it often draws much the same digit as the blinkers do. What
the drawing will be is already in the noise. The denoiser works it out.

## Five experiments, one line each

Each row is one line. Guess, look, then change a number and run it again.
"""

# %%
seven = torch.full((1, 1, 32, 32), -1.0)  # a digit of your own, from two rulers
seven[..., 7:10, 9:23] = seven[..., 7:25, 20:23] = 1
worn = mix(seven, noise[7, :9], 1.2)
tiles(
    {
        "ten steps": draw(blinkered, noise[:, 3:4], steps=10)[:, 0],
        "three steps": draw(blinkered, noise[:, 3:4], steps=3)[:, 0],
        "no noise: it starts from zeros": draw(blinkered, 0 * noise[:, :1])[:, 0],
        "another label: the same noise, each time asked for a 4": sample(blinkered, noise[:, 3], 4),
        "your own 7: ruined, and repaired nine times": torch.cat([worn[:1], sample(blinkered, worn, 7, start=1.2)]),
    }
)

# %% [markdown]
r"""
## Where to go next

That is all of it: mix, guess the clean image, take a step, repeat. What is left is why it is right, and how to do it well.

* **30 minutes** was this page.
* **An evening:** [01](01_forward_process.ipynb) for the mixing, the first half of [03](03_reverse_process.ipynb) for the exact
  denoiser and the sampler, the training loop in [06](06_training.ipynb), and [07](07_conditional_generation.ipynb), where a label
  steers the network.
* **The book:** chapters 01 to 08, in order. You build every piece of the library by hand, every equation is executed, and mistakes
  of published tutorials are each caught by one line of code.

**Next:** [01 · The forward process](01_forward_process.ipynb).
"""
