# %% [markdown]
r"""
# 12 · Steering

**After this chapter you can**

* complete half an image in three ways, and say what each gets wrong, because the exact answer is known;
* redraw an image from any noise level, and mix two noises without losing noise;
* push drawings towards whatever you can differentiate, and say how far the push misses its aim.

*You need:* chapters 03 and 07. *Reading:* about MINUTES minutes. *Running:* under half a minute. *You build and then
import:* `inpaint`, `sdedit`, `slerp`.

---

A trained denoiser can do more than draw. It can complete, redraw, mix and lean, and none of this needs training. There are dozens of
tricks, each shown with pretty pictures, and pretty pictures prove little: the completion of half a digit looks right as soon as it
looks like a digit. This course has an exact denoiser, and so it can ask the harder question: is it right *as often as it should be*?
"""

# %% tags=["setup"]
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from course import EXACT, NETWORK, SIGNAL, STEERED, band, check, clock, guess, holds, same, show, show_figure, tiles
from course.chapter_12 import large

import tinyddpm
from tinyddpm import dataset_oracle, ddim, energy_guidance, last, p_sample, p_sample_loop, q_sample
from tinyddpm.data import mnist, to_uint8
from tinyddpm.editing.handwriting import slant
from tinyddpm.editing.inpainting import complete, hide_half, inpaint, resampling_grid
from tinyddpm.editing.inversion import sdedit, slerp
from tinyddpm.editing.strip import write
from tinyddpm.evaluation import classify, load_classifier

ddpm = tinyddpm.load_pretrained()
schedule = ddpm.schedule
images, labels = mnist()[:3000]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def read(x):
    return classify(load_classifier(), x.clamp(-1, 1)).argmax(1)


# %% [markdown]
r"""
## The exact answer

We want a data set in which half an image leaves the rest open. Shrunk to 8 × 8 pixels of black and white, digits become
stamps, and many share their upper half.
"""

# %% tags=["setup"]
stamps = torch.where(F.avg_pool2d(images, 4) > -0.4, 1.0, -1.0)  # (3000, 1, 8, 8)
mask = hide_half("bottom", 8, 8)  # 1 where a pixel is known
known = stamps[6:7] * mask
fits = ((stamps - known) * mask == 0).flatten(1).all(1)  # (3000,)

# %%
print(f"{int(fits.sum())} of {len(stamps)} stamps have this upper half; their labels, 0 to 9:", end=" ")
print(labels[fits].bincount(minlength=10).tolist())
some = stamps[fits][torch.arange(10) * int(fits.sum()) // 10]
tiles(
    {"ten of the stamps that share their upper half": large(some)},
    2,
    alt="Ten coarse digits, equal in their upper halves",
)

# %% [markdown]
r"""
A right completion draws each of them as often as the others. Bayes' rule says so without more ado: given the known pixels $k$, an image $x_i$ has
probability 0 if it differs there, and all others stay as likely as they were. So the exact denoiser *given* $k$ is the old one
with fewer images:

$$\mathbb E[x_0 \mid x_t, k] = \sum_i \frac{w_i\,f_i}{\sum_j w_j\,f_j}\; x_i, \qquad f_i = 1 \text{ if } x_i \text{ fits } k, \text{ else } 0 \tag{12.1}$$

with the weights $w_i$ of chapter 03. And it can be written as a push, as in chapter 07, where a label pushed:

$$\mathbb E[x_0 \mid x_t, k] = \hat x_0 + \frac{1-\bar\alpha_t}{\sqrt{\bar\alpha_t}}\; \nabla_{x_t} \log p(k \mid x_t), \qquad p(k \mid x_t) = \sum_i w_i\, f_i \tag{12.2}$$

Everybody who steers a diffusion model without training needs this gradient, and nobody has it for images: it asks how likely
the known pixels are among all images that $x_t$ may become. **Every trick of this chapter stands in for it.**
"""


# %% tags=["setup"]
def weights(x_t, t, data):
    signal, noise = schedule.signal_noise(t)
    distance = (x_t.flatten(1)[:, None] - signal * data.flatten(1)).square().sum(2)  # (b, n)
    return (-distance / (2 * noise**2)).softmax(1)


oracle, exact = dataset_oracle(stamps, schedule), dataset_oracle(stamps[fits], schedule)
x_t, t = q_sample(stamps[fits][:5], 600, randn(5, 1, 8, 8), schedule).requires_grad_(), torch.full((5,), 600)
w = weights(x_t, 600, stamps)
fitting = w * fits / (w * fits).sum(1, keepdim=True)
holds("12.1", (fitting @ stamps.flatten(1)).reshape(5, 1, 8, 8), exact(x_t, t), within=1e-4)
(slope,) = torch.autograd.grad((w * fits).sum(1).log().sum(), x_t)
signal, noise = schedule.signal_noise(600)
holds("12.2", oracle(x_t, t) + noise**2 / signal * slope, exact(x_t, t), within=1e-3)

# %% [markdown]
r"""
## Replace what is known

The first trick is so simple that it seems sure to be right: wherever a pixel is known, tell the sampler.
"""


# %% tags=["setup"]
def my_inpaint(denoiser, known, mask):
    return lambda x_t, t: torch.where(mask.bool(), known, denoiser(x_t, t))


def judge(x):
    """How many % of the completions (b, 1, 8, 8) are impossible; and how far their frequencies are from the exact ones: half
    the sum of the differences, 0 where all agree and 1 where none do."""
    possible, counts = stamps[fits].flatten(1).unique(dim=0, return_counts=True)
    gap, which = torch.cdist(x.flatten(1), possible).min(1)
    often = which[gap < 0.1].bincount(minlength=len(possible)) / len(x)
    impossible = int((gap >= 0.1).sum()) / len(x)
    return 100 * impossible, (float((often - counts / counts.sum()).abs().sum()) + impossible) / 2


# %%
x_T, grid = randn(300, 1, 8, 8), schedule.grid(40)
replaced = inpaint(oracle, known, mask)
same(my_inpaint(oracle, known, mask), replaced, x_t.detach(), t)


def run(denoiser, grid=grid, sampler=p_sample_loop):
    return last(sampler(denoiser, x_T, schedule, grid, torch.Generator().manual_seed(1))).x_t


drawn = {"exact": run(exact), "replace": run(replaced)}

# %% [markdown]
r"""
**Guess first.** All known pixels are right in all 300 drawings. In how many % do the drawn pixels not fit them, so that no stamp looks like
this?
"""

# %%
guess(None, judge(drawn["replace"])[0], " %")

# %% [markdown]
r"""
## Think again

The denoiser sees the known pixels through the noise of $x_t$ only. High up, where the rough shape is decided, it hardly sees them;
further down the shape no longer moves. RePaint ([Lugmayr et al. 2022](https://arxiv.org/abs/2201.09865)) thinks again: after some steps
down it *climbs* back, from $t$ to a later $s$, with fresh noise, and comes down again.

$$x_s = \sqrt a\; x_t + \sqrt{1-a}\; z, \qquad a = \bar\alpha_s / \bar\alpha_t \tag{12.3}$$

This is the forward process, and so the noise level is right at every time.
"""

# %%
x_300 = q_sample(images[:200], 300, randn(200, 1, 32, 32), schedule)
x_600 = p_sample(x_300, x_300, 300, 600, schedule, generator=torch.Generator().manual_seed(5))
signal, noise = schedule.signal_noise(600)
holds("12.3", (x_600 - signal * images[:200]).std(), noise, within=0.01)
for repeats in (3, 8):
    walk = resampling_grid(grid, 8, repeats)
    drawn[f"RePaint, {repeats} times"] = run(replaced, walk)
    print(f"RePaint, {repeats} times: {sum(s < t for t, s in walk)} calls of the denoiser in place of {len(grid)}")

# %% [markdown]
r"""
## Ask for a gradient

The second trick takes (12.2) seriously, and replaces only what it cannot know. In the place of the likelihood of $k$ among all images it takes
that of the one image $\hat x_0$, as if it were the answer: $\log p(k \mid x_t) \approx -c\,\lVert k - \hat x_0 \rVert^2$ over the known pixels, differentiated
*through* the denoiser (DPS, [Chung et al. 2023](https://arxiv.org/abs/2209.14687)). The scale $c$ has to be found by trying.
"""


# %%
def closeness(x_0_hat, t):
    return -((x_0_hat - known) * mask).square().flatten(1).sum(1)


scales = [0.5, 1.0, 2.0, 5.0, 20.0]
for c in scales:
    drawn[f"gradient, c = {c:g}"] = run(energy_guidance(oracle, closeness, schedule, scale=c))
judged = {name: judge(x) for name, x in drawn.items()}

# %%
plt.figure(figsize=(6.4, 2.6))
plt.axhline(judged["exact"][1], color=EXACT, linestyle=":")
dial = [judged[f"gradient, c = {c:g}"] for c in scales]
plt.plot(*zip(*dial), "--", color=STEERED)
for name, (impossible, distance) in judged.items():
    colour, marker = (EXACT, "*") if name == "exact" else (STEERED, "s") if "grad" in name else (SIGNAL, "o")
    plt.plot(impossible, distance, marker, color=colour, markersize=9 if name == "exact" else 5)
    places = {
        "exact": (45, 4),
        "replace": (-8, 5),
        "RePaint, 3 times": (5, 5),
        "RePaint, 8 times": (7, -11),
        "gradient, c = 2": (7, -9),
    }
    place = {"xytext": places.get(name, (7, -3)), "textcoords": "offset points"}  # clear of lines and other labels
    plt.annotate(name.removeprefix("gradient, "), (impossible, distance), color=colour, fontsize=7.5, **place)
plt.annotate("gradient", (38, 0.36), color=STEERED)
plt.xlabel("% of the completions that are impossible")
plt.ylabel("distance from the exact answer")
plt.xlim(-2, 60)
show_figure(
    "Impossible completions against distance from the exact answer. Replacing leaves many impossible ones, RePaint fewer "
    "with more repeats; a small gradient leaves some, a large one none, but its distance grows again"
)

# %%
for name, low, high in (
    ("replace", 8, 35),
    ("RePaint, 8 times", 0, 9),
    ("gradient, c = 0.5", 5, 60),
    ("gradient, c = 20", 0, 2),
):
    band(judged[name][0], low, high, f"% are impossible: {name}")
for name, low, high in (
    ("exact", 0.05, 0.2),
    ("replace", 0.2, 0.5),
    ("RePaint, 8 times", 0.08, 0.25),
    ("gradient, c = 20", 0.2, 0.5),
):
    band(judged[name][1], low, high, f"is the distance: {name}")

# %% [markdown]
r"""
The star is the exact denoiser (12.1). It is not at 0, because 300 drawings have frequencies that scatter: that is the floor. Replacing leaves completions
that do not fit. RePaint pays in calls, and leaves few. The gradient has a dial: too small, and it does not insist; too large, and everything
fits, but a few completions are drawn far too often. That is the disease of guidance in chapter 07. Somewhere between it comes close, and
whoever has no exact answer cannot tell where. **None is exact, and a picture would not have told.**

## Half a digit, completed by the network

With a network there is no exact answer to compare with. What it draws has to be judged by what we just learned.
"""

# %% tags=["share"]
half = hide_half("bottom", 32, 32)
chosen = [1, 5, 7]
done = complete(ddpm, images[chosen], half, each=8, steps=20, repeats=4)
given = torch.where(half.bool(), images[chosen], -0.5)
rows = {}
for k, digit in enumerate(chosen):
    rows[f"given the upper half of a {int(labels[digit])}: eight ways to go on"] = torch.cat(
        [given[k : k + 1], done[8 * k : 8 * k + 8]]
    )
tiles(
    rows,
    3,
    alt="Three upper halves of digits, and eight completions of each by the network: several different digits, all of which "
    "fit the half that was given",
)
found = read(done).reshape(3, 8)
print("upper halves of", labels[chosen].tolist())
band(max(len(row.unique()) for row in found), 2, 6, "different digits among the eight completions of one half")
band(
    float(((done - images[chosen].repeat_interleave(8, 0)) * half).abs().max()),
    0,
    1e-5,
    "is the largest change of a known pixel",
)

# %% [markdown]
r"""
## Redraw from a noise level

Give the network an image, noised to a time $t$ of your choice, and let it draw from there (SDEdit, [Meng et al. 2022](https://arxiv.org/abs/2108.01073)).
What the noise has drowned is drawn anew; what still shows is kept. In image generators this is "image to image", and its
"strength" is $t/T$.
"""


# %% tags=["setup"]
def my_sdedit(denoiser, x_0, schedule, grid, generator):
    x_t = q_sample(x_0, grid[0][0], torch.randn(x_0.shape, generator=generator), schedule)
    return ddim(denoiser, x_t, schedule, grid)


def redraw(x_0, y, t, sdedit=sdedit):
    """x_0 noised to t, and drawn from there as the digit y."""
    start, generator = schedule.grid(10, start=t), torch.Generator().manual_seed(0)
    return last(sdedit(ddpm.denoiser([y] * len(x_0)), x_0, schedule, start, generator=generator)).x_t


threes = images[labels == 3][:40]

# %%
redrawn = partial(redraw, threes[:2], 3, 500)
print(f"mine and the library's differ by {float((redrawn() - redrawn(my_sdedit)).abs().max()):.0e}")
times = [200, 400, 500, 600, 700, 800, 1000]
again, as_eight = (torch.cat([threes[7:8], *(redraw(threes[7:8], y, t) for t in times)]) for y in (3, 8))
tiles(
    {"a real 3 on the left, redrawn as a 3": again, "the same, asked for an 8": as_eight},
    3,
    columns=["a real 3", *(clock(t, schedule) for t in times)],
    alt="A handwritten 3 redrawn from seven noise levels: unchanged at the lowest, another digit at the highest",
)
for t, low, high in ((200, 0.08, 0.2), (800, 0.35, 0.6)):
    change = (redraw(threes[:10], 3, t) - threes[:10]).square().mean().sqrt()
    band(float(change), low, high, f"is the rms change of a pixel from t = {t}")

# %% [markdown]
r"""
There is a time below which no request for an 8 gets through. It is the window of chapter 03 in which a digit is decided, seen from the other
side. Exercise 12d measures it.

## Between two noises

Two noises, two drawings. What is between them? The straight line looks innocent, and is not. Independent variances add up, so

$$\operatorname{Var}\left[(1-\lambda)\,\varepsilon + \lambda\, \varepsilon'\right] = (1-\lambda)^2 + \lambda^2 \tag{12.4}$$

which is one half in the middle: not noise of the level that the network was trained on. In 1,024 dimensions noise lives on a sphere, and a straight
line cuts through the ball. `slerp` walks on the sphere.
"""

# %%
eps, other = randn(50, 1, 32, 32, seed=3), randn(50, 1, 32, 32, seed=4)
mix = torch.linspace(0, 1, 5)
straight = [torch.lerp(eps, other, float(weight)) for weight in mix]
holds("12.4", [x.var() for x in straight], (1 - mix) ** 2 + mix**2, within=0.02)


def my_slerp(eps, other, weight):
    cos = (eps * other).flatten(1).sum(1) / (eps.flatten(1).norm(dim=1) * other.flatten(1).norm(dim=1))
    angle = cos.acos().reshape(-1, 1, 1, 1)
    return (((1 - weight) * angle).sin() * eps + (weight * angle).sin() * other) / angle.sin()


same(my_slerp, slerp, eps, other, 0.3)
y = torch.arange(10).repeat_interleave(5)
middle = {}
for name, x_T in (("lerp", straight[2]), ("slerp", slerp(eps, other, 0.5))):
    middle[name] = last(ddim(ddpm.denoiser(y, 1.0), x_T, schedule, schedule.grid(10))).x_t
    print(f"{name}, half-way: variance {float(x_T.var()):.2f}")
spread = {name: x.reshape(10, 5, 1, 32, 32).var(1).mean().sqrt() for name, x in middle.items()}
band(float(100 * spread["lerp"] / spread["slerp"]), 80, 97, "% of slerp's spread is left with lerp")
rows = {
    f"{name}, half-way: five drawings each of 2 and 5": x[[*range(10, 15), *range(25, 30)]]
    for name, x in middle.items()
}
tiles(rows, 3, alt="Drawings from half-way noises: with lerp they are tidy and regular, with slerp they vary more")

# %% [markdown]
r"""
The drawings from the straight line are not ugly. They are *ordinary*: with too little noise the network believes that it already sees the
average digit, and keeps to it. Here, too, the damage is to the variety, which no single picture shows.

## Lean

Any differentiable measure can steer. Let $\ell(x) = \gamma \cdot \text{slant}(x)$; then the aim is the data, reweighted by $e^{\ell}$. For the
exact denoiser of 300 sevens we know what that should give: the mean slant under these weights. `energy_guidance` takes the gradient
at $\hat x_0$, as DPS did.
"""

# %%
sevens = images[labels == 7][:300]
gamma, leaning = -10.0, slant(sevens)
aim = float(((gamma * leaning).softmax(0) * leaning).sum())
guided = energy_guidance(dataset_oracle(sevens, schedule), lambda x, t: slant(x), schedule, scale=gamma)
reached = float(slant(last(ddim(guided, randn(100, 1, 32, 32), schedule, schedule.grid(20))).x_t).mean())
print(f"slant of the data {float(leaning.mean()):.2f}, aim {aim:.2f}")
band(reached, -0.5, -0.15, "is reached")
rows = {}
for gamma in (-20.0, 0.0, 20.0):
    lean = partial(energy_guidance, log_weight=lambda x, t: slant(x), schedule=schedule, scale=gamma)
    x = ddpm.sample(range(10), steps=20, seeds=range(10), guide=lean)
    rows[f"strength {gamma:g}: mean slant {float(slant(x).mean()):.1f}", STEERED if gamma else NETWORK] = x
tiles(rows, 3, alt="The network's ten digits leaning to the left, upright, and leaning to the right")

# %% [markdown]
r"""
It leans the right way, and not as far as was asked. So treat a guidance scale as a knob to turn until the result is measured to be right,
not as a weight that means what the formula says.

## Write a date

Steering again, and of the denoiser's output: windows of 32 columns, one for each digit, overlap on a long canvas; where they overlap, their
answers are averaged ([MultiDiffusion](https://arxiv.org/abs/2302.08113)). One shared part of the noise gives one hand.
"""

# %%
strip = write("21 07 1969", ddpm, steps=25, seed=3)
show(to_uint8(strip[0]), width=7, alt="The date 21 07 1969 in one handwriting, drawn by the network in one go")

# %% [markdown]
r"""
## The bug museum

1. **Noised to one time, denoised from another.** In image to image, the noise of one grid point higher than where the sampler starts
   ([CompVis/stable-diffusion#533](https://github.com/CompVis/stable-diffusion/pull/533)). Grain stays.
2. **A climb that subtracts standard deviations.** Variances add up, and so it is they that are subtracted to find the missing noise; a
   published RePaint subtracted their roots ([lucidrains#290](https://github.com/lucidrains/denoising-diffusion-pytorch/issues/290)).
3. **The last step forgets what is known.** Known pixels were pasted into $x_t$ before each step, and the last step returns
   $\hat x_0$ ([lucidrains#322](https://github.com/lucidrains/denoising-diffusion-pytorch/pull/322)).

The first two are caught by one line: the standard deviation of $(x_t - \sqrt{\bar\alpha_t}\,x_0)/\sqrt{1-\bar\alpha_t}$, at the time that the denoiser is
told, is 1. The third by the difference at the known pixels, which is 0.
"""


# %%
def level(x_t, x_0, t):
    signal, noise = schedule.signal_noise(t)
    return float(((x_t - signal * x_0) / noise).std())


x_0, z = images[:200], randn(200, 1, 32, 32, seed=6)
print(f"noised to 300: level {level(q_sample(x_0, 300, z, schedule), x_0, 300):.2f}", end="; ")
print(f"noised to 350, told 300: {level(q_sample(x_0, 350, z, schedule), x_0, 300):.2f}")
(signal_t, noise_t), (signal_s, noise_s) = schedule.signal_noise(300), schedule.signal_noise(600)
wrong = signal_s / signal_t * x_300 + (noise_s - noise_t * signal_s / signal_t) * z
print(
    f"climbed from 300 to 600: level {level(x_600, x_0, 600):.2f}; with roots subtracted: {level(wrong, x_0, 600):.2f}"
)
x_t = randn(300, 1, 8, 8)
for t, s in grid:
    x_t = torch.where(mask.bool(), q_sample(known.expand_as(x_t), t, randn(300, 1, 8, 8, seed=9000 + t), schedule), x_t)
    x_t = p_sample(x_t, oracle(x_t, torch.full((300,), t)), t, s, schedule, generator=torch.Generator().manual_seed(t))
changed = ((x_t - known) * mask).abs().flatten(1).amax(1) > 0.1
kept = ((drawn["replace"] - known) * mask).abs().flatten(1).amax(1) < 0.1
print("known pixels changed in", int((~kept).sum()), "of 300 drawings of ours")
band(int(changed.sum()), 1, 150, "of 300 where the last step forgets them")

# %% [markdown]
r"""
## Exercises

**12a.** Mix *several* noises, with any positive weights that add up to 1, so that the result is noise of variance 1 again. (Independent noises
in so many dimensions are nearly perpendicular: you need no angles.)
"""


# %%
def answer_12a(noises, weights):
    """noises: (m, b, c, h, w), independent; weights: (m,). Returns (b, c, h, w)."""
    ...


check("12a", answer_12a)

# %% [markdown]
r"""
<details><summary>Hint 12a</summary>

(12.4) for two: which factor brings the variance back to 1? And for more than two?
</details>

<details><summary>Solution 12a</summary>

```python
def answer_12a(noises, weights):
    straight = torch.einsum("k,kbchw->bchw", weights, noises)
    return straight / weights.square().sum().sqrt()
```

The variance of the straight mix is the sum of the squared weights. At one weight of 1 the noise itself comes out, as it should.
</details>

**12b.** What if the known pixels are not quite known: $k = x_0 + \sigma z$ there, with fresh noise $z$? Write the exact denoiser given $x_t$ *and*
$k$ for a finite data set.
"""


# %%
def answer_12b(x_t, signal, noise, data, k, mask, sigma):
    """x_t, k: (b, d); data: (n, d); mask: (d,), 1 where known. Returns E[x_0 | x_t, k], (b, d)."""
    ...


check("12b", answer_12b)

# %% [markdown]
r"""
<details><summary>Hint 12b</summary>

Two independent witnesses: their log-likelihoods add up, before one softmax. The second has not been shrunk.
</details>

<details><summary>Solution 12b</summary>

```python
def answer_12b(x_t, signal, noise, data, k, mask, sigma):
    first = -torch.cdist(x_t, signal * data).square() / (2 * noise**2)
    second = -torch.cdist(k * mask, data * mask).square() / (2 * sigma**2)
    return (first + second).softmax(1) @ data
```

For small `sigma` only images that fit keep a weight: (12.1) once more. For large `sigma` $k$ has nothing to say.
</details>

**12c.** Older code pastes the known pixels into $x_t$, noised to the same time, where ours replaces them in $\hat x_0$. Write that step: before each
call of the denoiser, the known pixels are replaced by $q(x_t \mid x_0 = \text{known})$, with noise from `generator`.
"""


# %%
def answer_12c(x_t, known, mask, t, schedule, generator):
    """x_t, known: (b, c, h, w); mask: (h, w), 1 where known; t: a whole number. Returns the new x_t."""
    ...


check("12c", answer_12c)

# %% [markdown]
r"""
<details><summary>Hint 12c</summary>

`schedule.signal_noise(t)` gives two numbers. At $t = 0$ there is no noise: that is the last step which the museum's third piece forgot.
</details>

<details><summary>Solution 12c</summary>

```python
def answer_12c(x_t, known, mask, t, schedule, generator):
    signal, noise = schedule.signal_noise(t)
    noised = signal * known + noise * torch.randn(x_t.shape, generator=generator)
    return torch.where(mask.bool(), noised, x_t)
```

The known pixels get fresh noise at each step, which has nothing to do with that of the step before. Ours keep theirs, and the same denoiser
serves deterministic samplers too.
</details>

**12d.** *An experiment.* From which noise level does a label get through? Take the 40 `threes`, `redraw` them from $t = 500$ as 8, with the
default steps and seed, and count how many are `read` as 8.
"""

# %%
prediction = None  # first write down what you expect
measured = None  # then run it, and put the number here
check("12d", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 12d</summary>

In the lower row of the figure above one 3 gives way between $t$ = 200 and 400. Others hold out longer.
</details>

<details><summary>Solution 12d</summary>

```python
prediction = 20
measured = int((read(redraw(threes, 8, 500)) == 8).sum())
```

At log-SNR -1.4 the shape of some threes still shows, and of others no longer: a wide 3 is half an 8 already, and a slim one has to be
given up first. From 400 hardly any get through, and from 800 nearly all do.
</details>

## Symbols

| symbol | code name | meaning |
|---|---|---|
| $k$ | `known`, `mask` | the known pixels, and where they are |
| $w_i$, $f_i$ | `w`, `fits` | how likely image $i$ is given $x_t$; whether it fits $k$ |
| $c$ | `scales` | the scale of the gradient |
| $a$, $z$ | `x_600` | what survives of an image that climbs (12.3), and its fresh noise |
| $\varepsilon$, $\varepsilon'$, $\lambda$ | `eps`, `other`, `mix` | two noises, and the share of the second (12.4) |
| $\ell$, $\gamma$ | `slant`, `gamma` | the measure that steers, and its strength |

**Next:** [13 · Measuring](13_measuring.ipynb). We said "read", "copies", "distance" and "spread", and trusted numbers more than pictures. The next
chapter asks what such numbers are worth.
"""
