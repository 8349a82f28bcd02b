# %% [markdown]
r"""
# 02 · Noise schedules: does the chain really end in noise?

**After this chapter you can**

* build the linear and the cosine schedule by hand, and say what each of them was made for;
* read any schedule as one curve of log-SNR, on which all schedules can be compared;
* test with one number whether a chain ends in noise, and say what its samples look like where it does not.

*You need:* chapter 01. *Reading:* 30 minutes. *Running:* under 20 seconds on a laptop, without a network. *You build and
then import:* `linear_betas`, `cosine_betas`.

---

Chapter 01 ended with a promise: whatever the images are, the chain forgets them and ends in pure noise, and so pure noise is
where generation can start. Whether it is kept depends on the betas alone, and nobody sees it by looking: an image that keeps
a fifth of its contrast under noise looks like noise. In this chapter we measure it. The outcome is uncomfortable for a good
part of the published tutorials, whose chains stop too early, and it can be seen in what they generate. The same measurements
lead to a better way of looking at schedules altogether, and to the cosine schedule, which is drawn from its end.
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
All five rows of the left column are settings of published teaching material. Only the last is the paper's.

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
we do not need here): 1 if brightness always tells them apart, ½ if it is worth as much as a coin. If $b(x_0)$ is roughly
normal, with mean $\mu_b$ and standard deviation $\sigma_b$ over the data set, then the difference of the two brightnesses is
normal as well, and with $\Phi$ for the standard normal distribution function

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
    return 1 - (torch.searchsorted(noise.sort().values, x_T) / len(noise)).mean().item()


def auc_by_formula(alpha_bar, n=1024):
    b = brightness(images)
    spread = (alpha_bar * b.var() + (1 - alpha_bar) / n + 1 / n).sqrt()
    return torch.special.ndtr(alpha_bar.sqrt() * b.mean().abs() / spread).item()


def brightness_at_T(schedule):
    return brightness(tinyddpm.q_sample(images, schedule.T, eps, schedule))


eps = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
noise = brightness(torch.randn(images.shape, generator=torch.Generator().manual_seed(99)))
chains = {f"T = {T}": unscaled[T] for T in unscaled} | {"T = 300, scaled": scaled[300]}
at_T = {name: brightness_at_T(schedule) for name, schedule in chains.items()}
counted = [auc(b, noise) for b in at_T.values()]
by_formula = [auc_by_formula(schedule.alpha_bar[-1]) for schedule in chains.values()]
guess(my_guess, by_formula[3])
abar = unscaled[500].alpha_bar[500]
mixed = abar.sqrt() * brightness(images) + (1 - abar).sqrt() * brightness(eps)
holds("2.3", at_T["T = 500"], mixed, within=1e-6)
holds("2.3", [noise.mean(), 1024 * noise.var()], [0.0, 1.0], within=0.06)  # N(0, 1/n)
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
The scaled chain passes nearly, and only nearly: the 0.6 % of amplitude that Ho et al. themselves leave is worth an AUC of
about 0.55, and a coin is worth 0.50. Lin et al. (2023) tabulate what well-known schedules leave at $T$: 0.0064 for this one,
0.068 for that of a text-to-image model in very wide use. They hold that number responsible for a fault of that model: it
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
axes.set(
    xticks=range(10), xticklabels=order.tolist(), xlabel="class, from little ink to much", ylabel="samples"
)
axes.legend()
axes.grid(False)
plt.show()
picture = image_grid(torch.cat([samples["from noise"][:12], samples["scaled"][:12]]), columns=12)
show(picture, "above: unscaled, from noise; below: scaled", width=5)

# %% [markdown]
r"""
Every sample is a flawless digit, and the first run is wrong all the same: hardly any ones and sevens, nearly twice the
zeros. Whoever judges by looking at the pictures does not notice. The second run uses the same denoiser and the same steps,
and its classes are right; so the chain is right, and only its starting point was wrong. Pure noise has brightness 0; no
digit ever arrives at $T$ as bright as that; so the denoiser concludes that there is a great deal of ink.

It concludes this before the first step. The mean of a mean is the mean: if $\hat x_0(x_T, T)$ is the average of all clean
images to which $x_T$ may lead, then, with steps that are small enough, on average the samples must have the brightness of
that first idea,

$$\mathbb E\bigl[b(\text{sample})\bigr] = \mathbb E_{x_T}\bigl[b(\hat x_0(x_T, T))\bigr] \tag{2.5}$$

and the 200 steps that follow cannot repair it. The cell checks this for all three runs.
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

At $\lambda = 0$ signal and noise are equal. Each step of 2.3 ($\log 10$) down makes the noise ten times as strong against
the signal. At $t = 0$ it is infinite.
"""

# %%
linear, cosine = tinyddpm.Schedule.named("linear", T=1000), tinyddpm.Schedule.named("cosine", T=400)
abar = (1 - linear.beta[1:]).cumprod(0)
forth, back = torch.log(abar / (1 - abar)), torch.sigmoid(linear.log_snr[1:])
holds("2.6", torch.stack([forth, back]), torch.stack([linear.log_snr, linear.alpha_bar])[:, 1:], within=1e-9)

# %% [markdown]
r"""
Put (2.6) into (1.5), with $1 - \operatorname{sigmoid}(\lambda) = \operatorname{sigmoid}(-\lambda)$, and the time has
disappeared:

$$x_t = \sqrt{\operatorname{sigmoid}(\lambda_t)}\;x_0 + \sqrt{\operatorname{sigmoid}(-\lambda_t)}\;\varepsilon \tag{2.7}$$

Whatever the betas are, however many steps were walked: equal log-SNR means equal distribution of $x_t$. The cell walks two
chains step by step, 300 steps of the linear schedule with $T = 1000$ and, in the cosine schedule with $T = 400$ (which comes
further down), as many steps as it takes to reach the same log-SNR. The clean data are the pixel of chapter 01: black in
three images of four, white in the fourth. Nine quantiles of each outcome are compared with a single jump that knows
$\lambda$ only.
"""

# %%
x_0 = torch.tensor([-1.0, -1.0, -1.0, 1.0]).repeat(20_000).reshape(-1, 1, 1, 1)
quantiles = torch.linspace(0.1, 0.9, 9)
generator = torch.Generator().manual_seed(4)


def walk(schedule, t):
    x = x_0
    for s in range(1, t + 1):
        x = tinyddpm.q_step(x, s, torch.randn(x.shape, generator=generator), schedule)
    return x.flatten().quantile(quantiles)


t_linear = 300
t_cosine = int((cosine.log_snr[1:] - linear.log_snr[t_linear]).abs().argmin()) + 1
lam = linear.log_snr[t_linear].float()
eps = torch.randn(x_0.shape, generator=generator)
jumped = (torch.sigmoid(lam).sqrt() * x_0 + torch.sigmoid(-lam).sqrt() * eps).flatten().quantile(quantiles)
print(f"t = {t_linear} of T = 1000 (linear) has the log-SNR of t = {t_cosine} of T = 400 (cosine)")
walked = torch.stack([walk(linear, t_linear), walk(cosine, t_cosine)])
holds("2.7", walked, torch.stack([jumped, jumped]), within=0.03)

# %% [markdown]
r"""
The same with something that matters: how well the nearest-mean classifier of chapter 01 reads $x_t$. Over $t/T$ the two
schedules tell two stories. Over log-SNR there is one curve, because there is only one thing to tell.
"""

# %%
means = torch.stack([images[labels == k].mean(0) for k in range(10)]).flatten(1)  # (10, 1024)
some, eps = images[:1000], torch.randn(1000, 1, 32, 32, generator=torch.Generator().manual_seed(5))


def accuracy(schedule, t):
    x_t = tinyddpm.q_sample(some, t, eps, schedule).flatten(1)
    distance = torch.cdist(x_t, schedule.sqrt_alpha_bar[t].float() * means)
    return (distance.argmin(1) == labels[:1000]).double().mean().item()


figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.7), sharey=True)
for name, schedule, mark in [("linear, T = 1000", linear, "o"), ("cosine, T = 400", cosine, "x")]:
    T = schedule.T
    times = [T * i // 20 for i in range(1, 21)]
    read = [accuracy(schedule, t) for t in times]
    left.plot([t / T for t in times], read, mark + "-", markersize=4, label=name)
    right.plot(schedule.log_snr[times], read, mark, markersize=4)
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
why the end of a chain has to lie lower still.

Chapter 01 asked whether the last few hundred steps are wasted. Now we can count where each schedule spends its steps.
"""

# %%
for name in ("linear", "cosine"):
    lam = tinyddpm.Schedule.named(name, T=1000).log_snr[1:]
    clean, noisy = int((lam > 4).sum()), int((lam < -4).sum())
    print(
        f"{name}: {clean:2} of 1000 steps above log-SNR 4, {1000 - clean - noisy} from 4 to -4, {noisy:3} below -4"
    )

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
    end = schedule_of(my_cosine_betas(T)).alpha_bar[-1]
    print(f"brightness at T = {T}: AUC {auc_by_formula(end):.2f}")

# %% [markdown]
r"""
The cosine chain ends in noise, or very nearly, for a short $T$ as well as for a long one, without any scaling, because its
end was the starting point of its design.

## Sliding a schedule along its axis

An average over $k \times k$ pixels has $k^2$ times the SNR of one pixel: we met this with $k = 32$. So the larger the
images, the longer their coarse content survives, and a schedule that was right for small images adds too little noise for
large ones. The repair is simple on the right axis (Hoogeboom et al. 2023, section 3.1). Multiply the SNR by a factor $s^2$
at every time, and the whole curve slides down:

$$\lambda_t' = \lambda_t + 2\log s \qquad\text{which is}\qquad \bar\alpha_t' = \frac{s^2\,\bar\alpha_t}{1 - \bar\alpha_t + s^2\,\bar\alpha_t} \tag{2.11}$$

With $s < 1$ more of the times lie where the noise is high, where coarse things are decided. The library's `cosine-shifted`
takes $s = ½$, which is right for images of twice the size.
"""


# %%
def my_shifted_betas(T, shift):
    alpha_bar = my_cosine_alpha_bar(T)
    return betas_of(shift**2 * alpha_bar / (1 - alpha_bar + shift**2 * alpha_bar))


shifted = tinyddpm.Schedule.named("cosine-shifted", T=1000)
holds("2.11", shifted.log_snr[1:1000], cosine.log_snr[1:1000] + 2 * math.log(0.5), within=1e-9)
same(my_shifted_betas, tinyddpm.cosine_betas, 1000, shift=0.5)

# %% [markdown]
r"""
## All of them on one axis

Now every schedule that this chapter has met can be drawn into one picture. Three more are added. *Quadratic* betas, whose
roots lie on a line, with the ends of (2.1); the same with a mistake that a widely copied tutorial has carried, of which more
below; and the quadratic betas of the text-to-image model that was mentioned. Look at two things: how low a curve ends, and
where it spends its time. Below the dotted line the brightness test has an AUC of less than 0.6.
"""


# %%
def quadratic(start, end, T=1000, inner=0.5):
    beta = torch.linspace(start**inner, end**inner, T, dtype=torch.float64) ** 2
    return schedule_of(torch.cat([torch.zeros(1, dtype=torch.float64), beta]))


curves = {f"linear, T = {T}, unscaled": unscaled[T] for T in (200, 300, 400, 500)}
curves |= {"linear, T = 1000": linear, "cosine": cosine, "cosine, shifted": shifted}
curves |= {"quadratic": quadratic(1e-4, 0.02), "quadratic, text to image": quadratic(0.00085, 0.012)}
curves |= {"quadratic, squared twice": quadratic(1e-4, 0.02, inner=2)}
levels = torch.linspace(-14, 0, 1000, dtype=torch.float64)
coin = next(lam for lam in levels.tolist() if auc_by_formula(torch.sigmoid(torch.tensor(lam))) > 0.6)
colours = [*plt.get_cmap("Oranges")(torch.linspace(0.85, 0.35, 4).numpy()), "tab:red", "tab:blue", "tab:cyan"]
figure, axes = plt.subplots(figsize=(8, 3.3))
for (name, schedule), colour in zip(curves.items(), [*colours, "tab:green", "tab:olive", "tab:purple"]):
    time = torch.arange(1, schedule.T + 1) / schedule.T
    axes.plot(time, schedule.log_snr[1:], color=colour, label=name)
axes.axhline(coin, color="black", linestyle=":", linewidth=1)
axes.set(xlabel="t / T", ylabel="log-SNR", ylim=(-14, 14))
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
for name, schedule in curves.items():
    verdict = "ends in noise" if schedule.log_snr[-1] < coin else "keeps signal"
    print(f"{name:25} {verdict:14} amplitude at T {float(schedule.sqrt_alpha_bar[-1]):.2g}")

# %% [markdown]
r"""
The four orange curves and the red one have the same betas at the same $t/T$; they differ in how many of them there are, and
only the red one has enough to reach the dotted line. The quadratic betas stop above it even where they are implemented well,
and with the mistake they do not even begin.

## Bug museum: four schedules

All four are in published material. Each is shown as one could have written it, and each is caught by a line.

1. **Unscaled linear betas in a short chain.** The line of `linspace` was copied, `T` was changed. Seen above; caught by the
   amplitude at $T$.
2. **A quadratic schedule, squared twice.** The roots of the betas should lie on a line,
   `linspace(start ** 0.5, end ** 0.5) ** 2`. In the widely copied version the endpoints are squared instead, and then
   everything is squared once more: the largest beta is $0.02^4 = 0.00000016$, and the chain of 1,000 steps adds no noise to
   speak of. Caught by the same line.
3. **The cosine without its square.** $\bar\alpha$ is a variance and the cosine an amplitude, and a popular blog had the one
   in the place of the other. This chain *does* end in noise, so the first line lets it pass. It is caught half-way, where by
   (2.8) signal and noise must be equal.
4. **A last beta near 1.** Not a mistake but a trap, with a section of its own below.
"""

# %%
T = 300
u = (torch.arange(T + 1, dtype=torch.float64) / T + 0.008) / 1.008
museum = {
    "linear, scaled": my_linear_betas(T)[1:],
    "1. linear, T alone changed": torch.linspace(1e-4, 0.02, T, dtype=torch.float64),
    "2. quadratic, squared twice": torch.linspace(1e-4**2, 0.02**2, T, dtype=torch.float64) ** 2,
    "cosine": my_cosine_betas(T)[1:],
    "3. cosine, no square": betas_of(torch.cos(u * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2))[1:],
}
figure, axes = plt.subplots(figsize=(8, 2.5))
for name, beta in museum.items():
    schedule = schedule_of(torch.cat([torch.zeros(1), beta]))
    ends_in_noise = schedule.alpha_bar[-1] < 1e-4  # catches 1 and 2
    equal_half_way = schedule.log_snr[T // 2].abs() < 0.1  # what the cosine is made for: catches 3
    passes = ends_in_noise and (equal_half_way or "cosine" not in name)
    print(f"{name:28} {'passes' if passes else 'caught'}")
    axes.plot(schedule.sqrt_alpha_bar.acos().rad2deg(), label=name)
axes.set(xlabel="t", ylabel="degrees", yticks=[0, 30, 60, 90], title="the angle from image to noise")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
r"""
In angles the cosine is a straight line, and without its square it stays too close to the image all the way, to leap to the
end in the last few steps. The unscaled line goes with the cosine for two thirds of the way, so that its pictures look
spoiled well enough, and then never arrives. Number 2 does not leave the ground.

The library says so by itself. Here is its warning for number 1, and what it answers where scaling goes too far: at $T = 20$
the largest scaled beta would be $0.02 \cdot 1000/20 = 1$.
"""

# %%
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
## The price of ending in noise

Why not simply let every chain end at log-SNR minus infinity? Because some models are asked for the noise: they look at $x_t$
and return $\hat\varepsilon$, an estimate of $\varepsilon$, from which the clean image is calculated by solving (1.5) for
$x_0$. Suppose that $\hat\varepsilon$ is off by a small $\delta$. Then $\hat x_0$ is off by

$$\hat x_0 - x_0 = -\frac{\sqrt{1-\bar\alpha_t}}{\sqrt{\bar\alpha_t}}\;\delta = -e^{-\lambda_t/2}\;\delta \tag{2.12}$$

and log-SNR turns out to be, once more, the quantity that one wants to know: it is the magnification of errors. At $t = T$ of
the cosine schedule it is about 20,000. Even the one step from $T$ to $T - 1$ magnifies: solve (1.1) for $x_{t-1}$, and with
$\beta_T = 0.999$ an error is divided by $\sqrt{0.001}$, which makes it about 31.6 times as large (exercise 02d).
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
holds("2.12", log_factor, -cosine.log_snr[times] / 2, within=1e-5)
linear_factor = math.exp(-linear.log_snr[-1] / 2)
for name, factor in [
    ("t = 999", log_factor[4].exp()),
    ("t = 1000", log_factor[5].exp()),
    ("linear, t = 1000", linear_factor),
]:
    print(f"{name:16} an error in eps_hat is magnified {float(f'{factor:.2g}'):.0f} times")

# %% [markdown]
r"""
There is a cheap and strong remedy. Images lie between -1 and 1, and an $\hat x_0$ outside cannot be right; so hold it there,
which is called **clipping** $x_0$. The cell takes one reverse step from $T$ to $T-1$ (`tinyddpm.p_sample`, the step inside
the loop that we used above; it takes $\hat x_0$ and not $\hat\varepsilon$), with estimates of the noise that are off by 1, 3
and 10 per cent, and prints the standard deviation of the outcome. The next step expects 1.
"""

# %%
x_T = tinyddpm.q_sample(clean, 1000, eps, cosine)
for off in (0.01, 0.03, 0.1):
    x_0_hat = tinyddpm.x_0_from_eps(eps + off * delta, x_T, 1000, cosine)
    spread = []
    for guessed in (x_0_hat, x_0_hat.clamp(-1, 1)):
        x_s = tinyddpm.p_sample(x_T, guessed, 1000, 999, cosine, generator=torch.Generator().manual_seed(7))
        spread.append(x_s.std().item())
    print(
        f"eps_hat off by {off:4.0%}: standard deviation at T - 1 is {spread[0]:.2f}, with clipping {spread[1]:.2f}"
    )

# %% [markdown]
r"""
With an error of a tenth and no clipping the very first step leaves the range in which every later step is at home; clipped,
it does not notice the error at all. The library's `clip_x_0` does this for any denoiser. Another remedy is to ask the
network for a quantity that need not be divided by nearly nothing, which is a subject of chapter 06.

## What this chapter showed

A schedule is a curve of log-SNR, and two questions judge it: how low it ends, and where it spends its steps. The end decides
whether sampling may start from pure noise. A chain that keeps signal gives samples that are flawless one by one and wrong as
a whole, and the mean brightness of $x_T$ tells it in advance. Linear betas belong to $T = 1000$ and must be scaled by
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

**02b.** Choose betas for a short chain: they lie on the line from $k \cdot 10^{-4}$ to $k \cdot 0.02$, and $\bar\alpha_T$
shall be below $10^{-4}$. Which is the smallest whole number $k$ that does it at a given $T$? The rule $1000/T$ is on the
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
| $\beta_t$ | `linear.beta`, `beta` | (T + 1,) | (2.1), (2.10); Ho et al. 2020, section 4 |
| $\bar\alpha_t$ | `schedule.alpha_bar` | (T + 1,) | (2.2), (2.9); Nichol & Dhariwal 2021, eq. 17 |
| $\sqrt{\bar\alpha_T}$ | `schedule.sqrt_alpha_bar` | (T + 1,) | the amplitude that is left, (2.2) |
| $\lambda_t$ | `schedule.log_snr`, `lam` | (T + 1,) | log-SNR, (2.6) |
| $\varphi_t$ | `angle` | (T,) | the angle from image to noise, (2.8) |
| $b$ | `brightness` | (b,) | the mean over an image, (2.4) |
| $s$ | `shift` | a number | (2.11); Hoogeboom et al. 2023 |
| $\hat x_0$ | `x_0_hat` | (b, 1, 32, 32) | what a denoiser takes the clean image to be |
| $\hat\varepsilon$ | `eps + 0.01 * delta` | (b, 1, 32, 32) | an estimate of the noise, (2.12) |

**Next:** [03 · The reverse process](03_reverse_process.ipynb). The sampler was a black box here, and so was the exact
denoiser. We open both, derive every line of them, and prove that together they give back the data, before any network
exists.
"""
