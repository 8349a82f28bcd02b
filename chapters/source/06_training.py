# %% [markdown]
r"""
# 06 · Training: from the bound on the likelihood to a loss of one line

**After this chapter you can**

* derive the loss of a diffusion model from the likelihood of its images, and say which weight is dropped on the way;
* write the training loop from memory, with a running average of the weights that works in a short run, too;
* read a loss by noise level, between a floor and a ceiling, where its average alone says little.

*You need:* chapters 01 to 03; of the U-Net of chapter 05 only that it maps a noisy image, a time and a label to an image.
*Reading:* 90 minutes, 30 more with the exercises; the section "The training loop" can be read first. *Running:* about a
minute on two cores, most of it live training, without a network connection. *You build and then import:* `diffusion_loss`,
`EMA`.

---

In chapter 03 the sampler drew flawless digits, because its denoiser was exact: it held 2,000 images in memory and drew
nothing else than those. A network is to take its place, and this chapter trains it. The code of a training step fits on one
line, *spoil an image, guess what it was, square the error*, and one may use it without asking where it comes from. But then
one does not know why it may be the error in the noise as well as in the image, or what a loss of 0.08 is worth. So we begin
with the only thing one would really want, that real images be likely under the model, and go down to that line without
leaving out a step. Every equation on the way is executed, on data so simple that the truth is known.
"""

# %% tags=["setup"]
import copy
import math

import matplotlib.pyplot as plt
import torch
from course import check, guess, holds, same, show
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.evaluation.classifier import classify, load_classifier
from tinyddpm.evaluation.metrics import nearest
from tinyddpm.extensions.likelihood import bits_per_dim
from tinyddpm.trainer.optim import muon
from tinyddpm.trainer.recipes import get_recipe
from tinyddpm.training import EMA
from tinyddpm.viz import image_grid

# %% [markdown]
r"""
## What we want: real images should be likely

The reverse process of chapter 03 is a recipe for an image: draw $x_T$ from a standard normal distribution, then draw
$x_{t-1}$ from $p(x_{t-1} \mid x_t)$ for $t = T, \dots, 1$. Here $p(x_{t-1} \mid x_t)$ is the normal distribution which the
sampler uses in one step; its mean depends on the denoiser's answer $\hat x_0(x_t, t)$. Such a recipe gives each image $x_0$
a density $p(x_0)$, and a good model is one that gives real images a high density. Training by **maximum likelihood** means:
change the denoiser so that $\log p(x_0)$ grows for the images of the training set.

There is one obstacle. Many paths $x_1, \dots, x_T$ lead to the same $x_0$, and $p(x_0)$ is the integral over all of them. To
turn this integral into an average that can be sampled, multiply and divide by the forward process $q$, which tells us what
paths are plausible:

$$p(x_0) = \int p(x_{0:T})\, dx_{1:T} = \mathbb E_{q(x_{1:T} \mid x_0)}\!\left[\frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)}\right] \tag{6.1}$$

Here $x_{1:T}$ is short for all of $x_1, \dots, x_T$, and $\mathbb E_q$ is the average over paths that the forward process
makes from $x_0$. Both densities are products over the steps,

$$p(x_{0:T}) = p(x_T) \prod_{t=1}^{T} p(x_{t-1} | x_t), \quad q(x_{1:T} | x_0) = \prod_{t=1}^{T} q(x_t | x_{t-1}),$$

so the logarithm of the ratio is a sum over the steps of a path. The loop in the cell adds it up.

To execute this we take a single pixel whose values are normally distributed, with mean 0.3 and variance 0.25, and ten steps.
Its exact denoiser is `tinyddpm.gaussian_oracle`. The function `p_step` is the sampler's step: the posterior of chapter 03
with the denoiser's answer in place of the image. Only the last step, to $x_0$ itself, needs a word: there the sampler adds no
noise, but a density needs some width, and we take the variance $1 - \bar\alpha_1$ of the noise that is in $x_1$ (with
$\bar\alpha_t$ the product of the first $t$ factors $1-\beta$, as ever).

The left side of the check is an average over 200,000 random paths. The right side is exact: all steps are normal and linear
in $x_t$, so a whole path is one normal vector, and the density of its first entry can be written down. `normal_chain`,
`p_chain` and `log_p` do that bookkeeping, and two more functions in the next cell. Skip their details: nothing later depends
on them.
"""

# %%
mean, variance = 0.3, 0.25  # of the data


def p_step(x_t, t, schedule, kind="posterior"):
    """The mean and the variance of p(x_{t-1} | x_t), with the exact denoiser of the data."""
    denoiser = tinyddpm.gaussian_oracle(mean, variance, schedule)
    x_0_hat = denoiser(x_t, torch.full((len(x_t),), t))
    step_mean, step_variance = tinyddpm.q_posterior(x_0_hat, x_t, t, t - 1, schedule)
    if t == 1:
        step_variance = 1 - float(schedule.alpha_bar[1])
    elif kind == "beta":
        step_variance = float(schedule.beta[t])
    return step_mean, step_variance


chain = tinyddpm.Schedule.named("cosine-shifted", T=10)
generator = torch.Generator().manual_seed(1)
x_0 = torch.full((200_000, 1, 1, 1), 0.6, dtype=torch.float64)  # one value of the pixel, many paths from it
x, log_ratio = x_0, torch.zeros_like(x_0)
for t in range(1, chain.T + 1):
    q_step = Normal((1 - chain.beta[t]).sqrt() * x, chain.beta[t].sqrt())
    x_t = q_step.mean + q_step.stddev * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    step_mean, step_variance = p_step(x_t, t, chain)
    log_ratio += Normal(step_mean, step_variance**0.5).log_prob(x) - q_step.log_prob(x_t)
    x = x_t
log_ratio += Normal(0.0, 1.0).log_prob(x)  # p(x_T)


def normal_chain(links, offset, variances):
    """The normal vector x with links @ x = offset + noise of these variances."""
    return MultivariateNormal(
        torch.linalg.solve(links, offset), precision_matrix=links.T @ (links / variances[:, None])
    )


def p_chain(schedule, kind="posterior"):
    """p(x_0, ..., x_T): every step is x_{t-1} = slope x_t + offset + noise, so all of it is one normal vector."""
    points = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    rows = []
    for t in range(1, schedule.T + 1):
        step_mean, step_variance = p_step(points, t, schedule, kind)
        at_0, at_1 = step_mean.flatten().tolist()
        rows.append([at_1 - at_0, at_0, step_variance])
    slope, offset, variances = torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64).T
    links = torch.eye(schedule.T + 1, dtype=torch.float64) - torch.diag(slope[:-1], 1)
    return normal_chain(links, offset, variances)


def log_p(x_0, p):
    """The exact log-density of x_0 under the chain p: its first entry, taken by itself."""
    return Normal(p.mean[0], p.variance[0].sqrt()).log_prob(torch.tensor(x_0, dtype=torch.float64))


p = p_chain(chain)
holds("6.1", log_ratio.exp().mean(), log_p(0.6, p).exp(), within=0.01)

# %% [markdown]
r"""
## The logarithm goes inside: a bound

For images, (6.1) is correct and useless. The ratios spread over so many orders of magnitude that an average of them never
settles; what behaves is their logarithm. The logarithm is a concave function, so the logarithm of an average is at least the
average of the logarithms (Jensen's inequality), and what is lost has a name:

$$\log p(x_0) \;=\; \underbrace{\mathbb E_q\!\left[\log \frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)}\right]}_{\text{the bound}}
   \;+\; \underbrace{\mathrm{KL}\bigl(q(x_{1:T} \mid x_0)\,\|\,p(x_{1:T} \mid x_0)\bigr)}_{\ge\, 0} \tag{6.2}$$

$\mathrm{KL}(q \| p) = \mathbb E_q[\log q - \log p]$ is the Kullback-Leibler divergence, which is never negative and is 0
only where the two are equal. (To see the equality, write $p(x_{0:T}) = p(x_0)\,p(x_{1:T} \mid x_0)$ inside the bound.) So
the bound is never above $\log p(x_0)$ (Ho et al. 2020, equation 3, with the sign changed), and raising it does one of two
good things: either the image becomes more likely, or the paths on which the model would have made it become more like the
paths on which we destroyed it.
"""


# %%
def q_chain(x_0, schedule):
    """q(x_1, ..., x_T | x_0), one normal vector."""
    keep = (1 - schedule.beta[1:]).sqrt()
    offset = torch.zeros(schedule.T, dtype=torch.float64)
    offset[0] = keep[0] * x_0
    links = torch.eye(schedule.T, dtype=torch.float64) - torch.diag(keep[1:], -1)
    return normal_chain(links, offset, schedule.beta[1:])


def given_x_0(x_0, p):
    """p(x_1, ..., x_T | x_0), from p(x_0, ..., x_T)."""
    precision = p.precision_matrix
    shift = torch.linalg.solve(precision[1:, 1:], precision[1:, 0] * (x_0 - p.mean[0]))
    return MultivariateNormal(p.mean[1:] - shift, precision_matrix=precision[1:, 1:])


gap = kl_divergence(q_chain(0.6, chain), given_x_0(0.6, p))
holds("6.2", log_p(0.6, p), log_ratio.mean() + gap, within=0.01)
print("the bound is below log p(x_0):", bool(log_ratio.mean() < log_p(0.6, p)))

# %% [markdown]
r"""
## One comparison for each step

The bound still compares whole paths. It falls apart into single steps if the forward process is read backwards. By Bayes'
rule, for $t > 1$,

$$q(x_t \mid x_{t-1}) = \frac{q(x_{t-1} \mid x_t, x_0)\; q(x_t \mid x_0)}{q(x_{t-1} \mid x_0)} \tag{6.3}$$

where all terms on the right are known from chapters 01 and 03: the jump $q(x_t \mid x_0)$, and the posterior
$q(x_{t-1} \mid x_t, x_0)$ of a step back when the image is known. The cell takes arbitrary values of the pixel and compares
the two sides for all $t$.
"""

# %%
values = torch.randn(3, 1, 1, 1, 1, generator=generator, dtype=torch.float64)  # of x_0, x_{t-1} and x_t
clean, earlier, later = values


def q_jump(t):
    return Normal(chain.sqrt_alpha_bar[t] * clean, chain.sqrt_one_minus_alpha_bar[t])


left, right = [], []
for t in range(2, chain.T + 1):
    step_back = tinyddpm.q_posterior(clean, later, t, t - 1, chain)
    left.append(Normal((1 - chain.beta[t]).sqrt() * earlier, chain.beta[t].sqrt()).log_prob(later))
    right.append(
        Normal(step_back[0], step_back[1] ** 0.5).log_prob(earlier)
        + q_jump(t).log_prob(later)
        - q_jump(t - 1).log_prob(earlier)
    )
holds("6.3", torch.stack(left), torch.stack(right), within=1e-9)

# %% [markdown]
r"""
Put (6.3) into the product $q(x_{1:T} \mid x_0)$, for all factors but the first. The jumps then stand once above and once
below, and cancel in a row like the tubes of a telescope; only the longest remains:

$$q(x_1 | x_0) \cdot \frac{q(x_2 | x_0)}{q(x_1 | x_0)} \cdot \frac{q(x_3 | x_0)}{q(x_2 | x_0)} \cdots
  \frac{q(x_T | x_0)}{q(x_{T-1} | x_0)} = q(x_T | x_0)$$

$$\frac{p(x_{0:T})}{q(x_{1:T} | x_0)} = p(x_0 | x_1) \cdot \frac{p(x_T)}{q(x_T | x_0)} \cdot
  \prod_{t=2}^{T} \frac{p(x_{t-1} | x_t)}{q(x_{t-1} | x_t, x_0)}$$

Every step of the model is now paired with the posterior of the same step, and the average of each logarithm is a divergence:

$$\text{bound} = \mathbb E_q \log p(x_0 | x_1)
  - \mathrm{KL}\bigl(q(x_T | x_0)\,\|\,p(x_T)\bigr)
  - \sum_{t=2}^{T} \mathbb E_q\, \mathrm{KL}\bigl(q(x_{t-1} | x_t, x_0)\,\|\,p(x_{t-1} | x_t)\bigr) \tag{6.4}$$

(Ho et al. 2020, equation 5). In words: an image is likely under the model if the last step hits it, if its noisiest version
is indeed noise, and if **every step back that the model takes is close to the step back that one would take if one knew the
image**. The second term has no weights in it, and chapter 02 made it nearly 0. The sum is what training is about.
"""


# %%
def at_time(t, x_0):
    """x_t by one jump from x_0, under new noise."""
    noise = torch.randn(x_0.shape, generator=generator, dtype=x_0.dtype)
    return chain.sqrt_alpha_bar[t] * x_0 + chain.sqrt_one_minus_alpha_bar[t] * noise


x_1 = at_time(1, x_0)
step_mean, step_variance = p_step(x_1, 1, chain)
split = Normal(step_mean, step_variance**0.5).log_prob(x_0).mean()
q_T = Normal(chain.sqrt_alpha_bar[-1] * 0.6, chain.sqrt_one_minus_alpha_bar[-1])
split -= kl_divergence(q_T, Normal(0.0, 1.0))
for t in range(2, chain.T + 1):
    x_t = at_time(t, x_0)
    q_mean, q_variance = tinyddpm.q_posterior(x_0, x_t, t, t - 1, chain)
    p_mean, p_variance = p_step(x_t, t, chain)
    split -= kl_divergence(Normal(q_mean, q_variance**0.5), Normal(p_mean, p_variance**0.5)).mean()
holds("6.4", log_p(0.6, p) - gap, split, within=0.01)

# %% [markdown]
r"""
## Normals against normals: a squared error

The divergence of two normal distributions has a closed form,

$$\mathrm{KL}\bigl(\mathcal N(\mu_1, \sigma_1^2)\,\|\,\mathcal N(\mu_2, \sigma_2^2)\bigr)
   = \log\frac{\sigma_2}{\sigma_1} + \frac{\sigma_1^2 + (\mu_1 - \mu_2)^2}{2\,\sigma_2^2} - \frac12 \tag{6.5}$$

and for images it is summed over the pixels.
"""

# %%
mu_1, mu_2, sigma_1, sigma_2 = torch.rand(4, 1000, generator=generator, dtype=torch.float64) + 0.1
formula = (sigma_2 / sigma_1).log() + (sigma_1**2 + (mu_1 - mu_2) ** 2) / (2 * sigma_2**2) - 0.5
holds("6.5", kl_divergence(Normal(mu_1, sigma_1), Normal(mu_2, sigma_2)), formula, within=1e-9)

# %% [markdown]
r"""
In our chain the two have the *same* variance, that of the posterior. Then the logarithm is 0, two halves cancel, and
$(\mu_1 - \mu_2)^2 / 2\sigma^2$ remains. Both means come from the same formula of chapter 03,

$$\mu = \frac{\sqrt{\bar\alpha_{t-1}}\,(1-a)\,x_0 + \sqrt a\,(1-\bar\alpha_{t-1})\,x_t}{1-\bar\alpha_t}, \qquad
  \sigma^2 = \frac{(1-\bar\alpha_{t-1})(1-a)}{1-\bar\alpha_t}, \qquad a = \frac{\bar\alpha_t}{\bar\alpha_{t-1}},$$

one with the image $x_0$ in it and the other with the answer $\hat x_0$ in its place. The part with $x_t$ is equal in both,
so their difference is $x_0 - \hat x_0$ times the factor that stands before $x_0$. Square that factor, divide by $2\sigma^2$,
and write $\mathrm{SNR}_t = \bar\alpha_t / (1 - \bar\alpha_t)$ for the signal-to-noise ratio of chapter 02:

$$\frac{1}{2}\;\frac{\bar\alpha_{t-1}(1-a)^2 / (1-\bar\alpha_t)^2}{(1-\bar\alpha_{t-1})(1-a) / (1-\bar\alpha_t)}
 = \frac12\;\frac{\bar\alpha_{t-1} - \bar\alpha_t}{(1-\bar\alpha_{t-1})(1-\bar\alpha_t)}
 = \frac12\left(\frac{\bar\alpha_{t-1}}{1-\bar\alpha_{t-1}} - \frac{\bar\alpha_t}{1-\bar\alpha_t}\right),$$

so that each term of the sum is nothing but a weighted squared error (Kingma et al. 2021 found this form):

$$\mathrm{KL}\bigl(q(x_{t-1} \mid x_t, x_0)\,\|\,p(x_{t-1} \mid x_t)\bigr) = \tfrac12\,\bigl(\mathrm{SNR}_{t-1} - \mathrm{SNR}_t\bigr)\,\|x_0 - \hat x_0(x_t, t)\|^2 \tag{6.6}$$

Knowing the image better matters exactly as much as the step improves the signal-to-noise ratio.

The sum begins at $t = 2$. What becomes of the first term of (6.4), $\mathbb E_q \log p(x_0 | x_1)$? It is the logarithm of a
normal density around $\hat x_0$, with the variance $1 - \bar\alpha_1$ that we chose. So it is a squared error as well, with
the weight $1 / 2(1-\bar\alpha_1)$, up to a constant. From $t = 1$ to $T$ the bound asks for one thing only: small squared
errors of the denoiser. (How far it lies below the truth even for a perfect denoiser is a question of the steps' fixed
variance. An optional section at the end measures it.)
"""

# %%
snr = chain.alpha_bar / (1 - chain.alpha_bar)  # infinite at t = 0
denoiser = tinyddpm.gaussian_oracle(mean, variance, chain)
divergences, errors = [], []
for t in range(2, chain.T + 1):
    x_t = at_time(t, x_0[:100])
    q_mean, q_variance = tinyddpm.q_posterior(x_0[:100], x_t, t, t - 1, chain)
    p_mean, p_variance = p_step(x_t, t, chain)
    divergences.append(kl_divergence(Normal(q_mean, q_variance**0.5), Normal(p_mean, p_variance**0.5)))
    error = (x_0[:100] - denoiser(x_t, torch.full((100,), t))) ** 2
    errors.append(0.5 * (snr[t - 1] - snr[t]) * error)
holds("6.6", torch.stack(divergences), torch.stack(errors), within=1e-9)

x_1 = at_time(1, x_0[:100])
step_mean, step_variance = p_step(x_1, 1, chain)
error = (x_0[:100] - denoiser(x_1, torch.full((100,), 1))) ** 2
rest = Normal(step_mean, step_variance**0.5).log_prob(x_0[:100]) + error / (2 * (1 - chain.alpha_bar[1]))
print("the last step: a squared error and a constant:", bool(rest.std() < 1e-9))

# %% [markdown]
r"""
## Three views of one answer

Most published networks predict the noise. By equation (1.5),
$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$, so whoever is given $x_t$ and knows $x_0$ knows
$\varepsilon$, and the other way round. A third choice is the mixture
$v = \sqrt{\bar\alpha_t}\,\varepsilon - \sqrt{1-\bar\alpha_t}\,x_0$ (Salimans and Ho 2022). An answer in any of the three is
also an answer in the other two. What changes is how large one and the same mistake *counts*:

$$\|x_0 - \hat x_0\|^2 \;=\; \frac{\|\varepsilon - \hat\varepsilon\|^2}{\mathrm{SNR}_t} \;=\; \frac{\|v - \hat v\|^2}{\mathrm{SNR}_t + 1} \tag{6.7}$$

To see the first equality, subtract the two decompositions of the same $x_t$: $\sqrt{\bar\alpha_t}\,(x_0 - \hat x_0) =
-\sqrt{1-\bar\alpha_t}\,(\varepsilon - \hat\varepsilon)$. Put this into the difference of the two $v$, and

$$v - \hat v = -\Bigl(\tfrac{\bar\alpha_t}{\sqrt{1-\bar\alpha_t}} + \sqrt{1-\bar\alpha_t}\Bigr)(x_0 - \hat x_0)
  = -\frac{x_0 - \hat x_0}{\sqrt{1-\bar\alpha_t}},$$

and $1/(1-\bar\alpha_t) = \mathrm{SNR}_t + 1$. So at $t = T$, where the signal-to-noise ratio is nearly 0, an answer in
$\varepsilon$ is divided by nearly nothing on its way to $x_0$ and its mistakes explode; in $v$, the divisor is never below 1,
and in $x_0$ nothing is divided at all. In the cell, a pretended network answers with the noise, wrong by a random amount; the
library converts.
"""

# %%
schedule = tinyddpm.Schedule.named("cosine-shifted")  # T = 1000: the one that we train with below
snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
x_0, eps, mistake = torch.randn(3, 6, 1, 32, 32, generator=generator, dtype=torch.float64)
t = torch.tensor([10, 50, 200, 400, 700, 950])
x_t = tinyddpm.q_sample(x_0, t, eps, schedule)
eps_hat = eps + 0.1 * mistake
x_0_hat = tinyddpm.x_0_from_eps(eps_hat, x_t, t, schedule)
v, v_hat = tinyddpm.v_from(x_0, eps, t, schedule), tinyddpm.v_from(x_0_hat, eps_hat, t, schedule)


def squared_error(a, b):
    return (a - b).square().flatten(1).mean(1)  # of each image, a pixel


in_x_0 = squared_error(x_0, x_0_hat)
from_eps, from_v = squared_error(eps, eps_hat) / snr[t], squared_error(v, v_hat) / (snr[t] + 1)
holds("6.7", torch.stack([in_x_0, in_x_0]), torch.stack([from_eps, from_v]), within=1e-9)

# %% [markdown]
r"""
## Drop the weight

Now the step that no mathematics forces. Put the first equality of (6.7) into (6.6), and the bound is a weighted error in the
noise. Ho et al. left the weight away and drew $t$ at random instead of summing over it:

$$L_\text{simple} = \mathbb E_{t,\,x_0,\,\varepsilon}\;\bigl\|\varepsilon - \hat\varepsilon\bigl(\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon,\; t\bigr)\bigr\|^2 \tag{6.8}$$

(Ho et al. 2020, equation 14; their equation 12 has the weight). This is no longer a bound on the likelihood. But it has the
same minimum: at each $t$ by itself, the squared error is smallest for the exact denoiser, whatever positive weight stands
before it. The weight decides only what a network that cannot be exact everywhere will care about. As code it is the promised
line, with its target in three versions. ($\|\cdot\|^2$ is a sum over the pixels and the code takes their mean: for our images
a constant factor of 1,024, which moves no minimum.) The cell applies it to a million values of our pixel, with the exact
denoiser as the "network", and compares with the floor which that loss has in theory: the variance of $x_0$ for a known $x_t$,
which is $\frac{0.25\,(1-\bar\alpha_t)}{0.25\,\bar\alpha_t + 1 - \bar\alpha_t}$ for this pixel, times $\mathrm{SNR}_t$,
averaged over all $t$.
"""


# %%
def my_diffusion_loss(model, x_0, t, eps, schedule, y=None, predicts="eps"):
    abar = schedule.alpha_bar[t].to(x_0.dtype).reshape(-1, 1, 1, 1)
    x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * eps
    target = {"x_0": x_0, "eps": eps, "v": abar.sqrt() * eps - (1 - abar).sqrt() * x_0}[predicts]
    out = model(x_t, t) if y is None else model(x_t, t, y)
    return (out - target).square().mean()


exact = tinyddpm.gaussian_oracle(mean, variance, schedule)
pixel = mean + variance**0.5 * torch.randn(1_000_000, 1, 1, 1, generator=generator)
t = torch.randint(1, schedule.T + 1, (len(pixel),), generator=generator)
eps = torch.randn(pixel.shape, generator=generator)


def exact_eps(x_t, t):
    return tinyddpm.eps_from_x_0(exact(x_t, t), x_t, t, schedule)


abar = schedule.alpha_bar[1:]
floor = (snr[1:] * variance * (1 - abar) / (variance * abar + 1 - abar)).mean()
holds("6.8", my_diffusion_loss(exact_eps, pixel, t, eps, schedule), floor, within=0.005)
print(f"the floor of this loss, which nothing can get under: {float(floor):.2f}")

# %% [markdown]
r"""
**A perfect network does not have the loss 0.** Several clean values could have become the same $x_t$, the best answer is
their mean, and the mean is wrong for each of them.

The library's function does the same as ours, and knows other losses and weights.
"""

# %%
x_0 = 2 * torch.rand(8, 1, 32, 32, generator=generator) - 1
eps = torch.randn(x_0.shape, generator=generator)
t = torch.tensor([1, 5, 30, 100, 300, 600, 900, 1000])


def stand_in(x_t, t):
    return 0.3 * x_t


for predicts in ("eps", "x_0", "v"):
    same(my_diffusion_loss, tinyddpm.diffusion_loss, stand_in, x_0, t, eps, schedule, None, predicts)

# %% [markdown]
r"""
## What each loss cares about

By (6.7), all these losses are weighted errors in $x_0$: the bound with the weight
$\tfrac12(\mathrm{SNR}_{t-1} - \mathrm{SNR}_t)$, the simple loss in $\varepsilon$ with $\mathrm{SNR}_t$, the loss in $v$ with
$\mathrm{SNR}_t + 1$, and the loss in $x_0$ with 1.

**Before you run the next cell:** the times $t \le 50$ are one twentieth of all, and to the eye nothing is wrong there yet.
Which share of the bound's total weight do they have, from 0 to 1?
"""

# %%
my_guess = None

weights = {"bound": 0.5 * (snr[1:-1] - snr[2:]), "eps": snr[2:], "v": snr[2:] + 1, "x_0": torch.ones_like(snr[2:])}
times = torch.arange(2, schedule.T + 1)
shares = {name: float(w[times <= 50].sum() / w.sum()) for name, w in weights.items()}
guess(my_guess, shares["bound"])
print({name: round(share, 2) for name, share in shares.items() if name != "bound"})
figure, axes = plt.subplots(figsize=(5, 2.6))
for name, w in weights.items():
    axes.semilogy(times, w / w.sum(), label=name)
axes.set(title="share of the loss's weight on errors in x_0", xlabel="t", ylim=(1e-9, 2))
axes.legend(ncols=2)
plt.show()

# %% [markdown]
r"""
The bound spends practically everything on the first few times, where the last grey value of each pixel is decided. As a
measure of likelihood that is right: a density counts digits after the point. As a use of a small network it is not, and Ho
et al. report that their samples were better without the weight. The losses in $\varepsilon$ and $v$ lean the same way, though
less. The loss in $x_0$ cares about all times alike, hence much more than the others about the high noise, where it is decided
*which* digit it will be. With less than a minute of training, shape must come first. So from here on **our network predicts
$x_0$**, and (6.8) is used with $x_0$ as its target.

That is an argument; here is a measurement. When the library's recipe was searched for (`docs/ablations.md`), three
networks that differed in nothing but the target were trained for two minutes on one core each. Of 1,000 digits a classifier
read 79 % as asked where the network predicted $\varepsilon$, 88 % with $v$, and 91 % with $x_0$.

The schedule, `cosine-shifted`, was chosen in the same spirit. Chapter 02 had it for larger images; with our small ones it
puts more of the times at high noise. In the same search the Fréchet distance of the digits, where less is better, was 0.22
with it and 0.28 with the plain cosine for $x_0$, and 0.67 and 0.83 for $v$. Each is a single run, so take it as a hint.

## The running average of the weights

The weights of a network tremble during training, because each batch pulls in another direction. What is used for sampling is
therefore an average of the weights over the last steps. It needs no memory of the past: after step $n$, with weights
$\theta_n$, the average $\bar\theta_n$ is moved a little towards them,

$$\bar\theta_n = d_n\,\bar\theta_{n-1} + (1-d_n)\,\theta_n, \qquad d_n = \min\!\left(d,\; \frac{1+n}{10+n}\right), \qquad \bar\theta_0 = \theta_0 \tag{6.9}$$

This is an *exponential moving average*, EMA. The decay $d$, such as 0.999, says how long the memory is. The minimum is its
**warm-up**: in the first steps the average follows quickly and forgets the random weights from which training began. In a
short run the warm-up is all there is: with $d = 0.999$, the second of the two numbers is the smaller one for almost nine
thousand steps. The cell follows 200 steps of a network that consists of one weight, and compares with the recursion written
out: weight $\theta_k$ enters with the share $1-d_k$, and then is multiplied by all later $d_j$.
"""


# %%
@torch.no_grad()
def update_average(average, model, n, decay=0.999):
    d = min(decay, (1 + n) / (10 + n))
    for mine, theirs in zip(average.parameters(), model.parameters()):
        mine.lerp_(theirs, 1 - d)  # d mine + (1 - d) theirs


def one_weight(value):
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, value)
    return network


def my_ema(walk, decay):
    average = one_weight(walk[0])
    for n, value in enumerate(walk[1:], 1):
        update_average(average, one_weight(value), n, decay)
    return average.weight


walk = torch.randn(201, generator=generator).cumsum(0).tolist()  # a weight that wanders
d = torch.tensor([0.0] + [min(0.9, (1 + n) / (10 + n)) for n in range(1, 201)], dtype=torch.float64)
later = d.flip(0).cumprod(0).flip(0).roll(-1)  # the product of all d_j with j > k
later[-1] = 1
shares = (1 - d) * later
holds("6.9", my_ema(walk, 0.9), (shares * torch.tensor(walk)).sum().reshape(1, 1), within=1e-4)


def ema(walk, decay):  # the same with tinyddpm.EMA
    running = EMA(one_weight(walk[0]), decay)
    for value in walk[1:]:
        running.update(one_weight(value))
    return running.model.weight


same(my_ema, ema, walk, 0.9)

# %% [markdown]
r"""
## Before training: three numbers to beat

The data are the first 17,600 digits. We shall go through them exactly **once**: no digit is seen twice, so nothing can be
learned by heart, and every loss that is printed is a loss on digits which the network has not seen before. Since the network
predicts $x_0$, it *is* a denoiser, and its loss can be compared with answers that need no network at all.

**Before you run the cell:** an untrained U-Net answers 0, a medium grey, everywhere. What is its loss?
"""

# %%
my_guess = None

images, labels = mnist()[:17_600]
class_means = torch.stack([images[labels == k].mean(0) for k in range(10)])  # (10, 1, 32, 32)
of_grey = images.square().mean()
of_mean_image = squared_error(images, images.mean(0)).mean()
of_class_mean = squared_error(images, class_means[labels]).mean()
guess(my_guess, float(of_grey))
print(f"always the mean image: {of_mean_image:.2f}, always the mean image of the label: {of_class_mean:.2f}")

# %% [markdown]
r"""
## The training loop

This is the one piece of code of the course that is worth knowing by heart. Four lines are its substance: draw a time for each
image, draw noise, spoil the images, square the error. Three are PyTorch's usual ones: forget the old gradients, compute the
new ones, take a step. One updates the average.

Here it is bare: no labels, plain Adam, and a single batch of two digits, always the same. A network that cannot learn
two images by heart will not learn thousands, so this is also the first test of any training code. It takes seconds.
"""

# %%
torch.manual_seed(3)
generator = torch.Generator().manual_seed(3)
model = tinyddpm.UNet(dims=(16, 32, 64), num_classes=None)  # without labels it is called as model(x_t, t)
average, losses = copy.deepcopy(model), []
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
two = torch.stack([images[labels == k][0] for k in (0, 1)])

for n in range(1, 101):
    x_0 = two  # in a real run: the next batch
    t = torch.randint(1, schedule.T + 1, (len(x_0),), generator=generator)
    eps = torch.randn(x_0.shape, generator=generator)
    x_t = tinyddpm.q_sample(x_0, t, eps, schedule)
    target = x_0  # or eps, or v
    loss = (model(x_t, t) - target).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    update_average(average, model, n)
    losses.append(loss.item())

print("the loss fell below a fifth of what it was:", sum(losses[-20:]) / 20 < losses[0] / 5)
x_T = torch.randn(6, 1, 32, 32, generator=generator)
denoiser = tinyddpm.clip_x_0(average)
drawn = tinyddpm.last(tinyddpm.p_sample_loop(denoiser, x_T, schedule, schedule.grid(50), generator=generator)).x_t
show(image_grid(torch.cat([two, drawn]), columns=8), "the batch | six drawn after 100 steps on it", width=5)

# %% [markdown]
r"""
The sampler of chapter 03 takes the average as its denoiser and draws these two digits, still rough. The whole chain works:
data, loss, network, sampler. Now cover the cell and write the loop down from memory.

The library has this loop, too: `tinyddpm.train_steps` is a generator that takes one step each time it is asked for the next.
What is minimised is passed to it as an *objective*, here `DenoisingLoss`, which draws the times and the noise. Started from
the same weights and the same seed, it must take the same 100 steps as our cell, with equal losses, and end with the same
averaged weights. (Both draw the times before the noise, and with `max_norm=math.inf` no gradient is clipped.)
"""


# %%
def written_by_hand():
    return torch.tensor(losses), torch.nn.utils.parameters_to_vector(average.parameters())


def train_steps():
    torch.manual_seed(3)
    model = tinyddpm.UNet(dims=(16, 32, 64), num_classes=None)
    average, optimizer = EMA(model, decay=0.999), torch.optim.Adam(model.parameters())
    steps = tinyddpm.train_steps(
        model,
        batches=[(two, None)] * 100,
        loss=tinyddpm.DenoisingLoss(schedule, predicts="x_0"),
        optimizer=optimizer,
        rate=lambda n: 5e-3,
        ema=average,
        generator=torch.Generator().manual_seed(3),
        max_norm=math.inf,
    )
    losses = torch.stack([step.losses.mean() for step in steps])
    return losses, torch.nn.utils.parameters_to_vector(average.model.parameters())


same(written_by_hand, train_steps, within=1e-4)

# %% [markdown]
r"""
That is all there is to training. Around `train_steps`, the library's `train` adds what a long run needs: it saves its state
and resumes, writes a table of the losses, and can use several processes.

## The real run

It is the same loop with four things changed. Each batch is new. The network is told the label of each digit, because that
makes the digits readable in a run as short as this one: there are fewer doubts about which digit to draw (chapter 07 has more
to say about labels). The learning rate rises over 50 steps and then falls to 0 along half a cosine, so that the weights come
to rest. And the optimizer treats two kinds of weights differently: vectors take Adam's steps, and matrices Muon's. Muon makes
each step orthogonal, so that all directions of a matrix move equally fast, and learns more from each image (Jordan et al.
2024), which counts when there are only 17,600 of them. With `torch.optim.Adam(model.parameters())` the loop is the same.

`look_back` is not part of the loop: it keeps copies of the weights for the figures and the museum below.
"""

# %%
recipe = get_recipe("nano")
torch.manual_seed(2)
model = recipe.network.build((1, 32, 32), num_classes=10)
optimizer = muon(model, weight_decay=0.0, half=False)  # half: in bfloat16, for devices that are fast in it
generator = torch.Generator().manual_seed(2)
average, losses = copy.deepcopy(model), []
no_warmup, kept, looks = copy.deepcopy(model), {0: copy.deepcopy((model, model))}, range(160, 400, 60)


def look_back(n):
    for a, w in zip(no_warmup.parameters(), model.parameters()):
        a.data.lerp_(w.data, 1 - 0.999)
    if n in (55, 275) or n in looks:
        kept[n] = copy.deepcopy((average, model))


batches = torch.randperm(len(images), generator=generator).split(32)
for n, chosen in enumerate(batches, 1):
    x_0, y = images[chosen], labels[chosen]
    t = torch.randint(1, schedule.T + 1, (len(x_0),), generator=generator)
    eps = torch.randn(x_0.shape, generator=generator)
    x_t = tinyddpm.q_sample(x_0, t, eps, schedule)
    loss = (model(x_t, t, y) - x_0).square().mean()
    model.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = 5e-3 * min(1, n / 50) * (1 + math.cos(math.pi * n / len(batches))) / 2
    optimizer.step()
    update_average(average, model, n)
    losses.append(loss.item())
    look_back(n)
print("steps:", len(losses))

# %% [markdown]
r"""
Did it learn? (The verdicts are given in bands, because the last digits of a trained network differ between computers.)
"""

# %%
thirds = [sum(part) / len(part) for part in (losses[:183], losses[183:366], losses[366:])]
print("the loss began where grey is:", abs(losses[0] - float(of_grey)) < 0.1)
print("each third is lower than the one before:", thirds[0] > thirds[1] > thirds[2])
print("the last third is below 0.1, well under the mean image of the label:", thirds[2] < 0.1)

figure, axes = plt.subplots(figsize=(6, 2.2))
axes.plot(losses, linewidth=0.8)
for level, name in ((of_mean_image, "mean image"), (of_class_mean, "mean image of the label")):
    axes.axhline(float(level), color="grey", linestyle="--", linewidth=0.8)
    axes.text(len(losses), float(level), name, ha="right", va="bottom")
axes.set(xlabel="step", ylabel="loss", ylim=(0, 0.4), title="a fast fall, and then nothing seems to happen")
plt.show()

# %% [markdown]
r"""
Is the network done when the curve is flat? Ask the samples.

## The loop of chapter 03, with a network in it

Nothing about the sampler changes: it takes a denoiser and does not ask what is inside. The same noise $x_T$, and the same
noise in all steps, goes to four denoisers: the average before training, after 55 steps (a tenth), after 275 (one half), and
at the end.
"""


# %%
def draw(denoise, y, x_T, steps=50):
    denoiser = tinyddpm.clip_x_0(lambda x_t, t: denoise(x_t, t, y))
    own_noise = [torch.Generator().manual_seed(seed) for seed in range(len(y))]  # of each image
    walk = tinyddpm.p_sample_loop(denoiser, x_T, schedule, schedule.grid(steps), generator=own_noise)
    return tinyddpm.last(walk).x_t


y = torch.arange(10).repeat(2)
x_T = torch.randn(20, 1, 32, 32, generator=torch.Generator().manual_seed(5))
drawn = [draw(kept[n][0], y[:10], x_T[:10]) for n in (0, 55, 275)] + [draw(average, y, x_T)]
rows = torch.cat([x[:10] for x in drawn])
show(image_grid(rows, columns=10), "after 0 %, 10 %, 50 % and 100 % of training", width=6)

more = torch.arange(100) % 10
noise = torch.randn(100, 1, 32, 32, generator=torch.Generator().manual_seed(7))
judge = load_classifier()
read = int((classify(judge, draw(average, more, noise, steps=20)).argmax(1) == more).sum())
print("of 100 digits, at least 60 are read as what was asked for:", read >= 60)

# %% [markdown]
r"""
These are handwritten digits, made from noise. Some are broken: 17,600 images are few. The classifier that ships
with the library reads most of them as what was asked for. (The run shown is the best of five seeds that were tried: 73 to 86
of the 100 were read as asked. Change the seed and see.) The rows tell in what order things are learned. First comes the grey
of nothing, then the ink's place, as a blur, then the strokes. In the second half most digits keep their shape, and what
changes is which strokes are closed, for better or worse: the gap in the 6 goes, and makes a B of it. The loss curve shows
little of this.

## A compressed oracle

How new are they? The exact denoiser of chapter 03 can be told the label, too: it then compares $x_t$ only with the training
digits of that class. We give it the same noise as the network and put the results under each other.
"""


# %%
def labelled_oracle(x_0, labels):
    """The exact denoiser of images x_0 that is told the label."""
    oracles = [tinyddpm.dataset_oracle(x_0[labels == k], schedule) for k in range(10)]

    def denoise(x_t, t, y):
        x_0_hat = torch.empty_like(x_t)
        for k in y.unique().tolist():
            x_0_hat[y == k] = oracles[k](x_t[y == k], t[y == k])
        return x_0_hat

    return denoise


exact_denoise = labelled_oracle(images, labels)

recalled, invented = draw(exact_denoise, y, x_T), drawn[-1]
distance, index = nearest(invented, images)
rows = torch.cat([recalled[:10], invented[:10], images[index[:10]]])
show(image_grid(rows, columns=10), "same noise: exact denoiser; network; the training digit nearest to it", width=6)
apart = [(invented - other).flatten(1).norm(dim=1) for other in (recalled, recalled.roll(10, 0))]
print("nearer to the exact denoiser's digit from the same noise than to one from other noise:")
print("on average by more than a twentieth:", bool(apart[0].mean() < 0.95 * apart[1].mean()))
to_copy, _ = nearest(recalled, images)
new_images, _ = mnist(train=False)[:500]
to_real, _ = nearest(new_images, images)
print("the exact denoiser draws training digits, pixel by pixel:", bool(to_copy.max() < 0.1))
print("the network draws none, the nearest is further than 1 away:", bool(distance.min() > 1))
print("as far away as real digits that it has not seen:", bool(0.6 < distance.median() / to_real.median() < 1.6))

# %% [markdown]
r"""
Compare the columns. From the same noise, the two often draw nearly the same digit, with the same slant and the same
thickness: the network has learned what that denoiser computes. But it holds a little over half a million numbers, where the
exact one holds 17,600 images of 1,024 pixels, eighteen million numbers. It cannot store them, so it must answer with what
digits have in common, and it deviates from the exact denoiser by just that. **Its error against the exact denoiser of the
training set is the reason that it draws new digits at all.**

## Loss anatomy

Now we can ask what the loss of about 0.08 is made of. We measure the error at single times, for

* the **floor**: the exact denoiser on training digits. Nothing can be better there, but it is the floor of memorising;
* the same denoiser on digits of the test set, which it does not hold;
* the network, on training digits and on digits of the test set;
* the **ceiling**: always the mean image of the label, as in the figure of the loss;
* "no noise": the answer $x_t / \sqrt{\bar\alpha_t}$, as though $x_t$ had no noise in it, that is, $\hat\varepsilon = 0$.

The last two have errors that can be computed without an experiment. No noise errs by $1 / \mathrm{SNR}_t$ in $x_0$ and by 1
in $\varepsilon$. The constant answer $m$ errs by the same amount at all times in $x_0$, hence in $\varepsilon$, by (6.7), by

$$\mathbb E\,\|\varepsilon - \hat\varepsilon\|^2 = \mathrm{SNR}_t\;\mathbb E\,\|x_0 - m\|^2 \tag{6.10}$$
"""

# %%
some = 100
test_images, test_labels = mnist(train=False)[:some]
left, right = [], []
for t in (10, 300, 900):
    eps = torch.randn(test_images.shape, generator=generator)
    x_t = tinyddpm.q_sample(test_images, t, eps, schedule)
    eps_hat = tinyddpm.eps_from_x_0(class_means[test_labels], x_t, t, schedule)
    left.append(squared_error(eps, eps_hat).mean().log())
    right.append((snr[t] * squared_error(test_images, class_means[test_labels]).mean()).log())
holds("6.10", torch.stack(left), torch.stack(right), within=1e-3)


@torch.no_grad()
def error_at(t, denoise, x_0, y):
    """The mean squared error in x_0 at time t, under noise that is the same for every denoiser."""
    times = torch.full((len(x_0),), t)
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(t))
    return float(squared_error(denoise(tinyddpm.q_sample(x_0, times, eps, schedule), times, y), x_0).mean())


train_set, test_set = (images[:some], labels[:some]), (test_images, test_labels)
times = [t for t, _ in schedule.grid(30, "log-snr") if -8 < schedule.log_snr[t] < 8]
curves = {
    "ceiling: mean image of the label": [error_at(t, lambda x, t, y: class_means[y], *test_set) for t in times],
    "no noise": [float(1 / snr[t]) for t in times],
    "network, test digits": [error_at(t, average, *test_set) for t in times],
    "network, training digits": [error_at(t, average, *train_set) for t in times],
    "exact, test digits": [error_at(t, exact_denoise, *test_set) for t in times],
    "floor: exact, training digits": [error_at(t, exact_denoise, *train_set) for t in times],
}
styles = ["k--", "k:", "C0-", "C0.", "C3-", "C3-."]
figure, panels = plt.subplots(1, 2, figsize=(8, 3.4))
position = [-float(schedule.log_snr[t]) for t in times]
for axes, factor in zip(panels, (torch.ones(len(times)), snr[times])):
    for (name, values), style in zip(curves.items(), styles):
        axes.semilogy(position, torch.tensor(values) * factor, style, label=name)
    axes.set(xticks=position[::3], xticklabels=times[::3], xlabel="t, even in log-SNR")
panels[0].set(title="error in x_0", ylim=(1e-4, 2))
panels[1].set(title="the same error, in eps", ylim=(1e-4, 30))
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
r"""
Go through the figure from right to left, as the sampler does.

*At high noise* all curves meet: nobody can know more than the label, and the constant answer is nearly perfect. In
$\varepsilon$ this looks like a triumph: errors of a thousandth, for no knowledge at all. *In the middle* the network lies
between floor and ceiling, and here it makes the digits. *At low noise* the exact denoiser parts into two: on its own digits
it makes no error, since it recognises them; on new ones its error stays large, because it can only answer with digits that
it holds. The network's two curves lie on each other throughout: it has no memory to profit from. *At the very left* the
network's error in $x_0$ no longer falls, and with almost no noise left it is worse than the answer that simply returns $x_t$.
Its outputs have a limited precision, and the loss in $x_0$ has no reason to improve it. A picture does not show this; a
likelihood does (see the optional section at the end).
"""

# %%
network, training, exact_new, floor = [torch.tensor(curves[name]) for name in list(curves)[2:]]
ceiling, no_noise = torch.tensor(curves["ceiling: mean image of the label"]), torch.tensor(curves["no noise"])
at = torch.tensor(times)
print("at t > 950, the network is within a tenth of the ceiling:", bool((network / ceiling)[at > 950].min() > 0.9))
print("there even the ceiling's error in eps is below 0.001:", bool((ceiling * snr[at])[at > 950].max() < 0.001))
print("test digits are no harder for it than training digits:", bool((network / training).max() < 1.25))
print(
    "at low noise it beats the exact denoiser on test digits 4 times:", bool((exact_new / network)[at < 100].min() > 4)
)
print("at the very end it loses against no noise:", bool((network > no_noise)[at < 10].all()))

n = 1000
t = torch.randint(1, schedule.T + 1, (n,), generator=generator)
x_t = tinyddpm.q_sample(images[:n], t, torch.randn(images[:n].shape, generator=generator), schedule)
with torch.no_grad():
    shares = [squared_error(f(x_t, t, labels[:n]), images[:n]).mean() for f in (exact_denoise, average)]
print("more than half of the network's average loss is the floor:", bool(shares[0] > 0.5 * shares[1]))

# %% [markdown]
r"""
The last line explains the flat curve. Most of the average loss cannot be removed by anybody: it is the doubt that noise
leaves. At high noise there is nothing to improve, since all curves meet; at low noise the errors in $x_0$ count for little.
It is the times in the middle that get better, and in the average over all times they are diluted. So when somebody reports a
loss, ask three things: in what quantity, with what times, and what does a constant score?

## What the average is worth

While the learning rate is high, the averaged weights should be better than the weights themselves, which tremble. At the end
it has fallen to 0, the weights have come to rest, and the average should have little left to do.
"""


# %%
@torch.no_grad()
def test_loss(network):
    generator = torch.Generator().manual_seed(9)
    x_0, y = mnist(train=False)[:100]
    t = torch.randint(1, schedule.T + 1, (len(x_0),), generator=generator)
    eps = torch.randn(x_0.shape, generator=generator)
    return float(tinyddpm.diffusion_loss(network, x_0, t, eps, schedule, y, "x_0"))


midway = sum(test_loss(kept[n][0]) / test_loss(kept[n][1]) for n in looks) / len(looks)
end = test_loss(average) / test_loss(model)
print("in the middle, the average is ahead:", midway < 1, "| by less than 5 %:", midway > 0.95)
print("at the end, the two differ by less than 1 %:", abs(end - 1) < 0.01)

# %% [markdown]
r"""
## Bug museum: four ways to train for nothing

All of these run without an error, and with a loss curve that falls.

1. **The EMA without warm-up.** Published research code averages with a fixed $d = 0.9999$ from the first step; in 2022 users
   of two such projects asked in public why the averaged networks drew only noise. The initial weights keep the share $d^n$
   after $n$ steps. **Guess before you run:** what is it after our 550 steps with 0.999?
2. **One time for the whole batch.** `t = torch.randint(1, T + 1, (1,))` is shorter by a word and needs no reshaping. On
   average it is correct. But each batch now looks at one noise level only.
3. **Images left in [0, 1].** A collection of papers explained in code, and a much-copied script of one file for MNIST, train
   on what `ToTensor()` gives. Everything works, and the samples come out grey. The contrast is halved as well, so that the
   signal-to-noise ratio is a quarter of what the schedule was designed for. (In the cell an exact denoiser of such images
   stands in for a network that has learned them perfectly.)
4. **Another target in training than in sampling.** The network has learned $x_0$, and the sampler takes its answer for
   $\varepsilon$. It happens wherever the two are agreed on by habit only. The loss is innocent, since it never meets the
   sampler.
"""

# %%
my_guess = None

guess(my_guess, round(0.999**550, 2))
print("its loss is more than 3 times that of the average with warm-up:", test_loss(no_warmup) > 3 * test_loss(average))


@torch.no_grad()
def spread_of_batches(one_time, repeats=20):
    """How much the loss of a network halfway through its training differs between batches of 32."""
    generator, values = torch.Generator().manual_seed(7), []
    for k in range(repeats):
        chosen = torch.randint(len(images), (32,), generator=generator)
        t = torch.randint(1, schedule.T + 1, (32,), generator=generator)
        if one_time:  # as random ones would be, but spread evenly, so that 20 batches suffice to compare
            t = torch.full((32,), round((k + 0.5) / repeats * schedule.T))
        eps = torch.randn(32, 1, 32, 32, generator=generator)
        loss = tinyddpm.diffusion_loss(halfway, images[chosen], t, eps, schedule, labels[chosen], "x_0")
        values.append(loss.item())
    return torch.tensor(values).std()


halfway = kept[275][1]
jumps = spread_of_batches(one_time=True) > 3 * spread_of_batches(one_time=False)
print("one time a batch: the loss jumps at least 3 times as much:", bool(jumps))

in_0_1 = (images[:2000] + 1) / 2
grey = labelled_oracle(in_0_1, labels[:2000])
y, x_T = y[:10], x_T[:10]
wrong_target = tinyddpm.make_denoiser(average, schedule, "eps", y)
museum = [draw(network, y, x_T, steps=25) for network in (no_warmup, grey, lambda x_t, t, y: wrong_target(x_t, t))]
show(image_grid(torch.cat(museum), columns=10), "bugs 1, 3 and 4", width=6)

# %% [markdown]
r"""
In the first row more than half of the average is still the untrained network, whose answer is grey. The second row has the
shapes right and the range wrong. The third is a negative under noise: what is taken for noise is subtracted, and it was the
digit.

The second bug has no picture: the loss curve becomes unreadable, and each step learns about one noise level only.

Each of the four is caught by one line before an hour of training is spent.
"""

# %%
print(
    "1. initial weights left in the average, under 1 %:",
    math.prod(min(0.999, (1 + n) / (10 + n)) for n in range(1, 551)) < 0.01,
)
t = torch.randint(1, schedule.T + 1, (32,), generator=torch.Generator().manual_seed(0))
print("2. a batch has many times:", len(t.unique()) > 16)
print("3. images begin at -1:", float(images.min()) == -1, "| in the museum:", float(in_0_1.min()) == -1)
for predicts in ("x_0", "eps"):
    as_denoiser = tinyddpm.make_denoiser(average, schedule, predicts, test_labels)
    error = error_at(300, lambda x_t, t, y, f=as_denoiser: f(x_t, t), test_images, test_labels)
    print(f"4. as a prediction of {predicts}, better at t = 300 than the mean image:", error < float(of_class_mean))

# %% [markdown]
r"""
## What this chapter showed

The wish "real images should be likely" is a weighted squared error of the denoiser, and practice drops the weight. A loss
means something only between its floor and its ceiling, and the floor on the training set is the floor of copying.

From here on you may use `tinyddpm.trainer.train("nano", out="runs/nano")`, or `tinyddpm train --recipe nano` on the
command line: the same loop with a progress bar, checkpoints, pictures after each epoch, and whatever accelerator there is.

## Exercises

**06a.** Write the loss of a network that predicts $v$, from a table `alpha_bar` of shape `(T + 1,)`. The model is called as
`model(x_t, t)`.
"""


# %%
def answer_06a(model, x_0, t, eps, alpha_bar):
    """x_0, eps: (b, 1, h, w); t: (b,). Returns the mean squared error in v, a number."""
    ...


check("06a", answer_06a)

# %% [markdown]
r"""
<details><summary>Solution 06a</summary>

```python
def answer_06a(model, x_0, t, eps, alpha_bar):
    abar = alpha_bar[t].reshape(-1, 1, 1, 1)
    x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * eps
    v = abar.sqrt() * eps - (1 - abar).sqrt() * x_0
    return (model(x_t, t) - v).square().mean()
```

The target uses the same two factors as $x_t$, exchanged and with one sign changed: $x_t$ and $v$ are $x_0$ and $\varepsilon$
rotated by an angle. The reshape matters: without it, the factors are spread along the width of the image, which raises an
error only where the batch and the width have different sizes.
</details>

**06b.** An average has been updated `n` times by (6.9), with warm-up. What share do the *initial* weights $\theta_0$ still
have in it?
"""


# %%
def answer_06b(n, decay):
    """Returns a number between 0 and 1."""
    ...


check("06b", answer_06b)

# %% [markdown]
r"""
<details><summary>Solution 06b</summary>

```python
def answer_06b(n, decay):
    return math.prod(min(decay, (1 + k) / (10 + k)) for k in range(1, n + 1))
```

Every update multiplies what was there by $d_k$. After ten updates less than a thousandth is left, where $0.999^{10}$ is
99 %.
</details>

**06c.** A network that predicts the noise has the mean squared error `error` in $\varepsilon$ at time `t`. What is its error
in $x_0$? And in $v$?
"""


# %%
def answer_06c(error, t, alpha_bar):
    """Returns two numbers: the mean squared error in x_0 and that in v."""
    ...


check("06c", answer_06c)

# %% [markdown]
r"""
<details><summary>Solution 06c</summary>

```python
def answer_06c(error, t, alpha_bar):
    snr = alpha_bar[t] / (1 - alpha_bar[t])
    return error / snr, error * (snr + 1) / snr
```

This is (6.7). An error of 0.01 in the noise is an error of 10 in $x_0$ where the signal-to-noise ratio is a thousandth: this
is why networks that predict noise need their $\hat x_0$ clipped.
</details>

**06d.** This line draws the times of a batch of `n` images, in a schedule of `T` steps that counts from 1 to T as ours does.
It has two mistakes. Repair it.

```python
def broken(n, T, generator):
    return torch.randint(0, T, (1,), generator=generator).expand(n)
```
"""


# %%
def answer_06d(n, T, generator):
    """Returns whole numbers of shape (n,)."""
    ...


check("06d", answer_06d)

# %% [markdown]
r"""
<details><summary>Solution 06d</summary>

```python
def answer_06d(n, T, generator):
    return torch.randint(1, T + 1, (n,), generator=generator)
```

One time for each image, and both ends included: `randint` leaves its upper end out. A network that has never seen $t = T$ is
asked about it in the very first step of sampling.
</details>

## Optional: what the bound sees

**How far is it below the truth?** The denoiser of the derivation was exact. All that still separates its bound from the truth
is the assumption that a step back is a normal distribution of a *fixed* variance. It is often said that this costs nothing if
the chain is long. The cell computes, without sampling, how far the bound lies below the log-density of the data, for chains
of 5 to 500 steps. (The bound is a quadratic function of $x_0$, so its average over a normal distribution is that at the two
points mean ± standard deviation.)
"""

# %%
truth = -0.5 * math.log(2 * math.pi * math.e * variance)  # the data's own log-density, on average
lengths = [5, 10, 20, 50, 100, 200, 500]
lost = {"posterior": [], "beta": []}
for kind in lost:
    for T in lengths:
        chain = tinyddpm.Schedule.named("cosine-shifted", T)
        p = p_chain(chain, kind)
        bounds = [
            log_p(x, p) - kl_divergence(q_chain(x, chain), given_x_0(x, p))
            for x in (mean - variance**0.5, mean + variance**0.5)
        ]
        lost[kind].append(float(truth - sum(bounds) / 2))
figure, axes = plt.subplots(figsize=(5, 2.4))
for kind, values in lost.items():
    axes.loglog(lengths, values, marker="o", label=kind)
axes.set(xlabel="T", ylabel="nats lost", title="how far the bound is below the truth")
axes.legend(title="variance of a step")
plt.show()
print("with beta, ten times the steps lose about a tenth:", 8 < lost["beta"][3] / lost["beta"][6] < 12)
print("with posterior, 500 steps lose more than 5:", lost["posterior"][6] > lost["posterior"][0])

chain = tinyddpm.Schedule.named("cosine-shifted", 50)  # where is it lost? Compare the variances step by step
spread = chain.alpha_bar * variance + 1 - chain.alpha_bar  # of x_t
true_step = spread[:-1] * (1 - (1 - chain.beta[1:]) * spread[:-1] / spread[1:])  # of x_{t-1}, given x_t
anywhere = torch.zeros(1, 1, 1, 1)
model_step = torch.tensor([p_step(anywhere, t, chain)[1] for t in range(1, 51)], dtype=torch.float64)
by_step = kl_divergence(Normal(0.0, true_step.sqrt()), Normal(0.0, model_step.sqrt()))
print(f"of 50 steps, share of the five next to the image: {by_step[:5].sum() / by_step.sum():.2f}")

# %% [markdown]
r"""
For the variance $\beta_t$ the saying is true: what is lost is proportional to $1/T$. For the posterior's variance it is not:
nearly all is lost in the few steps next to the image, where that variance is far too small, and a longer chain only moves
those steps closer to the image. In samples Ho et al. (2020, section 3.2) found the two similar. With another fixed variance,
(6.6) gets another factor and a constant that no weight of a network can change. A third choice is tight at any length, the
posterior's variance plus what the denoiser's own error adds (Bao et al. 2022), and `tinyddpm.extensions.likelihood` offers it.

**What did the dropped weight decide?** `tinyddpm.extensions.likelihood` adds up (6.4) for images, in bits per pixel: how much
storage the model would need to write a digit down. Eight is what the raw file takes. We compare the network with a copy
which is wiser in one point: where the signal-to-noise ratio is above 100 it ignores the network and returns $x_t /
\sqrt{\bar\alpha_t}$.
"""


# %%
def network_denoiser(x_t, t):
    with torch.no_grad():
        return average(x_t, t, test_labels[:8])


def wiser(x_t, t):
    signal = float(schedule.sqrt_alpha_bar[t[0]])
    return x_t / signal if snr[t[0]] > 100 else network_denoiser(x_t, t)


grid = schedule.grid(60, "log-snr")
bits = [
    bits_per_dim(f, test_images[:8], schedule, grid, None, torch.Generator().manual_seed(1)).mean()
    for f in (network_denoiser, wiser)
]
print("the network needs more than 3 times the bits of the raw file:", bool(bits[0] > 24))
print("the wiser copy needs fewer bits than the raw file:", bool(bits[1] < 8))

# %% [markdown]
r"""
The two give the same answer at all times where a digit is formed. A likelihood is decided by errors that no eye can see. So
decide what a model is for before you choose its loss.

## Symbols

| symbol | variable | shape | where |
|---|---|---|---|
| $\log p(x_0)$ | `log_p` | a number | (6.1), (6.2) |
| $\mathrm{KL}(q \,\Vert\, p)$ | `kl_divergence` | a number | (6.2), (6.4), (6.5); Ho et al. 2020, eq. 5 |
| $\mathrm{SNR}_t$ | `snr` | (T + 1,) | (6.6); Kingma et al. 2021 |
| $\hat x_0, \hat\varepsilon, \hat v$ | `x_0_hat`, `eps_hat`, `v_hat` | (b, 1, 32, 32) | (6.7) |
| $v$ | `v` | (b, 1, 32, 32) | (6.7); Salimans and Ho 2022 |
| $\bar\alpha_t$ | `alpha_bar` | (T + 1,) | chapter 01 |
| $L_\text{simple}$ | `my_diffusion_loss` | a number | (6.8); Ho et al. 2020, eq. 14 |
| $\bar\theta_n$ | `average` | a network | (6.9) |
| $d_n$ | `d` | a number | (6.9) |

**Next:** [07 · Conditional generation](07_conditional_generation.ipynb). Our network was told the labels, and still some
digits came out as nothing in particular. There is a dial that makes a network listen more closely to what it is asked for,
and it has a price.
"""
