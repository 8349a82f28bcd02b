# %% [markdown]
r"""
# 02 · Noise schedules: does the chain really end in noise?

**After this chapter you can**

* build the linear and the cosine schedule by hand, and say what each of them was made for;
* read any schedule as one curve of log-SNR, on which all schedules can be compared;
* test whether a chain ends in noise by the amplitude left at $T$, and say what its samples look like where it does not.

*You need:* chapter 01. *Reading:* 45 minutes. *Running:* under 20 seconds on a laptop, without a network. *You build and
then import:* `linear_betas`, `cosine_betas`.

---

Chapter 01 ended with a promise: whatever the images are, the chain forgets them and ends in pure noise, and so pure noise is
where generation can start. Whether it is kept depends on the betas alone, and nobody sees it by looking: an image that keeps
a fifth of its contrast under noise looks like noise. In this chapter we measure it. It is easy to end up with a chain that
stops too early without ever noticing, and it can be seen in what the chain generates. The same measurements lead to a better
way of looking at schedules altogether, and to the cosine schedule, which is designed from its end.
"""

# %% tags=["setup"]
import math
import warnings

import matplotlib.pyplot as plt
import torch
from course import check, guess, holds, same, show

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.viz import image_grid

# %% tags=["setup"]
images, labels = mnist(train=False).tensors()  # (10000, 1, 32, 32) in [-1, 1]

# %% [markdown]
r"""
## A straight line of betas

Recall from chapter 01: step $t$ of $T$ multiplies the image $x_{t-1}$ by $\sqrt{1-\beta_t}$ and adds normal noise
$\varepsilon$ of variance $\beta_t$. Ho et al. (2020, section 4), whose paper made diffusion models popular, took $T = 1000$
and let the betas rise on a straight line,

$$\beta_t = \beta_1 + \frac{t-1}{T-1}\,(\beta_T - \beta_1), \qquad \beta_1 = 10^{-4}, \quad \beta_T = 0.02 \tag{2.1}$$

small at first, when there is fine detail to be spoiled carefully, and larger later. A table from $t$ to $\beta_t$ is called
a **schedule**.
"""

# %%
by_formula = [1e-4 + (t - 1) / 999 * (0.02 - 1e-4) for t in range(1, 1001)]
holds("2.1", by_formula, tinyddpm.Schedule.named("linear", T=1000).beta[1:], within=1e-8)

# %% [markdown]
r"""
What about another $T$? Nobody wants to wait for 1,000 steps on a laptop, and so it is tempting to keep the line and its two
ends and to write `T = 300`. Then there are fewer steps, each as small as before. The other way is to make up for the missing
steps with larger ones: multiply every beta by $1000/T$. The function below does either, and `scaled=True` is the library's
default.
"""


# %%
def my_linear_betas(T, start=1e-4, end=0.02, scaled=True):
    scale = 1000 / T if scaled else 1.0
    beta = torch.linspace(scale * start, scale * end, T, dtype=torch.float64)
    return torch.cat([torch.zeros(1, dtype=torch.float64), beta])  # beta[0] = 0: the clean image


same(my_linear_betas, tinyddpm.linear_betas, 1000)
same(my_linear_betas, tinyddpm.linear_betas, 300, scaled=False)
same(my_linear_betas, tinyddpm.linear_betas, 300)

# %% [markdown]
r"""
## What is left at the end

After all $T$ steps the image carries the factor $\sqrt{\bar\alpha_T}$, the **amplitude** that is left, where $\bar\alpha_T$
is the product of all $1 - \beta_t$. For small $\beta$, $\log(1-\beta) \approx -\beta$, and the product becomes a sum that
needs no computer:

$$\bar\alpha_T = \prod_{t=1}^{T} (1-\beta_t) \;\approx\; \exp\Bigl(-\sum_{t=1}^{T}\beta_t\Bigr) = \exp\Bigl(-T\;\frac{\beta_1 + \beta_T}{2}\Bigr) \tag{2.2}$$

The last step is the sum of an evenly rising row: the number of its members times their average. So it is the *sum* of the
betas that decides. At $T = 1000$ it is 10.05; with $T = 300$ and the same two ends it is 3.015; and multiplying the betas by
$1000/T$ gives back 10.05, whatever $T$ is. That is all that the scaling is for.

**Before you run the next cell:** which part of the image's amplitude is left at the end of a chain of 300 unscaled steps? 0
is none of it, 1 all.
"""

# %%
my_guess = None


def schedule_of(beta):
    """The library warns about a chain that keeps signal. Here that is the subject, so we know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tinyddpm.Schedule(beta)


unscaled = {T: schedule_of(my_linear_betas(T, scaled=False)) for T in (200, 300, 400, 500, 1000)}
scaled = {T: schedule_of(my_linear_betas(T)) for T in unscaled}
guess(my_guess, float(unscaled[300].sqrt_alpha_bar[300]))
products = [schedule.alpha_bar[-1] for schedule in unscaled.values()]
holds("2.2", products, [math.exp(-T * (1e-4 + 0.02) / 2) for T in unscaled], within=0.002)
for T in unscaled:
    print(
        f"T = {T:4}: {unscaled[T].sqrt_alpha_bar[-1]:6.1%} of the amplitude is left, "
        f"{scaled[T].sqrt_alpha_bar[-1]:.1%} with scaled betas"
    )

# %% [markdown]
r"""
All of the shorter settings have been used, and it is easy to see how: the line is copied with both of its ends, $T$ is made
smaller to save time, and the pictures along the way look as noisy as they should.

Is a fifth of the amplitude much? Look at it. One strip below shows four different digits at the end of the unscaled chain of
300 steps, the other four images of pure noise, both at a third of their contrast. Which is which?
"""

# %%
digits = torch.cat([images[labels == k][:1] for k in range(4)])
eps = torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(1))
x_T = tinyddpm.q_sample(digits, 300, eps[:4], unscaled[300])
show(image_grid(eps[4:] / 3, columns=4), "A", width=3.5)
show(image_grid(x_T / 3, columns=4), "B", width=3.5)

# %% [markdown]
r"""
(B holds the digits 0 to 3.) The eye sees single pixels, and in a single pixel noise of size 1 covers a signal of size 0.2.
But the noise of different pixels is independent, and the signal is not.

## The brightness test

Forget all pixels and keep one number: the mean over an image, its **brightness** $b$. Averaging over $n = 1024$ independent
pixels leaves the noise with the variance $1/n$, so that its standard deviation shrinks from 1 to $1/32$. It does *not*
shrink the brightness of the digit, which is negative for every digit, since most of the image is background at -1. So

$$b(x_T) = \sqrt{\bar\alpha_T}\; b(x_0) + \sqrt{1 - \bar\alpha_T}\; b(\varepsilon), \qquad b(\varepsilon) \sim \mathcal N(0, 1/n) \tag{2.3}$$

and $x_T$ is darker than pure noise. How surely can one be told from the other by this number? Take one $x_T$ and one image
of pure noise. The probability that the first is the darker one is called the **AUC** (the area under a certain curve, which
we do not need here): 1 if brightness always tells them apart, ½ if it is worth as much as a coin.

Suppose that $b(x_0)$ is roughly normal, with mean $\mu_b$ and standard deviation $\sigma_b$ over the data set. Let $D$ be the
brightness of the pure noise minus that of $x_T$. A difference of independent normal numbers is normal; its mean is the
difference of the means, here $\sqrt{\bar\alpha_T}\,|\mu_b|$ since $\mu_b$ is negative, and its variance is the *sum* of the
variances, that of $x_T$ from (2.3) and $1/n$ of the pure noise. $x_T$ is the darker one where $D > 0$. A normal number of mean
$m$ and standard deviation $s$ is positive with the probability $\Phi(m/s)$, where $\Phi(z)$ is the probability that a
standard normal number is below $z$. So

$$\mathrm{AUC} = \Phi\left(\frac{\sqrt{\bar\alpha_T}\;|\mu_b|}{\sqrt{\bar\alpha_T\,\sigma_b^2 + (1-\bar\alpha_T)/n + 1/n}}\right) \tag{2.4}$$

**Before you run the next cell:** after 500 unscaled steps 8 % of the amplitude is left. What is the AUC?

The cell takes all 10,000 test digits to the end of each chain, counts, and compares the counts with the formula.
"""

# %%
my_guess = None


def brightness(x):
    return x.mean((1, 2, 3)).double()


def auc(x_T, noise):
    """How often a brightness in x_T is below one in noise, over all pairs."""
    # in the sorted noise, searchsorted gives each x_T its place, which is how many are below it
    return 1 - (torch.searchsorted(noise.sort().values, x_T) / len(noise)).mean().item()


def auc_by_formula(alpha_bar, n=1024):
    b = brightness(images)
    spread = (alpha_bar * b.var() + (1 - alpha_bar) / n + 1 / n).sqrt()
    return torch.special.ndtr(alpha_bar.sqrt() * b.mean().abs() / spread).item()  # ndtr is Phi


def brightness_at_T(schedule):
    return brightness(tinyddpm.q_sample(images, schedule.T, eps, schedule))


eps = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
noise = brightness(torch.randn(images.shape, generator=torch.Generator().manual_seed(99)))
chains = {f"T = {T}": unscaled[T] for T in unscaled} | {"T = 300, scaled": scaled[300]}
at_T = {name: brightness_at_T(schedule) for name, schedule in chains.items()}
counted = [auc(b, noise) for b in at_T.values()]
by_formula = [auc_by_formula(schedule.alpha_bar[-1]) for schedule in chains.values()]
guess(my_guess, by_formula[3])
rest = torch.stack([at_T[name] - chains[name].sqrt_alpha_bar[-1] * brightness(images) for name in chains])
noise_share = torch.stack([1 - schedule.alpha_bar[-1] for schedule in chains.values()])
holds("2.3", rest.mean(1), torch.zeros(6), within=0.002)  # without its signal, b(x_T) has mean 0
holds("2.3", 1024 * rest.var(1), noise_share, within=0.06)  # and the variance (1 - alpha_bar_T) / n
holds("2.4", counted, by_formula, within=0.02)
for name, value in zip(chains, by_formula):
    print(f"{name:16} AUC {value:.2f}")

# %% [markdown]
r"""
With 200 or 300 unscaled steps a single number tells the end of the chain from noise without a mistake, with 400 nearly so;
after 500 it is still right nine times in ten. The figure shows the same as histograms: grey is pure noise, colour is $x_T$.
"""

# %%
figure, axes = plt.subplots(1, 4, figsize=(8, 2.0), sharey=True)
for axis, name in zip(axes, ["T = 200", "T = 300", "T = 500", "T = 300, scaled"]):
    axis.hist(noise, bins=60, range=(-0.45, 0.15), color="grey", alpha=0.6)
    axis.hist(at_T[name], bins=60, range=(-0.45, 0.15), color="tab:orange", alpha=0.6)
    axis.set(title=name, xlabel="brightness", yticks=[])
plt.show()

# %% [markdown]
r"""
## The test: the amplitude at T

The brightness made the leftover visible, but it is no test for all data. Put $\mu_b = 0$ into (2.4), and the AUC is ½
*whatever* is left: for images that are as often bright as dark, this number is blind. The amplitude $\sqrt{\bar\alpha_T}$
itself needs no data. So in this course the test is one number with one threshold: **a chain ends in noise if
$\sqrt{\bar\alpha_T}$ is below 1 %**, which is $\bar\alpha_T < 10^{-4}$.

The threshold is a convention. It is chosen so that even the brightness of our digits, the most telling number that we have
found, is nearly a coin there: an AUC of 0.57, as the cell prints. Larger images have more pixels to average, so they would
deserve a lower one. The cell also tries the brightness on digits from each of which its own mean is taken away.
"""


# %%
def ends_in_noise(schedule):
    return bool(schedule.sqrt_alpha_bar[-1] < 0.01)


print(f"at the threshold, the digits' AUC is {auc_by_formula(torch.tensor(0.01**2)):.2f}")
for name, schedule in chains.items():
    print(f"{name:16} {'ends in noise' if ends_in_noise(schedule) else 'keeps signal'}")
centred = images - images.mean((1, 2, 3), keepdim=True)
eps = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
blind = auc(brightness(tinyddpm.q_sample(centred, 200, eps, unscaled[200])), noise)
print(f"T = 200, digits of mean brightness 0: AUC {blind:.2f}, and the chain keeps signal all the same")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    tinyddpm.Schedule(my_linear_betas(300, scaled=False))
print("UserWarning:", caught[0].message)
try:
    tinyddpm.linear_betas(20)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
r"""
The chain of Ho et al. passes, with 0.6 % of the amplitude left, and so does the scaled one of 300 steps. The library watches
the same number: it warns where about 3 % or more is left, and it refuses where scaling goes too far, since at $T = 20$ the
largest scaled beta would be $0.02 \cdot 1000/20 = 1$.

Lin et al. (2023) tabulate the amplitude that well-known schedules leave at $T$: 0.0064 for this one, and 0.068 for that of a
text-to-image model in very wide use, which does not pass. They hold that number responsible for a fault of that model: it
could generate pictures of medium brightness only, neither very dark ones nor very bright ones. Let us watch that happen.

## What it does to the samples

Training shows a model $x_T$, the end of the forward chain. Sampling gives it pure noise and calls that $x_T$. If the two
differ, the model is asked about something that it has never seen, and it does what it learned: it reads the brightness.

To see this without training anything, we use two things as black boxes. `tinyddpm.dataset_oracle` is the exact denoiser of a
data set: for a noisy image $x_t$ it returns $\hat x_0(x_t, t)$, the mean of all images of the data set, weighted by how
likely each of them is to have become this $x_t$. And `tinyddpm.p_sample_loop` walks the chain backwards, from $T$ to 0, with
a denoiser as its guide. Chapter 03 builds both and proves that they are right. Nothing in them is learned, so whatever goes
wrong now is the schedule's fault.

The data set is 300 digits, 30 of each class. We draw 300 samples, three times:

* **from noise**: the unscaled chain of 200 steps, starting from pure noise, as every sampler does;
* **from x_T**: the same chain, but started where it should be, from digits taken to $T$ by `q_sample` (a sampler cannot do
  this: it has no digits);
* **scaled**: the scaled chain of 200 steps, starting from the same pure noise as the first.

**Before you run the next cell:** 30 of 300 digits are ones. How many ones will the first run draw?
"""

# %%
my_guess = None

data = torch.cat([images[labels == k][:30] for k in range(10)])  # (300, 1, 32, 32)
of_class = torch.arange(10).repeat_interleave(30)
x_T = torch.randn(data.shape, generator=torch.Generator().manual_seed(0))  # pure noise
runs = {
    "from noise": (unscaled[200], x_T),
    "from x_T": (unscaled[200], tinyddpm.q_sample(data, 200, x_T, unscaled[200])),
    "scaled": (scaled[200], x_T),
}
samples, counts, first_idea = {}, {}, {}
for name, (schedule, start) in runs.items():
    denoiser = tinyddpm.dataset_oracle(data, schedule)
    steps = tinyddpm.p_sample_loop(denoiser, start, schedule, generator=torch.Generator().manual_seed(1))
    samples[name] = tinyddpm.last(steps).x_t
    nearest = torch.cdist(samples[name].flatten(1), data.flatten(1)).argmin(1)
    counts[name] = of_class[nearest].bincount(minlength=10)
    first_idea[name] = denoiser(start, torch.full((300,), schedule.T))  # x_0_hat before the first step
guess(my_guess, counts["from noise"][1].item(), " ones of 300")

# %% [markdown]
r"""
The bars count the samples of each class, with the classes in the order of their ink: ones have the least, zeros the most.
The dashed line is the truth, 30 of each.
"""

# %%
ink = torch.stack([brightness(data[of_class == k]).mean() for k in range(10)])
order = ink.argsort()
figure, axes = plt.subplots(figsize=(8, 2.5))
for i, (name, count) in enumerate(counts.items()):
    axes.bar(torch.arange(10) + 0.27 * (i - 1), count[order], width=0.27, label=name)
axes.axhline(30, color="black", linestyle="--", linewidth=1)
axes.set(xticks=range(10), xticklabels=order.tolist(), xlabel="class, from little ink to much", ylabel="samples")
axes.legend()
axes.grid(False)
plt.show()
picture = image_grid(torch.cat([samples["from noise"][:12], samples["scaled"][:12]]), columns=12)
show(picture, "above: unscaled, from noise; below: scaled", width=5)

# %% [markdown]
r"""
Every sample is a flawless digit, and the first run is wrong all the same: hardly any ones, half as many sevens as there
should be, nearly twice the zeros. Whoever judges by looking at the pictures does not notice. The second run uses the same denoiser and the same steps,
and its classes are right; so the chain is right, and only its starting point was wrong. Pure noise has brightness 0; no
digit ever arrives at $T$ as bright as that; so the denoiser concludes that there is a great deal of ink.

It concludes this before the first step. Write $\mathbb E[\ldots]$ for the average over everything random inside the brackets,
and $\mathbb E_{x_T}$ for the average over the starting points $x_T$ only. $\hat x_0(x_T, T)$ is the average of all clean images
to which this $x_T$ may lead. If half of the starting points lead to images of brightness -0.9 on average, and the other half
to images of -0.7, then all samples together have -0.8: the average over the starting points of the averages. With steps that
are small enough, therefore,

$$\mathbb E\bigl[b(\text{sample})\bigr] = \mathbb E_{x_T}\bigl[b(\hat x_0(x_T, T))\bigr] \tag{2.5}$$

The brightness of the samples is settled by the first idea, and the 200 steps that follow cannot repair it. The cell checks
this for all three runs.
"""

# %%
drawn = torch.stack([brightness(x).mean() for x in samples.values()])
expected = torch.stack([brightness(x).mean() for x in first_idea.values()])
holds("2.5", drawn, expected, within=0.01)
truth = brightness(data).mean()
for name, value in zip(runs, drawn):
    print(f"{name:11} has the brightness of the data to within 0.01: {bool((value - truth).abs() < 0.01)}")

# %% [markdown]
r"""
## The honest time axis: log-SNR

"$t = 500$" says nothing by itself: in one schedule the digit is still readable there, in another it is gone. What does a
time say, then? By (1.5), $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$ depends on $t$ through
$\bar\alpha_t$ only. Signal has the variance $\bar\alpha_t$ in it, for data of variance 1, and noise $1-\bar\alpha_t$. Their
ratio is the **signal-to-noise ratio**, SNR for short, and because it runs over many powers of ten one takes its logarithm,
the **log-SNR** $\lambda_t$:

$$\lambda_t = \log\frac{\bar\alpha_t}{1-\bar\alpha_t} \qquad\Longleftrightarrow\qquad \bar\alpha_t = \frac{1}{1+e^{-\lambda_t}} = \operatorname{sigmoid}(\lambda_t) \tag{2.6}$$

At $\lambda = 0$ the two factors in (1.5) are equal. Each step of 2.3 ($\log 10$) down makes the noise ten times as strong
against the signal. At $t = 0$ it is infinite. "For data of variance 1" is a convention, so that schedules can be compared
without data: our digits have a mean of -0.8 and a standard deviation of 0.55.

The cell measures it. A pixel that is 1 at the beginning is walked through the linear schedule 100,000 times, step by step.
What is left of the 1 is the mean, and the noise is the variance.
"""

# %%
linear = tinyddpm.Schedule.named("linear", T=1000)
generator = torch.Generator().manual_seed(4)
x, measured = torch.ones(100_000, 1, 1, 1), []
for t in range(1, 501):
    x = tinyddpm.q_step(x, t, torch.randn(x.shape, generator=generator), linear)
    if t % 100 == 0:
        measured.append((x.mean() ** 2 / x.var()).log())
times = [100, 200, 300, 400, 500]
holds("2.6", measured, linear.log_snr[times], within=0.1)
holds("2.6", torch.stack(measured).sigmoid(), linear.alpha_bar[times], within=0.01)

# %% [markdown]
r"""
Put (2.6) into (1.5), with $1 - \operatorname{sigmoid}(\lambda) = \operatorname{sigmoid}(-\lambda)$, and the time has
disappeared:

$$x_t = \sqrt{\operatorname{sigmoid}(\lambda_t)}\;x_0 + \sqrt{\operatorname{sigmoid}(-\lambda_t)}\;\varepsilon \tag{2.7}$$

Whatever the betas are, however many steps were walked: equal log-SNR means equal distribution of $x_t$. So everything that
can be read from $x_t$ must depend on log-SNR alone. The cell asks how well the nearest-mean classifier of chapter 01 reads
$x_t$, for the linear schedule and for the cosine schedule with $T = 400$, which comes further down; and it asks the same of
images made by (2.7), with noise of their own, which know $\lambda$ and neither betas nor time. Over $t/T$ the two schedules tell
two stories. Over log-SNR there is one curve, because there is only one thing to tell.
"""

# %%
means = torch.stack([images[labels == k].mean(0) for k in range(10)]).flatten(1)  # (10, 1024)
some, eps = images[:1000], torch.randn(1000, 1, 32, 32, generator=torch.Generator().manual_seed(5))


def reads(x_t, signal):
    distance = torch.cdist(x_t.flatten(1), signal * means)
    return (distance.argmin(1) == labels[:1000]).double().mean().item()


def accuracy(schedule, t):
    return reads(tinyddpm.q_sample(some, t, eps, schedule), schedule.sqrt_alpha_bar[t].float())


def accuracy_at(lam):
    """The right side of (2.7): neither betas nor time."""
    signal, strength = torch.sigmoid(lam).sqrt(), torch.sigmoid(-lam).sqrt()
    return reads(signal * some + strength * fresh, signal)


cosine = tinyddpm.Schedule.named("cosine", T=400)
fresh = torch.randn(1000, 1, 32, 32, generator=torch.Generator().manual_seed(6))
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.7), sharey=True)
by_time, by_lambda = [], []
for name, schedule, mark in [("linear, T = 1000", linear, "o"), ("cosine, T = 400", cosine, "x")]:
    T = schedule.T
    times = [T * i // 20 for i in range(1, 21)]
    read = [accuracy(schedule, t) for t in times]
    by_time += read
    by_lambda += [accuracy_at(lam) for lam in schedule.log_snr[times].float()]
    left.plot([t / T for t in times], read, mark + "-", markersize=4, label=name)
    right.plot(schedule.log_snr[times], read, mark, markersize=4)
holds("2.7", by_time, by_lambda, within=0.06)
left.set(title="over time", xlabel="t / T", ylabel="read correctly")
right.set(title="over log-SNR", xlabel="log-SNR", xlim=(4, -12))
left.legend()
plt.show()

# %% [markdown]
r"""
The right axis runs from clean to noisy, as time does. Between log-SNR 0 and -6 the digit disappears; before that nothing
happens to it that this classifier would notice, and after that there is nothing left to read. Brightness is different: an
average of 1024 pixels has 1024 times the SNR of one pixel, which adds $\log 1024 \approx 7$ to the log-SNR. That is why it
was read nine times in ten after 500 unscaled steps, at log-SNR -5, where the classifier hardly reads one digit in five, and
why the end of a chain has to lie lower still: an amplitude of 1 % is a log-SNR of about -9.2.

Chapter 01 asked whether the last few hundred steps are wasted. Now we can count where each schedule spends its steps.
"""

# %%
for name in ("linear", "cosine"):
    lam = tinyddpm.Schedule.named(name, T=1000).log_snr[1:]
    clean, noisy = int((lam > 4).sum()), int((lam < -4).sum())
    print(f"{name}: {clean:2} of 1000 steps above log-SNR 4, {1000 - clean - noisy} from 4 to -4, {noisy:3} below -4")

# %% [markdown]
r"""
More than a third of the linear schedule's steps are spent where more than 98 % of a pixel's variance is noise. They are not
for nothing, since the brightness is settled there, but they are far too many: Nichol & Dhariwal (2021) report that leaving
out up to a fifth of the reverse steps hardly hurts a model that was trained on it. This observation led them to another
schedule.

## Cosine: from the end to the betas

So far the betas came first, and $\bar\alpha$ is what came of them. Turn that around: choose $\bar\alpha_t$, the thing that
matters, and calculate the betas. Which one? The two factors in (1.5) have squares that add up to 1, as a cosine and a sine
have. There is an angle $\varphi_t$ with $\sqrt{\bar\alpha_t} = \cos\varphi_t$ and $\sqrt{1-\bar\alpha_t} = \sin\varphi_t$,
so that

$$x_t = \cos\varphi_t\; x_0 + \sin\varphi_t\;\varepsilon, \qquad \lambda_t = \log\frac{\cos^2\varphi_t}{\sin^2\varphi_t} = -2\log\tan\varphi_t \tag{2.8}$$

Noising is a quarter turn from the image to the noise. The simplest choice is to turn evenly,
$\varphi_t = \frac{t}{T}\cdot\frac{\pi}{2}$. It is at 45 degrees half-way, where signal and noise are equal, and at 90
degrees at $T$, where *no* signal is left. The next cell compares the angle with the library's schedule, at all times but the
last.
"""

# %%
even = tinyddpm.Schedule(tinyddpm.cosine_betas(1000, offset=0.0))
angle = torch.arange(1, 1000, dtype=torch.float64) / 1000 * math.pi / 2
left = torch.stack([angle.cos(), angle.sin(), -2 * angle.tan().log()])
right = torch.stack([even.sqrt_alpha_bar, even.sqrt_one_minus_alpha_bar, even.log_snr])[:, 1:1000]
holds("2.8", left, right, within=1e-6)

# %% [markdown]
r"""
Two small things have to be added before this can be used, and both are in the paper.

**The beginning.** The first even turn is so small that its noise is far below one grey level of an 8-bit image (2 in 255, or
1/127.5, in our range), and such steps teach nothing. So start a little further on, with an offset of 0.008, which brings the
first step close to one grey level, and divide by the value at $t = 0$, so that $\bar\alpha_0$ is 1 (Nichol & Dhariwal 2021,
equation 17):

$$\bar\alpha_t = \frac{f(t)}{f(0)}, \qquad f(t) = \cos^2\left(\frac{t/T + 0.008}{1 + 0.008}\cdot\frac{\pi}{2}\right) \tag{2.9}$$

**The end.** From $\bar\alpha_t = (1-\beta_t)\,\bar\alpha_{t-1}$ the betas follow by division. At $T$ the cosine is 0, the
division gives $\beta_T = 1$, and a step that keeps nothing at all cannot be undone by any formula that divides by what was
kept. So the betas are held at 0.999:

$$\beta_t = \min\Bigl(1 - \frac{\bar\alpha_t}{\bar\alpha_{t-1}},\; 0.999\Bigr) \tag{2.10}$$
"""


# %%
def my_cosine_alpha_bar(T, offset=0.008):
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    return f / f[0]


def betas_of(alpha_bar, max_beta=0.999):
    beta = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta)
    return torch.cat([torch.zeros(1, dtype=torch.float64), beta])


def my_cosine_betas(T):
    return betas_of(my_cosine_alpha_bar(T))


cosine = tinyddpm.Schedule.named("cosine", T=1000)
degrees = [(t / 1000 + 0.008) / 1.008 * 90 for t in range(1000)]
squares = [math.cos(math.radians(d)) ** 2 / math.cos(math.radians(degrees[0])) ** 2 for d in degrees]
holds("2.9", squares, cosine.alpha_bar[:1000], within=1e-7)
held = [min(1 - b / a, 0.999) for a, b in zip(squares, [*squares[1:], 0.0])]
holds("2.10", held, cosine.beta[1:], within=1e-7)
same(my_cosine_betas, tinyddpm.cosine_betas, 1000)
same(my_cosine_betas, tinyddpm.cosine_betas, 50)
grey_level = 1 / 127.5
print(
    f"the first step's noise, in grey levels: {cosine.beta[1].sqrt() / grey_level:.2f}, "
    f"without the offset {even.beta[1].sqrt() / grey_level:.2f}"
)
print("betas that had to be held at 0.999:", int((cosine.beta == 0.999).sum()))
for T in (20, 100, 1000):
    print(f"T = {T:4} ends in noise: {ends_in_noise(schedule_of(my_cosine_betas(T)))}")

# %% [markdown]
r"""
The cosine chain ends in noise for a short $T$ as well as for a long one, without any scaling, because its end was the
starting point of its design.

It is designed for small images. Double their height and width, and a block of $2 \times 2$ pixels shows what one pixel showed
before, at four times the SNR, since it averages four noises; so the larger image needs a lower log-SNR at every time
(Hoogeboom et al. 2023, section 3.1). The library has that as `cosine-shifted`: a quarter of the SNR, all along.

## Bug museum: two misplaced squares

One way to go wrong has had its place above: copying the line and changing $T$. Here are two more.
A square is easily put in the wrong place, and neither version raises an error.

1. **A quadratic schedule, squared twice.** Some take betas whose *roots* lie on a line,
   `linspace(start ** 0.5, end ** 0.5) ** 2`. Square the ends instead of taking their roots, and everything is squared a second
   time: the largest beta is $0.02^4 = 0.00000016$, and the chain adds no noise to speak of. The amplitude at $T$ catches it.
2. **The cosine without its square.** $\bar\alpha$ is a variance and the cosine an amplitude, so one must be squared to become
   the other. Without the square the chain *does* end in noise, and the amplitude at $T$ lets it pass. It is caught by what a
   cosine schedule promises: 45 degrees half-way.

The figure shows the angle of (2.8) for each. The right quadratic schedule with the ends of (2.1) is there as well.
"""

# %%
T = 1000
u = (torch.arange(T + 1, dtype=torch.float64) / T + 0.008) / 1.008
not_squared = torch.cos(u * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
museum = {  # the betas, and the angle that is promised half-way, if any
    "linear": (my_linear_betas(T)[1:], None),
    "quadratic": (torch.linspace(1e-4**0.5, 0.02**0.5, T, dtype=torch.float64) ** 2, None),
    "1. squared twice": (torch.linspace(1e-4**2, 0.02**2, T, dtype=torch.float64) ** 2, None),
    "cosine": (my_cosine_betas(T)[1:], 45),
    "2. cosine, no square": (betas_of(not_squared)[1:], 45),
}
figure, axes = plt.subplots(figsize=(8, 2.5))
for name, (beta, promised) in museum.items():
    schedule = schedule_of(torch.cat([torch.zeros(1), beta]))
    degrees = schedule.sqrt_alpha_bar.acos().rad2deg()
    kept = "no promise" if promised is None else abs(float(degrees[T // 2]) - promised) < 2
    print(f"{name:21} ends in noise: {ends_in_noise(schedule)!s:6} half-way as promised: {kept}")
    axes.plot(degrees, label=name)
axes.set(xlabel="t", ylabel="degrees", yticks=[0, 30, 60, 90], title="the angle from image to noise")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
r"""
In angles the cosine is a straight line. Without its square it stays too close to the image all the way, and leaps to the end
in the last few steps. Number 1 does not leave the ground. The quadratic schedule that is implemented as it was meant does not
pass either: with these ends the sum of its betas is too small even for 1,000 steps.

## The price of ending in noise

Why not simply let every chain end at log-SNR minus infinity? Because some models are asked for the noise: they look at $x_t$
and return $\hat\varepsilon$, an estimate of $\varepsilon$, from which the clean image is calculated by solving (1.5) for
$x_0$. Suppose that $\hat\varepsilon$ is off by a small $\delta$. Then $\hat x_0$ is off by

$$\hat x_0 - x_0 = -\frac{\sqrt{1-\bar\alpha_t}}{\sqrt{\bar\alpha_t}}\;\delta = -e^{-\lambda_t/2}\;\delta \tag{2.11}$$

and log-SNR turns out to be, once more, the quantity that one wants to know: it is the magnification of errors. At $t = T$ of
the cosine schedule it is about 20,000. Even the one step from $T$ to $T - 1$ magnifies: solve (1.1) for $x_{t-1}$, and with
$\beta_T = 0.999$ an error is magnified there as well (exercise 02d asks by how much).
"""

# %%
generator = torch.Generator().manual_seed(6)
eps, delta = torch.randn(2, 4, 1, 32, 32, generator=generator, dtype=torch.float64)
clean = digits.double()
times = [1, 250, 500, 900, 999, 1000]
log_factor = []
for t in times:
    x_t = tinyddpm.q_sample(clean, t, eps, cosine)
    x_0_hat = tinyddpm.x_0_from_eps(eps + 0.01 * delta, x_t, t, cosine)
    factor = -((x_0_hat - clean) / (0.01 * delta)).mean()
    log_factor.append(factor.log())
holds("2.11", log_factor, -cosine.log_snr[times] / 2, within=1e-5)
linear_factor = math.exp(-linear.log_snr[-1] / 2)
for name, factor in [
    ("t = 999", log_factor[4].exp()),
    ("t = 1000", log_factor[5].exp()),
    ("linear, t = 1000", linear_factor),
]:
    print(f"{name:16} an error in eps_hat is magnified {float(f'{factor:.2g}'):.0f} times")

# %% [markdown]
r"""
So at $T$ an $\hat\varepsilon$ that is off by a hundredth makes $\hat x_0$ off by about 200, where images lie between -1 and 1.
There is a cheap and strong remedy: an $\hat x_0$ outside of that range cannot be right, so hold it there, which is called
**clipping** $x_0$. The library's `clip_x_0` does this for any denoiser. Another remedy is to ask the network for a quantity
that need not be divided by nearly nothing, which is a subject of chapter 06.

## What this chapter showed

A schedule is a curve of log-SNR, and two questions judge it: how low it ends, and where it spends its steps. The end decides
whether sampling may start from pure noise, and the test is that $\sqrt{\bar\alpha_T}$ is below 1 %. A chain that keeps signal gives samples that are flawless one by one and wrong as
a whole; for the digits, the mean brightness of $x_T$ makes it visible in advance. Linear betas belong to $T = 1000$ and must be scaled by
$1000/T$ elsewhere; the cosine schedule is built from its end.

## Exercises

**02a.** Write $\bar\alpha_t$ of the cosine schedule for any offset, as a table of $T + 1$ values.
"""


# %%
def answer_02a(T, offset):
    """Returns alpha_bar, a tensor of shape (T + 1,) in float64."""
    ...


check("02a", answer_02a)

# %% [markdown]
r"""
<details><summary>Solution 02a</summary>

```python
def answer_02a(T, offset):
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    return f / f[0]
```

The square makes a variance of the amplitude, and the division by $f(0)$ makes the clean image clean.
</details>

**02b.** Choose betas for a short chain: they lie on the line from $k \cdot 10^{-4}$ to $k \cdot 0.02$, and the
chain shall end in noise by the test above, with $\bar\alpha_T$ below $10^{-4}$. Which is the smallest whole number $k$ that does it at a given $T$? The rule $1000/T$ is on the
safe side; how far?
"""


# %%
def answer_02b(T):
    """T: 100 or 50. Returns the smallest whole factor k."""
    ...


check("02b", answer_02b)

# %% [markdown]
r"""
<details><summary>Solution 02b</summary>

```python
def answer_02b(T):
    line = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    return next(k for k in range(1, 50) if (1 - k * line).prod() < 1e-4)
```

9 at $T = 100$ and 17 at $T = 50$, where the rule says 10 and 20. The larger the betas, the more (2.2) overrates what is
left: $\log(1-\beta)$ lies below $-\beta$.
</details>

**02c.** Repair the quadratic schedule of the museum. It shall begin at $10^{-4}$, end at 0.02, and the roots of its betas
shall lie on a line.

```python
def broken(T):
    return torch.linspace(1e-4**2, 0.02**2, T, dtype=torch.float64) ** 2
```
"""


# %%
def answer_02c(T):
    """Returns beta_1 .. beta_T, a tensor of shape (T,) in float64."""
    ...


check("02c", answer_02c)

# %% [markdown]
r"""
<details><summary>Solution 02c</summary>

```python
def answer_02c(T):
    return torch.linspace(1e-4**0.5, 0.02**0.5, T, dtype=torch.float64) ** 2
```

A single look at the first and the last beta would have found the mistake: `beta[-1]` must be 0.02.
</details>

**02d.** Solve one noising step (1.1), $x_t = \sqrt{1-\beta_t}\,x_{t-1} + \sqrt{\beta_t}\,\varepsilon$, for $x_{t-1}$, and
put $\hat\varepsilon = \varepsilon + \delta$ in place of $\varepsilon$. How many times larger than $\delta$ is the error of
$x_{t-1}$, without its sign? Try your function on 0.999 and on 0.02, the last betas of the two schedules.
"""


# %%
def answer_02d(beta):
    """beta in (0, 1). Returns the factor, a positive number."""
    ...


check("02d", answer_02d)

# %% [markdown]
r"""
<details><summary>Solution 02d</summary>

```python
def answer_02d(beta):
    return (beta / (1 - beta)) ** 0.5
```

31.6 for $\beta = 0.999$, and 0.14 for $\beta = 0.02$: the linear schedule's last step does not magnify at all.
</details>

## Symbols

| symbol | variable | shape | where |
|---|---|---|---|
| $\beta_t$ | `beta` | (T + 1,) | (2.1), (2.10); Ho et al. 2020, section 4 |
| $\bar\alpha_t$ | `schedule.alpha_bar` | (T + 1,) | (2.2), (2.9); Nichol & Dhariwal 2021, eq. 17 |
| $\sqrt{\bar\alpha_T}$ | `schedule.sqrt_alpha_bar` | (T + 1,) | the amplitude that is left, (2.2) |
| $\lambda_t$ | `schedule.log_snr`, `lam` | (T + 1,) | log-SNR, (2.6) |
| $\varphi_t$ | `angle` | (T,) | the angle from image to noise, (2.8) |
| $b$ | `brightness` | (b,) | the mean over an image, (2.4) |
| $\hat x_0$ | `x_0_hat` | (b, 1, 32, 32) | what a denoiser takes the clean image to be |
| $\hat\varepsilon$ | `eps + 0.01 * delta` | (b, 1, 32, 32) | an estimate of the noise, (2.11) |

**Next:** [03 · The reverse process](03_reverse_process.ipynb). The sampler was a black box here, and so was the exact
denoiser. We open both, derive every line of them, and prove that together they give back the data, before any network
exists.
"""
