# %% [markdown]
r"""
# 09 · Ten steps, not a thousand

**After this chapter you can**

* say which differential equation a sampler solves, and what `eta` adds to it;
* turn DDIM into a second-order solver with two lines, and read its order off a plot;
* choose the times at which a network is asked, and find the two mistakes that spoil a short grid.

*You need:* chapter 03, and log-SNR from chapter 02. *Reading:* about MINUTES minutes. *Running:* a quarter of a
minute. *You build and then import:* `ddim` with its `eta`, `dpm_solver_pp`.

---

The library's network was trained at a thousand times. Nobody says that it has to be asked at all of them. Here it is
asked 50, 20, 10 and 5 times, from the same ten noises and by the same sampler, DDIM.
"""

# %% tags=["setup"]
import math
from functools import partial

import torch
from course import band, check, guess, holds, same, tiles
from course.chapter_09 import draw_grids, draw_orders, legible

import tinyddpm
from tinyddpm import ddim, dpm_solver_pp, heun
from tinyddpm.data import mnist


def end_of(sampler, **own):
    """The sampler as a function that returns the finished images."""

    def draw(*arguments):
        return tinyddpm.last(sampler(*arguments, **own)).x_t

    draw.__name__ = sampler.__name__
    return draw


# %%
ddpm = tinyddpm.load_pretrained()
ten, seeds = list(range(10)), list(range(30, 40))
drawn = {calls: ddpm.sample(ten, steps=calls, seeds=seeds) for calls in (50, 20, 10, 5)}
rows = {f"DDIM, {calls} calls": x for calls, x in drawn.items()}
tiles(
    rows,
    alt="Ten digits from the same noises in four rows, of 50, 20, 10 and 5 calls; only the last is a little blurred",
)
for name, x in rows.items():
    band(legible(x), 8, 10, f"of 10 read as asked: {name}")

# %% [markdown]
r"""
What gets lost is hard to see, and a classifier does not notice. Besides, a network is a poor witness, since it makes
errors of its own. So we leave it for a while, and take denoisers whose answers are exact: then every error is the
sampler's.

Our first data are as simple as can be. Each pixel is normal, with the mean and the variance of that pixel over 1,000
digits. To be free in the choice of times, we take a schedule that has ten thousand of them.
"""

# %% tags=["setup"]
T = 10_000
schedule = tinyddpm.Schedule.named("cosine", T)
images = mnist()[:1000][0].double()
mean, variance = images.mean(0), images.var(0)
denoiser = tinyddpm.gaussian_oracle(mean, variance, schedule)


def seed(number):
    return torch.Generator().manual_seed(number)


def ask(denoiser, x_t, t, schedule):
    """The two guesses x_0_hat and eps_hat."""
    x_0_hat = denoiser(x_t, torch.full((len(x_t),), t))
    return x_0_hat, tinyddpm.eps_from_x_0(x_0_hat, x_t, t, schedule)


x_T = torch.randn(16, 1, 32, 32, generator=seed(0), dtype=torch.float64)

# %% [markdown]
r"""
## A step is a turn

In chapter 02 noising was a turn, $x_t = \cos\varphi_t\,x_0 + \sin\varphi_t\,\varepsilon$. DDIM (chapter 03) mixes the two
guesses $\hat x_0$ and $\hat\varepsilon$ again, at the smaller angle of time $s$. Write $\hat v =
\cos\varphi_t\,\hat\varepsilon - \sin\varphi_t\,\hat x_0$ for the mixture at right angles to $x_t$. Then, by the
addition theorems of sine and cosine, a step of DDIM is a rotation:

$$x_s = \cos(\varphi_s - \varphi_t)\;x_t + \sin(\varphi_s - \varphi_t)\;\hat v \tag{9.1}$$

Let the turn become tiny. Its cosine is 1, its sine is the turn itself, and what remains is a differential equation,
the **probability-flow ODE** ([Song et al. 2021](https://arxiv.org/abs/2011.13456); in the angle,
[Salimans & Ho 2022](https://arxiv.org/abs/2202.00512)):

$$\frac{\mathrm d x}{\mathrm d\varphi} = \hat v(x, \varphi) \tag{9.2}$$

So a film without fresh noise is a curve, and $\hat v$ is its direction at each point. **A deterministic sampler
follows that curve with few questions.** DDIM asks once a step, and believes the answer until the next.
"""

# %%
phi = torch.atan2(schedule.sqrt_one_minus_alpha_bar, schedule.sqrt_alpha_bar)


def turned(x_t, t, s):
    x_0_hat, eps_hat = ask(denoiser, x_t, t, schedule)
    v_hat = phi[t].cos() * eps_hat - phi[t].sin() * x_0_hat
    return (phi[s] - phi[t]).cos() * x_t + (phi[s] - phi[t]).sin() * v_hat, v_hat


holds("9.1", turned(x_T, 7000, 4000)[0], end_of(ddim)(denoiser, x_T, schedule, [(7000, 4000)]))
x_s, v_hat = turned(x_T, 7000, 6999)
holds("9.2", (x_s - x_T) / (phi[6999] - phi[7000]), v_hat, within=1e-3)

# %% [markdown]
r"""
## What eta adds

Chapter 03's sampler drew fresh noise in each step, and DDIM draws none. They are the two ends of one family
([Song et al. 2021](https://arxiv.org/abs/2010.02502), equations 12 and 16). Exchange a part of the old noise
$\hat\varepsilon$ for new noise $z$, and keep the sum of the variances:

$$x_s = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s-\sigma^2}\;\hat\varepsilon + \sigma z, \qquad \sigma^2 = \eta^2\,\frac{1-\bar\alpha_s}{1-\bar\alpha_t}\left(1-\frac{\bar\alpha_t}{\bar\alpha_s}\right) \tag{9.3}$$

With $\eta = 0$ this is DDIM. With $\eta = 1$ the variance is the posterior's, and the mean is the posterior's mean: the cell
checks that. Which $\eta$ is best? Let all pixels have variance 0.3, and see what variance the samples have.
"""


# %%
def my_ddim(denoiser, x, schedule, grid, generator, eta):
    for t, s in grid:
        x_0_hat, eps_hat = ask(denoiser, x, t, schedule)
        abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
        sigma = eta * ((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)) ** 0.5
        x = abar_s**0.5 * x_0_hat + (1 - abar_s - sigma**2) ** 0.5 * eps_hat
        if sigma > 0:
            x = x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x


x_0_hat, eps_hat = ask(denoiser, x_T, 7000, schedule)
posterior, small = tinyddpm.q_posterior(x_0_hat, x_T, 7000, 4000, schedule)
abar_s = schedule.alpha_bar[4000]
holds("9.3", abar_s**0.5 * x_0_hat + (1 - abar_s - small) ** 0.5 * eps_hat, posterior)
for eta in (0.0, 0.7):
    mine, theirs = partial(my_ddim, generator=seed(1), eta=eta), end_of(ddim, generator=seed(1), eta=eta)
    same(mine, theirs, denoiser, x_T, schedule, schedule.grid(5))

plain, start = tinyddpm.gaussian_oracle(0.0, 0.3, schedule), torch.randn(50, 1, 32, 32, generator=seed(1))
for calls in (5, 10, 100):
    found = [my_ddim(plain, start, schedule, schedule.grid(calls), seed(2), eta).var() for eta in (0, 0.5, 1)]
    print(f"{calls:3} calls, variance for eta = 0, 0.5, 1: " + ", ".join(f"{value:.2f}" for value in found))

# %% [markdown]
r"""
All of them lose variance. With $\eta = 0.5$ it is the same to two digits, with $\eta = 1$ more is lost: what is drawn anew in one step has few
steps left in which to become part of an image. So with few calls take $\eta = 0$. (With many calls and a network, noise can help: it
drowns errors that were made before, as [Karras et al. 2022](https://arxiv.org/abs/2206.00364) describe.)

## The truth, in closed form

Now measure errors. For normal data, (9.2) can be solved by hand. At each time $x_t$ is normal, with mean
$\sqrt{\bar\alpha_t}\,m$ and variance $\bar\alpha_t V + 1-\bar\alpha_t$, where $m$ and $V$ are the data's; and the curve keeps
its distance from that mean, counted in standard deviations:

$$x_0 = m + \sqrt{\frac{V}{\bar\alpha_T V + 1 - \bar\alpha_T}}\;\bigl(x_T - \sqrt{\bar\alpha_T}\,m\bigr) \tag{9.4}$$

**Guess first:** DDIM is asked twice as often. By which factor does its distance from this truth shrink?
"""

# %% tags=["setup"]
abar_T = schedule.alpha_bar[T]
truth = mean + (variance / (abar_T * variance + 1 - abar_T)) ** 0.5 * (x_T - abar_T**0.5 * mean)


def distance(x, other):
    """Root mean square over all pixels."""
    return float((x - other).square().mean().sqrt())


def error(sampler, grid):
    return distance(end_of(sampler)(denoiser, x_T, schedule, grid), truth)


holds("9.4", end_of(heun)(denoiser, x_T, schedule, schedule.grid(100, "log-snr")), truth, within=1e-2)

# %%
my_guess = None  # your number here
guess(my_guess, error(ddim, schedule.grid(40)) / error(ddim, schedule.grid(80)), " times smaller")

# %% [markdown]
r"""
A method whose error falls like $1/n$ for $n$ calls is of **order** 1, one that falls like $1/n^2$ of order 2. At order 1,
a hundredth of the error costs a hundred times the calls; at order 2, ten times.

## Two lines from DDIM to order 2

DDIM takes $\hat x_0$ to be constant during a step. Written with log-SNR $\lambda$ as the clock, and half a step of it, $h =
(\lambda_s - \lambda_t)/2$, the same DDIM reads

$$x_s = \sqrt{\frac{1-\bar\alpha_s}{1-\bar\alpha_t}}\;x_t + \sqrt{\bar\alpha_s}\,\bigl(1 - e^{-h}\bigr)\;\hat x_0 \tag{9.5}$$

and here the improvement is easy to see. What should stand in place of $\hat x_0$ is what the denoiser would say in
the *middle* of the step. We know its answer at the start of this step and at the start of the last one, a step of $h'$ earlier.
Draw a line through both, and read it half a step further on:

$$D = \hat x_0 + \frac{h}{2h'}\,\bigl(\hat x_0 - \hat x_0'\bigr) \tag{9.6}$$

The cell tests it on answers that do lie on a line. This is DPM-Solver++(2M)
([Lu et al. 2022](https://arxiv.org/abs/2211.01095)): one call a step, as before. In the code it is DDIM and two lines. The
first step has no predecessor and the last one has no middle ($\lambda_0$ is infinite): both use $\hat x_0$.
"""


# %%
def my_dpm_solver_pp(denoiser, x, schedule, grid):
    before = None
    for t, s in grid:
        x_0_hat, _ = ask(denoiser, x, t, schedule)
        h, D = (schedule.log_snr[s] - schedule.log_snr[t]) / 2, x_0_hat
        if before and s > 0:
            D = x_0_hat + h / (2 * before[1]) * (x_0_hat - before[0])  # line one
        before = x_0_hat, h  # line two
        noise = schedule.sqrt_one_minus_alpha_bar
        x = noise[s] / noise[t] * x + schedule.sqrt_alpha_bar[s] * (1 - torch.exp(-h)) * D
    return x


x_0_hat, eps_hat = ask(denoiser, x_T, 7000, schedule)
holds("9.5", my_dpm_solver_pp(denoiser, x_T, schedule, [(7000, 4000)]), turned(x_T, 7000, 4000)[0])
lam = torch.tensor([-3.0, -1.0, 2.0])  # log-SNR at the last step, now, and at the next
h_before, h = (lam[1:] - lam[:-1]) / 2
line = 5 + 7 * lam
holds("9.6", line[1] + h / (2 * h_before) * (line[1] - line[0]), 5 + 7 * (lam[1] + lam[2]) / 2)
same(my_dpm_solver_pp, end_of(dpm_solver_pp), denoiser, x_T, schedule, schedule.grid(7, "log-snr"))

# %% [markdown]
r"""
The older way to order 2 is Heun's: take the step, ask again at its end, and repeat it with the mean of both
directions. It costs two calls a step ([Karras et al. 2022](https://arxiv.org/abs/2206.00364); the library's `heun`). Since we know the
truth, we need not believe any of this.
"""

# %% tags=["share"]
all_calls, errors = [10, 20, 40, 80, 160], {}
for sampler, calls_a_step in ((ddim, 1), (heun, 2), (dpm_solver_pp, 1)):
    grids = [schedule.grid(calls // calls_a_step, "log-snr") for calls in all_calls]
    errors[sampler.__name__] = [error(sampler, grid) for grid in grids]
for name, (*_, before, after) in errors.items():
    print(f"{name:13} error {before:.4f} at 80 calls, {after:.4f} at 160: order {math.log2(before / after):.2f}")
draw_orders(all_calls, errors)

# %% [markdown]
r"""
*Distance from the exact answer against the number of calls, both axes logarithmic. The slope is the order: DDIM gains a
factor of 2 where the two others gain 4.*

## What order does not promise

An order speaks of *many* calls. On the left of the plot the lines bend: Heun's method is the worst there, and
DPM-Solver++ is better with 10 calls than with 20, because two of its errors happen to cancel. And real data are not normal. So here are 200 digits with their exact denoiser, and 100 noises. Each noise leads to one of the
digits; which, we find out with 250 calls. How many arrive there with fewer?
"""

# %% tags=["setup"]
linear = tinyddpm.Schedule.named("linear")
digits = mnist()[:200][0]
of_digits = tinyddpm.dataset_oracle(digits, linear)
noises = torch.randn(100, 1, 32, 32, generator=seed(0))


def digit_reached(sampler, grid):
    x = end_of(sampler)(of_digits, noises, linear, grid)
    return torch.cdist(x.flatten(1), digits.flatten(1)).argmin(1)


# %%
goal = digit_reached(dpm_solver_pp, linear.grid(250))
for sampler, expected in ((ddim, (68, 86, 88)), (dpm_solver_pp, (76, 91, 93))):
    for calls, low in zip((4, 10, 20), expected):
        arrived = int((digit_reached(sampler, linear.grid(calls)) == goal).sum())
        band(arrived, low, min(low + 12, 100), f"of 100 arrive where they should: {sampler.__name__}, {calls:2} calls")

# %% [markdown]
r"""
Three of four are decided after four calls. The rest lie near a border between two digits, where a small error leads to
another digit, an equally good one. That is why few steps look so good: **most errors change the picture, not
its quality.**

## Where to ask

Which $n$ times? The library's default is even in $t$, from $T$ down to $T/n$; others call that *trailing*. A *leading*
grid is even as well, but runs from about $T - T/n$ down to a time next to 0. A third is even in log-SNR, the clock of (9.5).
"""

# %% tags=["setup"]
even = schedule.grid(8)
log_snr = schedule.grid(8, "log-snr")
leading_times = [T // 8 * k + 1 for k in range(7, -1, -1)] + [0]
leading = list(zip(leading_times, leading_times[1:]))

# %%
draw_grids({"leading": leading, "even in t": even, "even in log-SNR": log_snr}, schedule)
for sampler in (ddim, dpm_solver_pp):
    print(
        f"{sampler.__name__:13} 8 calls: error {error(sampler, even):.3f} even in t, {error(sampler, log_snr):.3f} even in log-SNR"
    )

# %% [markdown]
r"""
With eight calls, both solvers do better on the times that are even in $t$: the other grid spends six of them where
there is hardly any noise left, or hardly anything else. With many calls it has its merit, which is why the
orders were read on it. No grid is best for all cases, and in exercise 09e you find a better one than both.

## Back to the network

The order was proved on smooth answers. Is a network smooth enough? For a truth we take fifty calls of DPM-Solver++.

"""

# %%
goal = ddpm.sample(ten, steps=50, seeds=seeds, sampler=dpm_solver_pp)
expected = {5: (0.17, 0.15), 10: (0.11, 0.06), 20: (0.047, 0.016), 50: (0.014, 0)}
for calls, (of_ddim, of_dpm) in expected.items():
    band(distance(drawn[calls], goal), 0.6 * of_ddim, 1.6 * of_ddim, f"rms from the truth: DDIM, {calls} calls")
    if calls < 50:
        x = ddpm.sample(ten, steps=calls, seeds=seeds, sampler=dpm_solver_pp)
        band(distance(x, goal), 0.6 * of_dpm, 1.6 * of_dpm, f"rms from the truth: DPM-Solver++, {calls} calls")

# %% [markdown]
r"""
With twenty calls the second order is worth a factor of about three, and as much as fifty calls of DDIM. With five, hardly anything. **An
order pays when steps are small already.** For one step or two, one has to train another network (chapter 14).

## Bug museum: both ends of the grid

1. **The leading grid that never sees $T$.** It takes pure noise for an image at time $T - T/n$, where some signal should be left.
   The network looks for it, and what it finds is the noise's mean, a medium grey: the strokes get thicker
   ([Lin et al. 2023](https://arxiv.org/abs/2305.08891)). It is the default of much code, whose
   [steps then disagree with other grids](https://github.com/huggingface/diffusers/issues/9261).
2. **The last step that keeps noise.** The loop ends at the last *trained* time, or steps to a time 0 whose $\bar\alpha$ is not quite 1
   ([a pull request](https://github.com/Stability-AI/stablediffusion/pull/345), [and the look of
   it](https://github.com/huggingface/diffusers/issues/6068)). With many steps it is a grain, with five a veil.

One line catches both: `assert grid[0][0] == schedule.T and grid[-1][1] == 0`, in a schedule whose $\bar\alpha_0$ is 1.
"""

# %%
led = [801, 601, 401, 201, 1, 0]
grids = {
    "right: from T to 0": ddpm.schedule.grid(5),
    "1. leading, from 801": list(zip(led, led[1:])),
    "2. stops at 200": ddpm.schedule.grid(5)[:-1],
}
rows = {name: ddpm.sample(ten, grid=grid, seeds=seeds) for name, grid in grids.items()}
tiles(
    rows, alt="Digits of five calls in three rows: right; thicker, on a leading grid; and noisy, without the last step"
)
for (name, grid), grey, grain in zip(grids.items(), (-0.815, -0.782, -0.674), (0.0, 0.0, 0.5)):
    (signal, _), (_, noise) = ddpm.schedule.signal_noise(grid[0][0]), ddpm.schedule.signal_noise(grid[-1][1])
    print(f"{name}: {signal:.2f} of signal expected at the start, {noise:.2f} of noise left at the end")
    band(float(rows[name].mean()), grey - 0.016, grey + 0.016, "brightness")
    band(
        float(rows[name][..., :4, :4].std()), max(grain - 0.1, 0), grain + 0.1, "grain in a corner that should be black"
    )

# %% [markdown]
r"""
## Exercises

**09a.** Chapter 03 had a second variance, `"beta"`: $1 - \bar\alpha_t/\bar\alpha_s$. Which $\eta$ in (9.3) gives it?
"""


# %%
def answer_09a(t, s, schedule):
    """0 < s < t. Returns eta, a number."""
    ...


check("09a", answer_09a)

# %% [markdown]
r"""
<details><summary>Hint 09a</summary>

Set $\sigma^2$ equal to it. Most of the factors are on both sides.
</details>

<details><summary>Solution 09a</summary>

```python
def answer_09a(t, s, schedule):
    wanted = 1 - schedule.alpha_bar[t] / schedule.alpha_bar[s]
    at_eta_1 = (1 - schedule.alpha_bar[s]) / (1 - schedule.alpha_bar[t]) * wanted
    return float((wanted / at_eta_1) ** 0.5)
```

It is above 1, and different in every step. The DDIM paper calls that sampler $\hat\sigma$. The library accepts
$\eta$ up to 1 and has `p_sample_loop(variance="beta")` for it.
</details>

**09b.** Carry the two lines over to another clock. A solver steps along $\mathrm dx/\mathrm d\varphi = \hat v$ with
$x_s = x_t + (\varphi_s - \varphi_t)\,w$. Which $w$ makes it second order, given the direction now, the one before, this turn and the one before?
"""


# %%
def answer_09b(v_hat, v_before, turn, turn_before):
    """Directions of shape (b, c, h, w); turns are numbers. Returns w, of the same shape."""
    ...


check("09b", answer_09b)

# %% [markdown]
r"""
<details><summary>Hint 09b</summary>

Where should the direction be known? Draw the line through the two that you have, and mind that the turns may differ.
</details>

<details><summary>Solution 09b</summary>

```python
def answer_09b(v_hat, v_before, turn, turn_before):
    slope = (v_hat - v_before) / turn_before
    return v_hat + slope * turn / 2
```

With equal turns it is $\frac32 \hat v - \frac12 \hat v'$, known as the method of Adams and Bashforth, of 1883.
</details>

**09c.** A solver of a known order has error `found` with `calls` calls. How many calls does it need for an error of at most
`wanted`?
"""


# %%
def answer_09c(found, calls, order, wanted):
    """order: 1, 2 or 3. Returns a whole number of calls."""
    ...


check("09c", answer_09c)

# %% [markdown]
r"""
<details><summary>Hint 09c</summary>

The error is $c / n^{\text{order}}$. You know it at one $n$, which gives $c$. Then solve for $n$, and think of which way to round.
</details>

<details><summary>Solution 09c</summary>

```python
def answer_09c(found, calls, order, wanted):
    factor = found / wanted
    needed = calls * factor ** (1 / order)
    return -int(-needed // 1)  # rounded up
```

From 0.1 to 0.001 a first-order solver needs 100 times the calls, and a second-order one 10 times.
</details>

**09d.** Repair the leading grid of the museum: the same number of steps, of one size, from $T$ to 0.

```python
def broken(T, steps):
    times = [T // steps * k + 1 for k in range(steps - 1, -1, -1)]
    return list(zip(times, times[1:]))
```
"""


# %%
def answer_09d(T, steps):
    """steps divides T. Returns the grid, a list of pairs (t, s)."""
    ...


check("09d", answer_09d)

# %% [markdown]
r"""
<details><summary>Hint 09d</summary>

Print `broken(1000, 5)`. Two things are wrong, one at each end; and count its steps.
</details>

<details><summary>Solution 09d</summary>

```python
def answer_09d(T, steps):
    size = T // steps
    times = [size * k for k in range(steps, -1, -1)]
    return list(zip(times, times[1:]))
```

The broken grid had one step too few, started at $T - T/n + 1$, and stopped at 1.
</details>

**09e. Experiment: your own grid.** Find nine times from $T = 10000$ to 0 with which `dpm_solver_pp` has a smaller error than on the
grid that is even in $t$. Predict by which factor the error changes. Below 0.5 is good; 0.2 is possible.
"""

# %% tags=["setup"]
times = [10_000, 8750, 7500, 6250, 5000, 3750, 2500, 1250, 0]  # change these, not the ends


def factor(times):
    return error(dpm_solver_pp, list(zip(times, times[1:]))) / error(dpm_solver_pp, even)


# %%
prediction = None  # first write down what you expect
measured = None  # then change times, and put the number that factor(times) gives here
check("09e", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 09e</summary>

Look at `schedule.log_snr[times]`. Where does the last step begin, and how much noise is left there?
</details>

<details><summary>Solution 09e</summary>

```python
lam = torch.linspace(-3, 6, 7, dtype=torch.float64)
inner = [int((schedule.log_snr[1:] - value).abs().argmin()) + 1 for value in lam]
prediction = 0.5
measured = factor([T, *inner, 0])
```

The last step uses $\hat x_0$ as it is, so it had better begin where little noise is left: at log-SNR 6 rather than at 3. And
between $T$ and log-SNR -3 these data need no call, since the answer hardly changes there.
</details>

## Symbols

| symbol | code name | meaning |
|---|---|---|
| $\varphi_t$ | `phi` | the angle from image to noise, (9.1) |
| $\hat v$ | `v_hat` | the direction of the film in the angle, (9.2) |
| $\eta$, $\sigma$ | `eta`, `sigma` | the share of fresh noise and its standard deviation, (9.3) |
| $m$, $V$ | `mean`, `variance` | of the data, pixel by pixel, (9.4) |
| $\lambda$ | `log_snr`, `lam` | log-SNR |
| $h$, $h'$ | `h`, `before` | half a step in log-SNR, now and before, (9.5) |
| $D$ | `D` | the answer in the middle of the step, (9.6) |

**Next:** [10 · Flow matching is the same film](10_flow_matching.ipynb). The curve of (9.2) can be drawn with another clock, in which
noise and image are joined by straight lines. Is it still the same curve?
"""
