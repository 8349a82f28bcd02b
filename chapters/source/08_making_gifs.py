# %% [markdown]
r"""
# 08 · Making GIFs: a film of a thousand steps needs forty frames

**After this chapter you can**

* take a sampler apart into its steps, and choose the frames that show something, by a rule and not by trial;
* write a GIF that is timed, looped, small and the same on every run, and read its bytes to prove it;
* make the ten animations of the front page yourself, and check them against the command line byte by byte.

*You need:* chapter 02 for the log-SNR and its angle, 03 for the sampler, 07 for guidance. *Reading:* 35 minutes, and 15 for
the exercises. *Running:* under a minute on a laptop. *You build and then import:* `frames_even_in_log_snr`, `film_strip`,
`save_gif`.

---

The most convincing figure of this whole subject moves: noise goes in, and a digit comes out. It is also the figure that most
often goes wrong. Much of the film shows noise that does not change, the digit appears in the last few frames, the contrast
flickers, the file is too large for its page, and in print there is nothing at all. Little of this need be left to trial:
which frames show a change can be computed before any picture is drawn, the clock and the size of a GIF follow rules that fit
on one page, and a file can be held to a budget by a test.
"""

# %% tags=["setup"]
import functools
import hashlib
import math
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import imageio.v3 as iio
import matplotlib.pyplot as plt
import torch
from course import check, guess, holds, play, same, show

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.viz import film_strip, frames_even_in_log_snr, image_grid, save_gif

# %% [markdown]
r"""
## A walk, step by step

The samplers of chapter 03 are generators: each `Step` that they hand out holds the time $t$, the image $x_t$, and
$\hat x_0$, the clean image that the denoiser sees in it. For a film we keep all of them. The cell walks to the ten digits
with the library's network: 100 steps of DDIM, guidance scale 1.5, and the seeds 0 to 9, one a digit, as `tinyddpm gif` does.

The simplest picture of a walk is a *film strip*: some of the steps side by side, $x_t$ above and $\hat x_0$ below, here
evenly spaced over the list. (The argument `levels` makes do with 16 levels of brightness. Why, the section on the budget
says; noise looks no worse for it.)
"""

# %%
ddpm = tinyddpm.load_pretrained()
steps = list(ddpm.sample_steps(y=torch.arange(10), steps=100, sampler="ddim", scale=1.5, seeds=range(10)))
print(f"{len(steps)} steps, t = {steps[0].t} to {steps[-1].t}, each of shape {tuple(steps[0].x_t.shape)}")
print("the last x_t and x_0_hat are the finished image:", torch.equal(steps[-1].x_t, steps[-1].x_0_hat))


def my_film_strip(steps, frames=10, image=0):
    chosen = [steps[round(i)] for i in torch.linspace(0, len(steps) - 1, frames).tolist()]
    rows = [step.x_t[image] for step in chosen] + [step.x_0_hat[image] for step in chosen]
    return image_grid(torch.stack(rows), columns=frames)


same(my_film_strip, film_strip, steps, 10, image=3)
show(film_strip(steps, 10, image=3, levels=16), "one walk, evenly in t: x_t above, x_0_hat below")

# %% [markdown]
r"""
Two stories are told there, at different times. The lower row knows early what is to come: told that it is a three, the
denoiser sees a blurred three from the start, and what is left to decide is its posture. The upper row, which is what a film
usually shows, looks like noise for most of the walk and like a digit only at its end.

## How far does the picture move?

Let us put a number on "nothing happens". If the denoiser were sure of $x_0$ from the start, DDIM would walk through
$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$ with *one* $\varepsilon$, and between the times $t$ and
$s$ the image would move by
$(\sqrt{\bar\alpha_s}-\sqrt{\bar\alpha_t})\,x_0 + (\sqrt{1-\bar\alpha_s}-\sqrt{1-\bar\alpha_t})\,\varepsilon$. The noise has
mean 0 and variance 1 and knows nothing of the image; so with $m$ for the mean square of the clean pixels and $d$ for their
number, the mean square of the movement is

$$\frac1d\,\mathbb E\,\lVert x_s - x_t\rVert^2 = \bigl(\sqrt{\bar\alpha_s}-\sqrt{\bar\alpha_t}\bigr)^2 m + \bigl(\sqrt{1-\bar\alpha_s}-\sqrt{1-\bar\alpha_t}\bigr)^2 \tag{8.1}$$

For digits in $[-1, 1]$ the mean square $m$ is nearly 1, since most pixels are $-1$. With $m = 1$ the formula becomes
geometry. The pair $(\sqrt{\bar\alpha_t}, \sqrt{1-\bar\alpha_t})$ is a point on the unit circle at the angle $\varphi_t$ of
(2.8), where the log-SNR is $\lambda_t = -2\log\tan\varphi_t$. The walk goes along the circle from noise to image, and the
movement between two frames is the length of a chord:

$$\varphi_t = \arctan e^{-\lambda_t/2}, \qquad \sqrt{\bigl(\sqrt{\bar\alpha_s}-\sqrt{\bar\alpha_t}\bigr)^2 + \bigl(\sqrt{1-\bar\alpha_s}-\sqrt{1-\bar\alpha_t}\bigr)^2} = 2 \sin\frac{\lvert\varphi_t - \varphi_s\rvert}{2} \tag{8.2}$$

The cell measures the left side of (8.1) on real digits noised by the linear schedule of Ho et al. (2020), and then looks at
the walk from above, whose denoiser is not sure from the start.
"""

# %%
linear = tinyddpm.Schedule.named("linear", T=1000)
x_0 = mnist(train=False).tensors()[0][:500]
m = x_0.square().mean()
print("the mean square of a clean pixel is between 0.9 and 1:", 0.9 < m.item() < 1)
eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
times = list(range(1000, -1, -100))
path = torch.stack([tinyddpm.q_sample(x_0, t, eps, linear) for t in times])
signal, noise = linear.sqrt_alpha_bar[times], linear.sqrt_one_minus_alpha_bar[times]
measured = path.diff(dim=0).square().mean((1, 2, 3, 4))
holds("8.1", measured, signal.diff() ** 2 * m + noise.diff() ** 2, within=2e-3)

angle = torch.atan(torch.exp(-linear.log_snr / 2))  # 0 at t = 0, where the log-SNR is infinite
chord = (signal.diff() ** 2 + noise.diff() ** 2).sqrt()
holds("8.2", chord, 2 * torch.sin(angle[times].diff().abs() / 2), within=1e-9)

moved = torch.stack([(b.x_t - a.x_t).square().mean().sqrt() for a, b in zip(steps, steps[1:])])
of_walk = torch.tensor([step.t for step in steps])
a, b = ddpm.schedule.sqrt_alpha_bar[of_walk], ddpm.schedule.sqrt_one_minus_alpha_bar[of_walk]
off = moved / (a.diff() ** 2 * m + b.diff() ** 2).sqrt() - 1
print("the network's own walk moves as (8.1) says, within 20 %:", bool((off.abs() < 0.2).all()))

# %% [markdown]
r"""
So the schedule alone tells which frames move.

## Even in log-SNR

What is it that changes when a digit comes out of the noise? The strength of the noise *relative to the image*: the ratio
$\sqrt{1-\bar\alpha_t} / \sqrt{\bar\alpha_t} = e^{-\lambda_t/2}$. Frames that are evenly spaced in $\lambda$ reduce it by the
same factor each time. Both ends have to be chosen, since the log-SNR has none. Below $-4$ there is next to nothing to see in
$x_t$, above $6$ the noise has less than a twentieth of the image's amplitude; so of $F$ frames the library spreads $F - 1$
from $\lambda_\text{low} = -4$ to $\lambda_\text{high} = 6$, and the last one is the finished image. From each of the $F - 1$
frames to the next

$$\frac{\sqrt{1-\bar\alpha_{t_{k+1}}}\,/\,\sqrt{\bar\alpha_{t_{k+1}}}}{\sqrt{1-\bar\alpha_{t_k}}\,/\,\sqrt{\bar\alpha_{t_k}}} = e^{-\Delta/2}, \qquad \Delta = \frac{\lambda_\text{high} - \lambda_\text{low}}{F - 2} \tag{8.3}$$

The steps of a walk sit where they sit; for each wanted value we take the step that is nearest, and no step twice.
"""


# %%
def my_even_in_log_snr(log_snr, frames, low=-4.0, high=6.0):
    wanted = torch.linspace(low, high, frames - 1, dtype=torch.float64)
    nearest = {(log_snr - value).abs().argmin().item() for value in wanted}
    return sorted(nearest | {len(log_snr) - 1})


log_snr = linear.log_snr.flip(0)  # in the order of a walk: t = 1000, 999, ..., 0
same(my_even_in_log_snr, frames_even_in_log_snr, log_snr, 40)
ratio = torch.exp(-log_snr / 2)[my_even_in_log_snr(log_snr, 40)[:-1]]
holds("8.3", ratio[1:] / ratio[:-1], torch.full((38,), math.exp(-10 / 38 / 2)), within=0.03)  # t is whole

log_snr_of_walk = ddpm.schedule.log_snr[of_walk]
film = my_even_in_log_snr(log_snr_of_walk, 40)
print(f"forty frames asked for, of a walk of {len(steps)} steps: {len(film)} come")
phi = torch.atan(torch.exp(-log_snr_of_walk / 2))[film]
longest = (2 * torch.sin(phi.diff().abs() / 2)).max().item()
print(f"the longest chord between two of them: {longest:.2f}, and two of 16 levels are {2 / 15:.2f} apart")

# %% [markdown]
r"""
Why forty frames? At 12.5 a second they last three seconds, and by (8.2) the picture then moves by little more than half a
level of sixteen from frame to frame: more frames would hardly look smoother, and would cost bytes. Why do only 34 come?
Towards the end the steps of this walk are further apart in log-SNR than $\Delta$, so that several wanted values have the
same nearest step. A longer walk would give all forty.

Here is the linear schedule, one digit, one noise: above twelve frames evenly in $t$, below twelve evenly in log-SNR.
"""

# %%
even_t = [round(i) for i in torch.linspace(0, 1000, 12).tolist()]
t = 1000 - torch.tensor(even_t + my_even_in_log_snr(log_snr, 12))
frames = tinyddpm.q_sample(x_0[3:4].expand(24, -1, -1, -1), t, eps[3:4].expand(24, -1, -1, -1), linear)
show(image_grid(frames, columns=12, levels=16), "linear schedule: frames evenly in t, and evenly in log-SNR")

# %% [markdown]
r"""
Now count, for three schedules and for a third rule as well: frames spaced evenly in the angle, which should move by equal
chords. A frame is called *static* if it moves by less than a quarter of the largest movement of its film. And how many
frames fall before, and how many into, the window of chapter 03, log-SNR $-4.8$ to $-2.1$, where the class is decided?
"""


# %%
def even_in_angle(log_snr, frames):
    angle = torch.atan(torch.exp(-log_snr / 2))
    wanted = torch.linspace(math.pi / 2, 0, frames, dtype=torch.float64)
    return sorted({(angle - value).abs().argmin().item() for value in wanted})


rules = {
    "t": lambda log_snr, frames: [round(i) for i in torch.linspace(0, len(log_snr) - 1, frames).tolist()],
    "log-SNR": frames_even_in_log_snr,
    "angle": even_in_angle,
}
figure, axes = plt.subplots(1, 3, figsize=(7.6, 2.2), sharey=True)
print("schedule        frames evenly in   before the window   inside   static   of 40")
for name, panel in zip(("linear", "cosine", "cosine-shifted"), axes):
    schedule = tinyddpm.Schedule.named(name, T=1000)
    for rule, choose in rules.items():
        t = 1000 - torch.tensor(choose(schedule.log_snr.flip(0), 40))
        a, b, at = schedule.sqrt_alpha_bar[t], schedule.sqrt_one_minus_alpha_bar[t], schedule.log_snr[t]
        moves = (a.diff() ** 2 + b.diff() ** 2).sqrt()
        before, inside = int((at < -4.8).sum()), int(((at >= -4.8) & (at <= -2.1)).sum())
        print(f"{name:15} {rule:18} {before:17} {inside:8} {int((moves < moves.max() / 4).sum()):8}")
        panel.plot(moves, label=rule)
    panel.set(title=name, xlabel="frame")
axes[0].set_ylabel("movement of x_t")
figure.legend(*axes[0].get_legend_handles_labels(), title="even in", loc="outside right center")
plt.show()

# %% [markdown]
r"""
The usual advice against frames even in $t$ is only half true. On the linear schedule more than a third of them are static,
and on the shifted cosine, with which the library's network was trained, nearly as many. On the *cosine* schedule none is:
its $\varphi_t$ is nearly a straight line in $t$, so that even in $t$ is even in the angle. The other two rules do not care
which schedule there is, and this is the point: you need not look.

Which of the two is better? By this count the angle, which has no static frame at all. Those of the log-SNR are its last
ones, where weak noise is cleaned up: small movements, though the eye sees them on black. The library takes the log-SNR; that
is taste, and exercise 08a has the angle.

As to the window: what is decided there does not show in $x_t$, which is still noise to the eye, and a film of $x_t$ may
begin inside it. It shows in $\hat x_0$, the lower row of the first figure. A film of $\hat x_0$ should therefore begin
before the window, and ours will.

## A GIF on one page

The GIF that everybody writes is the version of 1989. A file is a short header, a *palette* of at most 256 colours, and a
list of frames. Each pixel of a frame is an index into the palette, and the indices are compressed without loss: a grey film
with values 0 to 255 fits exactly. In front of each frame stands its *delay*, in hundredths of a second, as a whole number.
An extra block says how often to repeat, 0 meaning for ever.

What must be decided is the timing. We show $f$ frames a second, and hold the last frame for a time $h$, because the finished
digit is what one wants to look at before it starts again. With $F$ frames the film then lasts

$$\frac{F - 1}{f} + h \;=\; \frac{1}{100} \sum_{k=1}^{F} \text{delay}_k \quad\text{seconds} \tag{8.4}$$

where the right side is the file's own clock. imageio wants the delays in thousandths of a second. The cell writes a film of
fixed whole numbers, and takes the file apart, byte by byte. Then it tests what everything later relies on: reading back
changes no pixel, and the same numbers give the same file, since no date and no random name is hidden in a GIF.
"""


# %%
def my_save_gif(frames, path, fps=12.5, hold=1.5):
    milliseconds = [1000 / fps] * (len(frames) - 1) + [1000 * hold]
    pictures = [frame[0].numpy() for frame in frames]  # (1, h, w) -> (h, w): grey
    iio.imwrite(path, pictures, extension=".gif", duration=milliseconds, loop=0)


def delays_of(content):
    """The delay of each frame, in hundredths of a second: it stands in a block that begins with 21 F9 04."""
    blocks = re.finditer(rb"\x21\xf9\x04.(..).\x00", content, re.DOTALL)
    return [struct.unpack("<H", block[1])[0] for block in blocks]


def fingerprint(writer):
    """Instead of a file, the 32 bytes of its sha256."""

    @functools.wraps(writer)
    def write(*arguments, **named):
        writer(arguments[0], folder / "x.gif", *arguments[1:], **named)
        return torch.tensor(list(hashlib.sha256((folder / "x.gif").read_bytes()).digest()))

    return write


keep = tempfile.TemporaryDirectory()  # it goes when the notebook goes
folder = Path(keep.name)
row, column = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
stripes = [((row + column + 2 * k) % 16 * 17).to(torch.uint8)[None] for k in range(8)]  # 8 frames (1, 24, 32)
my_save_gif(stripes, folder / "stripes.gif", fps=12.5, hold=1.5)

content = (folder / "stripes.gif").read_bytes()
print("header:", content[:6].decode(), "- width, height:", struct.unpack("<HH", content[6:10]))
print("delays:", delays_of(content))
repeats = content.index(b"NETSCAPE2.0") + 13
print("repeat:", struct.unpack("<H", content[repeats : repeats + 2])[0], "(0 is for ever)")
holds("8.4", 7 / 12.5 + 1.5, sum(delays_of(content)) / 100, within=1e-9)

again = iio.imread(folder / "stripes.gif", index=None)
again = torch.as_tensor(again if again.ndim == 3 else again[..., 0])  # some readers make colours of greys
print("read back as written:", torch.equal(again, torch.cat(stripes)))
same(fingerprint(my_save_gif), fingerprint(save_gif), stripes, fps=12.5, hold=1.5)

# %% [markdown]
r"""
## A budget

Compression lives on repetition, and noise has none. No lossless format can spend less than the *entropy* of the brightness,
on average, on a pixel of pure noise. With $L$ levels, standard normal noise that is held in $[-1, 1]$ and rounded to the
nearest level falls on level $i$ with a probability $p_i$, the area of the bell between the edges of that level (the
outermost levels get the tails). The number of bits a pixel is at least

$$H_L = -\sum_{i=1}^{L} p_i \log_2 p_i, \qquad p_i = \Phi(\text{upper edge}_i) - \Phi(\text{lower edge}_i) \tag{8.5}$$

where $\Phi$ is the area of the bell up to a point. The cell does the rounding by hand, compares it with what `image_grid`
does for `levels`, and counts a million pixels of noise.
"""

# %%
bell = torch.distributions.Normal(0.0, 1.0)


def in_levels(x, levels):
    level = ((x.clamp(-1, 1) + 1) / 2 * (levels - 1)).round()  # 0, 1, ..., levels - 1
    return (level * 255 / (levels - 1)).round().to(torch.uint8)


def least_bits(levels):
    edges = torch.linspace(-1, 1, levels, dtype=torch.float64)
    edges = (edges[1:] + edges[:-1]) / 2  # half way between neighbouring levels
    below = torch.cat([torch.zeros(1).double(), bell.cdf(edges), torch.ones(1).double()])
    return (torch.special.entr(below.diff()).sum() / math.log(2)).item()


noise = torch.randn(1, 1, 1000, 1000, generator=torch.Generator().manual_seed(1))
same(lambda x, columns, levels: in_levels(x, levels)[0], image_grid, noise, columns=1, levels=16)
counted = []
for levels in (2, 4, 16, 256):
    shares = in_levels(noise, levels).flatten().long().bincount() / noise.numel()
    counted.append((torch.special.entr(shares.double()).sum() / math.log(2)).item())
holds("8.5", counted, [least_bits(levels) for levels in (2, 4, 16, 256)], within=0.02)
print(f"at least {least_bits(256):.1f} bits a pixel with 256 levels, {least_bits(16):.1f} with 16")

noisy = x_0[3:4] * 0.75 + eps[3:4] * 0.35
row = torch.cat([in_levels(noisy, levels)[0] for levels in (256, 16, 8, 4)], 2)
show(row, "the same noisy digit in 256, 16, 8 and 4 levels", width=4.5)

# %% [markdown]
r"""
Nobody needs 256 levels to look at noise. **Before you run the next cell:** with 256 of them, the film of the three, each
pixel four times enlarged so that one can see it, takes more than 150 kB. How many does it take with 16?
"""

# %%
my_guess = None


def film_of(image, levels):
    return [image_grid(steps[i].x_t[image : image + 1], columns=1, enlarge=4, levels=levels) for i in film]


kilobytes = {}
for levels in (256, 16):
    my_save_gif(film_of(3, levels), folder / "x.gif")
    kilobytes[levels] = (folder / "x.gif").stat().st_size / 1000
guess(my_guess, 10 * round(kilobytes[16] / 10), " kB, to the nearest ten")
print("with 256 levels more than 150 kB:", kilobytes[256] > 150)

# %% [markdown]
r"""
By the bits of pure noise alone it would be more than half as much. But in the later frames the weak noise on the black
background is rounded to black, and black repeats. We set the budget to 100 kB a digit, and test it when the ten are written.

## Bug museum: three films that lie

1. **Stretched contrast.** Plotting functions normalise each picture by its own minimum and maximum unless told otherwise,
   and grid helpers offer it as an option that tutorials like to switch on. In a film the background then changes its grey
   from frame to frame.
2. **Wrapped numbers.** $x_t$ leaves $[-1, 1]$, since noise does. Converted to 8 bits without holding it in the range first,
   a pixel that is slightly too white becomes black on most machines: 256 has become 0.
3. **Seconds for milliseconds.** imageio's older interface took the delay in seconds, the newer one takes milliseconds; code
   was copied from one to the other. All delays become 0, and each viewer plays at a speed of its own liking.

The lines that catch them: a pixel of value 0 has the same grey in each frame; a brighter pixel gets no darker grey; the
file's own clock adds up to what was asked for.
"""

# %%
to_grey = {
    "right": lambda x: ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8),
    "stretched": lambda x: ((x - x.min()) / (x.max() - x.min()) * 255).round().to(torch.uint8),
    "wrapped": lambda x: (((x + 1) * 127.5).round().long() % 256).to(torch.uint8),
}
ramp = torch.linspace(-3, 3, 61)  # its middle is 0
for name, convert in to_grey.items():
    constant = convert(ramp)[30] == convert(ramp[20:50])[10]  # the same 0, beside other pixels
    rising = bool((convert(ramp).int().diff() >= 0).all())
    print(f"{name:10} {'passes' if constant and rising else 'caught'}")
for name, unit in {"right": 1000, "seconds": 1}.items():
    pictures = [frame[0].numpy() for frame in stripes]
    iio.imwrite(folder / "x.gif", pictures, extension=".gif", duration=0.08 * unit, loop=0)
    passes = abs(sum(delays_of((folder / "x.gif").read_bytes())) / 100 - 8 * 0.08) < 0.01
    print(f"{name:10} {'passes' if passes else 'caught'}")

shown = my_even_in_log_snr(log_snr_of_walk, 10)[2:]
rows = [torch.cat([convert(steps[i].x_t[3]) for i in shown], 2) for convert in to_grey.values()]
show(torch.cat(rows, 1), "right, stretched, wrapped", width=6)

# %% [markdown]
r"""
The second row is grey where the first is black, and darkens from frame to frame. In the third the background, which is a
little blacker than black while there is noise in it, has turned white as often as not, in every frame but the last.

## $x_t$ beside $\hat x_0$, and a static twin

The film that explains most shows both stories at once: at the left what the sampler has, at the right what the denoiser sees
in it. It begins at log-SNR $-8$, before the window. Paper does not move, and some code hosts show only the first frame of a
GIF; so each animation gets a static twin, the same frames side by side.
"""

# %%
longer = my_even_in_log_snr(log_snr_of_walk, 40, low=-8.0)
both = [torch.cat([steps[i].x_t[3:4], steps[i].x_0_hat[3:4]]) for i in longer]
my_save_gif([image_grid(x, columns=2, enlarge=3, levels=16) for x in both], folder / "pair.gif")
play(folder / "pair.gif")
twin = [steps[i] for i in my_even_in_log_snr(log_snr_of_walk, 10, low=-8.0)]
strip = film_strip(twin, frames=len(twin), image=3, levels=16)
show(strip, "its static twin: x_t above, x_0_hat below", width=6)

# %% [markdown]
r"""
## Your ten digits

At last the animations of the front page: one file a digit, and one with all ten. The function below is what you would write
into your own project: at most 40 frames even in log-SNR, 16 levels, each pixel four times enlarged in the single films and
twice in the common one. It writes into a temporary folder here; give it `"gifs"` if you want to keep them.

These are also the settings of the command line, and `make gifs` calls nothing else. So there is a strict test: run the
command in a process of its own, and compare the files byte by byte. And a budget that is not tested is a wish, so it stands
there as a line that stops the notebook if it does not hold.
"""


# %%
def write_ten(folder):
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    for digit in range(10):
        my_save_gif(film_of(digit, levels=16), folder / f"digit_{digit}.gif")
    ten = [image_grid(steps[i].x_t, columns=5, enlarge=2, levels=16) for i in film]
    my_save_gif(ten, folder / "digits.gif")


write_ten(folder / "mine")
command = [sys.executable, "-m", "tinyddpm", "gif", "--out", str(folder / "theirs")]
subprocess.run(command, check=True, capture_output=True)
mine, theirs = (sorted((folder / name).iterdir()) for name in ("mine", "theirs"))
print("the same files:", [path.name for path in mine] == [path.name for path in theirs])
equal = [a.read_bytes() == b.read_bytes() for a, b in zip(mine, theirs)]
print(f"{sum(equal)} of {len(equal)} are equal to those of `tinyddpm gif`, byte by byte")
largest = max((folder / "mine" / f"digit_{digit}.gif").stat().st_size for digit in range(10))
assert largest < 100_000, f"the largest film has {largest} bytes"
print("ten films, each under 100 kB")

# %% [markdown]
r"""
Here they are, with their static twin: a row a digit, from noise to the finished image.
"""

# %%
play(folder / "mine" / "digits.gif")
twelve = my_even_in_log_snr(log_snr_of_walk, 12)
sheet = torch.stack([steps[i].x_t for i in twelve], 1).flatten(0, 1)  # (10 digits x 12 frames, 1, 32, 32)
show(image_grid(sheet, columns=len(twelve), levels=16), "ten digits, frames even in log-SNR", width=6.5)

# %% [markdown]
r"""
## What this chapter showed

How much a frame moves follows from the schedule alone (8.1, 8.2). Frames even in $t$ waste more than a third of a film on
the linear schedule and nothing on the cosine; frames even in log-SNR (8.3) or in the angle serve on each of them. A GIF is
lossless for greys, its clock counts hundredths (8.4), noise sets its size (8.5), and the same numbers give the same bytes,
so that a film can be tested like anything else.

## Exercises

**08a.** Write the third rule of this chapter: given the log-SNR of each step of a walk, which `frames` of them are nearest
to being even in the angle $\varphi = \arctan e^{-\lambda/2}$, from $\pi/2$ to 0? No step twice, in the order of the walk.
(It is used above; write it without looking.)
"""


# %%
def answer_08a(log_snr, frames):
    """log_snr: (n,) float64, rising; the last one is infinite. Returns a list of indices."""
    ...


check("08a", answer_08a)

# %% [markdown]
r"""
<details><summary>Solution 08a</summary>

```python
def answer_08a(log_snr, frames):
    angle = torch.atan(torch.exp(-log_snr / 2))
    wanted = torch.linspace(math.pi / 2, 0, frames, dtype=torch.float64)
    return sorted({(angle - value).abs().argmin().item() for value in wanted})
```

$e^{-\infty}$ is 0, so that the finished image has the angle 0 without any special case. A set removes what was chosen twice.
</details>

**08b.** A film has `n` frames, `fps` a second, and holds the last one for `hold` seconds. Return the delays as the file will
store them: whole hundredths of a second, rounded to the nearest.
"""


# %%
def answer_08b(n, fps, hold):
    """Returns a list of n whole numbers."""
    ...


check("08b", answer_08b)

# %% [markdown]
r"""
<details><summary>Solution 08b</summary>

```python
def answer_08b(n, fps, hold):
    return [round(100 / fps)] * (n - 1) + [round(100 * hold)]
```

At 24 frames a second each frame should take 4.17 hundredths and gets 4: GIF cannot do 24, and the film runs at 25.
</details>

**08c.** Write a contact sheet: frames `(n, 1, h, w)` side by side, `columns` in a row, left to right and then down. If the
last row is not full, fill it with black, which is $-1$.
"""


# %%
def answer_08c(frames, columns):
    """Returns one image (1, rows * h, columns * w)."""
    ...


check("08c", answer_08c)

# %% [markdown]
r"""
<details><summary>Solution 08c</summary>

```python
def answer_08c(frames, columns):
    n, _, h, w = frames.shape
    missing = torch.full((-n % columns, 1, h, w), -1.0)
    frames = torch.cat([frames, missing]).reshape(-1, columns, h, w)  # (rows, columns, h, w)
    return frames.permute(0, 2, 1, 3).reshape(1, -1, columns * w)  # (rows, h, columns, w) first
```

`-n % columns` is how many are missing to a full row. A reshape alone would mix the rows of pixels of different frames: the
axes must be put in the order in which a picture is read.
</details>

**08d.** A film that jumps from the end back to the start is hard on the eye. A *boomerang* goes forth and back, for ever,
without a jump and without a stop: each step moves by one frame, also where it starts again. Return the order of the `n`
frames in one round.
"""


# %%
def answer_08d(n):
    """n at least 2. Returns a list of indices, beginning with 0."""
    ...


check("08d", answer_08d)

# %% [markdown]
r"""
<details><summary>Solution 08d</summary>

```python
def answer_08d(n):
    return list(range(n)) + list(range(n - 2, 0, -1))
```

The last frame is not repeated on the way back, and neither is the first, since the next round begins with it: $2n - 2$
frames.
</details>

## Symbols

| symbol | variable | shape | where |
|---|---|---|---|
| $t, x_t, \hat x_0$ | `step.x_t`, `step.x_0_hat` | (b, 1, 32, 32) | what a sampler hands out at each step |
| $m$ | `m` | a number | (8.1), mean square of the clean pixels |
| $\lambda_t$ | `log_snr` | (steps,) | log-SNR, (2.6) |
| $\varphi_t$ | `angle` | (T + 1,) | (8.2), the angle of (2.8) |
| $F$ | `frames` | a number | (8.3), how many frames at most, the last one included |
| $f, h$ | `fps`, `hold` | numbers | (8.4) |
| $H_L$ | `least_bits` | a number | (8.5), bits a pixel of noise |

## Where to go from here

You have built every part of a diffusion model, proved most of it without a network, and made it draw. What is left is to
make it yours.

* **Train your own.** `tinyddpm train --recipe nano` takes about a minute, and most of its digits can be read;
  `--recipe tiny` is how the shipped weights were made. `docs/ablations.md` tells what was tried.
* **Draw.** `tinyddpm sample --digits 2026 --per-digit 8 --scale 2 --out year.png`, and
  `tinyddpm gif --weights runs/nano/model.safetensors` for a film by your own network.
* **Measure.** `tinyddpm eval` draws thousands of samples and says what they are worth: how many are read as the digit asked
  for, how far their distribution is from that of real digits, whether any is a copy of a training image. Each figure stands
  beside the one that real digits get, because without it no figure means anything.
* **Read.** Each file in `tinyddpm/` can be read by itself, and by now you have written most of what is in the files at its top
  and in `tinyddpm/nn/`. The other folders build on these.

**Next:** [the README](../README.md), and [the figures of the shipped network](../docs/results.md). There is no chapter 09 yet.
The best one would be the one that you write after you have changed something and measured what it did.
"""
