# %% [markdown]
r"""
# 08 · Making GIFs: a film of a thousand steps needs forty frames

**After this chapter you can**

* take a sampler apart into its steps, and choose the frames by a rule;
* write a GIF that is timed, small, the same on every run, and shows a digit where it stands still;
* make the ten animations of the front page, and check them byte by byte.

*You need:* chapter 02 for the log-SNR and its angle, 03 for the sampler, 07 for guidance. *Reading:* about MINUTES minutes.
*Running:* under a minute on a laptop. *You build and then import:* `frames_even_in_log_snr`, `save_gif`.

---

Noise goes in, a digit comes out: the most convincing figure of this subject moves, and it often goes wrong: noise that does not
change, a digit in the last three frames, contrast that flickers, nothing in print.
"""

# %% tags=["setup"]
import functools
import hashlib
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import imageio.v3 as iio
import torch
from course import band, check, clock, guess, holds, play, same, tiles
from course.chapter_08 import kilobytes, movements
from PIL import Image

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.samplers import Step
from tinyddpm.viz import frames_even_in_log_snr, image_grid, save_gif

linear, cosine = (tinyddpm.Schedule.named(name, T=1000) for name in ("linear", "cosine"))
x_0 = mnist(train=False).tensors()[0][:500]
eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
keep = tempfile.TemporaryDirectory()  # it goes when the notebook goes
folder = Path(keep.name)

# %% [markdown]
r"""
## How do I get the images in between?

[Asked](https://github.com/openai/improved-diffusion/issues/68) [often](https://github.com/jychoi118/P2-weighting/issues/19). Our
samplers are generators: each `Step` holds $t$, $x_t$, and $\hat x_0$, what the denoiser sees in it. Keep them all. (With ipywidgets
installed, the next cell shows a slider.)
"""

# %%
ddpm = tinyddpm.load_pretrained()
steps = list(ddpm.sample_steps(y=torch.arange(10), steps=100, sampler="ddim", scale=1.5, seeds=range(10)))
print(f"{len(steps)} steps, t = {steps[0].t} to {steps[-1].t}, each of shape {tuple(steps[0].x_t.shape)}")
three = [Step(step.t, step.x_t[3:4], step.x_0_hat[3:4]) for step in steps]
play(
    three,
    ddpm.schedule,
    alt="A walk to a 3, evenly in t: x_t is noise for most of it, and x_0_hat a blurred 3 from the start",
)

# %% [markdown]
r"""
$\hat x_0$ knows early what is to come; $x_t$ shows it only at the end.

## How far does the picture move?

If the denoiser were sure of $x_0$ from the start, DDIM would walk through $x_t = \sqrt{\bar\alpha_t}\,x_0 +
\sqrt{1-\bar\alpha_t}\,\varepsilon$ with one $\varepsilon$. With $m$ for the mean square of a clean pixel, a pixel moves from $t$ to
$s$ by the mean square

$$\tfrac1d\,\mathbb E\,\lVert x_s - x_t\rVert^2 = \bigl(\sqrt{\bar\alpha_s}-\sqrt{\bar\alpha_t}\bigr)^2 m + \bigl(\sqrt{1-\bar\alpha_s}-\sqrt{1-\bar\alpha_t}\bigr)^2 \tag{8.1}$$

Digits are mostly background, $-1$, so $m$ is nearly 1, and the walk follows the unit circle at the angle $\varphi_t$ of (2.6),
$\lambda_t$ being the log-SNR. It moves by a chord:

$$\varphi_t = \arctan e^{-\lambda_t/2}, \qquad \sqrt{\bigl(\sqrt{\bar\alpha_s}-\sqrt{\bar\alpha_t}\bigr)^2 + \bigl(\sqrt{1-\bar\alpha_s}-\sqrt{1-\bar\alpha_t}\bigr)^2} = 2 \sin\frac{\lvert\varphi_t - \varphi_s\rvert}{2} \tag{8.2}$$
"""

# %%
m = x_0.square().mean()
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
print(f"the mean square of a clean pixel: {m:.2f}")
band(100 * off.abs().max().item(), 0, 20, "% is the most by which a step of the network's walk is off (8.1)")

# %% [markdown]
r"""
So the schedule alone tells which frames move.

## Even in log-SNR

What falls is the noise *relative to the image*, $\sqrt{1-\bar\alpha_t} / \sqrt{\bar\alpha_t} = e^{-\lambda_t/2}$. Frames even in
$\lambda$ reduce it by the same factor each time. Below $-4$ nothing is to be seen in $x_t$, above 6 nothing is left to clean. Of $F$
frames the last is the finished image, and the others are spread over this range:

$$\frac{\sqrt{1-\bar\alpha_{t_{k+1}}}\,/\,\sqrt{\bar\alpha_{t_{k+1}}}}{\sqrt{1-\bar\alpha_{t_k}}\,/\,\sqrt{\bar\alpha_{t_k}}} = e^{-\Delta/2}, \qquad \Delta = \frac{6 - (-4)}{F - 2} \tag{8.3}$$

For each wanted value we take the nearest step, and none twice.
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

# %% [markdown]
r"""
**Guess first.** Call a frame *static* if it moves by less than a quarter of the largest movement of its film. Of forty frames even
in $t$, on the linear schedule of Ho et al., how many are static?
"""

# %%
my_guess = None


def even_in_t(log_snr, frames):
    return [round(i) for i in torch.linspace(0, len(log_snr) - 1, frames).tolist()]


def even_in_angle(log_snr, frames):
    angle = torch.atan(torch.exp(-log_snr / 2))
    wanted = torch.linspace(math.pi / 2, 0, frames, dtype=torch.float64)
    return sorted({(angle - value).abs().argmin().item() for value in wanted})


def moves(choose, schedule):
    """How far each of forty frames moves, by (8.2)."""
    t = 1000 - torch.tensor(choose(schedule.log_snr.flip(0), 40))
    return (schedule.sqrt_alpha_bar[t].diff() ** 2 + schedule.sqrt_one_minus_alpha_bar[t].diff() ** 2).sqrt()


def static(film):
    return int((film < film.max() / 4).sum())


guess(my_guess, static(moves(even_in_t, linear)), " frames")

# %% [markdown]
r"""
The same for three schedules and three rules:
"""

# %%
rules = {"t": even_in_t, "log-SNR": frames_even_in_log_snr, "angle": even_in_angle}
schedules = {"linear": linear, "cosine": cosine, "shifted cosine": ddpm.schedule}
films = {name: {rule: moves(choose, s) for rule, choose in rules.items()} for name, s in schedules.items()}
print("static of 40 frames".ljust(22), *(f"even in {rule:8}" for rule in rules))
for name, by_rule in films.items():
    print(name.ljust(22), *(f"{static(film):<16}" for film in by_rule.values()))
movements(films)

# %% [markdown]
r"""
Even in $t$ is fine on the cosine schedule alone, whose angle is nearly straight in $t$. The other rules suit each. (The static frames
of the log-SNR are its last, where the eye sees small movements on black.)

The class is decided from log-SNR $-4.5$ to $-2.2$ (chapter 03), and only $\hat x_0$ shows it: its film begins at $-8$.
"""

# %%
log_snr_of_walk = ddpm.schedule.log_snr[of_walk]
longer = my_even_in_log_snr(log_snr_of_walk, 30, low=-8.0)
pair = [torch.cat([steps[i].x_t[3:4], steps[i].x_0_hat[3:4]]) for i in (longer[-1], *longer)]  # finished first
save_gif([image_grid(x, columns=2, enlarge=3, levels=8) for x in pair], folder / "pair.gif")
play(
    folder / "pair.gif",
    alt="A film of two images: at the left x_t, at the right x_0_hat, in which a 3 is seen much earlier",
)

# %% [markdown]
r"""
## The clock, and the poster

A GIF counts time in whole hundredths of a second. With $F$ frames, $f$ a second, and the last one held for $h$ seconds,

$$\frac{F - 1}{f} + h \;=\; \frac{1}{100} \sum_{k=1}^{F} \text{delay}_k \quad\text{seconds} \tag{8.4}$$

Print, previews and some code hosts show the first frame only, which is noise. So the finished digit goes in front, as a **poster**:
$1/f$ of a second that nobody misses.

<details><summary>What is in the file</summary>

A header, a *palette* of at most 256 colours, and frames whose pixels are indices into it, compressed without loss. A grey film fits
exactly. In front of each frame stands its delay, and one block says how often to repeat, 0 for ever:

```python
content = (folder / "stripes.gif").read_bytes()
content[:6]  # b"GIF89a"
int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:10], "little")  # width, height
content[content.index(b"NETSCAPE2.0") + 13]  # 0: repeat for ever
content.count(b"\x21\xf9\x04")  # about one block of delay for each frame
```

No date and no name is hidden in it: the same numbers give the same bytes.
</details>
"""


# %%
def my_save_gif(frames, path, fps=12.5, hold=1.5):
    milliseconds = [1000 / fps] * (len(frames) - 1) + [1000 * hold]
    pictures = [frame[0].numpy() for frame in frames]  # (1, h, w) -> (h, w): grey
    iio.imwrite(path, pictures, extension=".gif", duration=milliseconds, loop=0)


def delays_of(path):
    """In hundredths of a second, as the file has them."""
    with Image.open(path) as film:
        return [film.seek(k) or film.info.get("duration", 0) / 10 for k in range(film.n_frames)]


def fingerprint(writer):
    """Instead of a file, the 32 bytes of its sha256."""

    @functools.wraps(writer)
    def write(frames, **named):
        writer(frames, folder / "x.gif", **named)
        return torch.tensor(list(hashlib.sha256((folder / "x.gif").read_bytes()).digest()))

    return write


row, column = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
stripes = [((row + column + 2 * k) % 16 * 17).to(torch.uint8)[None] for k in range(8)]  # 8 frames (1, 24, 32)
my_save_gif(stripes, folder / "stripes.gif")
holds("8.4", 7 / 12.5 + 1.5, sum(delays_of(folder / "stripes.gif")) / 100)
same(fingerprint(my_save_gif), fingerprint(save_gif), stripes, fps=12.5, hold=1.5)

# %% [markdown]
r"""
## Your ten digits

One file a digit, and one with all ten, in 16 levels of grey: noise does not compress (08b), and nobody needs 256 to look at it. At
most forty frames; fewer come, since the last steps of this walk lie further apart than $\Delta$. `tinyddpm gif --poster` must write the
same bytes, and no digit more than 100 kB. To keep yours, replace `folder / "mine"`.
"""


# %%
def write_ten(where, levels=16):
    where.mkdir()
    chosen = my_even_in_log_snr(log_snr_of_walk, 40)
    film = [chosen[-1], *chosen]  # the poster first
    for digit in range(10):
        frames = [image_grid(steps[i].x_t[digit : digit + 1], columns=1, enlarge=4, levels=levels) for i in film]
        my_save_gif(frames, where / f"digit_{digit}.gif")
    ten = [image_grid(steps[i].x_t, columns=5, enlarge=2, levels=levels) for i in film]
    my_save_gif(ten, where / "digits.gif")
    return len(film)


frames = write_ten(folder / "mine")
command = [sys.executable, "-m", "tinyddpm", "gif", "--poster", "--out", str(folder / "theirs")]
subprocess.run(command, check=True, capture_output=True)
mine, theirs = (sorted((folder / name).iterdir()) for name in ("mine", "theirs"))
assert [path.name for path in mine] == [path.name for path in theirs]
equal = sum(a.read_bytes() == b.read_bytes() for a, b in zip(mine, theirs))
print(f"{frames} frames; {equal} of {len(mine)} files have the bytes of `tinyddpm gif --poster`")
band(
    max(kilobytes(folder / "mine" / f"digit_{k}.gif") for k in range(10)), 20, 100, "kB in the largest film of a digit"
)

# %% tags=["share"]
play(
    folder / "mine" / "digits.gif",
    alt="Ten digits, finished first, and then how each forms from noise, in three seconds",
)

# %% [markdown]
r"""
Paper does not move: each film gets a static twin.
"""

# %%
twelve = my_even_in_log_snr(log_snr_of_walk, 9)
twin = {f"a {k}": torch.cat([steps[i].x_t[k : k + 1] for i in twelve]) for k in (0, 3, 7)}
columns = [clock(steps[i].t, ddpm.schedule) for i in twelve]
tiles(twin, columns=columns, alt="Three digits, each from noise to the finished image, even in log-SNR")

# %% [markdown]
r"""
## Bug museum: three films that lie

1. **Stretched contrast.** Plotting functions normalise each picture by its own extremes: the background's grey changes.
2. **Wrapped numbers.** $x_t$ leaves $[-1, 1]$. In 8 bits, unclamped, 256 becomes 0: white becomes black.
3. **[Seconds for milliseconds](https://github.com/imageio/imageio/issues/1074).** All delays become 0, and each viewer plays at its
   own speed.

The catches: 0 has one grey in each frame; a brighter pixel gets no darker grey; the file's clock adds up.
"""

# %%
to_grey = {
    "right": lambda x: ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8),
    "stretched": lambda x: ((x - x.min()) / (x.max() - x.min()) * 255).round().to(torch.uint8),
    "wrapped": lambda x: (((x + 1) * 127.5).round().long() % 256).to(torch.uint8),
}
ramp = torch.arange(-30, 31) / 10  # its middle is 0
for name, convert in to_grey.items():
    here, there = convert(ramp)[30], convert(ramp[20:50])[10]  # the same 0, beside other pixels
    darker = int((convert(ramp).int().diff() < 0).sum())
    print(f"{name:10} 0 has the greys {here} and {there}; {darker} brighter pixels get a darker grey")
for name, unit in {"right": 1000, "seconds": 1}.items():
    pictures = [frame[0].numpy() for frame in stripes]
    iio.imwrite(folder / "x.gif", pictures, extension=".gif", duration=0.08 * unit, loop=0)
    print(f"{name:10} {sum(delays_of(folder / 'x.gif')) / 100:.2f} of {8 * 0.08:.2f} seconds")
late = my_even_in_log_snr(log_snr_of_walk, 10)[3:]
rows = {name: torch.cat([f(steps[i].x_t[3:4]) for i in late]) / 127.5 - 1 for name, f in to_grey.items()}
tiles(
    rows, columns=[clock(steps[i].t, ddpm.schedule) for i in late], alt="Stretched: grey for black. Wrapped: speckled"
)

# %% [markdown]
r"""
## Exercises

**08a.** A rule that needs no schedule: choose `frames` steps even in the distance *travelled*, the sum of the movements so far.
"""


# %%
def answer_08a(path, frames):
    """path: (n, 1, h, w), a walk. Returns a rising list of indices, none twice, from 0 to n - 1."""
    ...


check("08a", answer_08a)

# %% [markdown]
r"""
<details><summary>Hint 08a</summary>

`cumsum` of the movements, with a 0 in front for the first image; then as in (8.3).
</details>

<details><summary>Solution 08a</summary>

```python
def answer_08a(path, frames):
    moved = path.diff(dim=0).flatten(1).norm(dim=1)
    travelled = torch.cat([torch.zeros(1), moved.cumsum(0)])
    wanted = torch.linspace(0, float(travelled[-1]), frames)
    return sorted({(travelled - value).abs().argmin().item() for value in wanted})
```

For one image and one noise this is the rule of the angle.
</details>

**08b.** No lossless format spends fewer bits on a pixel than its *entropy* $-\sum_i p_i \log_2 p_i$. Standard normal noise, clamped to
$[-1, 1]$, is rounded to the nearest of `levels` values, even from $-1$ to 1. How many bits?
"""


# %%
def answer_08b(levels):
    """Returns a number: bits a pixel, at least."""
    ...


check("08b", answer_08b)

# %% [markdown]
r"""
<details><summary>Hint 08b</summary>

A level gets the area of the bell between the midpoints to its neighbours.
</details>

<details><summary>Solution 08b</summary>

```python
def answer_08b(levels):
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)
    edges = (values[1:] + values[:-1]) / 2
    below = torch.cat([torch.zeros(1), torch.distributions.Normal(0.0, 1.0).cdf(edges), torch.ones(1)])
    return (torch.special.entr(below.diff()).sum() / math.log(2)).item()
```

6.7 bits with 256 levels, 3.8 with 16, 2.0 with 4.
</details>

**08c.** A *boomerang* goes forth and back for ever, by one frame each step, also where it starts again. Return the order of the `n`
frames in one round.
"""


# %%
def answer_08c(n):
    """n at least 2. Returns a list of indices, beginning with 0."""
    ...


check("08c", answer_08c)

# %% [markdown]
r"""
<details><summary>Hint 08c</summary>

Neither end may be shown twice in a row.
</details>

<details><summary>Solution 08c</summary>

```python
def answer_08c(n):
    forth = list(range(n))
    back = list(range(n - 2, 0, -1))
    return forth + back
```

$2n - 2$ frames.
</details>

**08d, an experiment.** Take a digit through the cosine schedule, `tinyddpm.q_sample(x_0[3:4], t, eps[3:4], cosine)`, at forty times even in
log-SNR, enlarged by 4. How many per cent of the bytes with 16 levels does the film need with 4?
"""

# %%
prediction = None  # first write down what you expect
measured = None  # then write both films, and put the number here
check("08d", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 08d</summary>

`image_grid(x, 1, enlarge=4, levels=4)`, `save_gif`, `kilobytes(path)`.
</details>

<details><summary>Solution 08d</summary>

```python
prediction, sizes = 53, {}  # by 08b
for levels in (16, 4):
    chosen = frames_even_in_log_snr(cosine.log_snr.flip(0), 40)
    walk = [tinyddpm.q_sample(x_0[3:4], 1000 - i, eps[3:4], cosine) for i in chosen]
    save_gif([image_grid(x, columns=1, enlarge=4, levels=levels) for x in walk], folder / "x.gif")
    sizes[levels] = kilobytes(folder / "x.gif")
measured = 100 * sizes[4] / sizes[16]
```

Less than the 53 of noise alone: with 4 levels the weak noise of later frames is rounded to black, and black repeats.
</details>

## Symbols

| symbol | variable | meaning |
|---|---|---|
| $m$ | `m` | (8.1), mean square of a clean pixel |
| $\lambda_t$, $\varphi_t$ | `log_snr`, `angle` | (2.4), (8.2) |
| $F$, $f$, $h$ | `frames`, `fps`, `hold` | (8.3), (8.4) |

**Next:** [09 · Ten steps, not a thousand](09_ten_steps.ipynb). Our film has forty frames; the walk took a hundred steps. Must it?
"""
