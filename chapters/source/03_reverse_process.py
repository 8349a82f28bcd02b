# %% [markdown]
r"""
# 03 · The reverse process: digits out of noise, without a network

**After this chapter you can**

* derive one step back, and say why it is normal once the clean image is known;
* write a sampler in ten lines and prove it with an exact denoiser, before any network exists;
* say why noise is added while denoising, and what DDIM does instead.

*You need:* chapter 01. *Reading:* about MINUTES minutes, in two sittings: the place to rest is
marked. *You build and then import:* `q_posterior`, `dataset_oracle`, `Step`, `Schedule.grid`, `p_sample_loop`, `ddim`.

---

If a diffusion model draws badly, there are two suspects: the network, which may have learned too little, and the sampler,
the loop that calls it, which may be wrong. We separate them. This chapter has no network. It derives the sampler and runs it
on a denoiser that is *exact*, because it is computed from the data by Bayes' rule. Whatever comes out is the sampler's doing
alone. Chapter 06 puts a trained network into the same loop and changes no line of it.
"""

# %% tags=["setup"]
from dataclasses import dataclass

import torch
from course import check, clock, guess, holds, same, show_figure, tiles
from course.chapter_03 import game, noise_levels, open_questions, three_walks, whole, witnesses

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.evaluation import nearest

schedule = tinyddpm.Schedule.named("linear", T=200)  # scaled, so that it ends in noise: chapter 02
images, labels = mnist()[:2300]  # training digits
images = images.double()  # in double precision, because we prove things
data, labels = images[:2000], labels[:2000]  # 2,000 digits are all that this chapter knows
others = images[2000:]  # these it does not know

# %% [markdown]
r"""
## From any time to any later one

Forwards we know one step (1.1), and the jump from the clean image $x_0$ to any time $t$ (1.5). A step *back* leads from $t$ to
an earlier time $s$, usually $t-1$. For it we need the way forwards from $s$ to $t$. By the argument that led to (1.3) the steps
$s+1,\dots,t$ are one jump: the factors $1-\beta_r$ multiply, and the noises become one. Call their product $a$, the share of
the variance that survives from $s$ to $t$:

$$x_t=\sqrt{a}\,x_s+\sqrt{1-a}\,\varepsilon,\qquad a=\frac{\bar\alpha_t}{\bar\alpha_s}=\prod_{r=s+1}^{t}(1-\beta_r)\tag{3.1}$$

with fresh standard normal noise $\varepsilon$. The cell walks from 60 to 75 step by step and keeps the books.
"""


# %%
def shares(t, s):
    """alpha_bar_t, alpha_bar_s, and their quotient a."""
    abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    return abar_t, abar_s, abar_t / abar_s


abar_t, abar_s, a = shares(75, 60)
factor, variance = 1.0, 0.0
for beta in schedule.beta[61:76].tolist():
    factor, variance = (1 - beta) ** 0.5 * factor, (1 - beta) * variance + beta
holds("3.1", [factor, variance], [a**0.5, 1 - a])
print(f"alpha_bar is {abar_s:.2f} at 60 and {abar_t:.2f} at 75, and a is {a:.2f}")

# %% [markdown]
r"""
## Backwards is a question

We hold $x_t$ and ask where it was at time $s$. Many $x_s$ could have become this $x_t$, and which of them exist in the first
place depends on what images look like. That is the hard part.

So let somebody whisper the clean image $x_0$ to us. Then two witnesses say all there is to say about $x_s$:

* **The past:** $x_s$ is $x_0$ after a jump (1.5), so it lies around $\sqrt{\bar\alpha_s}\,x_0$ with variance $1-\bar\alpha_s$.
* **The future:** $x_s$ became $x_t$ by the jump (3.1). An $x_s$ is credible if it would easily have done so.

Write $q(A\mid B)$, "A given B", for the density of $A$ among only those runs in which $B$ took the value we saw. The density of
both together is $q(B)\,q(A\mid B)$, and just as well $q(A)\,q(B\mid A)$. Equate the two and divide by $q(B)$: that is **Bayes'
rule**. With $x_s$ for $A$, $x_t$ for $B$, and $x_0$ known throughout (the jump from $s$ to $t$ needs $x_s$ alone),

$$q(x_s\mid x_t,x_0)=\frac{q(x_s\mid x_0)\,q(x_t\mid x_s)}{q(x_t\mid x_0)}\tag{3.2}$$

Above stand the past and the future; below stands a number without $x_s$, which makes the area 1. The left side is called the
**posterior**.

The experiment: send two million pixels from $x_0=0.5$ through $s=60$ to $t=75$, keep only those that arrive near $x_t=-0.6$, and
look where these had been at $s$.
"""

# %%
generator = torch.Generator().manual_seed(1)


def noise(*shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def bell(x, mean, variance):
    """The density of a normal distribution."""
    return torch.exp(-((x - mean) ** 2) / (2 * variance)) / (2 * torch.pi * variance) ** 0.5


x_0, x_t = 0.5, -0.6
were = abar_s.sqrt() * x_0 + (1 - abar_s).sqrt() * noise(2_000_000)
became = a.sqrt() * were + (1 - a).sqrt() * noise(2_000_000)
kept = were[(became - x_t).abs() < 0.02]
bins = torch.linspace(-2.4, 2.0, 45, dtype=torch.float64)  # their centres, 0.1 apart
experiment = torch.histc(kept, 45, -2.45, 2.05) / len(kept) / 0.1
past, future = bell(bins, abar_s.sqrt() * x_0, 1 - abar_s), bell(x_t, a.sqrt() * bins, 1 - a)
bayes = past * future / bell(x_t, abar_t.sqrt() * x_0, 1 - abar_t)
holds("3.2", experiment, bayes, within=0.07)

witnesses(bins, experiment, past, future, bayes, schedule.log_snr[60])
show_figure("Bars of the experiment, and three bells: the posterior lies between past and future and is narrower")

# %% [markdown]
r"""
## One step back is a bell

Take logarithms: the product becomes a sum, and the logarithm of a bell is a parabola. The sum of two parabolas is a parabola,
and only bells have parabolas as logarithms. So **one step back is normal when we know $x_0$**. Comparing coefficients
([done line by line here](course/derivations/03.md)) gives its mean $\mu$ and its variance, which Ho et al. call $\tilde\beta$:

$$\frac1{\tilde\beta}=\frac1{1-\bar\alpha_s}+\frac{a}{1-a},\qquad\frac{\mu}{\tilde\beta}=\frac{\sqrt{\bar\alpha_s}}{1-\bar\alpha_s}\,x_0+\frac{\sqrt a}{1-a}\,x_t\tag{3.3}$$

The inverse of a variance is a precision. So **precisions add up**, and the mean is the average of what the witnesses claim,
$\sqrt{\bar\alpha_s}\,x_0$ and $x_t/\sqrt a$, weighted by their precisions. The cell differentiates the logarithm of (3.2): at $x_s=0$ its slope must be $\mu/\tilde\beta$ and its
curvature $-1/\tilde\beta$.
"""

# %%
at = torch.zeros((), dtype=torch.float64, requires_grad=True)  # x_s = 0
log_q = bell(at, abar_s.sqrt() * x_0, 1 - abar_s).log() + bell(x_t, a.sqrt() * at, 1 - a).log()
(slope,) = torch.autograd.grad(log_q, at, create_graph=True)
(curvature,) = torch.autograd.grad(slope, at)
precision = 1 / (1 - abar_s) + a / (1 - a)
weighted = abar_s.sqrt() / (1 - abar_s) * x_0 + a.sqrt() / (1 - a) * x_t
holds("3.3", [-curvature, slope.detach()], [precision, weighted])

# %% [markdown]
r"""
Tidied up with $a\,\bar\alpha_s=\bar\alpha_t$, that is

$$\tilde\beta=\frac{(1-\bar\alpha_s)(1-a)}{1-\bar\alpha_t}\tag{3.4}$$

$$\mu(x_t,x_0)=\frac{\sqrt{\bar\alpha_s}\,(1-a)\,x_0+\sqrt a\,(1-\bar\alpha_s)\,x_t}{1-\bar\alpha_t}\tag{3.5}$$

For $s=t-1$, where $1-a=\beta_t$, this is equation 7 of [Ho et al. 2020](https://arxiv.org/abs/2006.11239). The cell
knows nothing of squares: it sums up mean and variance of (3.2) on a fine grid.
"""


# %%
def my_q_posterior(x_0, x_t, t, s, schedule):
    abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    a = abar_t / abar_s
    variance = (1 - abar_s) * (1 - a) / (1 - abar_t)
    mean = (abar_s**0.5 * (1 - a) * x_0 + a**0.5 * (1 - abar_s) * x_t) / (1 - abar_t)
    return mean, variance


line = torch.linspace(-8, 8, 4001, dtype=torch.float64)
share = bell(line, abar_s.sqrt() * x_0, 1 - abar_s) * bell(x_t, a.sqrt() * line, 1 - a)
share = share / share.sum()
mean, variance = my_q_posterior(x_0, x_t, 75, 60, schedule)
holds("3.4", (share * (line - mean) ** 2).sum(), variance)
holds("3.5", (share * line).sum(), mean)
same(my_q_posterior, tinyddpm.q_posterior, data[:4], noise(4, 1, 32, 32), 75, 60, schedule)
mean, variance = my_q_posterior(0.5, -0.6, 1, 0, schedule)
print(f"the last step, to s = 0: from x_0 = 0.5 the mean is {mean:.3g} and the variance {variance:.3g}")

# %% [markdown]
r"""
At $s=0$ the past knows everything. **The last step adds no noise**, and with this variance the loop needs no special case.

## To guess the image is to guess the noise

All of this needs $x_0$, which is what we want to find. So we *guess* it from $x_t$ and $t$, and put the guess $\hat x_0$ in its
place. A function $(x_t,t)\mapsto\hat x_0$ is a **denoiser**, the only contract of the library: a sampler is handed a denoiser
and sees nothing else. Here it is exact; from chapter 05 on it is a network.

Networks that "predict the noise" do the same in other words: at a given $x_t$, (1.5) ties $x_0$ and $\varepsilon$ together.

$$\varepsilon=\frac{x_t-\sqrt{\bar\alpha_t}\,x_0}{\sqrt{1-\bar\alpha_t}},\qquad x_0=\frac{x_t-\sqrt{1-\bar\alpha_t}\,\varepsilon}{\sqrt{\bar\alpha_t}}\tag{3.6}$$
"""


# %%
def my_eps_from_x_0(x_0, x_t, t, schedule):
    abar = schedule.alpha_bar[t].to(x_t.dtype).reshape(-1, 1, 1, 1)
    return (x_t - abar.sqrt() * x_0) / (1 - abar).sqrt()


def my_x_0_from_eps(eps, x_t, t, schedule):
    abar = schedule.alpha_bar[t].to(x_t.dtype).reshape(-1, 1, 1, 1)
    return (x_t - (1 - abar).sqrt() * eps) / abar.sqrt()


several, eps = torch.tensor([1, 60, 140, 200]), noise(4, 1, 32, 32)
noisy = tinyddpm.q_sample(data[:4], several, eps, schedule)
eps_back = my_eps_from_x_0(data[:4], noisy, several, schedule)
x_0_back = my_x_0_from_eps(eps, noisy, several, schedule)
holds("3.6", torch.stack([eps, data[:4]]), torch.stack([eps_back, x_0_back]))
same(my_eps_from_x_0, tinyddpm.eps_from_x_0, data[:4], noisy, several, schedule)
same(my_x_0_from_eps, tinyddpm.x_0_from_eps, eps, noisy, several, schedule)

# %% [markdown]
r"""
A little error in the noise is a large one in the image when there is much noise. Images lie between $-1$ and $1$, so a network's
answer is often clipped to that range; `clip_x_0` turns a denoiser into one that is. Exact answers need no clipping.
"""


# %%
def guesses_noise(x_t, t):
    """A denoiser that guesses the noise of these four images, a hundredth too large."""
    return my_x_0_from_eps(1.01 * eps, x_t, t, schedule)


def my_clip_x_0(denoiser):
    return lambda x_t, t: denoiser(x_t, t).clamp(-1, 1)


def clip_x_0(x_t, t):
    return tinyddpm.clip_x_0(guesses_noise)(x_t, t)


same(my_clip_x_0(guesses_noise), clip_x_0, noisy, several)
for name, denoiser in (("as it is", guesses_noise), ("clipped", my_clip_x_0(guesses_noise))):
    errors = (denoiser(noisy, several) - data[:4]).flatten(1).square().mean(1).sqrt()
    print(f"{name:8}: rms error of x_0_hat at t = {several.tolist()}:", [round(e, 2) for e in errors.tolist()])

# %% [markdown]
r"""
## The best guess is an average

What is a good guess? A game: a pixel is $-1$ in three images of four and $+1$ in the fourth. It was noised to $t=75$, so that
$\pm1$ became $\pm0.49$ plus noise of standard deviation 0.87. You see $x_t=0.6$, name one number, and pay the squared distance
to the truth. **Before you run the cell:** which number?

Write $\mathbb E[\cdot\mid x_t]$ for the average over those cases in which this $x_t$ was seen, and
$\operatorname{Var}[\cdot\mid x_t]$ for the variance over them. Let $m=\mathbb E[x_0\mid x_t]$ be the *conditional mean*. Square
$x_0-f=(x_0-m)+(m-f)$ and average. The mixed term vanishes, because $x_0$ is $m$ on average:

$$\mathbb E\bigl[(x_0-f)^2\mid x_t\bigr]=\operatorname{Var}[x_0\mid x_t]+(f-m)^2\tag{3.7}$$

So **the best guess in mean squared error is the conditional mean**, and a network trained on this error strives for it.
"""

# %%
my_guess = None

abar_t, x_t = schedule.alpha_bar[75], 0.6
pixel = torch.where(torch.rand(2_000_000, generator=generator, dtype=torch.float64) < 0.25, 1.0, -1.0)
became = abar_t.sqrt() * pixel + (1 - abar_t).sqrt() * noise(2_000_000)
possible = pixel[(became - x_t).abs() < 0.02]


def chance_of_plus(x_t, abar_t):
    """Bayes' rule for the pixel: the probability of x_0 = +1 where x_t was seen."""
    plus = 0.25 * bell(x_t, abar_t.sqrt(), 1 - abar_t)
    minus = 0.75 * bell(x_t, -abar_t.sqrt(), 1 - abar_t)
    return plus / (plus + minus)


p = chance_of_plus(x_t, abar_t)
m, var_x_0 = 2 * p - 1, 4 * p * (1 - p)  # of a number that is +1 with probability p, else -1
f = torch.linspace(-1.5, 1.5, 13, dtype=torch.float64)
paid = ((possible[:, None] - f) ** 2).mean(0)
guess(my_guess, m.item(), " is the best number")
holds("3.7", paid, var_x_0 + (f - m) ** 2, within=0.06)

# %% [markdown]
r"""
The best number is one that the pixel *never has*: neither black nor white, but a grey in between. This is the source of everything
surprising below. The figure shows, on the right, the whole denoiser of this pixel: with little noise it decides, with much noise it
hardly looks at $x_t$ and answers with the average of the data.
"""

# %%
game(f, paid, m, var_x_0 + (f - m) ** 2, schedule, lambda x, abar: 2 * chance_of_plus(x, abar) - 1)
show_figure("Left: the payments lie on a parabola. Right: the best guess, a step with little noise and flat with much")

# %% [markdown]
r"""
## An exact denoiser for 2,000 images

Let the data be exactly $n$ images $x_1,\dots,x_n$, equally likely. Then Bayes' rule needs no integral. Image $x_i$ becomes $x_t$
with the density of a bell around $\sqrt{\bar\alpha_t}\,x_i$, and over all pixels the exponents add up to a squared distance. So
the probability $w_i$ that it was $x_i$ is a softmax:

$$w_i=\frac{e^{-d_i}}{\sum_je^{-d_j}},\quad d_i=\frac{\lVert x_t-\sqrt{\bar\alpha_t}\,x_i\rVert^2}{2\,(1-\bar\alpha_t)},\qquad\hat x_0=\mathbb E[x_0\mid x_t]=\sum_iw_i\,x_i\tag{3.8}$$

([Karras et al. 2022](https://arxiv.org/abs/2206.00364), appendix B.3). With much noise all images count alike, with little only
the nearest. No network can do better on these images. The cell tries (3.8) on three "images" of two pixels, and compares our
denoiser of the digits with the library's.
"""


# %%
def candidates(x_t, t, data, schedule):
    """w: how likely each image of data is to have become x_t. x_t: (b, 1, h, w), t: (b,). Returns (b, n)."""
    abar = schedule.alpha_bar[t].to(x_t.dtype).reshape(-1, 1)
    x, X = x_t.flatten(1), data.flatten(1)  # (b, h w), (n, h w)
    square = (x**2).sum(1)[:, None] - 2 * abar.sqrt() * (x @ X.T) + abar * (X**2).sum(1)  # of the distance
    return (-square / (2 * (1 - abar))).softmax(1)


def my_dataset_oracle(data, schedule):
    def denoiser(x_t, t):
        return (candidates(x_t, t, data, schedule) @ data.flatten(1)).reshape(x_t.shape)

    return denoiser


three = torch.tensor([[-1.0, -1.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
drawn = three[torch.randint(3, (2_000_000,), generator=generator)]
became = abar_t.sqrt() * drawn + (1 - abar_t).sqrt() * noise(2_000_000, 2)
x_t = torch.tensor([0.3, -0.2], dtype=torch.float64)
possible = drawn[((became - x_t).abs() < 0.1).all(1)]
exact = my_dataset_oracle(three.reshape(3, 1, 1, 2), schedule)(x_t.reshape(1, 1, 1, 2), torch.tensor([75]))
holds("3.8", possible.mean(0), exact.flatten(), within=0.03)
noisy = tinyddpm.q_sample(data[:8], torch.full((8,), 110), noise(8, 1, 32, 32), schedule)
same(my_dataset_oracle(data, schedule), tinyddpm.dataset_oracle(data, schedule), noisy, torch.full((8,), 110))

# %% [markdown]
r"""
Such a denoiser is called an *oracle*: it knows what no student can know. Here is its answer for one digit at four times.
"""

# %%
oracle = tinyddpm.dataset_oracle(data, schedule)  # the same as ours, a little faster
times = torch.tensor([200, 130, 110, 40])
digit = data[7:8].expand(4, -1, -1, -1)
noisy = tinyddpm.q_sample(digit, times, noise(1, 1, 32, 32).expand(4, -1, -1, -1), schedule)
effective = (1 / (candidates(noisy, times, data, schedule) ** 2).sum(1)).round().int().tolist()
tiles(
    {"x_t, half contrast": noisy / 2, "x_0_hat, the exact answer": oracle(noisy, times)},
    columns=[clock(t, schedule) + f"\nof {number}" for t, number in zip(times.tolist(), effective)],
    alt="One digit under four amounts of noise, and the exact denoiser's answers: from a grey blur of all to one digit",
)

# %% [markdown]
r"""
The last number above each column says of how many digits the answer is in effect an average: first of nearly all, then of a
crowd that fits $x_t$, then of one. At $t=110$ you see next to nothing in $x_t$, and the oracle has made up its mind.

## One step, with the guess in its place

May one put an average of images into (3.5), where one image was assumed? Split the true step into two: draw an $x_0$ from those
that are still possible, then $x_s$ from its bell. The mean $\mu$ is linear in $x_0$, so the mean of the whole is $\mu$ of the
average. The variance of the whole is the average variance within the bells, plus the variance between their means (the *law of
total variance*: of 1, 3, 7, 9 it is 10, which is 1 within the pairs and 9 between their means 2 and 8). With $c$ the factor in front of $x_0$ in (3.5),

$$\mathbb E[x_s\mid x_t]=\mu(x_t,\hat x_0),\qquad\operatorname{Var}[x_s\mid x_t]=\tilde\beta+c^2\operatorname{Var}[x_0\mid x_t],\qquad c=\frac{\sqrt{\bar\alpha_s}\,(1-a)}{1-\bar\alpha_t}\tag{3.9}$$

So the mean is exactly right: this is why a sampler wants the conditional mean. What we neglect, if we draw with $\hat x_0$ in
the place of $x_0$, is the second part of the variance. It contains $(1-a)^2$, while $\tilde\beta$ contains $1-a$ only once. Make
the steps smaller, and what is neglected disappears beside what is kept.
"""

# %%
x_t, p = 0.6, chance_of_plus(torch.tensor(0.6), schedule.alpha_bar[75])  # the pixel of the game, with its best guess


def step_with_a_guess(t, s):
    """The mean with x_0_hat for x_0, the variance, and the part of the variance that is neglected."""
    abar_t, abar_s, a = shares(t, s)
    mean, variance = my_q_posterior(2 * p - 1, x_t, t, s, schedule)
    return mean, variance, (abar_s.sqrt() * (1 - a) / (1 - abar_t)) ** 2 * 4 * p * (1 - p)


abar_t, abar_s, a = shares(75, 60)
prior = 0.75 * bell(line, -abar_s.sqrt(), 1 - abar_s) + 0.25 * bell(line, abar_s.sqrt(), 1 - abar_s)
share = prior * bell(x_t, a.sqrt() * line, 1 - a)  # Bayes' rule on a grid, without (3.4) and (3.5)
share = share / share.sum()
true_mean = (share * line).sum()
mean, variance, neglected = step_with_a_guess(75, 60)
holds("3.9", [true_mean, (share * (line - true_mean) ** 2).sum()], [mean, variance + neglected])
for s in (25, 60, 74):
    _, variance, neglected = step_with_a_guess(75, s)
    print(f"from 75 to {s}: {neglected / (variance + neglected):.0%} of the variance is neglected")

# %% [markdown]
r"""
Do 200 such losses add up? No: later steps remove most of the noise that earlier ones put in, and what was missing from it
goes with it. *Which variance?*, below, follows the total.

## The sampler, in ten lines

Begin with pure noise $x_T$. At each time ask the denoiser for $\hat x_0$, go from $x_t$ to $x_s$, and go on until $s=0$. If $x_s$
is drawn from the bell with mean $\mu(x_t,\hat x_0)$ and variance $\tilde\beta$, that is *ancestral sampling* (Ho et al. 2020,
algorithm 2). Three pieces: a `Step` records where the walk stands; a *grid* lists the steps $(t,s)$, all of them or fewer; the
loop (the library's `trajectory`) is a generator, so that whoever wants a film keeps every step, and whoever wants the image takes the last.
"""


# %% tags=["setup"]
@dataclass
class MyStep:
    t: int
    x_t: torch.Tensor
    x_0_hat: torch.Tensor  # what the denoiser sees in x_t


def my_grid(T, steps):
    times = [int(T * i / steps + 0.5) for i in range(steps, 0, -1)] + [0]  # evenly from T down to 0
    return list(zip(times, times[1:]))


def my_trajectory(denoiser, x_T, grid, update):
    x_t = x_T
    for t, s in grid:
        x_0_hat = denoiser(x_t, torch.full((len(x_t),), t))
        yield MyStep(t, x_t, x_0_hat)
        x_t = update(x_t, x_0_hat, t, s)
    yield MyStep(s, x_t, x_t)


def my_p_sample_loop(denoiser, x_T, schedule, grid, generator):
    def update(x_t, x_0_hat, t, s):
        mean, variance = my_q_posterior(x_0_hat, x_t, t, s, schedule)
        return mean + variance**0.5 * torch.randn(x_t.shape, generator=generator, dtype=x_t.dtype)

    return my_trajectory(denoiser, x_T, grid, update)


# %%
def grid(steps):
    return torch.tensor(schedule.grid(steps))


same(lambda steps: torch.tensor(my_grid(200, steps)), grid, 7)
print("seven steps:", my_grid(200, 7))
few = tinyddpm.dataset_oracle(data[:50], schedule)  # fewer images, to be quick
start = noise(4, 1, 32, 32)
same(whole(my_p_sample_loop), whole(tinyddpm.p_sample_loop), few, start, schedule, my_grid(200, 200))

# %% [markdown]
r"""
`whole` collects all 201 images of a walk, from $x_T$ to $x_0$, so the whole way was compared and not only its end. (The library's `Step` has
the same three fields.)

## If it predicts the image at once, why take steps?

The denoiser is asked for the finished image at every step. Why not believe its first answer? Try it: the perfect denoiser, the
same 64 starts, and more and more steps.
"""

# %%
known = data.float()  # what is not compared with a formula may be faster
oracle, x_T = tinyddpm.dataset_oracle(known, schedule), noise(64, 1, 32, 32).float()


def apart(x):
    """The rms difference of each x from the nearest of the 2,000 digits, and the index of that digit."""
    distance, index = nearest(x, known)
    return distance / 32, index  # 32 is the root of the number of pixels


rows = {}
for n in (1, 2, 3, 5, 10):
    steps = my_p_sample_loop(oracle, x_T, schedule, my_grid(200, n), torch.Generator().manual_seed(1))
    x = tinyddpm.last(steps).x_t
    rms, index = apart(x)
    rows[f"{n} step{'s' * (n > 1)}"] = x[:8]
    print(f"{n:2} steps: {(rms < 0.05).sum():2} of 64 are digits, median rms from the nearest {rms.median():.2f}")
tiles(
    rows,
    2,
    alt="Eight samples after 1, 2, 3, 5 and 10 steps: the same grey blur, double exposures, and at last sharp digits",
)

# %% [markdown]
r"""
**Because the best guess is an average.** From pure noise it is the average of all digits, the same for every start. A step goes
only part of the way, to an $x_s$ that fewer digits fit; the next answer averages over those; and so the question is narrowed
until one digit is left. Each step commits a little, which is (3.9) once more: in one large step the variance that is neglected
is the whole variety of the data. (An exact denoiser of clean digits is done after ten. A network needs more, because each of its
answers is a little wrong; chapters 09 and 14 ask how few will do.)

## The proof

Now all 200 steps. The oracle stands for a world in which there are 2,000 images and no others.

**Before you run the cell:** after ten steps all were within 0.05 of a digit of the data. After 200, how many of 64 will be new, that
is, more than a millionth from each?
"""

# %%
my_guess = None

generator = torch.Generator().manual_seed(3)
x_T = noise(64, 1, 32, 32).float()
steps = list(my_p_sample_loop(oracle, x_T, schedule, my_grid(200, 200), generator))
samples = steps[-1].x_t
rms, index = apart(samples)
guess(my_guess, int((rms > 1e-6).sum()), " of 64 are new")
print(
    f"for comparison, digits that are not in the data: rms {apart(others.float())[0].median():.1f} from the nearest, typically"
)
tiles({"made from noise, without a network": samples[:16], "and more": samples[16:32]}, enlarge=2)

# %% [markdown]
r"""
## Right at the end, and on the way

Two questions decide whether the loop is right. Are the results what the data are, one for one and in the right numbers? And does
each $x_t$ *on the way* carry the right noise? If the loop undoes the forward process, then
$(x_t-\sqrt{\bar\alpha_t}\,x_0)/\sqrt{1-\bar\alpha_t}$ has standard deviation 1 at every time, as (1.5) says. We call that number
the **noise level**.
"""


# %%
def noise_level(x_t, x_0, t):
    """How much noise there is in x_t, in units of what time t stands for."""
    return my_eps_from_x_0(x_0, x_t, t, schedule).std().item()


levels = [noise_level(step.x_t, samples, step.t) for step in steps[:-1]]
print(f"largest rms difference from a training digit below {1e-6 if rms.max() < 1e-6 else rms.max():.0e}")
draws = 2000 * (1 - (1 - 1 / 2000) ** 64)  # how many different cards to expect in 64 draws from 2,000
print(f"different digits: {len(index.unique())} of 64; 64 draws of 2,000 with replacement give about {draws:.0f}")
print("of each class:", labels[index].bincount(minlength=10).tolist())
print(f"noise level at the {len(levels)} times: {min(levels):.2f} to {max(levels):.2f}")

# %% [markdown]
r"""
Every result is a digit of the data, down to the last pixel, and the noise is right all the way: **the sampler is right, and
nothing has been trained.** From here on, whatever a network does to our samples is the network's doing.

We were given the *perfect* denoiser, and it has not made one new digit. It cannot: asked for the data, it returns the data. A
useful network errs in a good way. Chapter 11 finds out which: there each pixel of this oracle sees only a window around it
(`tinyddpm.oracle.local_oracle`, the *blinkered* oracle), and it begins to invent.

---

**A place to rest.** So far: one step back is a bell if $x_0$ is known; a denoiser guesses $x_0$, best by an average; the loop
around it is proved. The second half asks what the noise is for, when a digit is decided, which variance to take, and how wrong
samplers are caught.

---

## Why add noise while denoising?

The step computes the best guess for the mean, and then spoils it with fresh noise. Why? Leave it out: the same 64 starts and the
same perfect denoiser.

**Before you run the cell:** nearly all of the 64 digits were different. How many different ones will there be now?
"""

# %%
my_guess = None


def mean_only(x_t, x_0_hat, t, s):
    return my_q_posterior(x_0_hat, x_t, t, s, schedule)[0]


steps_without = list(my_trajectory(oracle, x_T, my_grid(200, 200), mean_only))
collapsed = steps_without[-1].x_t
rms, index_without = apart(collapsed)
guess(my_guess, len(index_without.unique()), " different digits")

# %% [markdown]
r"""
Look at them, below, and at their classes. Each is a perfect digit, so whoever looks at a single sample sees nothing wrong.

What has happened? Put $x_t=\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\varepsilon$ into the mean (3.5). In front of $x_0$ there
is then $\sqrt{\bar\alpha_s}$, as time $s$ asks for ([the algebra](course/derivations/03.md)). In front of $\varepsilon$ there is too little: its square, the old noise that
the mean keeps, falls short of $1-\bar\alpha_s$, and what is missing is $\tilde\beta$:

$$\underbrace{\frac{a\,(1-\bar\alpha_s)^2}{1-\bar\alpha_t}}_{\text{old noise, kept}}+\underbrace{\frac{(1-\bar\alpha_s)(1-a)}{1-\bar\alpha_t}}_{\tilde\beta,\text{ fresh noise}}=\frac{(1-\bar\alpha_s)(a-\bar\alpha_t+1-a)}{1-\bar\alpha_t}=1-\bar\alpha_s\tag{3.10}$$

**The mean is too clean for its time, and the fresh noise is exactly what is missing.** The cell takes known digits through one
step with the true $x_0$ and measures what is not image.
"""

# %%
measured, wanted = [], []
clean = data[:200]
for t, s in [(200, 199), (150, 149), (100, 60), (40, 39)]:
    noisy = tinyddpm.q_sample(clean, t, noise(*clean.shape), schedule)
    after = tinyddpm.p_sample(noisy, clean, t, s, schedule, generator=generator)
    measured.append((after - schedule.alpha_bar[s].sqrt() * clean).var())
    wanted.append(1 - schedule.alpha_bar[s])
holds("3.10", measured, wanted, within=0.01)
levels_without = [noise_level(step.x_t, collapsed, step.t) for step in steps_without[:-1]]
print("of each class, without the noise:", labels[index_without].bincount(minlength=10).tolist())
print(f"noise level at t = 100: {levels[100]:.2f} with the noise, {levels_without[100]:.2f} without")
tiles({"the same starts, without the noise in the step": collapsed[:16]}, enlarge=2)
noise_levels({"with": levels, "without": levels_without}, schedule, data, labels)
show_figure("Left: without noise in the step the noise level falls to near 0. Right: class 1 is nearest to the average")

# %% [markdown]
r"""
One step loses little, but they add up. The denoiser is told "$t=100$" and expects that much noise. It gets hardly any: an image close
to the average of all digits, where no noisy digit would be. The digits nearest to that spot get nearly all of the weight (the bar
in colour), and all starts run into the same corner. ([Readers of other code](https://github.com/SingleZombie/DL-Demos/issues/31)
ask the same.)

## DDIM: keep the old noise

If only the *level* counts, the noise need not be fresh. Take the guessed image and the guessed noise of (3.6), and mix them anew,
each at the strength that time $s$ asks for:

$$x_s=\sqrt{\bar\alpha_s}\,\hat x_0+\sqrt{1-\bar\alpha_s}\,\hat\varepsilon\tag{3.11}$$

This is (3.10) with all of $1-\bar\alpha_s$ on its left half: the factor of the old noise is raised from $\sqrt{1-\bar\alpha_s-\tilde\beta}$,
which is what the mean keeps, to $\sqrt{1-\bar\alpha_s}$, and nothing fresh is drawn. It is called **DDIM**
([Song et al. 2021](https://arxiv.org/abs/2010.02502), equation 12), it is the library's default sampler, and the start $x_T$
decides everything.
"""


# %%
def my_ddim(denoiser, x_T, schedule, grid, generator=None):
    def update(x_t, x_0_hat, t, s):
        eps_hat = my_eps_from_x_0(x_0_hat, x_t, t, schedule)
        return schedule.alpha_bar[s].sqrt() * x_0_hat + (1 - schedule.alpha_bar[s]).sqrt() * eps_hat

    return my_trajectory(denoiser, x_T, grid, update)


same(whole(my_ddim), whole(tinyddpm.ddim), few, start, schedule, my_grid(200, 200))
noisy, s = tinyddpm.q_sample(clean, 100, noise(*clean.shape), schedule), 60
x_s = list(my_ddim(lambda x_t, t: clean, noisy, schedule, [(100, s)]))[-1].x_t  # one step, with the true x_0
eps = my_eps_from_x_0(clean, noisy, 100, schedule)
_, variance = my_q_posterior(clean, noisy, 100, s, schedule)
old = my_q_posterior(clean, noisy, 100, s, schedule)[0] - (1 - schedule.alpha_bar[s] - variance).sqrt() * eps
holds("3.11", x_s, old + (1 - schedule.alpha_bar[s]).sqrt() * eps)  # the posterior's mean, its old noise raised

# %% [markdown]
r"""
The same three samplers, with nothing hidden: the pixel of the game, $-1$ in three images of four. The background is its density
(chapter 01, walked from right to left), and the lines are samples on their way.
"""

# %% tags=["share"]
four = torch.tensor([-1.0, -1.0, -1.0, 1.0], dtype=torch.float64).reshape(4, 1, 1, 1)
of_four, start, every = tinyddpm.dataset_oracle(four, schedule), noise(4000, 1, 1, 1), my_grid(200, 200)
runs = {
    "fresh noise": list(my_p_sample_loop(of_four, start, schedule, every, generator)),
    "no noise": list(my_trajectory(of_four, start, every, mean_only)),
    "DDIM": list(my_ddim(of_four, start, schedule, every)),
}
three_walks(runs, schedule)
show_figure(
    "Paths of a pixel from noise to -1 or +1: a quarter ends at +1 with fresh noise and with DDIM, none without"
)

# %% [markdown]
r"""
Without the noise *not one* sample ends at $+1$: all are drawn to the average of the data, and from there the nearer end is $-1$.
Whatever is rare is lost first. DDIM gets the quarter right without a fresh number. What matters is not the freshness but the
*level*: an image at time $s$ must carry the noise that $s$ stands for, because that is what the denoiser is told.

## When is the digit decided?

The walk has the right distribution at every time, so we may put the question to noised digits.
The weights $w_i$ of (3.8), added up by class, are the probabilities $p$ of the ten classes. Their *entropy*,
$-\sum p\log_2p$, says in bits how open the question is: $\log_2 10=3.3$ where nothing is known, 0 where all is decided.

**Before you run the cell:** $\sqrt{\bar\alpha_t}$, the share of the image's amplitude, goes from 0.006 to 1. At which value is half
of the entropy gone?
"""

# %%
my_guess = None


def bits(p):
    return -(p * p.clamp(min=1e-30).log2()).sum(1).mean().item()


is_class = torch.nn.functional.one_hot(labels, 10).float()  # (2000, 10)
times = list(range(170, 60, -2))
weights = []
for t in times:
    x_t = tinyddpm.q_sample(known[:400], t, noise(400, 1, 32, 32).float(), schedule)
    weights.append(candidates(x_t, torch.full((400,), t), known, schedule))
image_bits, class_bits = [bits(w) for w in weights], [bits(w @ is_class) for w in weights]
share = [value / bits(is_class.mean(0, keepdim=True)) for value in class_bits]  # of what is open at the start
half = next(t for t, value in zip(times, share) if value < 0.5)
guess(my_guess, round(schedule.sqrt_alpha_bar[half].item(), 2), " of the amplitude")

# %%
within = [t for t, value in zip(times, share) if 0.1 < value < 0.9]
window = [schedule.log_snr[t].item() for t in (within[0], within[-1])]
print(
    f"from 90 % to 10 % of the entropy: from t = {within[0]} to {within[-1]}, log-SNR {window[0]:.1f} to {window[1]:.1f}"
)
open_questions(schedule.log_snr[times], image_bits, class_bits, window)
show_figure("Bits that are open, against log-SNR: the class is decided in a narrow window, the image a little later")

# %% [markdown]
r"""
The digit is decided in a narrow window, while the eye can hardly read it. To test that, go back to four points on the way of one
sample, a 1, and finish it eight times from each, with new noise.
"""

# %%
forks = {}
one = (labels[apart(samples)[1]] == 1).nonzero()[0].item()  # the first that ends as a 1
for t in (150, 115, 80, 40):
    x_t = steps[200 - t].x_t[one].expand(8, -1, -1, -1)
    ends = tinyddpm.last(my_p_sample_loop(oracle, x_t, schedule, my_grid(t, t), generator)).x_t
    forks[f"eight ends from t = {t}, log-SNR {schedule.log_snr[t]:.1f}"] = ends
    index = apart(ends)[1]
    print(f"from t = {t}: {len(index.unique())} images, classes {labels[index].tolist()}")
tiles(
    forks,
    2,
    alt="Eight ends each from four times: all kinds of digits from t = 150, only ones from 80, one image from 40",
)

# %% [markdown]
r"""
Inside the window the fresh noise makes the decisions. Keep the window in mind: it is where a network must be good for digits to be readable
(chapter 06), where guidance acts (07), and what a film must show (08).

## Which variance?

Drawing with $\tilde\beta$ neglects the second part of (3.9). The library calls it `"posterior"`. It is exact if the data are a single
point. The other choice in use, $1-a$, for one step $\beta_t$, is called `"beta"`. It is exact for standard normal data, where
$\operatorname{Var}[x_0\mid x_t]=1-\bar\alpha_t$ by adding precisions, as in (3.3):

$$\tilde\beta+c^2(1-\bar\alpha_t)=\frac{(1-a)(1-\bar\alpha_s)+\bar\alpha_s(1-a)^2}{1-\bar\alpha_t}=1-a\tag{3.12}$$

Our pixels lie in between. (Ho et al. 2020, section 3.2; [often](https://github.com/zoubohao/DenoisingDiffusionProbabilityModel-ddpm-/issues/18)
[asked](https://github.com/lucidrains/denoising-diffusion-pytorch/issues/135).) The cell fits the best multiple of $x_t$ to a million
standard normal $x_s$; the variance of what is left must be $1-a$.
"""

# %%
abar_t, abar_s, a = shares(75, 60)
x_0 = noise(1_000_000)  # standard normal data
before = abar_s.sqrt() * x_0 + (1 - abar_s).sqrt() * noise(1_000_000)
after = a.sqrt() * before + (1 - a).sqrt() * noise(1_000_000)
slope = (before * after).mean() / (after * after).mean()  # of the best multiple
holds("3.12", (before - slope * after).var(), 1 - a, within=0.005)

# %% [markdown]
r"""
How much does it cost? On normal data of variance $V$ the exact denoiser is $\hat x_0=k\,x_t$, so a step is $x_s=A\,x_t$ plus noise of
the chosen variance $\sigma^2$, and the whole loop can be followed with a pencil:

$$\operatorname{Var}[x_s]=A^2\operatorname{Var}[x_t]+\sigma^2,\quad A=\frac{\sqrt{\bar\alpha_s}\,(1-a)\,k+\sqrt a\,(1-\bar\alpha_s)}{1-\bar\alpha_t},\quad k=\frac{\sqrt{\bar\alpha_t}\,V}{\bar\alpha_tV+1-\bar\alpha_t}\tag{3.13}$$

The cell follows it, and runs the library's sampler on 200,000 numbers beside it.
"""


# %%
def recursion(V, schedule, kind):
    """Var[x_t] for t = T, ..., 0 under (3.13), from Var[x_T] = 1."""
    variances = [1.0]
    for t, s in schedule.grid():
        abar_t, a = schedule.alpha_bar[t], schedule.alpha_bar[t] / schedule.alpha_bar[s]
        k = abar_t**0.5 * V / (abar_t * V + 1 - abar_t)
        A, posterior = my_q_posterior(k, 1.0, t, s, schedule)  # the mean for x_t = 1, x_0_hat = k
        sigma2 = {"none": 0.0, "posterior": posterior, "beta": 1 - a}[kind]
        variances.append(A**2 * variances[-1] + (sigma2 if s > 0 else 0.0))
    return variances


coarse = tinyddpm.Schedule.named("linear", T=50)
in_theory, in_practice = [], []
for kind in ("posterior", "beta"):
    denoiser, start = tinyddpm.gaussian_oracle(0.0, 0.25, coarse), noise(200_000, 1, 1, 1)
    run = tinyddpm.p_sample_loop(denoiser, start, coarse, variance=kind, generator=generator)
    in_practice.append([step.x_t.var() for step in run])
    in_theory.append(recursion(0.25, coarse, kind))
holds("3.13", in_practice, in_theory, within=0.015)
for T in (50, 200):
    of_T = tinyddpm.Schedule.named("linear", T)
    ends = {kind: recursion(0.25, of_T, kind)[-1] for kind in ("none", "posterior", "beta")}
    print(f"{T:3} steps, data of variance 0.25:", ", ".join(f"{kind} {end:.2g}" for kind, end in ends.items()))

# %% [markdown]
r"""
The truth lies between the two, and more steps bring both closer. Without noise the variance goes to zero: the collapse once more, now
as a formula. One difference matters in code: $\beta_t$ is not 0 at the last step, so whoever takes `"beta"` must leave the noise out
there by hand.

## Bug museum: three samplers that are not

1. **Noise at the last step.** The loop adds it at every step, the last included. With `"beta"` each sample keeps a grain of standard
   deviation $\sqrt{\beta_1}$. (It stood in [a course's notebooks](https://github.com/acids-ircam/diffusion_models/issues/1), beside the
   typos reported there.)
2. **A condition that is always true.** The loop runs over $T,\dots,1$ and asks `if t > 0:`. But $t=0$ never comes: it is $s$ that becomes
   0. The effect is that of the first.
3. **$\alpha$ and $\bar\alpha$ mixed up.** (3.5) has $\sqrt{\bar\alpha_s}$ in front of $x_0$ and $\sqrt a$, without a bar, in front of
   $x_t$. Swap a letter, and the arithmetic is a little wrong at every step.

The cell runs a right sampler, the second bug, and the third in both directions, in a random order. **Before you read on:** which row is
right?
"""


# %%
def with_factors(in_front_of_x_0, in_front_of_x_t, last=0):
    """A sampler's step with these factors in (3.5), where s = last is the one without noise."""

    def update(x_t, x_0_hat, t, s):
        now = dict(zip(("abar_t", "abar_s", "a"), shares(t, s)))
        mean = now[in_front_of_x_0].sqrt() * (1 - now["a"]) * x_0_hat
        mean = (mean + now[in_front_of_x_t].sqrt() * (1 - now["abar_s"]) * x_t) / (1 - now["abar_t"])
        variance = (1 - now["abar_s"]) * (1 - now["a"]) / (1 - now["abar_t"]) if last == 0 else 1 - now["a"]
        return mean + (variance**0.5 * noise(*x_t.shape).float() if s > last else 0)

    return update


samplers = {
    "right": with_factors("abar_s", "a"),
    "always true": with_factors("abar_s", "a", last=-1),  # adds beta at s = 0, too
    "no bar": with_factors("a", "a"),
    "a bar too many": with_factors("abar_s", "abar_t"),
}
few = tinyddpm.dataset_oracle(known[:500], schedule)
museum, order = {}, torch.randperm(4, generator=torch.Generator().manual_seed(9)).tolist()
for row, name in zip("ABCD", [list(samplers)[i] for i in order]):
    walk = my_trajectory(few, x_T[:32], every, samplers[name])
    museum[row] = name, {step.t: step.x_t for step in walk if step.t in (100, 0)}
tiles({row: at[0][:8] for row, (_, at) in museum.items()}, 2, alt="Eight digits from each of four samplers, A to D")

# %% [markdown]
r"""
Two numbers tell: the distance from the data at the end, and the noise level on the way. (At $t=100$, where $\beta_t$ and
$\tilde\beta$ hardly differ.)
"""

# %%
for row, (name, at) in museum.items():
    rms, index = apart(at[0])
    level = noise_level(at[100], at[0], 100)
    print(f"{row} {name:14} rms from a digit {rms.max():5.3f}, noise level {level:.2f}", end=", ")
    print("classes", labels[index].bincount(minlength=10).tolist())

# %% [markdown]
r"""
The grain of the second bug is too fine for the eye, and the distance finds it at once. The third is the treacherous one: it ends on
perfect digits, with a noise level that is not 1 and classes that are not those of the data. With a network in the oracle's place one
sees strange digits and blames the training.

## What this chapter showed

One step back is normal once $x_0$ is known, with mean (3.5) and variance (3.4). A denoiser guesses $x_0$, and the conditional mean is the guess
that makes the mean right. With an exact denoiser ten lines return the data themselves, with the right noise at every time: that proves the loop,
and shows that a perfect denoiser only memorises. The mean is too clean for its time; fresh noise makes up for it, or DDIM's old noise. The digit
is decided in a narrow window.

## Exercises

**03a.** Write the posterior mean for $s=t-1$ from $\hat\varepsilon$: put (3.6) into (3.5) and simplify until $x_t$ and
$\hat\varepsilon$ appear once each (Ho et al. 2020, equation 11).
"""


# %%
def answer_03a(x_t, eps_hat, t, schedule):
    """x_t, eps_hat: (b, 1, h, w); t: a whole number from 1 to T. Returns the mean of x_{t-1}."""
    ...


check("03a", answer_03a)

# %% [markdown]
r"""
<details><summary>Hint 03a</summary>

$\sqrt{\bar\alpha_s/\bar\alpha_t}=1/\sqrt a$, and $1-a=\beta_t$. Collect $x_t$ first.
</details>

<details><summary>Solution 03a</summary>

```python
def answer_03a(x_t, eps_hat, t, schedule):
    beta, abar = schedule.beta[t], schedule.alpha_bar[t]
    less_noise = x_t - beta / (1 - abar).sqrt() * eps_hat
    return less_noise / (1 - beta).sqrt()
```

The numerator of $x_t$'s coefficient is $(1-a+a-a\,\bar\alpha_s)/\sqrt a$, so the coefficient is $1/\sqrt a$.
</details>

**03b.** A loop from the museum. Repair it, and change nothing else.

```python
def broken(denoiser, x_T, schedule, generator):
    x = x_T
    for t in range(schedule.T, 0, -1):
        x_0_hat = denoiser(x, torch.full((len(x),), t))
        x, _ = tinyddpm.q_posterior(x_0_hat, x, t, t - 1, schedule)
        if t > 0:
            x = x + schedule.beta[t].sqrt() * torch.randn(x.shape, generator=generator)
    return x
```
"""


# %%
def answer_03b(denoiser, x_T, schedule, generator):
    """x_T: (b, 1, h, w). Returns the finished images."""
    ...


check("03b", answer_03b)

# %% [markdown]
r"""
<details><summary>Hint 03b</summary>

Which step must be spared the noise: the one that starts at 0, or the one that arrives there?
</details>

<details><summary>Solution 03b</summary>

```python
def answer_03b(denoiser, x_T, schedule, generator):
    x = x_T
    for t in range(schedule.T, 0, -1):
        x_0_hat = denoiser(x, torch.full((len(x),), t))
        x, _ = tinyddpm.q_posterior(x_0_hat, x, t, t - 1, schedule)
        if t > 1:
            x = x + schedule.beta[t].sqrt() * torch.randn(x.shape, generator=generator)
    return x
```

The library asks `if s == 0`, which stays right when times are skipped.
</details>

**03c.** The data are two numbers, $-1$ and $+1$, equally likely. Write the exact denoiser in closed form, without a softmax.
"""


# %%
def answer_03c(x_t, alpha_bar_t):
    """x_t: a tensor; alpha_bar_t: a number between 0 and 1. Returns x_0_hat."""
    ...


check("03c", answer_03c)

# %% [markdown]
r"""
<details><summary>Hint 03c</summary>

Multiply out the two $d_i$ of (3.8): what is common to both cancels. The rest is $(e^u-e^{-u})/(e^u+e^{-u})$.
</details>

<details><summary>Solution 03c</summary>

```python
def answer_03c(x_t, alpha_bar_t):
    signal, noise_variance = alpha_bar_t**0.5, 1 - alpha_bar_t
    u = signal * x_t / noise_variance
    return torch.tanh(u)
```

A decision that grows sharper as the noise fades.
</details>

**03d.** Follow (3.13) under `"beta"`, with no noise in the last step: what is the variance of the samples, if the data have variance
$V$ and the chain starts with variance 1?
"""


# %%
def answer_03d(V, alpha_bar):
    """V: a number; alpha_bar: (T + 1,). Returns the variance of x_0, a number."""
    ...


check("03d", answer_03d)

# %% [markdown]
r"""
<details><summary>Hint 03d</summary>

A loop over $t$ that carries one number. The noise adds $1-a$, except where $s=0$.
</details>

<details><summary>Solution 03d</summary>

```python
def answer_03d(V, alpha_bar):
    variance = 1.0
    for t in range(len(alpha_bar) - 1, 0, -1):
        abar_t, abar_s = float(alpha_bar[t]), float(alpha_bar[t - 1])
        a = abar_t / abar_s
        k = abar_t**0.5 * V / (abar_t * V + 1 - abar_t)
        A = (abar_s**0.5 * (1 - a) * k + a**0.5 * (1 - abar_s)) / (1 - abar_t)
        variance = A**2 * variance + (1 - a if t > 1 else 0.0)
    return variance
```

For $V=1$ the factor $A$ is $\sqrt a$, so a variance of 1 stays 1 until the last step.
</details>

**03e, an experiment.** Walk 4,000 samples of the pixel `four` through all 200 steps, with *half* the noise in each step (half its
standard deviation). With all of it a quarter ends at $+1$, without any none. How many per cent end there now?
"""

# %%
prediction = None  # first write down what you expect
measured = None  # then change my_p_sample_loop, run it, and put the number here

check("03e", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 03e</summary>

Copy `my_p_sample_loop` with a factor 0.5 in front of the noise, and count as in the figure.
</details>

<details><summary>Solution 03e</summary>

```python
def half_the_noise(x_t, x_0_hat, t, s):
    mean, variance = tinyddpm.q_posterior(x_0_hat, x_t, t, s, schedule)
    return mean + 0.5 * variance**0.5 * torch.randn(x_t.shape, generator=generator, dtype=x_t.dtype)


generator = torch.Generator().manual_seed(5)
four = torch.tensor([-1.0, -1.0, -1.0, 1.0], dtype=torch.float64).reshape(4, 1, 1, 1)
start = torch.randn(4000, 1, 1, 1, generator=generator, dtype=torch.float64)
steps = my_trajectory(tinyddpm.dataset_oracle(four, schedule), start, my_grid(200, 200), half_the_noise)
prediction, measured = 12.5, 100 * (tinyddpm.last(steps).x_t > 0).double().mean().item()
```

Less than half of the quarter: $x_t$ is cleaner than the denoiser believes, so it sees the average as a signal and is drawn to the
nearer end. Samplers with a "temperature" below 1 lose what is rare in this way.
</details>

## Symbols

| symbol | code name | meaning |
|---|---|---|
| $a$ | `a` | (3.1), what survives from $s$ to $t$ |
| $\mu$ | `mean` | (3.5), the posterior's mean |
| $\tilde\beta$ | `variance` | (3.4), the posterior's variance |
| $\hat x_0$, $\hat\varepsilon$ | `x_0_hat`, `eps_hat` | a denoiser's guess, as image and as noise |
| $w_i$ | `w` | (3.8), how likely image $i$ became $x_t$ |
| $k$, $A$ | `k`, `A` | (3.13), on normal data of variance $V$ |

**Next:** [04 · Building blocks](04_building_blocks.ipynb). The sampler is proved. What it still wants is a denoiser that has not
learned the data by heart.
"""
