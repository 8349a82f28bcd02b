# %% [markdown]
r"""
# 03 · The reverse process: digits out of noise, without a network

**After this chapter you can**

* derive one step back, completely, and say why it is normal as soon as the clean image is known;
* write a sampler in ten lines and prove it with an exact denoiser, before any network exists;
* say why noise is added while denoising, and show what happens to whoever leaves it out.

*You need:* chapter 01, and 02 for the word log-SNR. *Reading:* about 70 minutes, in two sittings; the place for the
break is marked, after the exact denoiser. *Running:* about half a minute on a laptop, without a network. *You build
and then import:* `q_posterior`, `dataset_oracle`, `p_sample`, `p_sample_loop`.

---

If a diffusion model makes bad pictures, there are two suspects: the network, which may have learned too little, and
the sampler, the loop that calls it, which may be wrong; and it is easy to search the one for a long time when the
fault is in the other. We separate them. This chapter has no network at all. It derives the sampler, and runs it on a
denoiser that is *exact*, because it is computed from the data by Bayes' rule. Whatever comes out then is the
sampler's doing alone. If it is right here, it stays right: chapter 06 puts a trained network into the same loop and
changes no line of it.
"""

# %% tags=["setup"]
import matplotlib.pyplot as plt
import torch
from course import check, guess, holds, same, show

import tinyddpm
from tinyddpm import Step
from tinyddpm.data import mnist
from tinyddpm.viz import film_strip, image_grid

# %%
schedule = tinyddpm.Schedule.named("linear", T=200)  # scaled, so that it ends in noise: chapter 02
images, labels = mnist()[:2300]  # training digits
images = images.double()  # in double precision, because we prove things
data, labels = images[:2000], labels[:2000]  # 2,000 digits are all that this chapter knows
others = images[2000:]  # these it does not know
print("data", tuple(data.shape), "of each class:", labels.bincount().tolist())

# %% [markdown]
r"""
## From any time to any later one

Forwards we know one step (1.1), and the jump from the clean image $x_0$ to any time $t$ (1.5). A step *back* will
lead from $t$ to an earlier time $s$. Most often $s = t - 1$, but the algebra is the same for every $s < t$, and later
chapters will skip times, so we do it once for all. For that we need the way forwards from $s$ to $t$. It consists of
the steps $s+1, \dots, t$, and by the argument that led to (1.3) they are one jump: the factors $1-\beta_r$ multiply,
and the noises become one. Their product is what stands in $\bar\alpha_t$ and not yet in $\bar\alpha_s$; call it $a$,
the share of the variance that survives from $s$ to $t$:

$$x_t = \sqrt{a}\; x_s + \sqrt{1-a}\;\varepsilon, \qquad a = \frac{\bar\alpha_t}{\bar\alpha_s} = \prod_{r=s+1}^{t}(1-\beta_r) \tag{3.1}$$

with fresh standard normal noise $\varepsilon$. For $s = t-1$ that is one step, $a = 1-\beta_t$; for $s = 0$ it is the
jump (1.5). The cell walks from 60 to 75, keeps the books on the factor and the variance, and compares.
"""


# %%
def shares(t, s):
    """alpha_bar_t, alpha_bar_s, and their quotient a."""
    abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    return abar_t, abar_s, abar_t / abar_s


abar_t, abar_s, a = shares(75, 60)
factor, variance = 1.0, 0.0
for beta in schedule.beta[61:76].tolist():  # the steps 61, ..., 75, one by one
    factor, variance = (1 - beta) ** 0.5 * factor, (1 - beta) * variance + beta
holds("3.1", [factor, variance], [a**0.5, 1 - a])
print(f"alpha_bar is {abar_s:.2f} at 60 and {abar_t:.2f} at 75, and a is {a:.2f}")

# %% [markdown]
r"""
## Backwards is a question

We hold $x_t$ and ask where it was at time $s$. There is no one answer: many $x_s$ could have become this $x_t$, some
more easily than others, and which of them are likely to exist in the first place depends on what images look like.
That is the hard part of the matter.

So let somebody whisper the clean image $x_0$ to us. Then the data have no secret left, and two witnesses say all that
there is to say about $x_s$:

* **From the past:** $x_s$ is $x_0$ after a jump (1.5). It lies around $\sqrt{\bar\alpha_s}\,x_0$ with variance
  $1-\bar\alpha_s$.
* **From the future:** $x_s$ became $x_t$ by a jump (3.1). An $x_s$ is credible in so far as it would easily have done
  so.

To combine them we need one rule about probability densities. Write $q(A)$ for the density of a quantity $A$ under the
forward process, $q(A, B)$ for that of two quantities together, and $q(A \mid B)$ (read "$A$ given $B$") for the density
of $A$ among only those runs in which $B$ took the value we saw. Three lines lead to the rule:

$$q(A, B) = q(B)\; q(A \mid B) \qquad\text{first } B \text{ happens, and then } A \text{, given that } B$$
$$q(A, B) = q(A)\; q(B \mid A) \qquad\text{the same pair, told in the other order}$$
$$q(A \mid B) = \frac{q(A)\; q(B \mid A)}{q(B)} \qquad\text{both are equal; divide by } q(B)$$

The third is **Bayes' rule**: it turns "how likely is what I see, given the cause" into "how likely is the cause, given
what I see". Let the cause $A$ be $x_s$, let $B$ be the $x_t$ that we see, and let $x_0$ be known throughout:

$$q(x_s \mid x_t, x_0) = \frac{q(x_s \mid x_0)\; q(x_t \mid x_s)}{q(x_t \mid x_0)} \tag{3.2}$$

Above stand the two witnesses, the past and the future. (The future's factor need not mention $x_0$: a jump from $s$ to
$t$ does not ask where $x_s$ came from.) Below stands a number without $x_s$, which makes the area under the result 1.
This is the **posterior**: what we think of $x_s$ after having seen $x_t$.

Here is the experiment. We send two million pixels forwards from $x_0 = 0.5$, through $s = 60$ to $t = 75$, and keep
only those that arrive near $x_t = -0.6$; that is what "given" means. Where had the kept ones been at $s$?
"""

# %%
generator = torch.Generator().manual_seed(1)


def noise(*shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def bell(x, mean, variance):
    """The density of a normal distribution."""
    return torch.exp(-((x - mean) ** 2) / (2 * variance)) / (2 * torch.pi * variance) ** 0.5


abar_t, abar_s, a = shares(75, 60)
x_0, x_t = 0.5, -0.6
were = abar_s.sqrt() * x_0 + (1 - abar_s).sqrt() * noise(2_000_000)
became = a.sqrt() * were + (1 - a).sqrt() * noise(2_000_000)
kept = were[(became - x_t).abs() < 0.02]
bins, width = torch.linspace(-2.4, 2.0, 45, dtype=torch.float64), 0.1  # their centres
experiment = torch.histc(kept, 45, -2.45, 2.05) / len(kept) / width
past = bell(bins, abar_s.sqrt() * x_0, 1 - abar_s)
future = bell(x_t, a.sqrt() * bins, 1 - a)
bayes = past * future / bell(x_t, abar_t.sqrt() * x_0, 1 - abar_t)
holds("3.2", experiment, bayes, within=0.07)
print(f"area under the future {future.sum() * width:.2f}, under Bayes {bayes.sum() * width:.2f}")

plt.figure(figsize=(4.5, 1.8))
plt.bar(bins, experiment, width, color="0.8", label="the kept ones")
plt.plot(bins, past, "--", label="the past")
plt.plot(bins, future, ":", label="the future")
plt.plot(bins, bayes, "k", label="Bayes")
plt.xlabel("$x_s$")
plt.legend()
plt.show()

# %% [markdown]
r"""
The posterior lies between its witnesses, is narrower than either, and looks like a bell itself. That is no accident.
Only one thing may puzzle: the area under the future is not 1. As a function of $x_t$ it is a density, but here $x_t$ is
fixed and $x_s$ varies, so it only says how well each $x_s$ explains what we saw. The division mends the area.

## Completing the square

A product becomes a sum when we take logarithms, and the logarithm of a bell is a parabola. Written for one pixel
(every pixel is independent of the others, once $x_0$ and $x_t$ are known), with "const" for whatever does not contain
$x_s$:

$$\log q(x_s \mid x_t, x_0) = -\frac{\left(x_s - \sqrt{\bar\alpha_s}\,x_0\right)^2}{2\,(1-\bar\alpha_s)} - \frac{\left(x_t - \sqrt{a}\,x_s\right)^2}{2\,(1-a)} + \text{const}$$

The denominator of (3.2) does not contain $x_s$, and has gone into the constant. Multiply out both squares:

$$= -\frac{x_s^2 - 2\sqrt{\bar\alpha_s}\,x_0\,x_s}{2\,(1-\bar\alpha_s)} - \frac{a\,x_s^2 - 2\sqrt{a}\,x_t\,x_s}{2\,(1-a)} + \text{const}$$

($\bar\alpha_s x_0^2$ and $x_t^2$ went into the constant, too.) Collect the powers of $x_s$:

$$= -\frac12\left(\frac{1}{1-\bar\alpha_s} + \frac{a}{1-a}\right) x_s^2 + \left(\frac{\sqrt{\bar\alpha_s}}{1-\bar\alpha_s}\,x_0 + \frac{\sqrt{a}}{1-a}\,x_t\right) x_s + \text{const}$$

A parabola in $x_s$, open downwards, and that is the whole proof that **one step back is normal when we know $x_0$**:
only bells have parabolas as their logarithms. Which bell? One with mean $\mu$ and variance $v$ has the logarithm

$$-\frac{(x_s - \mu)^2}{2v} + \text{const} = -\frac12\,\frac1v\,x_s^2 + \frac{\mu}{v}\,x_s + \text{const}$$

and two parabolas are equal if their coefficients are:

$$\frac1v = \frac{1}{1-\bar\alpha_s} + \frac{a}{1-a}, \qquad \frac{\mu}{v} = \frac{\sqrt{\bar\alpha_s}}{1-\bar\alpha_s}\,x_0 + \frac{\sqrt a}{1-a}\,x_t \tag{3.3}$$

The inverse of a variance is called a precision. So (3.3) says: **precisions add up**, and the mean is the average of
what the two witnesses claim, $\sqrt{\bar\alpha_s}\,x_0$ and $x_t/\sqrt{a}$, each weighted by its precision. The cell
lets PyTorch differentiate the logarithm of (3.2): the slope at $x_s = 0$ must be $\mu/v$, and the curvature $-1/v$.
"""

# %%
abar_t, abar_s, a = shares(75, 60)
x_0, x_t = 0.5, -0.6
at = torch.zeros((), dtype=torch.float64, requires_grad=True)  # x_s = 0
log_q = bell(at, abar_s.sqrt() * x_0, 1 - abar_s).log() + bell(x_t, a.sqrt() * at, 1 - a).log()
(slope,) = torch.autograd.grad(log_q, at, create_graph=True)
(curvature,) = torch.autograd.grad(slope, at)
precision = 1 / (1 - abar_s) + a / (1 - a)
weighted = abar_s.sqrt() / (1 - abar_s) * x_0 + a.sqrt() / (1 - a) * x_t
holds("3.3", [-curvature, slope.detach()], [precision, weighted])

# %% [markdown]
r"""
It remains to tidy up. On a common denominator, with $a\,\bar\alpha_s = \bar\alpha_t$ from (3.1),

$$\frac1v = \frac{(1-a) + a\,(1-\bar\alpha_s)}{(1-\bar\alpha_s)(1-a)} = \frac{1 - a\,\bar\alpha_s}{(1-\bar\alpha_s)(1-a)} = \frac{1-\bar\alpha_t}{(1-\bar\alpha_s)(1-a)}$$

$$v = \frac{(1-\bar\alpha_s)\,(1-a)}{1-\bar\alpha_t} \tag{3.4}$$

and $\mu$ is $v$ times the second half of (3.3). There $v/(1-\bar\alpha_s) = (1-a)/(1-\bar\alpha_t)$ and
$v/(1-a) = (1-\bar\alpha_s)/(1-\bar\alpha_t)$, hence

$$\mu(x_t, x_0) = \frac{\sqrt{\bar\alpha_s}\,(1-a)\;x_0 + \sqrt{a}\,(1-\bar\alpha_s)\;x_t}{1-\bar\alpha_t} \tag{3.5}$$

For $s = t-1$, where $1-a = \beta_t$, these are equation 7 of Ho et al. 2020; they write $\tilde\beta_t$ for $v$. The
cell knows nothing of squares. It multiplies the two densities on a fine grid of values of $x_s$ and sums up mean and
variance.
"""


# %%
def my_q_posterior(x_0, x_t, t, s, schedule):
    abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    a = abar_t / abar_s
    variance = (1 - abar_s) * (1 - a) / (1 - abar_t)
    mean = (abar_s**0.5 * (1 - a) * x_0 + a**0.5 * (1 - abar_s) * x_t) / (1 - abar_t)
    return mean, variance


abar_t, abar_s, a = shares(75, 60)
x_0, x_t = 0.5, -0.6
line = torch.linspace(-8, 8, 4001, dtype=torch.float64)
share = bell(line, abar_s.sqrt() * x_0, 1 - abar_s) * bell(x_t, a.sqrt() * line, 1 - a)
share = share / share.sum()
grid_mean = (share * line).sum()
grid_variance = (share * (line - grid_mean) ** 2).sum()
mean, variance = my_q_posterior(x_0, x_t, 75, 60, schedule)
holds("3.4", grid_variance, variance)
holds("3.5", grid_mean, mean)
same(my_q_posterior, tinyddpm.q_posterior, data[:4], noise(4, 1, 32, 32), 75, 60, schedule)  # both parts

mean, variance = my_q_posterior(data[:4], noise(4, 1, 32, 32), 1, 0, schedule)
is_x_0, no_variance = torch.allclose(mean, data[:4]), variance.item() == 0
print("the last step, to s = 0: the mean is x_0:", is_x_0, "| the variance is 0:", no_variance)

# %% [markdown]
r"""
(The variance is a single number, hence its empty shape.) The last
line is a small but useful fact. At $s = 0$ the witness from the past knows everything, so the mean is $x_0$ itself and
the variance is 0. **The last step adds no noise**, and with this variance the loop needs no special case for it.

## To guess the image is to guess the noise

All of this needs $x_0$, which is what we want to find. So we shall *guess* it from what we have, $x_t$ and $t$, and
put the guess $\hat x_0$, in code `x_0_hat`, in its place. A function that makes such guesses,

$$(x_t, t) \;\mapsto\; \hat x_0$$

is a **denoiser**, and this is the only contract of the whole library: samplers are handed a denoiser and see nothing
else. In this chapter it is exact, from chapter 05 on it is a network.

You will read of networks that "predict the noise". That is the same thing in other words. At a given $x_t$, equation
(1.5) ties $x_0$ and $\varepsilon$ together, and whoever has one of them has the other:

$$\varepsilon = \frac{x_t - \sqrt{\bar\alpha_t}\;x_0}{\sqrt{1-\bar\alpha_t}}, \qquad x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\;\varepsilon}{\sqrt{\bar\alpha_t}} \tag{3.6}$$

The same two lines turn a guess $\hat x_0$ into a guess $\hat\varepsilon$ (`eps_hat`) and back.
"""


# %%
def my_eps_from_x_0(x_0, x_t, t, schedule):
    abar = schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
    return (x_t - abar.sqrt() * x_0) / (1 - abar).sqrt()


def my_x_0_from_eps(eps, x_t, t, schedule):
    abar = schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
    return (x_t - (1 - abar).sqrt() * eps) / abar.sqrt()


several = torch.tensor([1, 60, 140, 200])
eps = noise(4, 1, 32, 32)
noisy = tinyddpm.q_sample(data[:4], several, eps, schedule)
eps_back = my_eps_from_x_0(data[:4], noisy, several, schedule)
x_0_back = my_x_0_from_eps(eps, noisy, several, schedule)
holds("3.6", torch.stack([eps, data[:4]]), torch.stack([eps_back, x_0_back]))
same(my_eps_from_x_0, tinyddpm.eps_from_x_0, data[:4], noisy, several, schedule)
same(my_x_0_from_eps, tinyddpm.x_0_from_eps, eps, noisy, several, schedule)
amplified = schedule.sqrt_one_minus_alpha_bar[200] / schedule.sqrt_alpha_bar[200]
print(f"at t = 200 an error of 0.01 in eps is an error of {0.01 * amplified:.1f} in x_0")

# %% [markdown]
r"""
## The best guess is an average

What is a good guess? Here is a game. A pixel is $-1$ in three images of four and $+1$ in the fourth. It was noised to
$t = 75$, where $\bar\alpha_t = 0.24$, so that $\pm1$ has become $\pm0.49$ plus noise of standard deviation 0.87. You
see $x_t = 0.6$. You name one number $f$, the truth is uncovered, and you pay the squared distance.

**Before you run the next cell:** which number do you name?

A symbol first: $\mathbb E[\cdot]$, the *expectation*, is the average over everything that chance may do, and
$\mathbb E[\cdot \mid x_t]$ the average over those cases only in which this $x_t$ was seen. So $\mathbb E[x_0]$ is
$\frac34\cdot(-1) + \frac14\cdot(+1) = -\frac12$: that is the average before anything was seen. In the same way
$\operatorname{Var}[\cdot \mid x_t]$ is the variance over only those cases.

Call $m = \mathbb E[x_0 \mid x_t]$ the *conditional mean*: the average of all $x_0$ that could have become this $x_t$,
weighted by how likely each is to have done so. Write $x_0 - f = (x_0 - m) + (m - f)$, square, and average:

$$\mathbb E\left[(x_0 - f)^2 \mid x_t\right] = \mathbb E\left[(x_0 - m)^2 \mid x_t\right] + 2\,(m - f)\;\mathbb E\left[x_0 - m \mid x_t\right] + (m - f)^2$$

The middle term vanishes, because $x_0$ is $m$ on average; that is what $m$ means. The first is the variance of the
$x_0$ that remain possible:

$$\mathbb E\left[(x_0 - f)^2 \mid x_t\right] = \operatorname{Var}[x_0 \mid x_t] + (f - m)^2 \tag{3.7}$$

Nothing you name changes the first term. The second is least at $f = m$. So **the best guess in mean squared error is
the conditional mean**, and a network that is trained on this error strives for it, whether or not anybody told it to.
The cell plays the game with two million pixels and thirteen numbers, and compares the payments with (3.7), whose $m$
and variance come from Bayes' rule.
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
print(f"+1 and -1 became +-{abar_t.sqrt():.2f}, with noise of standard deviation {(1 - abar_t).sqrt():.2f}")
holds("3.7", paid, var_x_0 + (f - m) ** 2, within=0.06)

figure, (left, right) = plt.subplots(1, 2, figsize=(5.6, 1.8))
fine = torch.linspace(-1.5, 1.5, 100)
left.plot(f, paid, "o")
left.plot(fine, var_x_0 + (fine - m) ** 2)
left.axvline(m, color="k", linestyle=":")
left.set(xlabel="the number named, f", title="mean squared error")
seen = torch.linspace(-3, 3, 200, dtype=torch.float64)
for time in (150, 75, 20):
    right.plot(seen, 2 * chance_of_plus(seen, schedule.alpha_bar[time]) - 1, label=f"t = {time}")
right.set(xlabel="$x_t$", title="best guess of $x_0$")
right.legend()
plt.show()

# %% [markdown]
r"""
On the left the payments (dots) lie on their parabola (3.7), and the dotted line is the conditional mean. The best
number is one that the pixel *never has*: it is neither black nor white but a grey that lies between. Keep that in
mind; it is the source of everything surprising below. On the right you see the whole denoiser of this pixel at three
times. With little noise it makes a clear decision; with much noise it hardly looks at $x_t$ and answers with the
average of the data, $-0.5$.

## An exact denoiser for 2,000 images

Let the data be exactly $n$ images $x_1, \dots, x_n$, each as likely as the others. Then Bayes' rule needs no
integral. Image $x_i$ becomes $x_t$ with the density of a bell around $\sqrt{\bar\alpha_t}\,x_i$ whose variance is
$1-\bar\alpha_t$ in every pixel; over all pixels the exponents add up to the squared distance. So the probability
$w_i$ that it was $x_i$ is

$$w_i = \frac{e^{-d_i}}{\sum_j e^{-d_j}}, \quad d_i = \frac{\lVert x_t - \sqrt{\bar\alpha_t}\,x_i\rVert^2}{2\,(1-\bar\alpha_t)}, \qquad \hat x_0 = \mathbb E[x_0 \mid x_t] = \sum_i w_i\,x_i \tag{3.8}$$

(Karras et al. 2022, appendix B.3). The fraction on the left is the softmax of $-d$: the nearer an image, shrunk to
time $t$, lies to $x_t$, the more it counts. When there is much noise, the distances are divided by much, and all
images count alike; when there is little, only the nearest does. No network could do better, in mean squared error, on
data that are just these images.

The cell tries (3.8) by experiment on three "images" of two pixels, and then compares our denoiser of the digits with
the library's.
"""


# %%
def candidates(x_t, t, data, schedule):
    """w: how likely each image of data is to have become x_t. x_t: (b, 1, h, w), t: (b,). Returns (b, n)."""
    abar = schedule.alpha_bar[t].reshape(-1, 1)
    x, X = x_t.flatten(1), data.flatten(1)  # (b, h w), (n, h w)
    square = (x**2).sum(1)[:, None] - 2 * abar.sqrt() * (x @ X.T) + abar * (X**2).sum(1)  # of the distance
    return (-square / (2 * (1 - abar))).softmax(1)


def my_dataset_oracle(data, schedule):
    def denoiser(x_t, t):
        w = candidates(x_t, t, data, schedule)
        return (w @ data.flatten(1)).reshape(x_t.shape)

    return denoiser


t = 75
abar_t = schedule.alpha_bar[t]
three = torch.tensor([[-1.0, -1.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
drawn = three[torch.randint(3, (2_000_000,), generator=generator)]
became = abar_t.sqrt() * drawn + (1 - abar_t).sqrt() * noise(2_000_000, 2)
x_t = torch.tensor([0.3, -0.2], dtype=torch.float64)
possible = drawn[((became - x_t).abs() < 0.1).all(1)]
exact = my_dataset_oracle(three.reshape(3, 1, 1, 2), schedule)(x_t.reshape(1, 1, 1, 2), torch.tensor([t]))
holds("3.8", possible.mean(0), exact.flatten(), within=0.03)

oracle = my_dataset_oracle(data, schedule)
noisy = tinyddpm.q_sample(data[:8], torch.full((8,), 110), noise(8, 1, 32, 32), schedule)
same(oracle, tinyddpm.dataset_oracle(data, schedule), noisy, torch.full((8,), 110))

# %% [markdown]
r"""
Such a denoiser is called an *oracle*: it knows what no student can know. Here is what it answers when one digit is
noised to eight times.
"""

# %%
eight = torch.tensor([200, 150, 130, 120, 110, 100, 80, 40])
digit = data[7:8].expand(8, -1, -1, -1)
noisy = tinyddpm.q_sample(digit, eight, noise(1, 1, 32, 32).expand(8, -1, -1, -1), schedule)
show(
    image_grid(torch.cat([noisy / 2, oracle(noisy, eight)]), columns=8),
    "above x_t, below x_0_hat, t = " + ", ".join(map(str, eight.tolist())),
    width=6,
)
effective = 1 / (candidates(noisy, eight, data, schedule) ** 2).sum(1)
print("in effect an average of this many digits:", [round(number) for number in effective.tolist()])

# %% [markdown]
r"""
From left to right the average is taken over fewer and fewer digits: first over all of them, then over a crowd that
fits $x_t$, then over one. None of the blurred answers is a digit that anybody wrote. They are averages, as (3.7)
demands. And look at $t = 110$: you see next to nothing in $x_t$, and the oracle has two digits left.

**A good place for a break.** So far: one step back is a bell if $x_0$ is known, a denoiser guesses $x_0$, and for 2,000
images we have the best denoiser there can be. The second half puts it to work.

## One step, with the guess in its place

May one put an average of images into (3.5), where one image was assumed? To answer that we need a fact about numbers
that come in groups. Take four numbers in two groups, 1 and 3, 7 and 9. How much do they vary? In each group, a little
around its own mean; and the two means are far apart. The cell adds up the two.
"""

# %%
groups = torch.tensor([[1.0, 3.0], [7.0, 9.0]])
within, between = groups.var(1, correction=0).mean(), groups.mean(1).var(correction=0)
print(f"variance of the four: {groups.var(correction=0):g}", end=" = ")
print(f"{within:g}, the average within a group, + {between:g}, between the groups' means")

# %% [markdown]
r"""
This holds for all numbers and all groups, and is called the *law of total variance*: **the variance of the whole is the
average variance within the groups, plus the variance between their means**, where each group counts by its size.

Now split the true step into two: first an $x_0$ is drawn from those that are still possible, then $x_s$ from the bell
that belongs to it, with mean $\mu(x_t, x_0)$ and variance $v$. Each $x_0$ makes a group. The mean of the whole is the
average of the means; and since $\mu$ is linear in $x_0$, the average of $\mu(x_t, x_0)$ is $\mu$ of the average. Within
every group the variance is $v$. The groups' means are $c\,x_0$ plus something that is the same for all, with $c$ the
factor in front of $x_0$ in (3.5), so the variance between them is $c^2 \operatorname{Var}[x_0 \mid x_t]$:

$$\mathbb E[x_s \mid x_t] = \mu(x_t, \hat x_0), \qquad \operatorname{Var}[x_s \mid x_t] = v + c^2 \operatorname{Var}[x_0 \mid x_t], \qquad c = \frac{\sqrt{\bar\alpha_s}\,(1-a)}{1-\bar\alpha_t} \tag{3.9}$$

So the mean is exactly right, and this is why the conditional mean is the guess that a sampler wants. What we neglect,
if we draw from the bell with $\hat x_0$ in the place of $x_0$, is the second part of the variance. Look at how it
shrinks: $c^2$ contains $(1-a)^2$, while $v$ contains $1-a$ only once. Make the steps smaller, and what is neglected
disappears beside what is kept. **That is why there are many small steps and not a few large ones.**

The cell computes the true distribution of $x_s$ for the pixel of the game, directly from Bayes' rule on a grid and
without (3.4) or (3.5).
"""

# %%
x_t = 0.6


def true_step(t, s):
    """Mean and variance of x_s where x_t was seen, summed up on a grid."""
    abar_t, abar_s, a = shares(t, s)
    prior = 0.75 * bell(line, -abar_s.sqrt(), 1 - abar_s) + 0.25 * bell(line, abar_s.sqrt(), 1 - abar_s)
    share = prior * bell(x_t, a.sqrt() * line, 1 - a)
    share = share / share.sum()
    mean = (share * line).sum()
    return mean, (share * (line - mean) ** 2).sum()


def step_with_a_guess(t, s):
    """The mean with x_0_hat for x_0, v, and the part of the variance that is neglected."""
    abar_t, abar_s, a = shares(t, s)
    p = chance_of_plus(x_t, abar_t)
    mean, v = my_q_posterior(2 * p - 1, x_t, t, s, schedule)
    c = abar_s.sqrt() * (1 - a) / (1 - abar_t)
    return mean, v, c**2 * 4 * p * (1 - p)


mean, v, neglected = step_with_a_guess(75, 60)
holds("3.9", true_step(75, 60), [mean, v + neglected])
for s in (25, 60, 74):
    mean, v, neglected = step_with_a_guess(75, s)
    print(f"from 75 to {s}: {neglected / (v + neglected):.0%} of the variance is neglected")

# %% [markdown]
r"""
A step from 75 to 74 neglects about 2 % of its own small variance. Do 200 such steps add up to 400 %? No: the later steps
remove most of the noise that the earlier ones put in, and what was missing from it goes with it. The last section of
this chapter follows the total exactly, on data for which that is possible.

## The sampler, in ten lines

Now everything is there. Begin with pure noise $x_T$. At each time ask the denoiser for $\hat x_0$, draw $x_s$ from
the bell with mean $\mu(x_t, \hat x_0)$ and variance $v$, and go on from there until $s = 0$ (Ho et al. 2020,
algorithm 2). This is called *ancestral sampling*. We write it as a generator: it hands out every step it passes, so
that whoever wants only the end takes the last, and whoever wants a film keeps them all.
"""


# %%
def my_p_sample(x_t, x_0_hat, t, s, schedule, generator):
    mean, variance = my_q_posterior(x_0_hat, x_t, t, s, schedule)
    return mean + variance**0.5 * torch.randn(x_t.shape, generator=generator, dtype=x_t.dtype)


def my_p_sample_loop(denoiser, x_T, schedule, generator):
    x_t = x_T
    for t in range(schedule.T, 0, -1):
        x_0_hat = denoiser(x_t, torch.full((len(x_t),), t))
        yield Step(t, x_t, x_0_hat)
        x_t = my_p_sample(x_t, x_0_hat, t, t - 1, schedule, generator)
    yield Step(0, x_t, x_t)


few = my_dataset_oracle(data[:500], schedule)  # fewer images, to be quick
start = noise(4, 1, 32, 32)
mine = list(my_p_sample_loop(few, start, schedule, torch.Generator().manual_seed(4)))
library = list(tinyddpm.p_sample_loop(few, start, schedule, generator=torch.Generator().manual_seed(4)))
equal = [torch.allclose(one.x_t, other.x_t) for one, other in zip(mine, library, strict=True)]
print(f"images of the walk that are the library's: {sum(equal)} of {len(equal)}")

# %% [markdown]
r"""
`Step` is a record with the three fields `t`, `x_t` and `x_0_hat`. All images of the walk were compared, from $x_T$ to
$x_0$, and not only the last.

## The proof

We draw 64 images of pure noise and run the loop. The oracle stands for a world in which there are 2,000 images and no
others.

**Before you run the next cell:** how many of the 64 results will be new, that is, no image of the data?
"""

# %%
my_guess = None

oracle = tinyddpm.dataset_oracle(data, schedule)  # the same as ours, a little faster
generator = torch.Generator().manual_seed(3)
x_T = noise(64, 1, 32, 32)
steps = list(my_p_sample_loop(oracle, x_T, schedule, generator))
samples = steps[-1].x_t


def nearest(x):
    """The image of data that each x is nearest to, and the rms (root mean square) of the difference."""
    index = torch.cdist(x.flatten(1), data.flatten(1)).argmin(1)
    return index, (x - data[index]).flatten(1).square().mean(1).sqrt()


index, rms = nearest(samples)
guess(my_guess, int((rms > 1e-6).sum()), " of 64 are new")
print("largest rms distance to a training digit below 1e-6:", bool(rms.max() < 1e-6))
draws = 2000 * (1 - (1 - 1 / 2000) ** 64)  # how many different cards to expect in 64 draws from 2,000
print(f"different digits: {len(index.unique())}, to be expected of 64 draws: {draws:.0f}")
print("of each class:", labels[index].bincount(minlength=10).tolist())
print(f"for comparison, a digit that is not in the data: about {nearest(others)[1].median():.1f}")
show(image_grid(samples, columns=16), "64 samples, made from noise", width=5.8)

# %% [markdown]
r"""
Every one of them is a digit of the data, down to the last pixel, and all ten classes are there. They even land as
chance would have it: whoever draws 64 times from 2,000 cards, and puts each one back, should expect 63 different
ones.

Right images at the end are not yet a proof of the way there; below you will meet wrong samplers that end in perfect
digits. So look at the way, too. If the loop really undoes the forward process, then at each time $x_t$ must be
related to the image it will become just as (1.5) says: $(x_t - \sqrt{\bar\alpha_t}\,x_0)/\sqrt{1-\bar\alpha_t}$ must
have standard deviation 1. We call that number the **noise level**, and keep it at hand. (This is for steps drawn with
the variance $v$. A larger one is in use, too, and shows up as a higher level in the last few steps; more on that below.)
"""


# %%
def noise_level(x_t, x_0, t):
    """How much noise there is in x_t, in units of what time t stands for."""
    return my_eps_from_x_0(x_0, x_t, torch.tensor([t]), schedule).std().item()


levels = [noise_level(step.x_t, samples, step.t) for step in steps[:-1]]
worst = max(abs(level - 1) for level in levels)
print("the noise level is 1 within 2 % at every one of the", len(levels), "times:", worst < 0.02)
show(film_strip(steps, frames=10, image=5), "one image on its way: above x_t, below x_0_hat", width=5)

# %% [markdown]
r"""
In the strip the denoiser's answer begins as the average of all digits, becomes a doubtful blur, and then one digit;
$x_t$ follows it.

Right images, and the right noise on the way: **the sampler is right, and nothing has been trained.** From here on,
whatever a network does to our samples is the network's doing.

And there is a first surprise in it. We were given the *perfect* denoiser, no other has a smaller error on these data,
and it has not made one new digit. It cannot: what it was asked for are the data, and it returns the data. So a
network that denoised the training images perfectly would be of no use to somebody who wants new ones. We want one
that errs in a good way, that treats digits it has not seen as if they might have been there. Chapter 06 measures how
far from the training digits a network's samples lie.

## Why add noise while denoising?

The step back computes the best guess for the mean, and then spoils it with fresh noise. Why not leave that out? Leave
it out, then. The next cell takes the same 64 starts and the same perfect denoiser, and deletes the noise from the step.

**Before you run the next cell:** nearly all of the 64 digits were different. How many different ones will there be
now?
"""

# %%
my_guess = None


def loop_with(step, denoiser, x_T):
    """my_p_sample_loop with a step of one's own: x_s = step(x_t, x_0_hat, t, s)."""
    x_t = x_T
    for t in range(schedule.T, 0, -1):
        x_0_hat = denoiser(x_t, torch.full((len(x_t),), t))
        yield Step(t, x_t, x_0_hat)
        x_t = step(x_t, x_0_hat, t, t - 1)
    yield Step(0, x_t, x_t)


def mean_only(x_t, x_0_hat, t, s):
    return my_q_posterior(x_0_hat, x_t, t, s, schedule)[0]


steps_without = list(loop_with(mean_only, oracle, x_T))
collapsed = steps_without[-1].x_t
index_without, rms = nearest(collapsed)
guess(my_guess, len(index_without.unique()), " different digits")
print("of each class:", labels[index_without].bincount(minlength=10).tolist())
print("the most frequent of them comes", index_without.bincount().max().item(), "times of 64")
print("each is a training digit:", bool(rms.max() < 1e-6))
show(image_grid(collapsed, columns=16), "the same 64 starts, without the noise in the step", width=5.8)

# %% [markdown]
r"""
All are ones, and most of them are the same one. Each of them is a perfect digit, so whoever looks at a single sample
sees nothing wrong.

What has happened? Write the mean (3.5) in terms of the image and the noise in
$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$. In front of $x_0$ we collect, using
$\sqrt{a\,\bar\alpha_t} = a\sqrt{\bar\alpha_s}$,

$$\frac{\sqrt{\bar\alpha_s}\,(1-a) + \sqrt{a}\,(1-\bar\alpha_s)\sqrt{\bar\alpha_t}}{1-\bar\alpha_t} = \sqrt{\bar\alpha_s}\;\frac{1 - a + a\,(1-\bar\alpha_s)}{1-\bar\alpha_t} = \sqrt{\bar\alpha_s}$$

which is as much image as time $s$ asks for. (With guesses it is the same, since (3.6) ties $\hat x_0$ and
$\hat\varepsilon$ together in the same way.) In front of $\varepsilon$ there is
$\sqrt a\,(1-\bar\alpha_s)/\sqrt{1-\bar\alpha_t}$. Its square is the variance of the old noise that the mean keeps.
Time $s$ asks for $1-\bar\alpha_s$, and the mean has less. What is missing is, to the last digit, the variance $v$:

$$\underbrace{\frac{a\,(1-\bar\alpha_s)^2}{1-\bar\alpha_t}}_{\text{old noise, kept by the mean}} + \underbrace{\frac{(1-\bar\alpha_s)(1-a)}{1-\bar\alpha_t}}_{v,\ \text{fresh noise}} = \frac{(1-\bar\alpha_s)\,(a - \bar\alpha_t + 1 - a)}{1-\bar\alpha_t} = 1-\bar\alpha_s \tag{3.10}$$

This is the sentence to take home: **the mean is too clean for its time, and the fresh noise is exactly what is
missing.**

The cell measures the left side: it takes known digits and noises them, takes one step of the sampler with the true
$x_0$, and looks at the variance of what is not image.
"""

# %%
measured, wanted = [], []
clean = data[:200]
for t, s in [(200, 199), (150, 149), (100, 60), (40, 39)]:
    noisy = tinyddpm.q_sample(clean, t, noise(*clean.shape), schedule)
    after = my_p_sample(noisy, clean, t, s, schedule, generator)
    measured.append((after - schedule.alpha_bar[s].sqrt() * clean).var())
    wanted.append(1 - schedule.alpha_bar[s])
holds("3.10", measured, wanted, within=0.01)

figure, (left, right) = plt.subplots(1, 2, figsize=(5.6, 1.8))
times = [step.t for step in steps[:-1]]
left.plot(times, levels, label="with the noise")
levels_without = [noise_level(step.x_t, collapsed, step.t) for step in steps_without[:-1]]
left.plot(times, levels_without, label="without")
left.set(xlabel="t", ylim=(0, 1.3), title="noise level of $x_t$")
left.invert_xaxis()
left.legend()
distance_to_mean = (data - data.mean(0)).flatten(1).square().mean(1).sqrt()
of_class = torch.stack([distance_to_mean[labels == k].mean() for k in range(10)])
right.bar(range(10), of_class, color=["C1" if k == of_class.argmin() else "0.7" for k in range(10)])
right.set(xlabel="class", title="rms distance to the average image", xticks=range(10))
plt.show()
print("without the noise, the level at t = 100 is below one tenth:", levels_without[100] < 0.1)
print("the class nearest to the average of all images:", of_class.argmin().item())

# %% [markdown]
r"""
One step loses little, but 200 of them add up: without fresh noise the level sinks to less than a tenth of what the
denoiser is told. It is told "$t = 100$" and expects that much noise. What it gets has hardly any, and lies close to
the average of all digits, where no noisy digit would be. The digits nearest to that spot get nearly all of the
weight, and on the right you see which class they belong to. The step goes towards them, and from there the next one
goes further. All starts run into the same corner.

The same can be seen in one dimension, with nothing hidden. The pixel is $-1$ in three images of four and $+1$ in the
fourth. We walk it with the noise, without, and with a third kind of step. That one draws no fresh noise either, but
instead of the mean it takes the guessed image and the guessed noise of (3.6) and mixes them anew, each at the strength
that time $s$ asks for. It is called DDIM (Song et al. 2021, equation 12, with their $\sigma = 0$):

$$x_s = \sqrt{\bar\alpha_s}\;\hat x_0 + \sqrt{1-\bar\alpha_s}\;\hat\varepsilon \tag{3.11}$$

The cell writes it in two lines and compares the whole walk with the library's `ddim`. The background of the figure is
the density of the pixel, that of chapter 01 walked from right to left, and the lines are samples on their way.
"""


# %%
def ddim_step(x_t, x_0_hat, t, s):
    eps_hat = my_eps_from_x_0(x_0_hat, x_t, torch.tensor([t]), schedule)
    return schedule.alpha_bar[s].sqrt() * x_0_hat + (1 - schedule.alpha_bar[s]).sqrt() * eps_hat


four = torch.tensor([-1.0, -1.0, -1.0, 1.0], dtype=torch.float64).reshape(4, 1, 1, 1)
of_four = tinyddpm.dataset_oracle(four, schedule)
generator = torch.Generator().manual_seed(5)
start = noise(4000, 1, 1, 1)
runs = {
    "with the noise": list(my_p_sample_loop(of_four, start, schedule, generator)),
    "without": list(loop_with(mean_only, of_four, start)),
    "DDIM": list(loop_with(ddim_step, of_four, start)),
}
library = tinyddpm.ddim(of_four, start, schedule)
holds("3.11", [step.x_t for step in runs["DDIM"]], [step.x_t for step in library])
values = torch.linspace(-3, 3, 200, dtype=torch.float64)[:, None]
abar = schedule.alpha_bar[1:]
q = 0.75 * bell(values, -abar.sqrt(), 1 - abar) + 0.25 * bell(values, abar.sqrt(), 1 - abar)
figure, axes = plt.subplots(1, 3, figsize=(7, 2.2), sharey=True)
for panel, (name, run) in zip(axes, runs.items()):
    paths = torch.stack([step.x_t.flatten() for step in run])  # (T + 1, 4000)
    panel.imshow(q.clamp(max=1.2), origin="lower", extent=(1, 200, -3, 3), aspect="auto", cmap="magma")
    panel.plot(range(200, -1, -2), paths[::2, :12], color="white", linewidth=0.5, antialiased=False)
    panel.set(xlim=(200, 0), ylim=(-3, 3), xlabel="t", title=name)
    panel.grid(False)
    print(f"{name:15} {(paths[-1] > 0).double().mean():.0%} of 4,000 end at +1")
plt.show()

# %% [markdown]
r"""
With the noise a quarter of the samples ends at $+1$, as in the data. Without it *not one* does: all are drawn to the
average of the data, and from there the nearer end is $-1$. Whatever is rare is lost first.

The third panel keeps you from taking home the wrong lesson. DDIM draws no fresh noise and gets the quarter right. So it
is not the freshness that matters, it is the *level*: an image at time $s$ must carry the noise that $s$ stands for, old
or fresh, because that is what the denoiser is told.

## When is the digit decided?

The exact denoiser lets us ask something that no network answers so cleanly: at which point of its way does a sample
know which digit it will be? The weights $w_i$ of (3.8) are the probabilities of all 2,000 images. Added up by class
they are the probabilities of the ten classes, and their entropy, $-\sum_k p_k \log_2 p_k$, says in bits how open the
question is: $\log_2 10 = 3.3$ bits where nothing is known, 0 where all is decided.

**Before you run the next cell:** $\sqrt{\bar\alpha_t}$, the share of the image's amplitude, goes from 0.006 at the
start to 1 at the end. At which value is half of the entropy gone?
"""

# %%
my_guess = None


def bits(p):
    return -(p * p.clamp(min=1e-300).log2()).sum(1).mean().item()


is_class = torch.nn.functional.one_hot(labels, 10).double()  # (2000, 10)
class_bits, image_bits = [], []
for step in steps[:-1]:
    w = candidates(step.x_t, torch.full((64,), step.t), data, schedule)
    class_bits.append(bits(w @ is_class))
    image_bits.append(bits(w))

half = next(t for t, value in zip(times, class_bits) if value < class_bits[0] / 2)
guess(my_guess, round(schedule.sqrt_alpha_bar[half].item(), 2), " of the amplitude")
open_times = [t for t, value in zip(times, class_bits) if 0.1 < value / class_bits[0] < 0.9]
first, last = open_times[0], open_times[-1]
print(f"from 90 % to 10 % of the entropy: from t = {first} to {last}, {len(open_times)} of the 200 steps")
print(f"amplitude from {schedule.sqrt_alpha_bar[first]:.2f} to {schedule.sqrt_alpha_bar[last]:.2f}", end=", ")
print(f"log-SNR from {schedule.log_snr[first]:.1f} to {schedule.log_snr[last]:.1f}")

plt.figure(figsize=(5, 1.9))
amplitude = schedule.sqrt_alpha_bar[times]
plt.plot(amplitude, image_bits, "--", color="0.5", label="which image")
plt.plot(amplitude, class_bits, label="which class")
plt.axvspan(schedule.sqrt_alpha_bar[first], schedule.sqrt_alpha_bar[last], color="C0", alpha=0.15)
plt.xlabel(r"$\sqrt{\bar\alpha_t}$")
plt.ylabel("bits")
plt.legend()
plt.show()

# %% [markdown]
r"""
The digit is decided in a narrow window, while the picture is still so noisy that one can hardly read it. Before the
window every class is open; after it the class is settled, and what remains of the open question concerns the writing.

That can be tested by going back. We take four points on the way of one sample, one that becomes a 1, and finish from
each of them eight times with new noise.
"""

# %%
forks = []
for t in (150, 115, 80, 40):
    x_t = steps[200 - t].x_t[10:11].expand(8, -1, -1, -1)
    grid = schedule.grid()[-t:]  # pairs (t, s): the last t steps of (T, T - 1), ..., (1, 0)
    rest = list(tinyddpm.p_sample_loop(oracle, x_t, schedule, grid, generator=generator))
    forks.append(rest[-1].x_t)
    index, _ = nearest(forks[-1])
    print(f"eight ends from t = {t}: {len(index.unique())} images, classes {labels[index].tolist()}")
show(image_grid(torch.cat(forks), columns=8), "eight ends from t = 150, 115, 80, 40", width=3.6)

# %% [markdown]
r"""
From $t = 150$ it may still become anything. At 115, inside the window, much is open. At 80 the window has closed: all
eight are ones, though not the same one. At 40 nothing is left to decide. The fresh noise is what makes these
decisions, for it is the only thing in which the eight ends differ. Keep the window in mind. It is where a network has
to be good if the digits are to be readable (chapter 06), where guidance acts (chapter 07), and what a film must show
(chapter 08).

**Which variance?** One thing was left open. The step draws with the variance $v$ of (3.4), which neglects the second
part of (3.9), and so is a little too small. The library calls it `"posterior"`. The other choice in use is $1-a$, for
one step $\beta_t$, which for our data is, on average, too large; the library calls it `"beta"`. Ho et al. 2020 (section
3.2) name both and found them to work about equally well, and the more steps there are, the less it matters. But unlike
$v$, $\beta_t$ is not 0 at the last step, so whoever chooses it must leave out the noise there by hand; the museum shows
what happens otherwise. The last section before the exercises shows where the two variances come from.

## Bug museum: three samplers that are not

1. **Noise at the last step.** The function for a step draws noise, and the loop calls it for every step, the last
   included. With the `"posterior"` variance nobody would notice, since it is 0 there. With `"beta"` every sample keeps
   a grain of standard deviation $\sqrt{\beta_1}$.
2. **A condition that is always true.** The loop runs over $T, \dots, 1$ and says `if t > 0:` before it adds noise, so
   that the last step should be spared. But $t = 0$ never comes: it is $s$ that becomes 0. The effect is that of the
   first bug; only the code looks innocent. This one and the first have stood in published teaching code.
3. **$\alpha$ and $\bar\alpha$ mixed up in the mean.** For one step (3.5) contains $\sqrt{\bar\alpha_s}$ in front of
   $x_0$ and $\sqrt{a} = \sqrt{\alpha_t}$, with $\alpha_t = 1-\beta_t$, in front of $x_t$. They differ by a bar, and in
   code by a few letters. Write the first without its bar, or the second with one, and the arithmetic is a little wrong
   at every step.

The first two are caught by the distance to the data. The third is the treacherous one, because it *passes* that test.
The cell runs four samplers on 500 of the images: a right one, the second bug (the first looks the same), and the third
bug in both directions. It shows them in a random order, and does not say which is which.

**Before you scroll further than the picture:** which row is the right one?
"""


# %%
def draw(mean, variance, generator):
    return mean + variance**0.5 * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)


def right(x_t, x_0_hat, t, s, generator):
    return draw(*my_q_posterior(x_0_hat, x_t, t, s, schedule), generator)


def always_true(x_t, x_0_hat, t, s, generator):
    mean, _ = my_q_posterior(x_0_hat, x_t, t, s, schedule)
    return draw(mean, schedule.beta[t], generator) if t > 0 else mean  # t where s belongs


def no_bar(x_t, x_0_hat, t, s, generator):  # a in front of x_0_hat, where abar_s belongs
    abar_t, abar_s, a = shares(t, s)
    mean = (a.sqrt() * (1 - a) * x_0_hat + a.sqrt() * (1 - abar_s) * x_t) / (1 - abar_t)
    return draw(mean, (1 - abar_s) * (1 - a) / (1 - abar_t), generator)


def a_bar_too_many(x_t, x_0_hat, t, s, generator):  # abar_t in front of x_t, where a belongs
    abar_t, abar_s, a = shares(t, s)
    mean = (abar_s.sqrt() * (1 - a) * x_0_hat + abar_t.sqrt() * (1 - abar_s) * x_t) / (1 - abar_t)
    return draw(mean, (1 - abar_s) * (1 - a) / (1 - abar_t), generator)


def walk(sampler):
    generator = torch.Generator().manual_seed(8)
    x_T = torch.randn(32, 1, 32, 32, generator=generator, dtype=torch.float64)
    steps = loop_with(lambda *now: sampler(*now, generator), few, x_T)
    return {step.t: step.x_t for step in steps if step.t in (100, 0)}  # all of them would fill the memory


samplers = [right, always_true, no_bar, a_bar_too_many]
order = torch.randperm(4, generator=torch.Generator().manual_seed(9)).tolist()
museum = {row: (samplers[i].__name__, walk(samplers[i])) for row, i in zip("ABCD", order)}
rows = torch.cat([at[0][:12] for _, at in museum.values()])
show(image_grid(rows, columns=12), "from above: A, B, C, D; one of them is right", width=5)

# %% [markdown]
r"""
Now the names, with the two tests. The noise level is looked at in the middle of the way, at $t = 100$, and not at the
end, because there `"beta"` has a right to a level above 1: it draws with $\beta_t$ where (3.10) asks for $v$. At
$t = 100$ the two are nearly the same; the last two lines of the output compare them.
"""

# %%
for row, (name, at) in museum.items():
    x = at[0]
    index, rms = nearest(x)
    level = noise_level(at[100], x, 100)
    on_data, right_level = bool(rms.max() < 1e-3), abs(level - 1) < 0.03  # the two tests
    print(f"{row} {name:14} ends on digits: {on_data!s:5}  noise level is 1: {right_level!s:5}", end="  ")
    print("classes", labels[index].bincount(minlength=10).tolist())
for t in (100, 5):
    _, v = my_q_posterior(0.0, 0.0, t, t - 1, schedule)  # the variance needs no images
    print(f"at t = {t}, v is {v / schedule.beta[t]:.0%} of beta_t")

# %% [markdown]
r"""
Row B is the right one. Row C differs from it by a grain that is too fine for the eye, and the distance finds it at
once. Rows A and D end on training digits, all of them, and yet are wrong: the noise level on the way is not 1, and the
classes that come out are not those of the data. Without its bar the factor puts in too much of the guess while the
guess is still an average, and all end as ones; with a bar too many the old noise is thrown away too fast. With a
network in the place of the oracle one sees strange or blurred digits, and may well blame the training.

## What this chapter showed

One step back is normal once $x_0$ is known, and (3.4) and (3.5) are its variance and its mean. We do not know $x_0$,
so a denoiser guesses it, and the guess that makes the mean right is the conditional mean. With an exact denoiser the
loop of ten lines returns the data themselves, and has the right amount of noise at every time on the way; the two
together prove the loop. They also show that a perfect denoiser only memorises. The digit is decided in a narrow window
of noise levels. And the noise in the step is no decoration: the mean is too clean for its time, and the fresh noise is
exactly what is missing.

## For those who want to know which variance

We draw with the variance $v$ of (3.4), which neglects the second part of (3.9). The library calls this variance
`"posterior"`. It is exact when $\operatorname{Var}[x_0 \mid x_t] = 0$, that is, for data that are a single point. At the
other extreme are standard normal data. For these (3.3) with the two witnesses "$x_0$ has variance 1" and "$x_0$
became $x_t$" gives the precision $1 + \bar\alpha_t/(1-\bar\alpha_t) = 1/(1-\bar\alpha_t)$, so
$\operatorname{Var}[x_0 \mid x_t] = 1-\bar\alpha_t$, and (3.9) becomes

$$v + c^2\,(1-\bar\alpha_t) = \frac{(1-a)\,(1-\bar\alpha_s) + \bar\alpha_s\,(1-a)^2}{1-\bar\alpha_t} = \frac{(1-a)\,(1-\bar\alpha_t)}{1-\bar\alpha_t} = 1-a \tag{3.12}$$

where $a\,\bar\alpha_s = \bar\alpha_t$ was used once more. For $s = t-1$ that is $\beta_t$, the library's `"beta"`. Data whose
variance is less than 1, such as our pixels, lie between, on average.

The cell measures $\operatorname{Var}[x_s \mid x_t]$ on a million standard normal numbers. There the mean of $x_s$ given
$x_t$ is a multiple of $x_t$, by (3.9) with (3.5), since $\hat x_0$ is a multiple of $x_t$. So fit the multiple with
the least squared error, and subtract it. What is left is what $x_t$ does not tell about $x_s$, and as it is equally
wide at every $x_t$, its variance is the one we look for.
"""

# %%
generator = torch.Generator().manual_seed(6)
abar_t, abar_s, a = shares(75, 60)
x_0 = noise(1_000_000)  # standard normal data
before = abar_s.sqrt() * x_0 + (1 - abar_s).sqrt() * noise(1_000_000)
after = a.sqrt() * before + (1 - a).sqrt() * noise(1_000_000)
slope = (before * after).mean() / (after * after).mean()  # of the best multiple
holds("3.12", (before - slope * after).var(), 1 - a, within=0.005)

# %% [markdown]
r"""
How good are the two on data in between? On one-dimensional normal data of mean 0 and variance $V$ the whole loop can
be followed exactly. The witnesses give $1/V$ and $\bar\alpha_t/(1-\bar\alpha_t)$ as precisions, hence the exact
denoiser is $\hat x_0 = k\,x_t$ with $k = \sqrt{\bar\alpha_t}\,V/(\bar\alpha_t V + 1-\bar\alpha_t)$; the library has
it as `gaussian_oracle`. Put it into (3.5), and the step is $x_s = A\,x_t$ plus noise of the chosen variance
$\sigma^2$. Variances of independent things add up, as always:

$$\operatorname{Var}[x_s] = A^2 \operatorname{Var}[x_t] + \sigma^2, \qquad A = \frac{\sqrt{\bar\alpha_s}\,(1-a)\,k + \sqrt a\,(1-\bar\alpha_s)}{1-\bar\alpha_t} \tag{3.13}$$

We begin with $\operatorname{Var}[x_T] = 1$. The cell follows the recursion for three kinds of step, with 50 steps so
that the differences are large, and runs the library's sampler on 200,000 numbers beside it.
"""


# %%
def recursion(V, schedule, kind):
    """Var[x_t] for t = T, ..., 0 under (3.13)."""
    variances = [1.0]
    for t, s in schedule.grid():
        abar_t, a = schedule.alpha_bar[t], schedule.alpha_bar[t] / schedule.alpha_bar[s]
        k = abar_t**0.5 * V / (abar_t * V + 1 - abar_t)
        A, v = my_q_posterior(k, 1.0, t, s, schedule)  # the mean for x_t = 1, x_0_hat = k
        sigma2 = {"none": 0.0, "posterior": v, "beta": 1 - a}[kind]
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

for V in (0.05, 0.25, 0.8):
    for T in (50, 200):
        of_T = tinyddpm.Schedule.named("linear", T)
        none, posterior, beta = [recursion(V, of_T, kind)[-1] for kind in ("none", "posterior", "beta")]
        print(f"data of variance {V:4}, {T:3} steps: posterior {posterior:.3g}, beta {beta:.3g}", end=", ")
        print("without noise below 0.0001:", bool(none < 1e-4))

# %% [markdown]
r"""
Every variance lies between what the two choices make of it, and with more steps both come closer. Without noise the
variance goes to zero: every start ends at the mean of the data. It is the collapse to the ones once more, this time
as a formula. And here is the answer to the question after (3.9): after 200 steps with `"posterior"` these data have lost
between 4 and 13 % of their variance, the more the less of it they had; with `"beta"` they have gained less than 5 %.

## Exercises

**03a.** Write the posterior mean for $s = t-1$ from $\hat\varepsilon$ instead of $\hat x_0$: put (3.6) into (3.5),
and simplify until $x_t$ and $\hat\varepsilon$ appear once each (Ho et al. 2020, equation 11). The check compares your
formula with the mean computed via $\hat x_0$.
"""


# %%
def answer_03a(x_t, eps_hat, t, schedule):
    """x_t, eps_hat: (b, 1, h, w); t: a whole number from 1 to T. Returns the mean of x_{t-1}."""
    ...


check("03a", answer_03a)

# %% [markdown]
r"""
<details><summary>Solution 03a</summary>

```python
def answer_03a(x_t, eps_hat, t, schedule):
    beta, abar = schedule.beta[t], schedule.alpha_bar[t]
    return (x_t - beta / (1 - abar).sqrt() * eps_hat) / (1 - beta).sqrt()
```

The coefficient of $x_t$ becomes
$\bigl(\sqrt{\bar\alpha_s}\,(1-a)/\sqrt{\bar\alpha_t} + \sqrt a\,(1-\bar\alpha_s)\bigr)/(1-\bar\alpha_t)$; with
$\sqrt{\bar\alpha_s/\bar\alpha_t} = 1/\sqrt a$ its numerator is $(1 - a + a - a\,\bar\alpha_s)/\sqrt a$, and so it is
$1/\sqrt a$.
</details>

**03b.** Here is a loop from the museum. Repair it, and change nothing else.

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

The step that must be spared is the one that *arrives* at 0, and it starts at $t = 1$. The library asks `if s == 0`,
which stays right when times are skipped.
</details>

**03c.** The data are two numbers, $-1$ and $+1$, equally likely. Write the exact denoiser in closed form, without a
softmax: one well-known function is enough.
"""


# %%
def answer_03c(x_t, alpha_bar_t):
    """x_t: a tensor; alpha_bar_t: a number between 0 and 1. Returns x_0_hat."""
    ...


check("03c", answer_03c)

# %% [markdown]
r"""
<details><summary>Solution 03c</summary>

```python
def answer_03c(x_t, alpha_bar_t):
    return torch.tanh(alpha_bar_t**0.5 * x_t / (1 - alpha_bar_t))
```

In (3.8) the squares $x_t^2$ and $\bar\alpha_t$ cancel. With $u = \sqrt{\bar\alpha_t}\,x_t/(1-\bar\alpha_t)$ there
remains $\hat x_0 = (e^u - e^{-u})/(e^u + e^{-u})$, which is the hyperbolic tangent: a decision that grows sharper as
the noise fades.
</details>

**03d.** (For those who have read the last section.) Follow (3.13) under the variance `"beta"` with no noise in the last step: what is the variance of the
samples, if the data are normal with mean 0 and variance $V$, and the chain starts with variance 1?
"""


# %%
def answer_03d(V, alpha_bar):
    """V: a number; alpha_bar: (T + 1,). Returns the variance of x_0, a number."""
    ...


check("03d", answer_03d)

# %% [markdown]
r"""
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

For $V = 1$ the factor $A$ is $\sqrt a$, so a variance of 1 stays 1 at every step; only the last, which adds no noise,
ends at $1-\beta_1$.
</details>

## Symbols

| symbol | variable | shape | where |
|---|---|---|---|
| $x_s$ | `x_t` after `my_p_sample` | (b, 1, 32, 32) | the image at the earlier time $s < t$ |
| $\bar\alpha_t$, $\bar\alpha_s$ | `abar_t`, `abar_s` | numbers | (1.5), what survives from 0 to $t$ and to $s$ |
| $a$ | `a` | a number | (3.1): $\bar\alpha_t/\bar\alpha_s$, what survives from $s$ to $t$ |
| $\mu$ | `mean` | (b, 1, 32, 32) | (3.5); Ho et al. 2020, eq. 7 |
| $v$ | `variance`, `v` | a number | (3.4); $\tilde\beta_t$ in Ho et al. 2020, eq. 7 |
| $\hat x_0$ | `x_0_hat` | (b, 1, 32, 32) | what a denoiser returns: $\mathbb E[x_0 \mid x_t]$ |
| $\hat\varepsilon$ | `eps_hat` | (b, 1, 32, 32) | (3.6), the same guess as noise |
| $w_i$ | `w` | (b, n) | (3.8), how likely image $i$ is to have become $x_t$ |
| $c$ | `c` | a number | (3.9), how far the mean moves with $x_0$ |
| $k$, $A$ | `k`, `A` | numbers | (3.13), on normal data |
| $V$ | `V` | a number | the variance of normal data, (3.13) |

**Next:** [04 · Building blocks](04_building_blocks.ipynb). The sampler is finished and proved, and the one thing it
still wants is a denoiser that has not learned the data by heart. The next two chapters build a network that can
become one, part by part, and each part is tested by what it promises before it meets the others.
"""
