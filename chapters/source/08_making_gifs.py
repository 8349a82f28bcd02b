# %% [markdown]
r"""
# 08 · Making GIFs: a film of a thousand steps needs forty frames

**After this chapter you can**

* take a sampler apart into its steps, and choose the frames that show something, by a rule and not by trial;
* write a GIF that is timed, looped, small and the same on every run, and read its bytes to prove it;
* make the ten animations of the front page yourself, and check them against the command line byte by byte.

*You need:* chapter 02 for the log-SNR, 03 for the sampler, 07 for guidance. *Reading:* 25 minutes. *Running:* under a minute
on a laptop. *You build and then import:* `even_in_log_snr`, `film_strip`, `save_gif`.

---

The most convincing figure of this whole subject moves: noise goes in, and a digit comes out. It is also the figure that most
often goes wrong. Much of the film shows noise that does not change, the moment when the digit appears is over in a few
frames, the contrast flickers, the file is too large for its page, and in print there is nothing at all. None of this is a
matter of taste. Which frames show a change can be computed before any picture is drawn, the clock and the size of a GIF
follow rules that fit on one page, and a file can be held to a budget by a test.
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
from course import check, guess, holds, same, show
from IPython.display import Image, display

import tinyddpm
from tinyddpm.classifier import classify, load_classifier
from tinyddpm.data import mnist
from tinyddpm.viz import even_in_log_snr, film_strip, image_grid, save_gif

# %% [markdown]
r"""
## A sampler is a generator of steps

The samplers of chapter 03 return no image. They are generators: each time you ask, they walk one step and hand out a `Step`
that says where they stand: the time $t$, the image $x_t$, and $\hat x_0$, the clean image that the denoiser sees in it.
Whoever needs only the end keeps only the last one. For a film we keep all of them, in a list.

The next cell walks from noise to the ten digits with the library's network: 100 steps of DDIM, guidance scale 1.5, and the
seeds 0 to 9, one a digit. These settings are not chosen here: they are those of `make gifs` and `tinyddpm gif`, for a reason
that comes at the end of the chapter.
"""

# %%
ddpm = tinyddpm.load_pretrained()
digits = torch.arange(10)
walk = ddpm.sample_steps(y=digits, steps=100, sampler="ddim", scale=1.5, seeds=range(10))
steps = list(walk)
print(
    f"{len(steps)} steps, from t = {steps[0].t} to t = {steps[-1].t}, each of shape {tuple(steps[0].x_t.shape)}"
)
print("the generator is drained:", next(walk, None) is None)
print("the last x_t and x_0_hat are the finished image:", torch.equal(steps[-1].x_t, steps[-1].x_0_hat))

# %% [markdown]
r"""
The simplest picture of a walk is a *film strip*: some of the steps side by side, $x_t$ above and $\hat x_0$ below. Here it
is by hand, for one image of the batch, with frames spaced evenly over the list, and the library's beside it.
"""


# %%
def my_film_strip(steps, frames=10, image=0):
    chosen = [steps[round(i)] for i in torch.linspace(0, len(steps) - 1, frames).tolist()]
    rows = [step.x_t[image] for step in chosen] + [step.x_0_hat[image] for step in chosen]
    return image_grid(torch.stack(rows), columns=frames)


same(my_film_strip, film_strip, steps, 10, image=3)


def fewer_greys(picture, greys):
    """The same uint8 picture with only so many grey levels, evenly from black to white."""
    step = 255 / (greys - 1)
    return ((picture / step).round() * step).round().to(torch.uint8)


show(fewer_greys(my_film_strip(steps, 10, image=3), 8), "one walk, evenly in t: x_t above, x_0_hat below")

# %% [markdown]
r"""
Two stories are told there, at different times. The lower row knows early what is to come: told that it is a three, the
denoiser sees a blurred three from the start, and what is left to decide is its posture. The upper row, which is what a film
usually shows, looks like noise for most of the walk and like a digit only at its end.

## How far does the picture move?

Let us put a number on "nothing happens". On its way the sampler shrinks the noise and lets the image grow. If the denoiser
were sure of $x_0$ from the start, DDIM would walk through
$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$ with *one* $\varepsilon$, and between the times $t$ and
$s$ a pixel would move by
$(\sqrt{\bar\alpha_s}-\sqrt{\bar\alpha_t})\,x_0 + (\sqrt{1-\bar\alpha_s}-\sqrt{1-\bar\alpha_t})\,\varepsilon$. The noise has
mean 0 and variance 1 and knows nothing of the image; so with $m$ for the mean square of the clean pixels, the mean square of
the movement is

$$\frac1d\,\mathbb E\,\lVert x_s - x_t\rVert^2 = \bigl(\sqrt{\bar\alpha_s}-\sqrt{\bar\alpha_t}\bigr)^2 m + \bigl(\sqrt{1-\bar\alpha_s}-\sqrt{1-\bar\alpha_t}\bigr)^2 \tag{8.1}$$

where $d$ is the number of pixels. The left side below is measured on real digits between neighbouring frames, the right side
takes only the schedule.
"""

# %%
linear = tinyddpm.Schedule.named("linear", T=1000)  # the betas of Ho et al. 2020
x_0 = mnist(train=False).tensors()[0][:500]
m = x_0.square().mean()
eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
times = list(range(1000, -1, -100))
path = torch.stack([tinyddpm.q_sample(x_0, t, eps, linear) for t in times])
signal, noise = linear.sqrt_alpha_bar[times], linear.sqrt_one_minus_alpha_bar[times]
holds(
    "8.1",
    path.diff(dim=0).square().mean((1, 2, 3, 4)),
    signal.diff() ** 2 * m + noise.diff() ** 2,
    within=2e-3,
)

# %% [markdown]
r"""
For digits in $[-1, 1]$ the mean square $m$ is nearly 1, since most pixels are $-1$. With $m = 1$ the formula becomes
geometry. The pair $(\sqrt{\bar\alpha_t}, \sqrt{1-\bar\alpha_t})$ is a point on the unit circle, because its squares add up
to 1; the walk goes along the circle from noise to image, and the movement between two frames is the length of a chord. Call
the angle $\varphi_t$: its tangent is the ratio of noise to signal, and with the log-SNR
$\lambda_t = \log\bigl(\bar\alpha_t / (1-\bar\alpha_t)\bigr)$ of chapter 02

$$\varphi_t = \arctan e^{-\lambda_t/2}, \qquad \sqrt{\bigl(\sqrt{\bar\alpha_s}-\sqrt{\bar\alpha_t}\bigr)^2 + \bigl(\sqrt{1-\bar\alpha_s}-\sqrt{1-\bar\alpha_t}\bigr)^2} = 2 \sin\frac{\lvert\varphi_t - \varphi_s\rvert}{2} \tag{8.2}$$
"""

# %%
angle = torch.atan(torch.exp(-linear.log_snr / 2))  # 0 at t = 0, where the log-SNR is infinite
chord = (signal.diff() ** 2 + noise.diff() ** 2).sqrt()
holds("8.2", chord, 2 * torch.sin(angle[times].diff().abs() / 2), within=1e-9)
print("the mean square of a clean pixel is between 0.9 and 1:", 0.9 < m.item() < 1)

moved = torch.stack([(b.x_t - a.x_t).square().mean().sqrt() for a, b in zip(steps, steps[1:])])
of_walk = torch.tensor([step.t for step in steps])
a, b = ddpm.schedule.sqrt_alpha_bar[of_walk], ddpm.schedule.sqrt_one_minus_alpha_bar[of_walk]
predicted = (a.diff() ** 2 * m + b.diff() ** 2).sqrt()
print(
    "the network's own walk moves as (8.1) says, within 20 %:",
    bool(((moved / predicted - 1).abs() < 0.2).all()),
)

# %% [markdown]
r"""
So the schedule alone tells which frames move, for any network. The linear schedule of Ho et al. (2020) has a thousand steps,
and a film should have about forty frames.

**Before you run the next cell:** take forty frames evenly in $t$. How many of them have a log-SNR below $-4$, where in the
experiments of chapters 02 and 03 there was next to nothing to see?
"""

# %%
my_guess = None

log_snr = linear.log_snr.flip(0)  # of the steps of a walk, in its order: t = 1000, 999, ..., 0
evenly = [round(i) for i in torch.linspace(0, 1000, 40).tolist()]
guess(my_guess, int((log_snr[evenly] < -4).sum()), " of 40 frames")

# %% [markdown]
r"""
More than a third of the film is noise that does not change. The opposite mistake is made at the other end, where the digit
is done in a few frames.

## Even in log-SNR

What is it that changes, then, when a digit comes out of the noise? The strength of the noise *relative to the image*: the
ratio $\sqrt{1-\bar\alpha_t} / \sqrt{\bar\alpha_t} = e^{-\lambda_t/2}$. A rule that lets each frame reduce this ratio by the
same factor treats all stages of the way alike. Frames that are evenly spaced in $\lambda$ do that. If $F$ frames go from
$\lambda_\text{low}$ to $\lambda_\text{high}$, then from each frame $k$ to the next

$$\frac{\sqrt{1-\bar\alpha_{t_{k+1}}}\,/\,\sqrt{\bar\alpha_{t_{k+1}}}}{\sqrt{1-\bar\alpha_{t_k}}\,/\,\sqrt{\bar\alpha_{t_k}}} = e^{-\Delta/2}, \qquad \Delta = \frac{\lambda_\text{high} - \lambda_\text{low}}{F - 1} \tag{8.3}$$

Both ends have to be chosen, since the log-SNR has none: it runs from nearly $-\infty$ to $+\infty$. Below $-4$ there is only
noise to see, above $6$ the noise has a twentieth of the image's amplitude, and so the library takes the frames from there,
and the last step in any case. The steps of a walk sit where they sit; for each wanted value we take the step that is
nearest, and no step twice.
"""


# %%
def my_even_in_log_snr(log_snr, frames, low=-4.0, high=6.0):
    wanted = torch.linspace(low, high, frames - 1, dtype=torch.float64)
    nearest = {(log_snr - value).abs().argmin().item() for value in wanted}
    return sorted(nearest | {len(log_snr) - 1})


chosen = my_even_in_log_snr(log_snr, 40)
ratio = torch.exp(-log_snr / 2)[chosen[:-1]]
holds("8.3", ratio[1:] / ratio[:-1], torch.full((38,), math.exp(-10 / 38 / 2)), within=0.03)
same(my_even_in_log_snr, even_in_log_snr, log_snr, 40)

# %% [markdown]
r"""
(It holds to within 0.03 and not better because $t$ is a whole number.) The two rules on the linear schedule, one digit, one
noise: above twelve frames evenly in $t$, below twelve frames evenly in log-SNR.
"""


# %%
def frames_at(indices):
    """The walk of a denoiser that is sure from the start, at steps 1000 - t of the linear schedule."""
    t = 1000 - torch.tensor(indices)
    return tinyddpm.q_sample(x_0[3:4].expand(12, -1, -1, -1), t, eps[3:4].expand(12, -1, -1, -1), linear)


even_t = [round(i) for i in torch.linspace(0, 1000, 12).tolist()]
rows = torch.cat([frames_at(even_t), frames_at(my_even_in_log_snr(log_snr, 12))])
show(
    fewer_greys(image_grid(rows, columns=12), 8), "linear schedule: frames evenly in t, and evenly in log-SNR"
)

# %% [markdown]
r"""
Now count, for three schedules and for a third rule as well: frames spaced evenly in the angle of (8.2), which should move by
equal chords. A frame is called *static* if it moves by less than a quarter of what the largest movement of its film is.
"""


# %%
def even_in_angle(log_snr, frames):
    angle = torch.atan(torch.exp(-log_snr / 2))
    return sorted(
        {(angle - value).abs().argmin().item() for value in torch.linspace(math.pi / 2, 0, frames).double()}
    )


rules = {
    "t": lambda log_snr, frames: [round(i) for i in torch.linspace(0, len(log_snr) - 1, frames).tolist()],
    "log-SNR": even_in_log_snr,
    "angle": even_in_angle,
}
figure, axes = plt.subplots(1, 3, figsize=(7.6, 2.2), sharey=True)
print("schedule        frames evenly in   noise only   static   of 40")
for name, panel in zip(("linear", "cosine", "cosine-shifted"), axes):
    schedule = tinyddpm.Schedule.named(name, T=1000)
    for rule, choose in rules.items():
        indices = choose(schedule.log_snr.flip(0), 40)
        t = 1000 - torch.tensor(indices)
        moves = (
            schedule.sqrt_alpha_bar[t].diff() ** 2 + schedule.sqrt_one_minus_alpha_bar[t].diff() ** 2
        ).sqrt()
        only_noise = int((schedule.log_snr[t] < -4).sum())
        print(f"{name:15} {rule:18} {only_noise:10} {int((moves < moves.max() / 4).sum()):8}")
        panel.plot(moves, label=rule)
    panel.set(title=name, xlabel="frame")
axes[0].set_ylabel("movement of x_t")
figure.legend(*axes[0].get_legend_handles_labels(), title="even in", loc="outside right center")
plt.show()

# %% [markdown]
r"""
The answer depends on the schedule, and it is worth stating carefully, because the usual claim is only half true. Frames
evenly in $t$ waste two fifths of the film on the *linear* schedule. On the *cosine* schedule they are as good as any: there
$\sqrt{\bar\alpha_t}$ is nearly the cosine of a straight line in $t$, so that even in $t$ is even in the angle. The shifted
cosine, with which the library's network was trained, lies between the two. A rule in terms of the log-SNR or the angle does
not care which schedule there is, and this is the point: you need not look.

Which of the two is better? The angle moves the pixels evenly. The log-SNR spends fewer frames on the noisy half and more on
the end, where the noise is weak but still visible. Ask the library's classifier, which has never seen noise and is harder to
please than your eye, to read $x_t$ itself along the network's own walk, and count the frames in which it is in the middle of
recognising the digits, no longer clueless and not yet certain.
"""

# %%
judge = load_classifier()
read = torch.stack([classify(judge, step.x_t.clamp(-1, 1))[digits, digits].mean() for step in steps])
log_snr_of_walk = ddpm.schedule.log_snr[of_walk]
films = {rule: choose(log_snr_of_walk, 40) for rule, choose in rules.items()}
figure, axes = plt.subplots(figsize=(5, 1.9))
for rule, indices in films.items():
    axes.plot(torch.linspace(0, 1, len(indices)), read[indices], ".-", label=rule)
axes.set(xlabel="share of the film", title="how surely the judge reads x_t as the digit asked for")
axes.legend(title="even in")
plt.show()
busy = {
    rule: (read[indices] > 0.2).logical_and(read[indices] < 0.9).sum().item() / len(indices)
    for rule, indices in films.items()
}
print("log-SNR gives recognition a larger share of the film than t does:", busy["log-SNR"] > busy["t"])
print("and a larger one than the angle does:", busy["log-SNR"] > busy["angle"])

# %% [markdown]
r"""
In the film that is even in log-SNR the digit comes out early and is then cleaned up without haste; in the one even in the
angle it comes later and is finished sooner. Both tell the story on every schedule, and the rest is taste. The library takes
the log-SNR, and so do we from here on; exercise 08a has the angle.

## A GIF on one page

The GIF that everybody writes is the version of 1989, and it does exactly what a film of digits needs. A file is a short
header, a *palette* of at most 256 colours, and a list of frames. Each pixel of a frame is an index into the palette; the
indices are compressed without loss. In front of each frame stands its *delay*, in hundredths of a second, as a whole number.
An extra block says how often to repeat, 0 meaning for ever.

So a grey film with values 0 to 255 fits a GIF exactly: what is written is what is read. What must be decided is the timing.
We show $f$ frames a second, and hold the last frame for a time $h$, because the finished digit is what one wants to look at
before it starts again. With $F$ frames the film then lasts

$$\frac{F - 1}{f} + h \;=\; \frac{1}{100} \sum_{k=1}^{F} \text{delay}_k \quad\text{seconds} \tag{8.4}$$

where the right side is the file's own clock. imageio wants the delays in thousandths of a second. The writer is three lines;
the cell writes a film of fixed whole numbers with it, and then takes the file apart, byte by byte, to see whether the right
side is what we asked for.
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


keep = tempfile.TemporaryDirectory()  # nothing important lives there, and it goes when the notebook goes
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

# %% [markdown]
r"""
Two properties are worth a test, because everything later relies on them. Writing and reading back changes no pixel. And the
same numbers give the same file, byte for byte: no date and no random name is hidden in a GIF. With the second one `same` can
compare our writer with the library's by the fingerprints of their files.
"""


# %%
def fingerprint(writer):
    """Instead of a file, the 32 bytes of its sha256."""

    @functools.wraps(writer)
    def write(*arguments, **named):
        writer(arguments[0], folder / "x.gif", *arguments[1:], **named)
        return torch.tensor(list(hashlib.sha256((folder / "x.gif").read_bytes()).digest()))

    return write


again = iio.imread(folder / "stripes.gif", index=None)
again = torch.as_tensor(again if again.ndim == 3 else again[..., 0])  # some readers make colours of greys
print("read back as written:", torch.equal(again, torch.cat(stripes)))
print(
    "written twice, the same bytes:",
    torch.equal(fingerprint(my_save_gif)(stripes), fingerprint(my_save_gif)(stripes)),
)
same(fingerprint(my_save_gif), fingerprint(save_gif), stripes, fps=12.5, hold=1.5)

# %% [markdown]
r"""
## A budget

How large does a film of noise become? Compression lives on repetition, and noise has none. No lossless format can spend less
than the *entropy* of the grey levels, on average, on a pixel of pure noise. With $L$ levels, standard normal noise that is
held in $[-1, 1]$ and rounded to the nearest level falls on level $i$ with a probability $p_i$, which is the area of the bell
between the two edges of that level; the outermost levels get the tails. The number of bits is at least

$$H_L = -\sum_{i=1}^{L} p_i \log_2 p_i, \qquad p_i = \Phi(\text{upper edge}_i) - \Phi(\text{lower edge}_i) \tag{8.5}$$

where $\Phi$ is the area of the bell up to a point. The cell compares it with the histogram of a million noise pixels, and
then with what a GIF spends.
"""

# %%
levels = [2, 4, 8, 16, 32, 64, 128, 256]
bell = torch.distributions.Normal(0.0, 1.0)


def least_bits(L):
    edges = torch.linspace(-1, 1, L, dtype=torch.float64)
    edges = (edges[1:] + edges[:-1]) / 2  # half way between neighbouring levels
    below = torch.cat([torch.zeros(1).double(), bell.cdf(edges), torch.ones(1).double()])
    return (torch.special.entr(below.diff()).sum() / math.log(2)).item()


noise = torch.randn(1, 1, 1000, 1000, generator=torch.Generator().manual_seed(1))
pictures = {L: fewer_greys(image_grid(noise, columns=1), L) for L in levels}
shares = {L: picture.flatten().long().bincount() / picture.numel() for L, picture in pictures.items()}
counted = [(torch.special.entr(shares[L].double()).sum() / math.log(2)).item() for L in levels]
holds("8.5", counted, [least_bits(L) for L in levels], within=0.02)

spent = []
for L in levels:
    save_gif(pictures[L][:, :200].split(200, dim=2), folder / "noise.gif")  # five frames of 200 x 200
    spent.append(8 * (folder / "noise.gif").stat().st_size / (5 * 200**2))
print(
    "a GIF spends at least that, and less than twice as much:",
    all(least_bits(L) < s < 2 * least_bits(L) for L, s in zip(levels, spent)),
)

# %% [markdown]
r"""
Bits a pixel, then, are decided by the number of grey levels, and nobody needs 256 of them to look at noise. Here is one
noisy digit with 256, 16, 8 and 4 levels.
"""

# %%
one = image_grid(x_0[3:4] * 0.75 + eps[3:4] * 0.35, columns=1)
show(
    torch.cat([fewer_greys(one, greys) for greys in (256, 16, 8, 4)], 2),
    "256, 16, 8 and 4 grey levels",
    width=4.5,
)

# %% [markdown]
r"""
The other factor is the size of the picture. A digit of 32 by 32 pixels is tiny on a screen, so each pixel is repeated two,
three or four times in both directions. That adds no information, but GIF compresses along rows only and does not notice that
a row comes four times. The plot shows what the film of a single digit costs.
"""


# %%
def film_of(image, greys=16, enlarge=4):
    """The frames of one image of the walk, as pictures."""
    chosen = my_even_in_log_snr(log_snr_of_walk, 40)
    return [fewer_greys(image_grid(steps[i].x_t[image : image + 1], 1, enlarge), greys) for i in chosen]


def kilobytes(frames):
    my_save_gif(frames, folder / "x.gif")
    return (folder / "x.gif").stat().st_size / 1000


figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.2))
left.plot(levels, spent, "o-", label="a GIF")
left.plot(levels, [least_bits(L) for L in levels], "--", label="at least (8.5)")
left.set(title="bits a pixel of noise", xlabel="grey levels", xscale="log")
cost = {enlarge: [kilobytes(film_of(3, L, enlarge)) for L in levels] for enlarge in (1, 2, 4)}
for enlarge, sizes in cost.items():
    right.plot(levels, sizes, "o-", label=f"{enlarge} x {enlarge} a pixel")
right.axhline(100, linestyle="--", color="grey")
right.set(title="kB a film", xlabel="grey levels", xscale="log")
for axes in (left, right):
    axes.set_xticks([2, 16, 256], ["2", "16", "256"])
    axes.minorticks_off()
    axes.legend()
plt.show()
print("all 256 greys, 4 times enlarged, stay under 100 kB:", cost[4][-1] < 100)
print("16 greys do:", cost[4][levels.index(16)] < 100)

# %% [markdown]
r"""
A budget that is not tested is a wish. Here it is as a line that stops the notebook if it does not hold, for all ten digits:
"""

# %%
sizes = [kilobytes(film_of(digit)) for digit in range(10)]
assert max(sizes) < 100, f"the largest film has {max(sizes):.0f} kB"
print("ten films of 16 greys, 4 times enlarged, each under 100 kB")

# %% [markdown]
r"""
## Bug museum: three films that lie

1. **Stretched contrast.** Plotting functions normalise each picture by its own minimum and maximum unless told otherwise,
   and grid helpers offer it as an option that tutorials like to switch on. In a film that does two kinds of harm: the
   background changes its grey from frame to frame, and noise that was left in the final image is stretched away or blown up,
   so that one cannot trust what one sees.
2. **Wrapped numbers.** $x_t$ leaves $[-1, 1]$, since noise does. Converted to 8 bits without holding it in the range first,
   a pixel that is slightly too white becomes black on most machines: 256 has become 0.
3. **Seconds for milliseconds.** The function of imageio's older interface took the delay in seconds, that of the newer one
   takes milliseconds; code was copied from one to the other. All delays become 0, and each viewer plays at a speed of its
   own liking.

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
    iio.imwrite(
        folder / "x.gif", [s[0].numpy() for s in stripes], extension=".gif", duration=0.08 * unit, loop=0
    )
    passes = abs(sum(delays_of((folder / "x.gif").read_bytes())) / 100 - 8 * 0.08) < 0.01
    print(f"{name:10} {'passes' if passes else 'caught'}")

shown = my_even_in_log_snr(log_snr_of_walk, 10)[2:]
film = [torch.cat([convert(steps[i].x_t[3]) for i in shown], 2) for convert in to_grey.values()]
show(fewer_greys(torch.cat(film, 1), 8), "right, stretched, wrapped", width=6)

# %% [markdown]
r"""
The second row is grey where the first is black, and darkens from frame to frame. In the third the background, which is a
little blacker than black while there is noise in it, has turned white as often as not, in every frame but the last.

## A static twin for every film

Paper does not move, some code hosts show only the first frame, and a reader who wants to compare two frames cannot stop a
GIF. So each animation gets a *contact sheet*, the same frames side by side. It is `image_grid` applied to frames instead of
images, and the ten digits together give the figure that explains the whole course: one row a digit, from noise to the
finished image.
"""

# %%
twelve = my_even_in_log_snr(log_snr_of_walk, 12)
sheet = torch.stack([steps[i].x_t for i in twelve], 1).flatten(0, 1)  # (10 digits x 12 frames, 1, 32, 32)
show(fewer_greys(image_grid(sheet, columns=len(twelve)), 8), "ten digits, frames even in log-SNR", width=6.5)

# %% [markdown]
r"""
## $x_t$ beside $\hat x_0$

The film that explains most shows both stories at once: at the left what the sampler has, at the right what the denoiser sees
in it. It is made by putting the two images side by side before the frame becomes a picture. (If nothing moves on your
screen, you are looking at a print or at a viewer that shows first frames only; the twin is below it.)
"""

# %%
pair = [
    fewer_greys(image_grid(torch.cat([steps[i].x_t[3:4], steps[i].x_0_hat[3:4]]), columns=2, enlarge=3), 16)
    for i in my_even_in_log_snr(log_snr_of_walk, 40)
]
my_save_gif(pair, folder / "pair.gif")
display(Image(data=(folder / "pair.gif").read_bytes(), format="gif"))
twin = [steps[i] for i in my_even_in_log_snr(log_snr_of_walk, 10)]
show(
    fewer_greys(film_strip(twin, frames=len(twin), image=3), 8),
    "its static twin: x_t above, x_0_hat below",
    width=6,
)

# %% [markdown]
r"""
## Your ten digits

At last the animations of the front page: one file a digit, and one with all ten. The function below is what you would write
into your own project. It takes the walk from the beginning of this chapter, at most 40 frames even in log-SNR, all greys,
each pixel four times enlarged in the single films and twice in the common one. It writes into a temporary folder here; give
it `"gifs"` if you want to keep them.

These are also the settings of the command line, and `make gifs` calls nothing else. So there is a strict test: run the
command in a process of its own, and compare the files. Not roughly: every byte.
"""


# %%
def write_ten(folder):
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    frames = [steps[i].x_t for i in my_even_in_log_snr(log_snr_of_walk, 40)]
    for digit in range(10):
        my_save_gif(
            [image_grid(x[digit : digit + 1], 1, enlarge=4) for x in frames], folder / f"digit_{digit}.gif"
        )
    my_save_gif([image_grid(x, columns=5, enlarge=2) for x in frames], folder / "digits.gif")


write_ten(folder / "mine")
command = [sys.executable, "-m", "tinyddpm", "gif", "--out", str(folder / "theirs")]
subprocess.run(command, check=True, capture_output=True)
mine, theirs = (sorted((folder / name).iterdir()) for name in ("mine", "theirs"))
print([path.name for path in mine])
print("the same files:", [path.name for path in mine] == [path.name for path in theirs])
equal = [a.read_bytes() == b.read_bytes() for a, b in zip(mine, theirs)]
print(f"{sum(equal)} of {len(equal)} are equal to those of `tinyddpm gif`, byte by byte")

# %% [markdown]
r"""
Here they are, in 16 greys so that this notebook stays small; their static twin is the contact sheet above. Each was pure
noise, and nobody has ever written it.
"""

# %%
ten = [steps[i].x_t for i in my_even_in_log_snr(log_snr_of_walk, 40)]
my_save_gif([fewer_greys(image_grid(x, columns=5, enlarge=2), 16) for x in ten], folder / "ten.gif")
display(Image(data=(folder / "ten.gif").read_bytes(), format="gif"))
finished = image_grid(steps[-1].x_t, columns=10)
show(fewer_greys(finished, 16), "the last frame", width=6.5)

# %% [markdown]
r"""
## What this chapter showed

How much a frame moves follows from the schedule alone (8.1, 8.2). Frames even in $t$ waste two fifths of a film on the
linear schedule and hardly anything on the cosine; frames even in log-SNR (8.3) or in the angle serve on each of them. A GIF
is lossless for greys, its clock counts hundredths (8.4), noise sets its size (8.5), and the same numbers give the same
bytes, so that a film can be tested like anything else.

## Exercises

**08a.** Write the third rule of this chapter: given the log-SNR of each step of a walk, which `frames` of them are nearest
to being even in the angle $\varphi = \arctan e^{-\lambda/2}$, from $\pi/2$ to 0? No step twice, in the order of the walk.
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
| $\varphi_t$ | `angle` | (T + 1,) | (8.2) |
| $F$ | `frames` | a number | (8.3), how many frames at most |
| $f, h$ | `fps`, `hold` | numbers | (8.4) |
| $H_L$ | `least_bits` | a number | (8.5), bits a pixel of noise |

## Where to go from here

You have built every part of a diffusion model, proved most of it without a network, and made it draw. What is left is to
make it yours.

* **Train your own.** `tinyddpm train --recipe nano` gives readable digits in a minute or two; `--recipe tiny` is how the
  shipped weights were made. Both are chapter 06, with a progress bar. `benchmarks/ablations.md` tells what was tried.
* **Draw.** `tinyddpm sample --digits 2026 --per-digit 8 --scale 2 --out year.png`, and
  `tinyddpm gif --weights runs/nano/model.safetensors` for a film by your own network.
* **Measure.** `tinyddpm eval` draws thousands of samples and says what they are worth: how many are read as the digit asked
  for, how far their distribution is from that of real digits, whether any is a copy of a training image. Each figure stands
  beside the one that real digits get, because without it no figure means anything.
* **Read.** Each file in `tinyddpm/` can be read by itself, and by now you have written most of what is in them.

**Next:** [the README](../README.md), with the commands and the figures of the shipped network. There is no chapter 09 yet.
The best one would be the one that you write after you have changed something and measured what it did.
"""
