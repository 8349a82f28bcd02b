# %% [markdown]
r"""
# 02 · Noise schedules: does the chain really end in noise?

**After this chapter you can**

* build the linear and the cosine schedule by hand, and say what each of them was made for;
* read any schedule as one curve of log-SNR, on which all schedules can be compared;
* test whether a chain ends in noise by the amplitude left at $T$, and say what its samples look like where it does not.

*You need:* chapter 01. *Reading:* about MINUTES minutes. *Running:* under 20 seconds on a laptop, without a network. *You build and
then import:* `linear_betas`, `cosine_betas`.

---

Chapter 01 ended with a promise: the chain ends in pure noise, so generation can start there. Whether it is kept depends on the betas
alone, and nobody sees it by looking. We measure it. The measurement leads to the best way of looking at schedules, and to one that
is designed from its end.
"""

# %% tags=["setup"]
import math
import warnings

import matplotlib.pyplot as plt
import torch
from course import REST, band, check, guess, holds, label_lines, same, show_figure, tiles
from course.chapter_02 import accuracy_figure, classes_figure, histograms

import tinyddpm
from tinyddpm.data import mnist

# %% tags=["setup"]
images, labels = mnist(train=False).tensors()  # (10000, 1, 32, 32) in [-1, 1]


def schedule_of(beta):
    """The library warns of a chain that keeps signal. Here that is the subject, so we know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tinyddpm.Schedule(beta)


# %% [markdown]
r"""
## A straight line of betas

Ho et al. (2020, [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), section 4) took $T = 1000$ and let the betas rise on a straight
line, small at first, when there is fine detail to spoil:

$$\beta_t = \beta_1 + \frac{t-1}{T-1}\,(\beta_T - \beta_1), \qquad \beta_1 = 10^{-4}, \quad \beta_T = 0.02 \tag{2.1}$$
"""

# %%
by_formula = [1e-4 + (t - 1) / 999 * (0.02 - 1e-4) for t in range(1, 1001)]
holds("2.1", by_formula, tinyddpm.Schedule.named("linear", T=1000).beta[1:], within=1e-8)

# %% [markdown]
r"""
And with another $T$? One can keep both ends of the line and write `T = 300`: fewer steps, each as small as before. Or one makes up for the
missing steps with larger ones, and multiplies every beta by $1000/T$: `scaled=True`, the library's default.
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

After $T$ steps the image carries the factor $\sqrt{\bar\alpha_T}$, the **amplitude** that is left. For small $\beta$,
$\log(1-\beta) \approx -\beta$, and the product $\bar\alpha_T$ becomes a sum of evenly rising numbers: how many, times their average.

$$\bar\alpha_T = \prod_{t=1}^{T} (1-\beta_t) \;\approx\; \exp\Bigl(-\sum_{t=1}^{T}\beta_t\Bigr) = \exp\Bigl(-T\;\frac{\beta_1 + \beta_T}{2}\Bigr) \tag{2.2}$$

So the *sum* of the betas decides. At $T = 1000$ it is 10.05; with $T = 300$ and the same two ends it is 3.015; and the factor $1000/T$
gives back 10.05, whatever $T$ is. That is all that the scaling is for.

**Before you run the next cell:** how many percent of the amplitude are left after 300 unscaled steps?
"""

# %%
my_guess = None

unscaled = {T: schedule_of(my_linear_betas(T, scaled=False)) for T in (200, 300, 400, 500, 1000)}
scaled = {T: schedule_of(my_linear_betas(T)) for T in unscaled}
guess(my_guess, 100 * float(unscaled[300].sqrt_alpha_bar[300]), " %")
products = [schedule.alpha_bar[-1] for schedule in unscaled.values()]
holds("2.2", products, [math.exp(-T * (1e-4 + 0.02) / 2) for T in unscaled], within=0.002)

# %% [markdown]
r"""
## You cannot see it

One row shows four digits at the end of the unscaled chain of 300 steps, the other pure noise. Which is which?
"""

# %%
digits = torch.cat([images[labels == k][:1] for k in range(4)])
eps = torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(1))
x_T = tinyddpm.q_sample(digits, 300, eps[:4], unscaled[300])
rows = {"A: x_T, or noise?": eps[4:] / 3, "B: x_T, or noise?": x_T / 3}
tiles(rows, alt="Two rows of four noisy squares; no digit can be seen in either")

# %% [markdown]
r"""
(B holds the digits 0 to 3.) In a single pixel, noise of size 1 covers a signal of size 0.2. But keep only the mean of all pixels, the
**brightness** $b$. Averaging 1,024 independent numbers shrinks the noise to $1/32$. It does *not* shrink the brightness of a digit, about -0.8,
since most of it is background at -1. So at the end of a chain that keeps signal, $x_T$ is darker than noise. The cell takes all 10,000 test digits there.
"""


# %%
def brightness(x):
    return x.mean((1, 2, 3)).double()


noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
chains = {f"T = {T}": unscaled[T] for T in (200, 300, 500)} | {"T = 300, scaled": scaled[300]}
at_T = {name: brightness(tinyddpm.q_sample(images, s.T, noise, s)) for name, s in chains.items()}
histograms(at_T, brightness(noise.flip(0)))  # flipped, so that no image meets its own noise
for T in unscaled:
    ends = [schedules[T].sqrt_alpha_bar[-1] for schedules in (unscaled, scaled)]
    print(f"T = {T:4}: {ends[0]:5.1%} of the amplitude is left, {ends[1]:.1%} with scaled betas")

# %% [markdown]
r"""
With 200 or 300 unscaled steps one number tells the end of the chain from noise nearly without a mistake, and still often with 500, where
8 % of the amplitude is left. The scaled chain cannot be told from noise.

For images as often bright as dark, brightness would be blind. The amplitude needs no data. So our test is one number with one threshold:
**a chain ends in noise if $\sqrt{\bar\alpha_T}$ is below 1 %.** The threshold is a convention; larger images, with more pixels to
average, deserve a lower one. The library warns where about 3 % or more is left, and refuses where scaling goes too far.
"""

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    tinyddpm.Schedule(my_linear_betas(300, scaled=False))
print("UserWarning:", caught[0].message)
try:
    tinyddpm.linear_betas(20)  # the largest scaled beta would be 0.02 * 1000 / 20 = 1
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
r"""
## "My loss is fine. Why are my samples too bright, or too dark?"

Training shows a model $x_T$, the end of the forward chain. Sampling gives it pure noise and calls that $x_T$. If the two differ, the
model reads the brightness, as it has learned. No loss shows this. Lin et al.
(2023, [arXiv:2305.08891](https://arxiv.org/abs/2305.08891)) found that a widely used text-to-image model keeps 6.8 % of the amplitude,
and hold that responsible for its pictures, all of medium brightness.

To watch it without training anything, we take two black boxes from chapter 03. `dataset_oracle` is the exact denoiser of a
data set: for a noisy $x_t$ it returns $\hat x_0(x_t, t)$, the average of all its images, weighted by how likely each of them is to have become
this $x_t$. `p_sample_loop` walks the chain backwards, guided by a denoiser. Nothing is learned, so what goes
wrong is the schedule's fault. We draw 300 samples three times, from a data set of 300 digits, 30 of each class:

* **from noise**: the unscaled chain of 200 steps from pure noise, as every sampler starts;
* **from x_T**: the same chain from digits taken to $T$ (a sampler has none);
* **scaled**: the scaled chain of 200 steps from the same noise as the first.

**Before you run the next cell:** 30 of 300 digits are ones. How many ones will the first run draw?
"""

# %% tags=["setup"]
data = torch.cat([images[labels == k][:30] for k in range(10)])  # (300, 1, 32, 32)
of_class = torch.arange(10).repeat_interleave(30)
unscaled_200 = schedule_of(tinyddpm.linear_betas(200, scaled=False))
pure = torch.randn(data.shape, generator=torch.Generator().manual_seed(0))


def draw(start, schedule):
    """300 samples, how many there are of each class, and x_0_hat before the first step."""
    denoiser = tinyddpm.dataset_oracle(data, schedule)
    generator = torch.Generator().manual_seed(1)
    x_0 = tinyddpm.last(tinyddpm.p_sample_loop(denoiser, start, schedule, generator=generator)).x_t
    nearest = torch.cdist(x_0.flatten(1), data.flatten(1)).argmin(1)
    first_idea = denoiser(start, torch.full((300,), schedule.T))
    return x_0, of_class[nearest].bincount(minlength=10), first_idea


# %%
my_guess = None

runs = {
    "from noise": draw(pure, unscaled_200),
    "from x_T": draw(tinyddpm.q_sample(data, 200, pure, unscaled_200), unscaled_200),
    "scaled": draw(pure, scaled[200]),
}
samples, counts, first_idea = ({name: run[k] for name, run in runs.items()} for k in range(3))
guess(my_guess, counts["from noise"][1].item(), " ones of 300")

# %% [markdown]
r"""
The bars count the samples of each class, by ink. The dashed line is the truth.
"""

# %%
classes_figure(counts, torch.stack([brightness(data[of_class == k]).mean() for k in range(10)]))
few = {name: x[:12] for name, x in samples.items() if name != "from x_T"}
tiles(few, alt="Perfect digits in both rows: the first with much ink, the second of all kinds")

# %% [markdown]
r"""
Every sample is a flawless digit, and the first run is wrong all the same. The second uses the same denoiser and the same steps, and its
classes are right; so only the start was wrong. Noise has brightness 0; no digit
arrives at $T$ as bright as that; so the denoiser concludes that there is a great deal of ink.

It concludes this before the first step, since $\hat x_0(x_T, T)$ is the average of all clean images to which this $x_T$ may lead. Write
$\mathbb E_{x_T}$ for the average over the starting points. With small enough steps,

$$\mathbb E\bigl[b(\text{sample})\bigr] = \mathbb E_{x_T}\bigl[b(\hat x_0(x_T, T))\bigr] \tag{2.3}$$

The brightness is settled by the first idea, and no later step repairs it.
"""

# %%
drawn = torch.stack([brightness(x).mean() for x in samples.values()])
holds("2.3", drawn, torch.stack([brightness(x).mean() for x in first_idea.values()]), within=0.01)
print(f"brightness of the data {brightness(data).mean():.2f}")
for name, value in zip(runs, drawn.tolist()):
    low, high = (-0.78, -0.75) if name == "from noise" else (-0.825, -0.80)
    band(value, low, high, f"is the brightness drawn: {name}")

# %% [markdown]
r"""
So samples are pulled towards brightness 0: dark images come out too bright, as here, and bright ones too dark.

## The honest time axis: log-SNR

"$t = 500$" says nothing by itself: one schedule still shows the digit there, another has lost it. By (1.5), $x_t$ depends on $t$
through $\bar\alpha_t$ only. Signal has the variance $\bar\alpha_t$ in it, for data of variance 1, and noise $1-\bar\alpha_t$. Their ratio is
the **signal-to-noise ratio**, SNR, and because it runs over many powers of ten one takes its logarithm $\lambda_t$, the **log-SNR**:

$$\lambda_t = \log\frac{\bar\alpha_t}{1-\bar\alpha_t} \qquad\Longleftrightarrow\qquad \bar\alpha_t = \frac{1}{1+e^{-\lambda_t}} = \operatorname{sigmoid}(\lambda_t) \tag{2.4}$$

At $\lambda = 0$ the two factors in (1.5) are equal. Each step of 2.3 ($\log 10$) down multiplies the noise's *variance*, relative to the
signal's, by ten, and its amplitude by about three. "Data of variance 1" is a convention, so that schedules can be compared without data. The
cell measures $\lambda_t$ on a pixel that is 1, walked through the linear schedule 100,000 times: the mean is what is left of the 1, and the variance
is the noise.
"""

# %%
linear = tinyddpm.Schedule.named("linear", T=1000)
generator = torch.Generator().manual_seed(4)
x, measured = torch.ones(100_000, 1, 1, 1), []
for t in range(1, 401):
    x = tinyddpm.q_step(x, t, torch.randn(x.shape, generator=generator), linear)
    if t % 100 == 0:
        measured.append((x.mean() ** 2 / x.var()).log())
holds("2.4", measured, linear.log_snr[100:401:100], within=0.1)
holds("2.4", torch.stack(measured).sigmoid(), linear.alpha_bar[100:401:100], within=0.01)

# %% [markdown]
r"""
Put (2.4) into (1.5), with $1 - \operatorname{sigmoid}(\lambda) = \operatorname{sigmoid}(-\lambda)$, and the time has disappeared:

$$x_t = \sqrt{\operatorname{sigmoid}(\lambda_t)}\;x_0 + \sqrt{\operatorname{sigmoid}(-\lambda_t)}\;\varepsilon \tag{2.5}$$

Equal log-SNR means equal distribution of $x_t$, so all that can be read from $x_t$ depends on log-SNR alone. The cell asks the nearest-mean classifier of exercise 01d, for two of our chains, and for images made by (2.5).
"""

# %%
means = torch.stack([images[labels == k].mean(0) for k in range(10)]).flatten(1)  # (10, 1024)
eps, fresh = torch.randn(2, 1000, 1, 32, 32, generator=torch.Generator().manual_seed(5))


def percent_read(x_t, signal):
    distance = torch.cdist(x_t.flatten(1), signal * means)
    return 100 * (distance.argmin(1) == labels[:1000]).double().mean().item()


def percent_read_at(lam):
    """Of images made by the right side of (2.5)."""
    signal, strength = torch.sigmoid(lam).sqrt(), torch.sigmoid(-lam).sqrt()
    return percent_read(signal * images[:1000] + strength * fresh, signal)


read, by_lam = {}, []
for schedule in (linear, unscaled[400]):
    times = [schedule.T * i // 20 for i in range(1, 21)]
    x_ts = [tinyddpm.q_sample(images[:1000], t, eps, schedule) for t in times]
    signals = schedule.sqrt_alpha_bar[times].float()
    read[schedule] = [percent_read(x_t, signal) for x_t, signal in zip(x_ts, signals)]
    by_lam += [percent_read_at(lam) for lam in schedule.log_snr[times].float()]
holds("2.5", sum(read.values(), []), by_lam, within=6)
accuracy_figure(read)

# %% [markdown]
r"""
Between log-SNR 0 and -6 the digit disappears. Brightness can be read longer: an average of 1,024 pixels has 1,024 times the SNR of one, which
adds $\log 1024 \approx 7$. An amplitude of 1 % is a log-SNR of -9.2.

## Cosine: from the end to the betas

So far the betas came first. Turn that around: choose $\bar\alpha_t$, and calculate the betas. The two factors in (1.5) have squares that add
up to 1, as a cosine and a sine have. So there is an angle $\varphi_t$ with

$$x_t = \cos\varphi_t\; x_0 + \sin\varphi_t\;\varepsilon, \qquad \lambda_t = \log\frac{\cos^2\varphi_t}{\sin^2\varphi_t} = -2\log\tan\varphi_t \tag{2.6}$$

Noising is a quarter turn from the image to the noise. The simplest choice is to turn evenly, $\varphi_t = \frac{t}{T}\cdot\frac{\pi}{2}$:
45 degrees half-way, where signal and noise are equal, and 90 degrees at $T$, where *no* signal is left.
"""

# %%
even = tinyddpm.Schedule(tinyddpm.cosine_betas(1000, offset=0.0))
angle = torch.arange(1, 1000, dtype=torch.float64) / 1000 * math.pi / 2  # all times but the last
left = torch.stack([angle.cos(), angle.sin(), -2 * angle.tan().log()])
right = torch.stack([even.sqrt_alpha_bar, even.sqrt_one_minus_alpha_bar, even.log_snr])[:, 1:1000]
holds("2.6", left, right, within=1e-6)

# %% [markdown]
r"""
Nichol & Dhariwal (2021, [arXiv:2102.09672](https://arxiv.org/abs/2102.09672)) add two small things.

**The beginning.** The first even turn adds noise far below one grey level of an 8-bit image, which teaches nothing. So start at an
offset of 0.008, and divide by the value at $t = 0$, so that $\bar\alpha_0$ is 1 (their equation 17):

$$\bar\alpha_t = \frac{f(t)}{f(0)}, \qquad f(t) = \cos^2\left(\frac{t/T + 0.008}{1 + 0.008}\cdot\frac{\pi}{2}\right) \tag{2.7}$$

**The end.** The betas follow by division. At $T$ it gives $\beta_T = 1$; but a step that keeps nothing
cannot be undone by dividing by what was kept. So the betas are held at 0.999:

$$\beta_t = \min\Bigl(1 - \frac{\bar\alpha_t}{\bar\alpha_{t-1}},\; 0.999\Bigr) \tag{2.8}$$
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
cosines = [math.cos(math.radians(d)) for d in degrees]
squares = [c**2 / cosines[0] ** 2 for c in cosines]
holds("2.7", squares, cosine.alpha_bar[:1000], within=1e-7)
held = [min(1 - b / a, 0.999) for a, b in zip(squares, [*squares[1:], 0.0])]
holds("2.8", held, cosine.beta[1:], within=1e-7)
same(my_cosine_betas, tinyddpm.cosine_betas, 1000)
same(my_cosine_betas, tinyddpm.cosine_betas, 50)
first = [127.5 * schedule.beta[1].sqrt() for schedule in (cosine, even)]  # grey level: 1 / 127.5
print(f"the first step's noise: {first[0]:.2f} grey levels, without the offset {first[1]:.2f}")
for T in (20, 100, 1000):
    left = schedule_of(my_cosine_betas(T)).sqrt_alpha_bar[-1]
    print(f"T = {T:4}: {left:.3%} of the amplitude is left")

# %% [markdown]
r"""
The chain ends in noise for any $T$, without scaling: its end was where its design began.

## All schedules on one axis

The library has more schedules. `cosine-shifted` is for larger images (exercise 02c). `sigmoid`
([arXiv:2212.11972](https://arxiv.org/abs/2212.11972)) draws $\bar\alpha$ as an S. `linear-zero-snr` is the linear one, stretched by Lin et al. until *nothing* is left at
$T$. `flow` belongs to flow matching: chapter 10. **A schedule is a curve of log-SNR, and two questions judge it: how low does it end, and where
does it spend its steps?**
"""

# %% tags=["share"]
names = ("linear", "cosine", "cosine-shifted", "sigmoid", "linear-zero-snr", "flow")
curves = {name: tinyddpm.Schedule.named(name, T=1000) for name in names}
curves["linear, T cut to 300"] = unscaled[300]
figure, axes = plt.subplots(figsize=(7, 4.4))
axes.axhspan(-6, 0, color=REST, alpha=0.15, linewidth=0)
axes.text(0.02, -5.6, "here the digit disappears", color=REST)
axes.axhline(-9.2, color=REST, linewidth=0.8)
axes.text(0.02, -10.6, "1 % of the amplitude: a chain must end below", color=REST)
for name, schedule in curves.items():
    lam, T = schedule.log_snr[1:], schedule.T
    look = {"color": REST, "linestyle": "-", "linewidth": 2.5} if T == 300 else {}
    axes.plot(torch.arange(1, T + 1) / T, lam.clamp(min=-30), label=name, **look)
    clean, noisy = (round(100 * float(part.double().mean())) for part in (lam > 4, lam < -4))
    end = f"{schedule.sqrt_alpha_bar[-1]:7.3%} of the amplitude at T"
    print(f"{name:20} {end}; of 100 steps {clean:2} above log-SNR 4, {noisy:2} below -4")
axes.set(xlabel="t / T", ylabel="log-SNR", ylim=(-24, 9), xlim=(0, 1))
axes.set_title("Noise schedules: how fast an image is lost, and how much is left at the end")
label_lines(axes, gap=0.06)
show_figure("Seven falling curves of log-SNR; all but linear cut to 300 steps end below 1 %")

# %% [markdown]
r"""
More than a third of the linear schedule's steps lie where more than 98 % of a pixel's variance is noise. The brightness is settled there, but they
are too many: Nichol & Dhariwal report that leaving out up to a fifth of the reverse steps hardly hurts, which led them to the cosine.

## Bug museum: none of these raises an error

1. **A shorter line**, both ends copied
   ([DenoisingDiffusionProbabilityModel#14](https://github.com/zoubohao/DenoisingDiffusionProbabilityModel-ddpm-/issues/14)).
2. **A quadratic schedule, squared twice.** The *roots* of the betas are to lie on a line: `linspace(start ** 0.5, end ** 0.5) ** 2`. Square the ends
   instead ([DALLE2-pytorch#141](https://github.com/lucidrains/DALLE2-pytorch/pull/141)), and the largest beta is $0.02^4 = 0.00000016$.
3. **The cosine without its square** ([lilianweng.github.io#9](https://github.com/lilianweng/lilianweng.github.io/issues/9)).
   $\bar\alpha$ is a variance and the cosine an amplitude. This chain *does* end in noise.

The amplitude at $T$ catches the first two. The third breaks another promise: 45 degrees half-way.
"""

# %%
T = 1000
u = (torch.arange(T + 1, dtype=torch.float64) / T + 0.008) / 1.008
not_squared = torch.cos(u * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
squared_twice = torch.linspace(1e-4**2, 0.02**2, T, dtype=torch.float64) ** 2
quadratic = torch.linspace(1e-4**0.5, 0.02**0.5, T, dtype=torch.float64) ** 2
museum = {
    "cosine": my_cosine_betas(T),
    "1. T = 300, unscaled": unscaled[300].beta,
    "2. squared twice": torch.cat([torch.zeros(1), squared_twice]),
    "3. cosine, no square": betas_of(not_squared),
    "quadratic": torch.cat([torch.zeros(1), quadratic]),
}
figure, axes = plt.subplots(figsize=(7, 2.6))
for name, beta in museum.items():
    left = schedule_of(beta).sqrt_alpha_bar
    degrees = left.acos().rad2deg()
    half_way = degrees[len(beta) // 2]
    print(f"{name:20} {left[-1]:8.3%} of the amplitude at T, half-way at {half_way:.0f} degrees")
    axes.plot(torch.linspace(0, 1, len(beta)), degrees, label=name)
axes.set(xlabel="t / T", ylabel="degrees", yticks=[0, 30, 60, 90], ylim=(-5, 125))
axes.set_title("the angle from image to noise")
label_lines(axes)
show_figure("The cosine is straight, from 0 to 90 degrees; squared twice stays at 0")

# %% [markdown]
r"""
Even the quadratic schedule as it was meant does not pass: with these ends the sum of its betas is too small.

## The price of ending in noise

Why not end every chain at log-SNR minus infinity? Many models return $\hat\varepsilon$, an estimate of the noise, and the clean image
is calculated by solving (1.5) for $x_0$. If $\hat\varepsilon$ is off by a small $\delta$, then $\hat x_0$ is off by

$$\hat x_0 - x_0 = -\frac{\sqrt{1-\bar\alpha_t}}{\sqrt{\bar\alpha_t}}\;\delta = -e^{-\lambda_t/2}\;\delta \tag{2.9}$$

Log-SNR is also the magnification of errors.
"""

# %%
generator = torch.Generator().manual_seed(6)
eps, delta = torch.randn(2, 4, 1, 32, 32, generator=generator, dtype=torch.float64)
x_0, times, factors = digits.double(), [1, 250, 500, 900, 999, 1000], []
for t in times:
    signal, strength = cosine.signal_noise(t)
    x_t = signal * x_0 + strength * eps
    x_0_hat = (x_t - strength * (eps + 0.01 * delta)) / signal
    factors.append(-((x_0_hat - x_0) / (0.01 * delta)).mean())
holds("2.9", torch.stack(factors).log(), -cosine.log_snr[times] / 2, within=1e-5)
for name, factor in {"cosine, t = 999": factors[4], "cosine, t = 1000": factors[5]}.items():
    print(f"{name}: an error in eps_hat is magnified {float(f'{factor:.2g}'):,.0f} times")
print(f"linear, t = 1000: {math.exp(-linear.log_snr[-1] / 2):.0f} times")

# %% [markdown]
r"""
An $\hat\varepsilon$ that is off by a hundredth makes $\hat x_0$ off by about 200, where images lie between -1 and 1. A cheap and strong remedy is to
hold $\hat x_0$ in that range, which is called **clipping**. Another is to ask the network for something that need not be divided by nearly nothing:
chapter 06. Even the one last step magnifies, by $\sqrt{\beta_T / (1 - \beta_T)} = 31.6$, which has puzzled many
([guided-diffusion#42](https://github.com/openai/guided-diffusion/issues/42)).

## What this chapter showed

A chain that keeps signal gives samples that are flawless one by one and wrong as a whole. Linear betas belong to $T = 1000$ and must be scaled
elsewhere; the cosine is built from its end.

## Exercises

**02a · A schedule of your own.** Any falling curve of log-SNR is a schedule. Find its betas, for a table `lam` of $\lambda_1, \dots, \lambda_T$.
"""


# %%
def answer_02a(lam):
    """lam: (T,), float64. Returns beta, (T + 1,), as a Schedule wants it."""
    ...


check("02a", answer_02a)

# %% [markdown]
r"""
<details><summary>Hint 02a</summary>

(2.4) gives $\bar\alpha$, and its neighbours the betas. Which value comes before that of $\lambda_1$?

</details>

<details><summary>Solution 02a</summary>

```python
def answer_02a(lam):
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), lam.sigmoid()])
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    return torch.cat([torch.zeros(1, dtype=torch.float64), beta])
```

Try `torch.linspace(8, -9.5, 100)`: steps even in log-SNR.
</details>

**02b · The smallest factor.** The betas of a short chain lie on the line from $k \cdot 10^{-4}$ to $k \cdot 0.02$. Which is the smallest whole
number $k$ that brings $\sqrt{\bar\alpha_T}$ below 1 %?
"""


# %%
def answer_02b(T):
    """T: 100 or 50. Returns k."""
    ...


check("02b", answer_02b)

# %% [markdown]
r"""
<details><summary>Hint 02b</summary>

The approximation in (2.2) is too rough here. Try one $k$ after the other.

</details>

<details><summary>Solution 02b</summary>

```python
def answer_02b(T):
    line = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    return next(k for k in range(1, 50) if (1 - k * line).prod().sqrt() < 0.01)
```

9 and 17, where the rule says 10 and 20. The larger the betas, the more (2.2) overrates what is left: $\log(1-\beta)$ lies below $-\beta$.
</details>

**02c · Larger images.** An image gets $k$ times as many pixels in each direction. The mean over a block of $k \times k$ of them
shows what one pixel showed before, with less noise. Lower the schedule so that at each $t$ the *blocks* have the
log-SNR that the pixels had (Hoogeboom et al. 2023, [arXiv:2301.11093](https://arxiv.org/abs/2301.11093)).
"""


# %%
def answer_02c(alpha_bar, k):
    """alpha_bar: (T + 1,), beginning with 1. Returns the table for the larger images."""
    ...


check("02c", answer_02c)

# %% [markdown]
r"""
<details><summary>Hint 02c</summary>

By which factor does an average of $k^2$ noises shrink their variance? What is that in log-SNR? (Torch can calculate with the infinity at $t = 0$.)

</details>

<details><summary>Solution 02c</summary>

```python
def answer_02c(alpha_bar, k):
    lam = (alpha_bar / (1 - alpha_bar)).log()
    lam = lam - math.log(k**2)
    return lam.sigmoid()
```

With $k = 2$ and the cosine this is `cosine-shifted`.
</details>

**02d · Experiment: repair the brightness alone.** The unscaled chain started too bright. So darken its start: add *the same number* to each pixel,
so that it has the brightness of a real $x_T$. Predict how many of 300 samples will be ones, then run `draw(start, unscaled_200)`.
"""

# %%
prediction = None  # first write down what you expect
measured = None  # then darken the start, draw, and put the number of ones here
check("02d", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 02d</summary>

`unscaled_200.signal_noise(200)` gives the two factors of (1.5). One belongs to `data.mean()`, and one to `pure`.

</details>

<details><summary>Solution 02d</summary>

```python
prediction = 30  # as many as there should be
signal, strength = unscaled_200.signal_noise(200)
start = signal * data.mean() + strength * pure
measured = draw(start, unscaled_200)[1][1].item()
```

Three times too many: every border is black, so only the middle tells. There the data have -0.4 and our start has -0.8: hardly any ink. Whoever
repairs one average breaks another. What helps is a chain that ends in noise.
</details>

## Symbols

| symbol | variable | shape | where |
|---|---|---|---|
| $\beta_t$ | `beta` | (T + 1,) | (2.1), (2.8) |
| $\bar\alpha_t$ | `schedule.alpha_bar` | (T + 1,) | (2.2), (2.7) |
| $\sqrt{\bar\alpha_T}$ | `schedule.sqrt_alpha_bar` | (T + 1,) | the amplitude that is left |
| $\lambda_t$ | `schedule.log_snr`, `lam` | (T + 1,) | log-SNR, (2.4) |
| $\varphi_t$ | `angle` | (T,) | from image to noise, (2.6) |
| $b$ | `brightness` | (b,) | mean of an image |

**Next:** [03 · The reverse process](03_reverse_process.ipynb). We open both black boxes, and prove that together they give back the data,
before any network exists.
"""
