# %% [markdown]
r"""
# 13 · Measuring: a copier gets full marks, and other numbers that mislead

**After this chapter you can**

* compare samples with real data by a distance, and say how much of the number is due to the number of samples;
* say what a copier, a generator of a single class and a lost detail do to each metric, and which metric notices;
* turn a bound on the likelihood into bits, and say per which dimension.

*You need:* chapter 06 for the loss and 11 for the copies. *Reading:* about MINUTES minutes. *Running:* half a minute, most of it
reading and drawing digits. *You build and then import:* `frechet_digit_distance`, `nearest`.

---

"The samples look good" is where most work on generators begins, and a single number is where most of it ends. Each of these
numbers answers a question, and seldom the one that was asked. We ask every metric about generators whose faults we know, because
we made them.
"""

# %% tags=["setup"]
import gzip
import io
import lzma
import math

import matplotlib.pyplot as plt
import torch
from course import EXACT, NETWORK, REST, SIGNAL, band, check, guess, holds, label_lines, same, show_figure, tiles
from PIL import Image

import tinyddpm
from tinyddpm.data import crop_to, mnist, to_uint8
from tinyddpm.evaluation import (
    classify,
    features,
    frechet_digit_distance,
    kernel_distance,
    load_classifier,
    nearest,
    precision_recall,
)
from tinyddpm.extensions.likelihood import bits_per_dim, denoising_error

# %% tags=["setup"]
judge = load_classifier()  # reads 99.6 % of the test set; has never seen a sample
train, y_train = mnist().tensors()
test, y_test = mnist(train=False).tensors()
generator = torch.Generator().manual_seed(0)
order, test_order = torch.randperm(60_000, generator=generator), torch.randperm(10_000, generator=generator)
train, y_train = train[order[:10_000]], y_train[order[:10_000]]
test, y_test = test[test_order], y_test[test_order]

# %%
f_train, f_test = features(judge, train), features(judge, test)  # what the judge sees: 128 numbers an image
print("features of real digits:", tuple(f_train.shape), tuple(f_test.shape))

# %% [markdown]
r"""
## Two clouds of points

How far are these samples from real digits? Not pixel by pixel: no sample is to *be* a real digit. We compare two clouds. A
classifier turns each image into 128 features. Each cloud gets a mean $\mu$ and a covariance $C$, and we measure the distance
between two normal distributions that have them (Heusel et al. 2017, [arXiv:1706.08500](https://arxiv.org/abs/1706.08500)):

$$d^2 = |\mu_a - \mu_b|^2 + \operatorname{tr}\bigl(C_a + C_b - 2\,(C_a C_b)^{1/2}\bigr) \tag{13.1}$$

With features of an Inception network this is the FID. Ours come from a classifier of digits, so our numbers cannot be compared
with any FID. For one feature the formula is easy to read: the second term is $(\sigma_a - \sigma_b)^2$.
"""


# %%
def my_distance(a, b):
    """a, b: features (n, d). The root of the matrix product is never formed: only its trace is needed."""
    a, b = a.double(), b.double()
    C_a, C_b = a.T.cov(), b.T.cov()
    roots = torch.linalg.eigvals(C_a @ C_b).real.clamp(min=0).sqrt()  # eigenvalues of the product's root
    return (a.mean(0) - b.mean(0)).square().sum() + C_a.trace() + C_b.trace() - 2 * roots.sum()


one, other = f_train[:500, :1].double(), f_test[:500, :1].double()  # a single feature
by_hand = (one.mean() - other.mean()) ** 2 + (one.std() - other.std()) ** 2
C = one.T.cov() * other.T.cov()  # a number here
left = (one.mean() - other.mean()) ** 2 + one.var() + other.var() - 2 * C.sqrt()
holds("13.1", left, by_hand, within=1e-9)
same(my_distance, frechet_digit_distance, f_train[:1000], f_test[:1000], within=1e-6)

# %% [markdown]
r"""
## Real against real is not zero

Draw 500 real digits and compare them with 500 other real digits. Both come from the same source. Before you run the cell: with
a perfect generator at 0, and the shipped network near 0.16 at this $n$, where do real digits lie?
"""

# %%
d_500 = frechet_digit_distance(f_train[:500], f_test[:500])
guess(None, d_500)

# %% [markdown]
r"""
A mean of $n$ points misses the true mean by a random error, and a *squared* distance counts errors of either sign as positive.
For the first term of (13.1) the excess is known exactly. If $a$ and $b$ hold $n$ independent draws each from one distribution
with covariance $C$,

$$\mathbb E\,|\mu_a - \mu_b|^2 = \frac{2}{n}\operatorname{tr} C \tag{13.2}$$

The covariances add another term that shrinks like $1/n$. The cell draws from all 20,000 real digits, 400 times, and then
measures the whole distance at several $n$.
"""

# %%
everything = torch.cat([f_train, f_test]).double()
generator, n = torch.Generator().manual_seed(1), 500
pairs = [everything[torch.randint(20_000, (2, n), generator=generator)] for _ in range(400)]
excess = torch.stack([(a.mean(0) - b.mean(0)).square().sum() for a, b in pairs]).mean()
holds("13.2", excess / (2 / n * everything.var(0).sum()), 1.0, within=0.1)

sizes = (250, 500, 1000, 2000, 5000, 10_000)
floor = []
for n in sizes:
    parts = [slice(k * n, (k + 1) * n) for k in range(min(4, 10_000 // n))]  # the mean of up to four pairs
    floor.append(sum(frechet_digit_distance(f_train[part], f_test[part]) for part in parts) / len(parts))
    print(f"n = {n:6,}: real against real {floor[-1]:.3f}, times n {n * floor[-1]:.0f}")

# %% tags=["share"]
figure, axes = plt.subplots(figsize=(6, 2.6))
axes.loglog(sizes, floor, "o-", color=SIGNAL, label="real against real")
axes.loglog(sizes, [80 / n for n in sizes], ":", color=REST, label="80 / n")
kernel = [abs(kernel_distance(f_train[:n], f_test[:n])[0]) for n in sizes]
axes.loglog(sizes, kernel, "s--", color=NETWORK, label="|kernel distance|")
axes.set(xlabel="images on each side, n", ylabel="distance", title="Identical sources, and the distance between them")
label_lines(axes)
show_figure(
    "The distance of real digits to real digits falls like 80 over n, from 0.34 at 250 to 0.01 at 10,000 images."
)

# %% [markdown]
r"""
The products with $n$ scatter by a quarter or so: each distance is a random number itself.
**So a distance without its $n$ says nothing, and without its floor little.** Whoever compares 1,000 samples of one model with
10,000 of another measures the number of samples. Two ways out: always print the floor, the distance of as many real images
(`tinyddpm eval` does); or use a distance without bias. The kernel distance (Bińkowski et al. 2018,
[arXiv:1801.01401](https://arxiv.org/abs/1801.01401)) has expectation 0 for equal distributions at every $n$; its single values
scatter around 0 and come with a standard error.

## Five generators whose faults we know

* *the network*: 500 digits of the shipped weights, ten steps;
* *a copier*: it returns training digits. Nothing is invented;
* *one class*: real ones, and nothing else;
* *blurred*: real digits, enlarged and reduced again with a soft filter, as careless preprocessing does;
* *noisy*: real digits with a trace of noise that was left in, $\sigma = 0.1$.
"""

# %%
ddpm = tinyddpm.load_pretrained()
n, y = 500, y_train[:500]
drawn = ddpm.sample(y, steps=10, seeds=range(n))
ones = test[y_test == 1][-n:]
half = torch.nn.functional.interpolate(test[6000:6500], size=(24, 24), mode="bilinear")
noise = torch.randn(n, 1, 32, 32, generator=torch.Generator().manual_seed(2))
generators = {
    "real, unseen": (test[5000:5500], y_test[5000:5500]),
    "network": (drawn, y),
    "copier": (train[:n], y),
    "one class": (ones, torch.ones(n, dtype=torch.long)),
    "blurred": (torch.nn.functional.interpolate(half, size=(32, 32), mode="bilinear"), y_test[6000:6500]),
    "noisy": ((test[7000:7500] + 0.1 * noise).clamp(-1, 1), y_test[7000:7500]),
}
tiles({name: x[:12] for name, (x, _) in generators.items()}, enlarge=2, alt="Twelve digits of each of the six sources")

# %% [markdown]
r"""
To find copies we need a distance in pixels after all: that to the nearest training image. A real digit that the generator cannot
have seen has such a distance too. It is the yardstick: a sample is a suspected copy if it is nearer to a training digit than 99
of 100 unseen digits are.
"""


# %%
def my_nearest(x, data):
    """The distance of each x to its nearest image in data, and that image's index."""
    distance, index = torch.cdist(x.flatten(1).double(), data.flatten(1).double()).min(1)
    return distance, index


same(my_nearest, nearest, drawn[:50], train[:2000], within=1e-3)
yardstick = nearest(test[:2000], train)[0].quantile(0.01)


def report(x, y):
    """Read as asked, distance, precision, recall and the share of copies, the last four without labels."""
    p, f = classify(judge, x), features(judge, x)
    precision, recall = precision_recall(f, f_test[:n])
    copied = (nearest(x, train)[0] < yardstick).double().mean()
    return [
        100 * (p.argmax(1) == y).double().mean(),
        frechet_digit_distance(f, f_test[:n]),
        precision,
        recall,
        100 * copied,
    ]


# %%
print("               read %  distance  precision  recall  copied %")
table = {name: [float(figure) for figure in report(*pair)] for name, pair in generators.items()}
for name in ("real, unseen", "copier", "one class", "blurred", "noisy"):
    read, d, precision, recall, copied = table[name]
    print(f"{name:14} {read:6.0f} {d:9.2f} {precision:10.2f} {recall:7.2f} {copied:9.0f}")
band(table["network"][0], 95, 100, "% of the network's digits are read as asked")
band(table["network"][1], 0.1, 0.25, "is their distance")
band(table["network"][4], 0, 3, "% are nearer to a training digit than 99 % of unseen digits")

# %% [markdown]
r"""
Read the table by columns. *Read as asked* is full for a copier and for one class. The *distance* cannot tell the copier from unseen real digits: 0.12 and
0.11 are one number here. It does notice one class, blur, and a trace of noise that hardly shows. *Recall*
(Kynkäänniemi et al. 2019, [arXiv:1904.06991](https://arxiv.org/abs/1904.06991)), the share of real digits within reach of a sample,
says that one class has lost nearly everything, while its *precision* is high. Only the last column, which compares with the
*training* set, catches the copier. (It suspects 9 % of the real ones, too: ones are all alike, and
a yardstick made of all digits is too long for them.) **No metric that looks at the test set alone can see copying.**

## How sure is a percentage?

If $n$ samples are read right with probability $p$ each, the share that is measured scatters around $p$ with the standard error

$$\operatorname{se} = \sqrt{\frac{p\,(1-p)}{n}} \tag{13.3}$$

The cell throws 20,000 experiments of 500 samples each.
"""

# %%
p, n = 0.98, 500
shares = (
    torch.binomial(torch.full((20_000,), float(n)), torch.tensor(p), generator=torch.Generator().manual_seed(3)) / n
)
holds("13.3", shares.std() / (p * (1 - p) / n) ** 0.5, 1.0, within=0.02)
for n in (500, 10_000):
    print(f"98 % of {n} is 98 % give or take {100 * math.sqrt(p * (1 - p) / n):.2f} %")

# %% [markdown]
r"""
So 97.6 % and 98.3 % of 500 samples each are the same result. Two runs that differ in their seed alone differ by more still: a
claim that one recipe beats another needs several seeds.

## Which checkpoint, and does the validation loss mean anything?

The loss is a mean over all noise levels, and samples do not depend on all of them alike. We build two denoisers of one validation
loss. Both blend the network's answer with the mean image $\bar x$, one where there is hardly any noise, the other where chapter 03
saw digits being decided. A blend $(1-\lambda)\,\hat x_0 + \lambda\,\bar x$ adds an error that can be computed. The best denoiser's
own error is orthogonal to every function of $x_t$ (else it could be improved), so the squares add up:

$$\mathbb E\,\bigl|\hat x_0 + \lambda(\bar x - \hat x_0) - x_0\bigr|^2 = \mathbb E\,|\hat x_0 - x_0|^2 + \lambda^2\;\mathbb E\,|\bar x - \hat x_0|^2 \tag{13.4}$$

The cell measures both sides with the network, which is nearly the best denoiser, and then solves for the $\lambda$ of each.
"""

# %%
schedule, mean_image = ddpm.schedule, train.mean(0)
generator, held_out = torch.Generator().manual_seed(4), (test[:20], y_test[:20])
denoiser, every = torch.no_grad()(ddpm.denoiser(held_out[1])), range(5, 1001, 20)
own, room, blend = [], [], []  # at each time: the network's error, what a blend can add, and what half of it does add
for t in every:
    x_0, times = held_out[0], torch.full((20,), t)
    x_0_hat = denoiser(tinyddpm.q_sample(x_0, times, torch.randn(x_0.shape, generator=generator), schedule), times)
    own.append((x_0_hat - x_0).square().mean())
    room.append((mean_image - x_0_hat).square().mean())
    blend.append((torch.lerp(x_0_hat, mean_image, 0.5) - x_0).square().mean())
own, room, blend = (torch.stack(errors).double().detach() for errors in (own, room, blend))
holds("13.4", blend.mean(), (own + 0.25 * room).mean(), within=0.02)

log_snr = schedule.log_snr
where = {"clear": log_snr > 2, "decided": (log_snr > -4) & (log_snr < -1)}
added = 0.006  # a tenth of the validation loss
amount = {name: (added / (room * here[list(every)]).mean()) ** 0.5 for name, here in where.items()}
print({name: round(float(value), 2) for name, value in amount.items()}, "of the mean image")

# %% [markdown]
r"""
Which of the two draws the worse digits: the one that blends in the mean image at the end, when hardly any noise is left, or the one
that does so while the digit is being decided?
"""


# %%
def spoilt(denoiser, name):
    def blended(x_t, t):
        x_0_hat = denoiser(x_t, t)
        return torch.lerp(x_0_hat, mean_image, float(amount[name])) if where[name][t[0]] else x_0_hat

    return blended


x_T = torch.randn(50, 1, 32, 32, generator=torch.Generator().manual_seed(5))
asked = torch.arange(10).repeat(5)
drawings, reads = {}, {}
for name in ("clear", "decided"):
    walk = tinyddpm.ddim(spoilt(ddpm.denoiser(asked), name), x_T, schedule, schedule.grid(10))
    x = tinyddpm.last(walk).x_t
    drawings[f"spoilt where it is {name}"] = x[:10]
    reads[name] = 100 * int((classify(judge, x).argmax(1) == asked).sum()) / 50
guess(None, reads["clear"], " % of those spoilt where it is clear")

# %%
tiles(
    drawings,
    enlarge=3,
    alt="Digits of two denoisers with one validation loss: the first row is grey with a haze around it, the second clean",
)
band(reads["decided"], 80, 100, "% read as asked, spoilt where it is decided")
band(reads["clear"], 10, 70, "% read as asked, spoilt where it is clear")

# %% [markdown]
r"""
The mean of the loss is the same, the digits are not: grey, in a haze, and the classifier, which has never seen such digits, reads few that
you can still read. An error made early is corrected by the steps that follow; nothing follows the
last step. So **choose a checkpoint by its samples**, with fixed seeds, a distance and its floor, and look at the loss noise level by
noise level. The validation loss has one use that samples do not have: compared with the *training* loss it shows copying. The
best denoiser of 2,000 digits, which can do nothing but copy, against the network:
"""

# %%
copier = tinyddpm.dataset_oracle(train[:2000], schedule)
levels = [int((log_snr - level).abs().argmin()) for level in (-4, -2, 0, 2, 4)]
rows = {("the copier", "known"): (copier, train[:50]), ("the copier", "held out"): (copier, test[:50])}
rows[("the network", "held out")] = (ddpm.denoiser(y_test[:50]), test[:50])
curves = {}
for name, (denoiser, x_0) in rows.items():
    generator, curves[name] = torch.Generator().manual_seed(6), []
    for t in levels:
        times, eps = torch.full((50,), t), torch.randn(50, 1, 32, 32, generator=generator)
        x_0_hat = denoiser(tinyddpm.q_sample(x_0, times, eps, schedule), times)
        curves[name].append(float((x_0_hat - x_0).square().mean().detach()))
figure, axes = plt.subplots(figsize=(6, 2.4))
styles = {("the copier", "known"): ":", ("the copier", "held out"): "--", ("the network", "held out"): "-"}
for name, values in curves.items():
    colour = EXACT if name[0] == "the copier" else NETWORK
    axes.semilogy(log_snr[levels], values, styles[name], color=colour, label=", ".join(name))
axes.set(xlabel="log-SNR", ylabel="error in x_0", ylim=(1e-4, 1), title="Loss on known and on held-out digits")
label_lines(axes)
show_figure(
    "The copier's error on digits it knows falls to nothing; on held-out digits it stays high, the network's falls."
)

# %% [markdown]
r"""
## Bits, and per which dimension

A likelihood does not need a judge. A model that gives the image $x_0$ the probability $p(x_0)$ can compress it to $-\log_2 p(x_0)$
bits. Chapter 06 bounds this number from above. First a world where we know the answer: images of a single pixel, normal with mean
$-0.2$ and variance $0.09$, rounded to 256 grey values. The sum on the right is exact; on the left stands the bound with the exact
denoiser.

$$\mathbb E\,[\text{bound}(x_0)] \;\ge\; -\sum_{k=0}^{255} P_k \log_2 P_k \quad\text{with equality for exact Gaussian steps} \tag{13.5}$$
"""

# %%
chain, mean, variance = tinyddpm.Schedule.named("linear", 50), -0.2, 0.09
grey = torch.linspace(-1, 1, 256, dtype=torch.float64)
edges = torch.cat([torch.tensor([-torch.inf]), (grey[1:] + grey[:-1]) / 2, torch.tensor([torch.inf])])
P = torch.special.ndtr((edges - mean) / variance**0.5).diff()  # of each grey value
error = variance * (1 - chain.alpha_bar) / (chain.alpha_bar * variance + 1 - chain.alpha_bar)  # of the best denoiser
pixels, exact = grey.repeat(100).reshape(-1, 1, 1, 1), tinyddpm.gaussian_oracle(mean, variance, chain)
generator = torch.Generator().manual_seed(7)
bound = bits_per_dim(exact, pixels, chain, error_variance=error, generator=generator).reshape(100, 256).mean(0)
holds("13.5", (P * bound).sum(), -(P * P.log2()).sum(), within=0.03)
print(f"bound {(P * bound).sum():.2f} bits, the sum {-(P * P.log2()).sum():.2f}")

# %% [markdown]
r"""
Now digits. MNIST has 28 x 28 pixels; our network sees 32 x 32, with a black border that costs next to nothing. Divide the same
number of bits by 1,024 and by 784, and you have two results that differ by a factor of 1.31:

$$b_{28} = b_{32}\cdot\frac{32^2}{28^2} \tag{13.6}$$

Published tables use both, and some compare one with the other. What do ordinary compressors need?
"""

# %%
known, unseen = (train[:8], y_train[:8]), (test[:8], y_test[:8])
grid = schedule.grid(50)
spread = denoising_error(ddpm.denoiser(known[1]), known[0], schedule, grid, torch.Generator().manual_seed(8))
b_32 = bits_per_dim(ddpm.denoiser(unseen[1]), unseen[0], schedule, grid, spread, torch.Generator().manual_seed(9))
total = b_32 * 32**2  # bits for the whole image: there is no other kind
b_28 = total / 28**2
holds("13.6", b_28, b_32 * 32**2 / 28**2, within=1e-9)
band(float(b_32.mean()), 1.8, 3.0, "bits per dimension of 32 x 32")
band(float(b_28.mean()), 2.4, 3.9, "bits per dimension of 28 x 28, the same bits")

raw = to_uint8(crop_to(test[:2000]))


def png(picture):
    file = io.BytesIO()
    Image.fromarray(picture.numpy()[0]).save(file, "png", optimize=True)
    return len(file.getvalue())


every_byte = raw.numpy().tobytes()
sizes = {
    "PNG": sum(map(png, raw[:200])) * 10,
    "gzip": len(gzip.compress(every_byte)),
    "xz": len(lzma.compress(every_byte)),
}
for (name, size), low, high in zip(sizes.items(), (2.5, 1.5, 1.3), (3.0, 1.8, 1.6)):
    band(8 * size / raw.numel(), low, high, f"bits per dimension of 28 x 28: {name}")

# %% [markdown]
r"""
A generator whose samples can hardly be told from real digits compresses no better than PNG: nearly all bits of a digit are in the last
grey values of its edges, which nobody sees and which the recipe `tiny` was not trained for. **Likelihood and looks are two
questions** (Theis et al. 2016, [arXiv:1511.01844](https://arxiv.org/abs/1511.01844)).

## Bug museum: the same digits, measured wrongly

Three ways to get a distance for *real digits* that is not their floor, 0.1 to 0.2 at $n = 500$. Resizing and rounding move published
scores (Parmar et al. 2022, [arXiv:2104.11222](https://arxiv.org/abs/2104.11222)). A fourth, images
in [0, 1] where [-1, 1] is expected, is refused by `features` with an error.
"""

# %%
real = test[5000:5500]
measured = {
    "as it should be": real,
    "resized from 28 to 32, not padded": torch.nn.functional.interpolate(crop_to(real), size=(32, 32), mode="bilinear"),
    "saved as bits, black and white": real.sign(),
    "half as many images": real[:250],
}
for name, x in measured.items():
    d = frechet_digit_distance(features(judge, x), f_test[: len(x)])
    print(f"{name:34} {d:8.2f}")

# %% [markdown]
r"""
The line that catches them all is a measurement of real images through the *same* code path: save, load, resize, measure, and compare
with the floor.

## Symbols

| symbol | code | meaning |
|---|---|---|
| $d^2$ | `frechet_digit_distance` | distance between normal distributions with the features' means and covariances |
| $C_a, C_b$ | `C_a`, `C_b` | covariances of the features |
| $n$ | `n` | images on each side |
| $\lambda$ | `amount` | share of the mean image in a spoilt answer |
| $P_k$ | `P` | probability of the grey value $k$ |
| $b_{28}, b_{32}$ | `b_28`, `b_32` | bits per pixel of 28 x 28 and of 32 x 32 |

## Exercises

**13a · How many samples?** Two models are read as asked with true probabilities $p$ and $q$. Each draws $n$ samples. Return the
smallest $n$ at which the difference $|p - q|$ is at least twice its standard error. The two shares scatter independently.

<details><summary>Hint 13a</summary>

The variance of a difference of independent numbers is the sum of their variances; (13.3) has each of them.

</details>
"""


# %%
def samples_needed(p, q): ...


check("13a", samples_needed)

# %% [markdown]
r"""
<details><summary>Solution 13a</summary>

```python
def samples_needed(p, q):
    variance_of_one = p * (1 - p) + q * (1 - q)  # of the difference, for n = 1
    return math.ceil(4 * variance_of_one / (p - q) ** 2)
```

To tell 97.6 % from 98.3 % takes 3,277 samples each.
</details>

**13b · Catch the generator of one class.** You have the classifier's probabilities (n, k) of n samples. Return the *effective number
of classes*: $e^{H}$, where $H$ is the entropy (in nats) of the mean distribution over the classes. It is 1 for a generator of one
class and k for one that serves all alike.

<details><summary>Hint 13b</summary>

What comes first, the mean over the samples or the entropy? A generator that is sure of each image, and draws all classes, must get k.
`torch.special.entr` is $-p \log p$, also at 0.

</details>
"""


# %%
def effective_classes(probabilities): ...


check("13b", effective_classes)

# %% [markdown]
r"""
<details><summary>Solution 13b</summary>

```python
def effective_classes(probabilities):
    mean = probabilities.mean(0)
    return torch.special.entr(mean).sum().exp()
```

The inception score (Salimans et al. 2016, [arXiv:1606.03498](https://arxiv.org/abs/1606.03498)) divides this by the same figure of
single images, $e^{\text{mean entropy}}$: certain images, and many classes. A copier has the highest score there is.
</details>

**13c · Bits of what was measured.** A paper reports a bound in *nats per image* of 32 x 32, border included. Return the bits per pixel
of 28 x 28.

<details><summary>Hint 13c</summary>

Bits are nats divided by $\ln 2$. And which number of pixels does the question ask for?

</details>
"""


# %%
def bits_of_28(nats_an_image): ...


check("13c", bits_of_28)

# %% [markdown]
r"""
<details><summary>Solution 13c</summary>

```python
def bits_of_28(nats_an_image):
    bits = nats_an_image / math.log(2)
    return bits / 28**2
```

The border is no part of the question: its bits are in the total already, and they are few.
</details>

**13d · Experiment: the floor at another n.** From what you saw of real digits at 500 and 1,000, predict the distance of 300 real training
digits to 300 real test digits. Then measure it: the mean over five disjoint pairs of `f_train` and `f_test`.

<details><summary>Hint 13d</summary>

A product that hardly changes was printed beside the distances. Slices `f_train[k * 300 : (k + 1) * 300]` for k = 0 to 4 are disjoint.

</details>
"""

# %%
prediction = None  # first write down what you expect
measured = None  # then measure the mean over five pairs, and put it here
check("13d", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Solution 13d</summary>

```python
f_train, f_test = features(judge, train[:1500]), features(judge, test[:1500])  # as above
parts = [slice(k * 300, (k + 1) * 300) for k in range(5)]
prediction = 80 / 300
measured = sum(frechet_digit_distance(f_train[part], f_test[part]) for part in parts) / 5
```

A little more than 80 / 300: at so few images the 128 x 128 covariances are estimated from 300 points, and terms of higher order in
$1/n$ count.
</details>

**Next:** [chapter 14](14_one_step.ipynb) draws digits in a single step, and is measured by what stands here.
"""
