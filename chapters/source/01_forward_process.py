# %% [markdown]
r"""
# 01 · The forward process: how an image becomes noise

**After this chapter you can**

* write one noising step, and say why it has two square roots in it;
* jump from a clean image to any noise level in one line, and derive that line;
* check a noising process with one number, and recognise three published mistakes by the plot they make.

*You need:* Python, and enough PyTorch to add two tensors. *Reading:* 25 minutes. *Running:* under 10 seconds on a laptop,
without a network. *You build and then import:* `q_step`, `q_sample`.

---

A diffusion model learns to make images by learning to repair them. We take a real image, spoil it with a little noise, then
with a little more, and so on until nothing is left of it. That direction needs no learning: it is plain arithmetic, and it is all
that this chapter is about. Whoever can undo one small step of it can start from pure noise, undo all steps one after the
other, and arrive at an image that nobody has drawn. Undoing is the subject of the chapters that follow, and it can
only be derived if the spoiling is understood exactly. So we shall be exact: every formula below is followed by a cell that
executes it.
"""

# %% tags=["setup"]
import matplotlib.pyplot as plt
import torch
from course import check, guess, holds, same, show

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.viz import image_grid

# %% [markdown]
r"""
## Images are numbers between -1 and 1

The digits of MNIST come with the library, so nothing is downloaded. Each is a tensor of shape `(1, 32, 32)`: one grey channel, 32
rows, 32 columns (the original 28 by 28 pixels with a border). The background is -1, full ink is +1. Why not 0 to 255, or 0
to 1? Because we are about to mix images with noise of standard deviation 1, and what is mixed should be of similar size. Numbers up to
255 would drown the noise; numbers between -1 and 1 have a standard deviation of the same order. The next cell prints it.
"""

# %% tags=["setup"]
images, labels = mnist(train=False).tensors()
digits = torch.cat([images[labels == k][:1] for k in range(8)])  # (8, 1, 32, 32)

# %%
print("shape", tuple(digits.shape), "from", digits.min().item(), "to", digits.max().item())
print(f"all test digits: mean {images.mean():.1f}, standard deviation {images.std():.2f}")
show(image_grid(digits, columns=8), "eight digits that nobody has spoiled yet")

# %% [markdown]
r"""
## One step

Call the clean image $x_0$. One step makes $x_t$ out of $x_{t-1}$: it shrinks the image a little and adds a little noise,

$$x_t = \sqrt{1 - \beta_t}\; x_{t-1} + \sqrt{\beta_t}\; \varepsilon, \qquad \varepsilon \sim \mathcal N(0, 1) \tag{1.1}$$

(Ho et al. 2020, equation 2). $\varepsilon$ is a new image of independent, standard normal numbers for each step, and $\beta_t$,
between 0 and 1, says how much noise step $t$ adds. We count $t = 1, 2, \dots, T$, and $t = 0$ is the clean image: the
code keeps to that, so `beta[3]` is $\beta_3$.

In code it is one line. The next cell writes it, takes one step of a single number a million times, and
compares the mean and the variance of the outcome with what equation (1.1) promises for a fixed $x_{t-1}$: the mean
$\sqrt{1-\beta}\,x_{t-1}$ and the variance $\beta$.
"""


# %%
def my_q_step(x, t, eps, schedule):
    beta = schedule.beta[t].float()  # kept in float64, used in the images' float32
    return (1 - beta).sqrt() * x + beta.sqrt() * eps


schedule = tinyddpm.Schedule.named("linear", T=1000)  # the betas of Ho et al. 2020; chapter 02 looks at them
generator = torch.Generator().manual_seed(1)
before = torch.full((1_000_000, 1, 1, 1), 0.7)
after = my_q_step(before, 900, torch.randn(before.shape, generator=generator), schedule)
beta = schedule.beta[900]
holds("1.1", [after.mean(), after.var()], [(1 - beta).sqrt() * 0.7, beta], within=1e-3)

# %% [markdown]
r"""
The library has the same function, and from here on you may use either. `same` calls both with the same arguments and compares
the values, not only the shapes.
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

Put $\operatorname{Var}[x_{t-1}] = 1$ into it, and $\operatorname{Var}[x_t] = 1 - \beta_t + \beta_t = 1$. Variance 1 stays variance 1, for every $\beta_t$; and any other
variance is pulled towards 1, because its distance from 1 shrinks by the factor $1-\beta_t$ in each step. That is what the two square
roots are for: they keep the numbers the same size from the first step to the last, so that a network which has to look at
$x_1$ and at $x_{1000}$ sees inputs of one scale.

**Before you run the next cell:** we walk 100,000 numbers of variance 0.25 through 1,000 steps. What will the variance be at the end?
Put your number in place of `None`.
"""

# %%
my_guess = None

variance, expected = [], [0.25]
x = 0.5 * torch.randn(100_000, 1, 1, 1, generator=generator)
for t in range(1, 1001):
    x = my_q_step(x, t, torch.randn(x.shape, generator=generator), schedule)
    variance.append(x.var().item())
    expected.append(float((1 - schedule.beta[t]) * expected[-1] + schedule.beta[t]))  # the right side of (1.2)
guess(my_guess, round(variance[-1], 2))
holds("1.2", variance, expected[1:], within=0.03)

# %% [markdown]
r"""
## Bug museum: three noisings that are not

The following mistakes are easily made, and have been: the first two stand in published teaching material. All of them give
pictures that look noisy, which is why they survive.

1. **$\beta$ for $\sqrt\beta$.** The text of a well-known course says that the noise is "scaled by beta". Taken at its word, a step adds
   $\beta_t\,\varepsilon$, whose variance is $\beta_t^2$: at $\beta_t = 0.01$ that is a hundred times too little.
2. **Uniform noise.** A popular notebook draws the noise with `torch.rand_like`, numbers between 0 and 1, and scales it by
   $\beta$. That noise has mean ½, so each step pushes every pixel up by $\beta_t/2$ while it shrinks it by about the same share: the pixels settle
   where the two balance, at 1. And there is far too little of it.
3. **No shrinking.** Noise is added and the image left as it is. Now the variance grows without end.

The one line that catches all three is the sentence above, turned into code: *data of mean 0 and variance 1 keep mean
0 and variance 1.*
"""

# %%
museum = {
    "right": lambda x, beta, g: (1 - beta) ** 0.5 * x + beta**0.5 * torch.randn(x.shape, generator=g),
    "beta, no root": lambda x, beta, g: (1 - beta) ** 0.5 * x + beta * torch.randn(x.shape, generator=g),
    "uniform noise": lambda x, beta, g: (1 - beta) ** 0.5 * x + beta * torch.rand(x.shape, generator=g),
    "no shrinking": lambda x, beta, g: x + beta**0.5 * torch.randn(x.shape, generator=g),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6))
for (name, step), line in zip(museum.items(), ("-", "-", "--", "-")):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(20_000, generator=generator)
    means, variances = [0.0], [1.0]
    for beta in schedule.beta[1:].tolist():
        x = step(x, beta, generator)
        means.append(x.mean().item())
        variances.append(x.var().item())
    left.plot(means, line, label=name)
    right.plot(variances, line, label=name)
    caught = not (abs(means[-1]) < 0.05 and abs(variances[-1] - 1) < 0.05)  # the line that catches them
    print(f"{name:15} {'caught' if caught else 'passes'}")
left.set(title="mean of x_t", xlabel="t")
right.set(title="variance of x_t (red goes on to 11)", xlabel="t", ylim=(0, 3))
left.legend()
plt.show()

# %% [markdown]
r"""
## One jump instead of t steps

Training will need $x_t$ for random $t$, millions of times, and nobody wants to walk there step by step. Nobody needs to: a sum of
independent normal variables is normal again, with the variances added. Write $\alpha_t = 1 - \beta_t$ and put two steps into each other:

$$x_2 = \sqrt{\alpha_2}\,\bigl(\sqrt{\alpha_1}\,x_0 + \sqrt{\beta_1}\,\varepsilon_1\bigr) + \sqrt{\beta_2}\,\varepsilon_2
      = \sqrt{\alpha_1\alpha_2}\;x_0 + \underbrace{\sqrt{\alpha_2\beta_1}\,\varepsilon_1 + \sqrt{\beta_2}\,\varepsilon_2}_{\text{normal, of variance } \alpha_2\beta_1 + \beta_2}$$

$$\alpha_2\beta_1 + \beta_2 = \alpha_2(1-\alpha_1) + 1 - \alpha_2 = 1 - \alpha_1\alpha_2 \tag{1.3}$$

The two noises have become one, and its variance is one minus the product that stands in front of $x_0$. The same
step from $t-1$ to $t$ works for every $t$: if $x_{t-1}$ carries the factor $\sqrt{\bar\alpha_{t-1}}$ and noise of variance
$1-\bar\alpha_{t-1}$, then $x_t$ carries $\sqrt{\alpha_t\bar\alpha_{t-1}}$ and noise of variance $\alpha_t(1-\bar\alpha_{t-1}) + 1 - \alpha_t = 1 - \alpha_t\bar\alpha_{t-1}$.
So define the product of all alphas so far, and the induction is complete.
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
and with it the most used line of this whole subject (Ho et al. 2020, equation 4):

$$x_t = \sqrt{\bar\alpha_t}\; x_0 + \sqrt{1 - \bar\alpha_t}\; \varepsilon \tag{1.5}$$

It is worth a proof by experiment as well as by induction. The next cell takes the same 2,000 images, all equal, to $t = 300$ in two ways, with
300 steps and with one jump, and compares the mean and the standard deviation of each of the 1,024 pixels. Chance alone makes a mean of 2,000 numbers
wander by about 0.02, and the largest of 1,024 such differences by several times that; a jump with $\bar\alpha$ in the place of $\sqrt{\bar\alpha}$ is off
by more, as the last line shows.
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

In training each image of a batch gets a time of its own, so `t` is a tensor of shape `(b,)`. Looking up `alpha_bar[t]` gives `(b,)`
numbers as well, and to multiply images of shape `(b, 1, 32, 32)` with them, they must be reshaped to `(b, 1, 1, 1)`. PyTorch then repeats
them over all pixels of their own image. Forgetting this reshaping is either an error or, when `b` happens to equal the width of the image,
a silent disaster: each *column* of pixels gets a time of its own.
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
The figure shows one digit at eight times, under the same noise. Up to about $t = 200$ you read it with ease; at 400 you guess; at 1000
there is nothing left to guess from.
"""

# %%
same_digit = digits[3:4].expand(8, -1, -1, -1)
same_noise = eps[:1].expand(8, -1, -1, -1)
x_t = tinyddpm.q_sample(same_digit, t, same_noise, schedule)
show(image_grid(x_t / 2, columns=8), "x_t at t = " + ", ".join(map(str, t.tolist())) + "   (shown at half contrast)")

# %% [markdown]
r"""
## The same thing in one dimension

Images hide what happens to a *distribution*, so look at a single pixel that is black in three images of four and
white in the fourth. At $t = 0$ its distribution is two spikes. Equation (1.5) says what becomes of them: two bells, at
$\pm\sqrt{\bar\alpha_t}$, of width $\sqrt{1-\bar\alpha_t}$, that wander together and merge. At $t = T$ only one bell remains, the standard
normal one, and **it does not remember what the data were**. This is why generation can start there: everybody's
images, faces or digits, end in the same place.
"""

# %%
values = torch.linspace(-3, 3, 300, dtype=torch.float64)[:, None]
signal, noise = schedule.sqrt_alpha_bar[1:], schedule.sqrt_one_minus_alpha_bar[1:]
bell = torch.distributions.Normal(0.0, 1.0)


def density(spike):
    return bell.log_prob((values - spike * signal) / noise).exp() / noise


figure, axes = plt.subplots(figsize=(8, 2.6))
q = 0.75 * density(-1.0) + 0.25 * density(1.0)
axes.imshow(q.clamp(max=1.2), origin="lower", extent=(1, 1000, -3, 3), aspect="auto", cmap="magma")
axes.set(xlabel="t", ylabel="value of the pixel", title="density of x_t: two spikes become one bell")
axes.grid(False)
plt.show()
area = q.sum(0) * (values[1, 0] - values[0, 0])
print("every column is a density, its area is 1:", bool((area[20:] - 1).abs().max() < 0.02))  # before, spikes

# %% [markdown]
r"""
## What this chapter showed

A thousand small steps and one large jump are the same thing, and both forget the image completely, at a rate that we choose with the betas.
Nothing was learned and nothing was approximated: (1.5) is exact, for every image and every $t$. The square roots are there
because variances add.

## Exercises

Each exercise has a stub that you fill in and a check that answers. Nothing breaks while the stub is empty. The solution is folded under it.

**01a.** Write $x_t$ from $x_0$ yourself, for one time per image, from a table `alpha_bar` of shape `(T + 1,)`.
"""


# %%
def answer_01a(x_0, t, eps, alpha_bar):
    """x_0, eps: (b, 1, h, w); t: (b,). Returns (b, 1, h, w)."""
    ...


check("01a", answer_01a)

# %% [markdown]
r"""
<details><summary>Solution 01a</summary>

```python
def answer_01a(x_0, t, eps, alpha_bar):
    abar = alpha_bar[t].reshape(-1, 1, 1, 1)
    return abar.sqrt() * x_0 + (1 - abar).sqrt() * eps
```

The reshape gives every image its own pair of factors; their squares add up to 1.
</details>

**01b.** Suppose every step has the same $\beta$. What is $\bar\alpha_t$ then, in closed form, without a loop?
"""


# %%
def answer_01b(beta, t):
    """beta in (0, 1), t a whole number. Returns alpha_bar_t, a number."""
    ...


check("01b", answer_01b)

# %% [markdown]
r"""
<details><summary>Solution 01b</summary>

```python
def answer_01b(beta, t):
    return (1 - beta) ** t
```

(1.4) is a product of $t$ equal factors. With $\beta = 0.01$ it takes 459 steps to bring $\bar\alpha$ under 0.01.
</details>

**01c.** Here is a step from the museum. It has two mistakes. Repair it, for images `x` that are mixed with noise drawn from `generator`.

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
<details><summary>Solution 01c</summary>

```python
def answer_01c(x, beta, generator):
    return (1 - beta) ** 0.5 * x + beta**0.5 * torch.randn(x.shape, generator=generator)
```

`rand` is uniform in 0..1 and `randn` normal; and the standard deviation of the noise is the root of its variance.
</details>

**01d.** When is the digit gone? A very simple classifier compares $x_t$ with the mean image of each class, shrunk by
$\sqrt{\bar\alpha_t}$, and takes the nearest. The cell below gives its accuracy at a time $t$. Find the first multiple
of 100 at which it reads fewer than half of the digits correctly.
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
answer_01d = ...  # a number
check("01d", answer_01d)

# %% [markdown]
r"""
<details><summary>Solution 01d</summary>

```python
answer_01d = next(t for t in range(100, 1001, 100) if nearest_mean_accuracy(t) < 0.5)
```

Long before the end: the last few hundred steps say nothing about which digit it was. Chapter 02 asks whether they are wasted, and chapter 03 finds the
narrow window in which the digit is decided on the way back.
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
