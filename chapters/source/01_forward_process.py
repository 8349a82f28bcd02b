# %% [markdown]
r"""
# 01 · The forward process: how an image becomes noise

**After this chapter you can**

* write one noising step, and say why it has two square roots in it;
* jump from a clean image to any noise level in one line, and derive that line;
* check a noising process with one number, and recognise three mistakes, two of them published, by the plot they make.

*You need:* Python, and enough PyTorch to add two tensors. *Reading:* about MINUTES minutes. *Running:* under 10 seconds on a
laptop, without a network. *You build and then import:* `q_step`, `q_sample`.

---

A diffusion model learns to make images by learning to repair them. We spoil a real image with a little noise, then with a little
more, until nothing of it is left. That direction needs no learning: it is arithmetic, and the subject of this chapter. Whoever
can undo one small step of it can start from pure noise, undo all steps, and arrive at an image that nobody has drawn. Undoing can
only be derived if the spoiling is understood exactly, so every numbered formula below is followed by a cell that executes it:
`holds("1.1", left, right)` computes both sides and stops the notebook where they differ.
"""

# %% tags=["setup"]
import matplotlib.pyplot as plt
import torch
from course import NOISE, REST, SIGNAL, STEERED, check, clock, guess, holds, label_lines, same, show_figure, tiles

import tinyddpm
from tinyddpm.data import mnist

# %% [markdown]
r"""
## Images are numbers between -1 and 1

The digits of MNIST come with the library. Each is a tensor of shape `(1, 32, 32)`: one grey channel, 32 rows, 32 columns (28 by
28 pixels and a border). The background is -1, full ink is +1.

**[0, 1] or [-1, 1]?** The noise will have mean 0 and standard deviation 1, and what is mixed should be of similar size. Numbers
up to 255 would drown the noise; numbers in [0, 1] would be drowned by it. The next cell prints what matters: the mean square, which
is the size of the signal beside noise of mean square 1.
"""

# %% tags=["setup"]
images, labels = mnist(train=False).tensors()
digits = torch.cat([images[labels == k][:1] for k in range(8)])  # (8, 1, 32, 32)

# %%
print("shape", tuple(digits.shape), "from", digits.min().item(), "to", digits.max().item())
for name, x in {"[-1, 1]": images, "[0, 1]": (images + 1) / 2, "[0, 255]": (images + 1) * 127.5}.items():
    print(f"in {name:8} mean {x.mean():6.2f}, variance {x.var():8.2f}, mean square {x.square().mean():8.2f}")
tiles({"eight digits that nobody has spoiled yet": digits}, alt="Eight handwritten digits, 0 to 7, white on black")

# %% [markdown]
r"""
## One step

Call the clean image $x_0$. One step makes $x_t$ out of $x_{t-1}$: it shrinks the image a little and adds a little noise,

$$x_t = \sqrt{1 - \beta_t}\; x_{t-1} + \sqrt{\beta_t}\; \varepsilon, \qquad \varepsilon \sim \mathcal N(0, 1) \tag{1.1}$$

(Ho et al. 2020, [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), equation 2). $\varepsilon$ is a new image of independent,
standard normal numbers for each step, and $\beta_t$, between 0 and 1, says how much noise step $t$ adds. We count
$t = 1, \dots, T$, and $t = 0$ is the clean image.

The library keeps the betas in a `Schedule`: a table with an index for each time, `schedule.beta[3]` for $\beta_3$ and
`schedule.beta[0]` = 0. The cell makes the one that Ho et al. used and writes the step, one line. Then it takes one step of a single number a
million times and compares mean and variance of the outcome with what (1.1) promises: $\sqrt{1-\beta}\,x_{t-1}$ and $\beta$.
"""


# %%
def my_q_step(x, t, eps, schedule):
    beta = schedule.beta[t].float()  # kept in float64, used in the images' float32
    return (1 - beta).sqrt() * x + beta.sqrt() * eps


betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # those of Ho et al. 2020; chapter 02 looks at them
schedule = tinyddpm.Schedule(
    torch.cat([torch.zeros(1), betas])
)  # the same as tinyddpm.Schedule.named("linear", T=1000)
generator = torch.Generator().manual_seed(1)
before = torch.full((1_000_000, 1, 1, 1), 0.7)
after = my_q_step(before, 900, torch.randn(before.shape, generator=generator), schedule)
beta = schedule.beta[900]
holds("1.1", [after.mean(), after.var()], [(1 - beta).sqrt() * 0.7, beta], within=1e-3)

# %% [markdown]
r"""
The library has the same function. `same` calls both with the same arguments and compares the values.
"""

# %%
eps = torch.randn(digits.shape, generator=generator)
same(my_q_step, tinyddpm.q_step, digits, 5, eps, schedule)

# %% [markdown]
r"""
## Why the square roots?

Variances of independent things add up; standard deviations do not. If $x_{t-1}$ has variance $v$, then multiplying it by
$\sqrt{1-\beta_t}$ makes that $(1-\beta_t)\,v$, and the noise contributes $(\sqrt{\beta_t})^2 = \beta_t$:

$$\operatorname{Var}[x_t] = (1 - \beta_t)\operatorname{Var}[x_{t-1}] + \beta_t \tag{1.2}$$

A variance of 1 stays 1, for every $\beta_t$. Any other is pulled towards 1: its distance from 1 shrinks by the factor $1-\beta_t$
in each step. The digits begin at a variance of 0.31, and noise fills it up to 1. Their mean square begins at 0.94, so a network sees
inputs of one scale at every $t$.

We walk 100,000 numbers of variance 0.31 through 1,000 steps. **What will the variance be half way, at $t = 500$?** Put your number in
place of `None`; `guess` prints the measured one beside it.
"""

# %%
my_guess = None

variance, expected = [], [0.31]
x = 0.31**0.5 * torch.randn(100_000, 1, 1, 1, generator=generator)
for t in range(1, 1001):
    x = my_q_step(x, t, torch.randn(x.shape, generator=generator), schedule)
    variance.append(x.var().item())
    expected.append(float((1 - schedule.beta[t]) * expected[-1] + schedule.beta[t]))  # the right side of (1.2)
guess(my_guess, round(variance[499], 2))
holds("1.2", variance, expected[1:], within=0.03)

# %% [markdown]
r"""
## Bug museum: three noisings that are not

The first two stand in published teaching material. All three give pictures that look noisy, which is why they survive.

1. **$\beta$ for $\sqrt\beta$.** A well-known course says that the noise is "scaled by beta"
   ([class#18](https://github.com/huggingface/diffusion-models-class/issues/18),
   [#63](https://github.com/huggingface/diffusion-models-class/issues/63)). Taken at its word, a step adds noise of variance $\beta_t^2$: at
   $\beta_t = 0.01$ a hundred times too little.
2. **Uniform noise.** A popular notebook draws `torch.rand_like`, numbers between 0 and 1, and scales them by $\beta$
   ([Diffusion-Models#1](https://github.com/acids-ircam/diffusion_models/issues/1)). That noise has mean ½: each step pushes every pixel up.
3. **No shrinking.** Noise is added and the image left as it is.

One line catches all three: *data of mean 0 and variance 1 keep mean 0 and variance 1.*
"""

# %%
museum = {
    "right": lambda x, beta, g: (1 - beta) ** 0.5 * x + beta**0.5 * torch.randn(x.shape, generator=g),
    "beta, no root": lambda x, beta, g: (1 - beta) ** 0.5 * x + beta * torch.randn(x.shape, generator=g),
    "uniform noise": lambda x, beta, g: (1 - beta) ** 0.5 * x + beta * torch.rand(x.shape, generator=g),
    "no shrinking": lambda x, beta, g: x + beta**0.5 * torch.randn(x.shape, generator=g),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 2.4))
for (name, step), line, colour in zip(museum.items(), ("-", "--", ":", "-."), (SIGNAL, NOISE, STEERED, REST)):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(20_000, generator=generator)
    means, variances = [0.0], [1.0]
    for beta in schedule.beta[1:].tolist():
        x = step(x, beta, generator)
        means.append(x.mean().item())
        variances.append(x.var().item())
    left.plot(means, line, color=colour)
    right.plot(variances, line, color=colour, label=name)
    print(f"{name:15} ends with mean {means[-1]:5.2f} and variance {variances[-1]:5.2f}")
left.set(title="mean of x_t", xlabel="t")
right.set(title="variance of x_t", xlabel="t", ylim=(0, 3))
label_lines(right)
show_figure("Mean and variance over 1,000 steps: only the right step keeps them at 0 and 1; each bug drifts away")

# %% [markdown]
r"""
## One jump instead of t steps

Training needs $x_t$ for random $t$, millions of times, and nobody has to walk there: a sum of independent normal variables is normal,
with the variances added. Write $\alpha_t = 1 - \beta_t$, and put two steps into each other:

$$x_2 = \sqrt{\alpha_2}\,\bigl(\sqrt{\alpha_1}\,x_0 + \sqrt{\beta_1}\,\varepsilon_1\bigr) + \sqrt{\beta_2}\,\varepsilon_2
      = \sqrt{\alpha_1\alpha_2}\;x_0 + \underbrace{\sqrt{\alpha_2\beta_1}\,\varepsilon_1 + \sqrt{\beta_2}\,\varepsilon_2}_{\text{normal, of variance } \alpha_2\beta_1 + \beta_2}$$

$$\alpha_2\beta_1 + \beta_2 = \alpha_2(1-\alpha_1) + 1 - \alpha_2 = 1 - \alpha_1\alpha_2 \tag{1.3}$$

The two noises have become one, of variance one minus the product that stands in front of $x_0$. The same step works from every
$t-1$ to $t$, so the product of all alphas so far says all: call it $\bar\alpha_t$ ("alpha bar").
"""

# %%
alpha_1, alpha_2 = 1 - schedule.beta[1], 1 - schedule.beta[2]
holds("1.3", alpha_2 * schedule.beta[1] + schedule.beta[2], 1 - alpha_1 * alpha_2, within=1e-12)

# %% [markdown]
r"""
$$\bar\alpha_t = \prod_{s=1}^{t} (1 - \beta_s), \qquad \bar\alpha_t = (1-\beta_t)\,\bar\alpha_{t-1}, \qquad \bar\alpha_0 = 1 \tag{1.4}$$
"""

# %%
alpha_bar = (1 - schedule.beta).cumprod(0)  # beta[0] = 0, so alpha_bar[0] = 1
holds("1.4", schedule.alpha_bar[1:], (1 - schedule.beta[1:]) * alpha_bar[:-1], within=1e-12)

# %% [markdown]
r"""
With $\bar\alpha_t$ we can write the most used line of this whole subject (Ho et al. 2020, equation 4):

$$x_t = \sqrt{\bar\alpha_t}\; x_0 + \sqrt{1 - \bar\alpha_t}\; \varepsilon \tag{1.5}$$

The proof by experiment takes 2,000 equal images to $t = 300$, with 300 steps and with one jump, and compares mean and standard deviation of
each of the 1,024 pixels. Chance makes a mean of 2,000 numbers wander by about 0.02, and the largest of 1,024 by several times that.
A jump with $\bar\alpha$ in place of its root is off by much more: the last line.
"""

# %%
clean = digits[3:4].expand(2000, -1, -1, -1)  # one digit, two thousand times
generator = torch.Generator().manual_seed(3)
walked = clean
for t in range(1, 301):
    walked = my_q_step(walked, t, torch.randn(clean.shape, generator=generator), schedule)
jumped = alpha_bar[300].sqrt() * clean + (1 - alpha_bar[300]).sqrt() * torch.randn(clean.shape, generator=generator)
moments = [torch.stack([x.mean(0), x.std(0)]) for x in (walked, jumped)]  # of every pixel
holds("1.5", moments[0], moments[1], within=0.12)
wrong = alpha_bar[300] * clean[0]
print("without the root the mean is off by", round((wrong - moments[0][0]).abs().max().item(), 1))

# %% [markdown]
r"""
## Build it: `q_sample`

In training each image of a batch has a time of its own: `t` has shape `(b,)`, and so has `alpha_bar[t]`. To multiply images of shape
`(b, 1, 32, 32)` it must be reshaped to `(b, 1, 1, 1)`. Without the reshape you get an error or, when `b` happens to equal the width of
the image, a silent disaster: each *column* of pixels gets a time of its own.
"""


# %%
def my_q_sample(x_0, t, eps, schedule):
    abar = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)  # (b,) -> (b, 1, 1, 1)
    return abar.sqrt() * x_0 + (1 - abar).sqrt() * eps


t = torch.tensor([1, 50, 100, 200, 300, 400, 600, 1000])
eps = torch.randn(digits.shape, generator=generator)
same(my_q_sample, tinyddpm.q_sample, digits, t, eps, schedule)

# %% [markdown]
r"""
One digit at eight times, under the same noise. Above each column stands the time and its *log-SNR*, the logarithm of signal variance over
noise variance, $\log\bigl(\bar\alpha_t / (1 - \bar\alpha_t)\bigr)$; chapter 02 makes it the ruler for all schedules.
"""

# %%
x_t = tinyddpm.q_sample(digits[3:4].expand(8, -1, -1, -1), t, eps[:1].expand(8, -1, -1, -1), schedule)
above = [clock(k, schedule) for k in t.tolist()]
tiles(
    {"x_t, at half contrast": x_t / 2},
    columns=above,
    alt="A three that is readable to t = 200, doubtful at 400, gone at 1000",
)

# %% [markdown]
r"""
## The same thing in one dimension

Images hide what happens to a *distribution*. Look at one pixel that is black in three images of four and white in the fourth. At $t = 0$
its distribution is two spikes. By (1.5) they become two bells, at $\pm\sqrt{\bar\alpha_t}$, of width $\sqrt{1-\bar\alpha_t}$, that wander
together and merge into one standard normal bell. It remembers next to nothing of the data: of the amplitude, $\sqrt{\bar\alpha_T}$ is left. This is
why generation can start there: everybody's images, faces or digits, end in the same place.
"""

# %% tags=["share"]
values = torch.linspace(-3, 3, 300, dtype=torch.float64)[:, None]
signal, noise = schedule.sqrt_alpha_bar[1:], schedule.sqrt_one_minus_alpha_bar[1:]
bell = torch.distributions.Normal(0.0, 1.0)


def density(spike):
    return bell.log_prob((values - spike * signal) / noise).exp() / noise


figure, axes = plt.subplots(figsize=(7, 2.6))
q = 0.75 * density(-1.0) + 0.25 * density(1.0)
picture = axes.imshow(q.clamp(max=1.2), origin="lower", extent=(1, 1000, -3, 3), aspect="auto", cmap="magma")
figure.colorbar(picture, label="density")
axes.set(
    xlabel="t", ylabel="value of the pixel", title="All data end in one bell: the density of a black or white pixel"
)
axes.grid(False)
show_figure(
    "Two bright lines at -1 and 1 on the left widen, move together and become one broad bell around 0 on the right"
)
print(f"of the amplitude is left at T: {schedule.sqrt_alpha_bar[-1]:.4f}")

# %% [markdown]
r"""
## What this chapter showed

A thousand small steps and one large jump are the same thing, and what they leave of an image is a number that we choose with the
betas. Nothing was learned or approximated: (1.5) is exact, for every image and every $t$.

## Exercises

Fill in the stubs; the check answers, and nothing breaks while a stub is empty. Hint and solution are folded.

**01a · From any time to a later one.** Equation (1.5) starts at the clean image. Write the jump from time $s$ to a later time $t$, with a pair of
times for each image, from a table `alpha_bar` of shape `(T + 1,)`.
"""


# %%
def answer_01a(x_s, s, t, eps, alpha_bar):
    """x_s, eps: (b, 1, h, w); s, t: (b,). Returns x_t, (b, 1, h, w)."""
    ...


check("01a", answer_01a)

# %% [markdown]
r"""
<details><summary>Hint 01a</summary>

(1.4) is a product of all steps up to $t$. Which of its factors belong to the steps after $s$? And what shape has `alpha_bar[t]`?

</details>

<details><summary>Solution 01a</summary>

```python
def answer_01a(x_s, s, t, eps, alpha_bar):
    kept = (alpha_bar[t] / alpha_bar[s]).reshape(-1, 1, 1, 1)
    return kept.sqrt() * x_s + (1 - kept).sqrt() * eps
```

The factors of the steps s + 1 to t are those of $\bar\alpha_t$ that are not in $\bar\alpha_s$. Chapter 03 needs this jump.
</details>

**01b · How many steps?** Suppose that every step has the same $\beta$. After how many steps is the *amplitude* of the image, its factor in (1.5), for the
first time at most `left`?
"""


# %%
def answer_01b(beta, left):
    """beta and left in (0, 1). Returns a whole number."""
    ...


check("01b", answer_01b)

# %% [markdown]
r"""
<details><summary>Hint 01b</summary>

What is $\bar\alpha_t$ for equal betas? Which power of it is the amplitude? Solve for $t$ with a logarithm, and round to the right side.

</details>

<details><summary>Solution 01b</summary>

```python
import math


def answer_01b(beta, left):
    return math.ceil(math.log(left) / math.log((1 - beta) ** 0.5))
```

(1.4) is a product of $t$ equal factors, and the amplitude is its root: $(1-\beta)^{t/2} \le$ left.
</details>

**01c · Repair it.** A step from the museum, with two mistakes. Draw the noise from `generator`.

```python
def broken(x, beta, generator):
    return (1 - beta) ** 0.5 * x + beta * torch.rand(x.shape, generator=generator)
```
"""


# %%
def answer_01c(x, beta, generator):
    """Returns x one step later."""
    ...


check("01c", answer_01c)

# %% [markdown]
r"""
<details><summary>Hint 01c</summary>

Which mean and which variance has `torch.rand`? Which variance should the noise of a step have, and which factor gives it?

</details>

<details><summary>Solution 01c</summary>

```python
def answer_01c(x, beta, generator):
    return (1 - beta) ** 0.5 * x + beta**0.5 * torch.randn(x.shape, generator=generator)
```

`rand` is uniform in 0..1 and `randn` normal; and the standard deviation of the noise is the root of its variance.
</details>

**01d · Experiment: when is the digit gone?** A simple classifier compares $x_t$ with the mean image of each class, shrunk by
$\sqrt{\bar\alpha_t}$, and takes the nearest; of the clean digits it reads 79 %. `nearest_mean_accuracy(t)` gives its accuracy at time $t$. Predict the first multiple of 100 at
which it reads fewer than half, then run it.
"""

# %% tags=["setup"]
class_means = torch.stack([images[labels == k].mean(0) for k in range(10)]).flatten(1)  # (10, 1024)
linear = tinyddpm.Schedule.named("linear", T=1000)


def nearest_mean_accuracy(t):
    eps = torch.randn(images[:2000].shape, generator=torch.Generator().manual_seed(t))
    x_t = tinyddpm.q_sample(images[:2000], t, eps, linear).flatten(1)
    distance = torch.cdist(x_t, linear.sqrt_alpha_bar[t].float() * class_means)
    return (distance.argmin(1) == labels[:2000]).float().mean().item()


# %%
prediction = None  # first write down what you expect
measured = None  # then call nearest_mean_accuracy at 100, 200, ... and put the time here
check("01d", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 01d</summary>

Look at the row of noisy threes above. A classifier that compares whole images averages over 1,024 pixels, and is better than the eye.

</details>

<details><summary>Solution 01d</summary>

```python
prediction = 900  # what most people say
measured = next(t for t in range(100, 1001, 100) if nearest_mean_accuracy(t) < 0.5)
```

Long before the end: the last few hundred steps say nothing about which digit it was. Chapter 02 asks whether they are wasted, and chapter 03
finds the narrow window in which the digit is decided on the way back.
</details>

## Symbols

| symbol | variable | shape | where |
|---|---|---|---|
| $x_0$ | `digits`, `x_0` | (b, 1, 32, 32) | the clean image |
| $x_t$ | `x_t` | (b, 1, 32, 32) | (1.1), (1.5); Ho et al. 2020, eq. 2 and 4 |
| $\varepsilon$ | `eps` | (b, 1, 32, 32) | standard normal noise |
| $\beta_t$ | `schedule.beta` | (T + 1,) | (1.1) |
| $\bar\alpha_t$ | `schedule.alpha_bar` | (T + 1,) | (1.4) |
| $t$ | `t` | (b,) or a number | 1..T; 0 is the clean image |

**Next:** [02 · Noise schedules](02_noise_schedules.ipynb). We have said that the betas are ours to choose. The usual ones, copied into a
shorter chain, do not end in noise, and one number shows it.
"""
