# %% [markdown]
r"""
# 11 · Why it invents

**After this chapter you can**

* say why a perfect denoiser can only copy, and which of a network's shortcomings makes it invent;
* write the exact denoiser that sees through a window, and turn copying into inventing with one number;
* predict what a trained network draws from a given noise, and say how much such a prediction is worth.

*You need:* chapter 03 for the exact denoiser, and 07 for labels. *Reading:* about MINUTES minutes. *Running:* under half a minute,
without training anything. *You build and then import:* `local_oracle`.

---

Chapter 03 ended with an embarrassment. The sampler was proved with an exact denoiser, and all that came out were training digits. A
network is trained to be that denoiser: its loss is smallest where it equals it (chapter 06). Yet a trained network draws
digits that nobody has written. It invents because it *fails*, and in a particular way. This chapter builds the failure by hand,
without a network, and it invents too. The idea is Kamb and Ganguli's ([An analytic theory of creativity in convolutional
diffusion models](https://arxiv.org/abs/2412.20292), 2025).
"""

# %% tags=["setup"]
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from course import BLINKERED, EXACT, NETWORK, REST, TEXT, band, check, guess, holds, same, show_figure, tiles
from course.chapter_00 import copies, read
from course.chapter_11 import mosaic

import tinyddpm
from tinyddpm import dataset_oracle, ddim, last
from tinyddpm.data import crop_to, mnist
from tinyddpm.evaluation import nearest
from tinyddpm.oracle import local_oracle, shrinking

ddpm = tinyddpm.load_pretrained()
schedule = ddpm.schedule  # the network's own, so that all denoisers see the same x_t
images, labels = mnist()[:6000]
digits = torch.stack([images[labels == y][:150] for y in range(10)])  # (10, 150, 1, 32, 32)
noise = torch.randn(10, 20, 1, 32, 32, generator=torch.Generator().manual_seed(0))

# %% [markdown]
r"""
## A perfect memory

The exact denoiser of $n$ images $x_i$ is their mean, weighted by how likely each is to have become the $x_t$ that we see (chapter 03):

$$\hat x_0 = \sum_i w_i\, x_i, \qquad w = \operatorname{softmax}_i\left(-\frac{\lVert x_t - \sqrt{\bar\alpha_t}\,x_i\rVert^2}{2\,(1-\bar\alpha_t)}\right) \tag{11.1}$$

The squared distance sums over all 1,024 pixels, so that even a small difference between two images becomes a large difference of the
exponents. As the noise falls one weight goes to 1, and $\hat x_0$ to one image of the data. We give it 150 digits of each
kind, and let it draw 200.
"""


# %% tags=["setup"]
def exact(x_t, t, data):
    signal, noise = schedule.signal_noise(t)
    distance = (x_t[:, None] - signal * data).square().flatten(2).sum(2)  # (b, n)
    weights = (-distance / (2 * noise**2)).softmax(1)
    return weights, (weights @ data.flatten(1)).reshape(x_t.shape)


x_t, oracle = noise[8], dataset_oracle(digits[8], schedule)
holds("11.1", exact(x_t, 800, digits[8])[1], oracle(x_t, torch.full((20,), 800)), within=1e-4)


# %% tags=["setup"]
def draw(denoisers, noise, steps=16):
    """All digits, (10, n, 1, 32, 32), each by its own denoiser."""
    grid = schedule.grid(steps)
    return torch.stack([last(ddim(d, x_T, schedule, grid)).x_t for d, x_T in zip(denoisers, noise)])


# %%
for t in (900, 700, 500):
    x_t = tinyddpm.q_sample(digits[8, :20], t, noise[8], schedule)
    weights, _ = exact(x_t, t, digits[8])
    largest = float(weights.max(1).values.median())
    print(f"t = {t}, log-SNR {float(schedule.log_snr[t]):4.1f}: the largest weight is {largest:.2f}")
copied = draw([dataset_oracle(data, schedule) for data in digits], noise)
band(copies(copied, digits), 195, 200, "of 200 are copies")

# %% [markdown]
r"""
A drawing is called a copy if it is nearer to one of the 1,500 digits than 999 of 1,000 unseen test digits are.

## Two pictures are enough

Take the smallest data set that shows the effect: one black picture and one white one, of 7 × 7 pixels. The exact denoiser draws
these two. Now put on *blinkers*: each pixel makes its own weights, and for them it looks at a window $\Omega_p$ around itself, $p$, only:

$$\hat x_0(p) = \sum_i w_i(p)\, x_i(p), \qquad w(p) = \operatorname{softmax}_i\left(-\frac{\sum_{q \in \Omega_p} \left(x_t(q) - \sqrt{\bar\alpha_t}\,x_i(q)\right)^2}{2\,(1-\bar\alpha_t)}\right) \tag{11.2}$$

This is an exact denoiser again, for somebody who is not allowed to see more. In code it is one line more than (11.1): `near` is 1 for
two rows (or columns) at most `radius` apart, and two matrix products sum over all windows at once.
"""


# %% tags=["setup"]
def blinkered(x_t, t, data, radius):
    """x_t: (b, 1, h, w); data: (n, 1, h, w). Returns x_0_hat and the weights (b, n, 1, h, w)."""
    signal, noise = schedule.signal_noise(t)
    near = torch.ones(x_t.shape[-1], x_t.shape[-1]).tril(radius).triu(-radius)
    distance = near @ (x_t[:, None] - signal * data).square() @ near
    weights = (-distance / (2 * noise**2)).softmax(1)
    return (weights * data).sum(1), weights


def answer(x_t, t, radius):
    return blinkered(x_t, int(t[0]), digits[3], radius)[0]


x_t, t = noise[3, :5], 800
for radius in (31, 5, 0):
    mine = partial(answer, radius=radius)
    same(mine, local_oracle(digits[3], schedule, radius=radius), x_t, torch.full((5,), t), within=1e-4)
signal, sigma = schedule.signal_noise(t)
distance = [(x_t[0, 0, 10:21, 4:15] - signal * x[0, 10:21, 4:15]).square().sum() for x in digits[3]]  # around (15, 9)
weights = (-torch.stack(distance) / (2 * sigma**2)).softmax(0)
holds("11.2", blinkered(x_t, t, digits[3], 5)[0][0, 0, 15, 9], weights @ digits[3][:, 0, 15, 9], within=1e-4)

# %% [markdown]
r"""
With a window of one pixel, radius 0, the sum has a single term, and for black and white, $x_i(p) = \pm 1$, the softmax is a
hyperbolic tangent:

$$\hat x_0(p) = \tanh\frac{\sqrt{\bar\alpha_t}\;x_t(p)}{1-\bar\alpha_t} \tag{11.3}$$

Each pixel makes up its mind alone.

**Guess first.** From 200 noises, how many *different* pictures does a window of 5 × 5 pixels draw (radius 2), knowing only black and white?
"""

# %%
world = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 7, 7).contiguous()
x_T = torch.randn(200, 1, 7, 7, generator=torch.Generator().manual_seed(1))
signal, sigma = schedule.signal_noise(600)
holds("11.3", blinkered(x_T, 600, world, 0)[0], torch.tanh(signal * x_T / sigma**2), within=1e-4)
drawn = {radius: draw([local_oracle(world, schedule, radius=radius)], [x_T])[0].sign() for radius in (6, 2, 0)}
different = {radius: len(x.flatten(1).unique(dim=0)) for radius, x in drawn.items()}
guess(None, different[2], " different pictures")

# %% [markdown]
r"""
## Locally right everywhere

Same data, same noise, same sampler: nothing but the window differs from row to row.
"""

# %%
large = {radius: x[:10].repeat_interleave(4, 2).repeat_interleave(4, 3) for radius, x in drawn.items()}
big = {radius: F.pad(x, (2, 2, 2, 2), value=-1) for radius, x in large.items()}  # in a frame that tiles() cuts off
rows = {("whole picture: two", EXACT): big[6], ("5 × 5", BLINKERED): big[2], ("1 × 1: each pixel alone", REST): big[0]}
tiles(
    rows,
    2,
    alt="Pictures from one black and one white image: two with the exact denoiser, patches with a window of 5 by 5, "
    "and random pixels with a window of one",
)
print(f"the whole picture: {different[6]} different ones")
band(different[2], 30, 190, "of 200 are different, windows of 5 × 5")
band(different[0], 197, 200, "of 200 are different, windows of one pixel")

# %% [markdown]
r"""
The middle row is the interesting one: a pixel takes the side of the majority in its window,
neighbours share most of their windows, and so the patches have smooth borders. New, and locally right everywhere.

## New digits

For digits, one size of window will not do. While there is hardly anything but noise, the window must be the whole image, so that all
pixels agree on what to draw; as the noise falls it may shrink. The library's `shrinking` does so in steps, which were found by
trying.
"""

# %%
log_snrs = torch.linspace(-6, 4, 400)
plt.figure(figsize=(6, 1.9))
plt.plot(log_snrs, [min(2 * shrinking(float(snr)) + 1, 32) for snr in log_snrs], color=BLINKERED)
plt.xlabel("log-SNR: noise on the left, the finished digit on the right")
plt.ylabel("side of the window")
show_figure(
    "The side of the window falls from 32 pixels, the whole image, below log-SNR -3.5 to 7 pixels above 1, in steps"
)

# %%
invented = draw([local_oracle(data, schedule) for data in digits], noise)
twins = digits.flatten(0, 1)[nearest(invented[:, 0], digits.flatten(0, 1))[1]]
tiles(
    {("drawn with blinkers", BLINKERED): invented[:, 0], ("the nearest of the 1,500 digits", REST): twins},
    alt="Ten digits drawn through windows, and below each the nearest training digit: alike, and not the same",
)
band(read(invented), 190, 200, "of 200 are read as asked")
band(copies(invented, digits), 0, 6, "of 200 are copies")

# %% [markdown]
r"""
## Why does it invent and not copy?

We can ask the weights. At the last step each pixel has one image left that takes nearly all the weight, its *source*. The
figure gives each source a colour.
"""

# %% tags=["share"]
chosen = 6
steps = list(ddim(local_oracle(digits[8], schedule), noise[8, chosen : chosen + 1], schedule, schedule.grid(16)))
x_t, t, finished = steps[-2].x_t, steps[-2].t, steps[-1].x_t[0]
_, weights = blinkered(x_t, t, digits[8], shrinking(float(schedule.log_snr[t])))
sources = weights[0, :, 0].argmax(0)  # (32, 32)
mosaic(finished, sources, digits[8])
show_figure(
    "An invented eight on the left, its strokes in five colours; on the right the five handwritten eights that they come "
    "from, each with the part in its colour that was taken"
)

# %%
taken = digits[8].gather(0, sources[None, None])[0]  # from each pixel's source, the pixel at the same place
ink = finished > -0.5
band(sources[ink[0]].unique().numel(), 4, 30, "digits have given it ink")
band(
    100 * float(((finished - taken)[ink].abs() < 0.1).float().mean()), 85, 100, "% of its ink is copied, pixel by pixel"
)

# %% [markdown]
r"""
So it does copy: *locally*, from different digits at different places. One writer's loop, another one's waist. Where two pieces
meet, their windows overlap, so that the pieces agree on what is there. With 150 digits and a dozen places the number of
combinations has no end. That is what inventing is here: **every neighbourhood is known, the whole is new.**

**Guess first.** Make all windows twice as wide. How many of 50 drawings are copies?
"""


# %%
def scaled(log_snr, factor):
    return round(factor * shrinking(log_snr))


factors, few, found = [0.5, 1.0, 2.0], noise[:, :5], []
for factor in factors:
    radius = partial(scaled, factor=factor)
    x = invented[:, :5] if factor == 1 else draw([local_oracle(data, schedule, radius=radius) for data in digits], few)
    found.append((read(x), copies(x, digits)))
guess(None, found[-1][1], " of 50")

# %% [markdown]
r"""
## The window is a dial

Half as wide, as above, twice as wide, and as wide as the image:
"""

# %%
found.append((read(copied[:, :5]), copies(copied[:, :5], digits)))
plt.figure(figsize=(6, 2.1))
for row, name, style, colour in ((0, "read as asked", "-o", TEXT), (1, "copies", "--s", BLINKERED)):
    plt.plot(range(4), [numbers[row] for numbers in found], style, color=colour)
    plt.annotate(name, (0.1, 40 if row == 0 else 4), color=colour)
plt.xticks(range(4), ["half", "as above", "twice", "whole image"])
plt.xlabel("size of the windows")
plt.ylabel("of 50 drawings")
show_figure(
    "Of 50 drawings: with windows half as wide fewer are read and none is a copy; twice as wide most are copies"
)
band(found[0][0], 35, 50, "of 50 are read, windows half as wide")
band(found[2][1], 25, 50, "of 50 are copies, windows twice as wide")

# %% [markdown]
r"""
Too small, and parts no longer agree on one digit. Too large, and the memory returns. Invention lies in between, and nothing else was
changed: not the data, not the noise, not the sampler.

## A network wears blinkers, too

A 3 × 3 convolution looks through a window. Does that *explain* what the network draws? Here is a hard test: the same noise, the same
label, the same 16 steps, and the network without guidance. Each pair of drawings is scored over the 784 pixels of the digit's square:

$$r^2 = 1 - \frac{\sum_p \left(x(p) - z(p)\right)^2}{\sum_p \left(z(p) - \bar z\right)^2} \tag{11.4}$$

$z$ is the network's drawing, $\bar z$ its mean, and $x$ the prediction. 1 is perfect; 0 is no better than uniform grey. A score means little
without others beside it, so we also predict by what needs no theory: another drawing of the same digit by the same network, and the
mean of the 150 digits, the same for every noise.
"""


# %%
def r2(x, z):
    x, z = (crop_to(image.reshape(-1, 1, 32, 32)).flatten(1) for image in (x, z))
    return 1 - (x - z).square().sum(1) / (z - z.mean(1, keepdim=True)).square().sum(1)


x_T = noise[:, :10]
network = draw([ddpm.denoiser([y] * 10, scale=1.0) for y in range(10)], x_T)
more = torch.stack([images[labels == y][:300] for y in range(10)])
predictions = {
    "another noise": network.roll(1, 1),
    "mean digit": digits.mean(1, keepdim=True).expand_as(network),
    "exact": copied[:, :10],
    "blinkers": invented[:, :10],
    "blinkers, 300 a digit": draw([local_oracle(data, schedule) for data in more], x_T),
}
x, z = (crop_to(drawings[3, 0]) for drawings in (invented, network))
holds("11.4", r2(invented[3, 0], network[3, 0])[0], 1 - (x - z).square().mean() / z.var(correction=0), within=1e-4)
quartiles = torch.tensor([0.25, 0.5, 0.75])
scores = {name: r2(x, network).quantile(quartiles).tolist() for name, x in predictions.items()}

# %%
for name, low, high in (
    ("another noise", -0.35, 0.15),
    ("mean digit", 0.35, 0.5),
    ("exact", 0.2, 0.5),
    ("blinkers", 0.42, 0.68),
    ("blinkers, 300 a digit", 0.46, 0.72),
):
    band(scores[name][1], low, high, f"is the median r2: {name}")
band(scores["blinkers, 300 a digit"][0], 0.28, 0.56, "is its lower quartile")
band(scores["blinkers, 300 a digit"][2], 0.66, 0.88, "is its upper quartile")

# %%
tiles(
    {
        ("exact: copies", EXACT): copied[:, 1],
        ("blinkers: predicted", BLINKERED): predictions["blinkers, 300 a digit"][:, 1],
        ("the network: drawn", NETWORK): network[:, 1],
    },
    alt="Ten digits by three denoisers from the same noise: the network's are nearer to those drawn with blinkers than to the copies",
)

# %% [markdown]
r"""
Blinkers predict best, and better with 300 digits of each kind than with 150. The exact denoiser, though it starts from the same noise,
predicts worse than a blur: a sharp digit in the wrong place costs more than no commitment. And the mean digit shows how much of
the score says no more than "it is a 3".

Kamb and Ganguli report a median of 0.94 on MNIST. Their networks do nothing but convolve, were trained on the images that the theory
knows, and the windows were fitted to them. Ours was trained on 60,000 digits and has
attention at its coarsest level, through which a pixel sees the whole image (for networks with attention they report 0.77, on CIFAR10); and
our windows were chosen so that digits can be read, not fitted to the network. So an honest summary is: **blinkers explain a good part of what this
network draws, and not all of it.**

## The bug museum

Three ways to be wrong about memorisation, and the line that catches each:

1. **Another range.** The drawings are in $[-1, 1]$ and the data were read in $[0, 1]$ (the question of
   [lucidrains#20](https://github.com/lucidrains/denoising-diffusion-pytorch/issues/20)). Every distance is large: no copies, false alarm over.
2. **A threshold from the data themselves.** How near is near? Measured from training digits to training digits, each finds itself:
   the threshold is 0, and nothing is nearer.
3. **Exponentials without a softmax.** At low noise all of them are 0 in float32, and the weights are 0 / 0.

For the first two, plant copies: the training digits themselves must all be found.
"""

# %%
planted, data = digits[:, :20], digits.flatten(0, 1)
threshold = nearest(mnist(train=False)[:][0], data)[0].quantile(0.001)
other_range = nearest(planted.flatten(0, 1), (data + 1) / 2)[0]
of_itself = nearest(data, data)[0].quantile(0.001)
print("of 200 planted copies are found:", copies(planted, digits))
print("with the data in another range:", int((other_range < threshold).sum()))
print("with the threshold of the data themselves:", int((nearest(planted.flatten(0, 1), data)[0] < of_itself).sum()))
signal, sigma = schedule.signal_noise(300)
x_t = tinyddpm.q_sample(digits[8, :20], 300, noise[8], schedule)
bare = torch.exp(-(x_t[:, None] - signal * digits[8]).square().sum((2, 3, 4)) / (2 * sigma**2))
wrong = bare / bare.sum(1, keepdim=True)
print("weights that are NaN at t = 300, log-SNR -0.1:", int(wrong.isnan().any(1).sum()), "of 20 images,", end=" ")
print("with softmax", int(exact(x_t, 300, digits[8])[0].isnan().any(1).sum()))

# %% [markdown]
r"""
## Exercises

**11a.** How many different pictures can a window of one pixel draw, if the data are these black-and-white images? (Without noise left,
each pixel takes a value that it has in some image.)
"""


# %%
def answer_11a(data):
    """data: (n, h, w), each value -1 or 1. Returns a whole number."""
    ...


check("11a", answer_11a)

# %% [markdown]
r"""
<details><summary>Hint 11a</summary>

Every pixel chooses alone, so that choices multiply. What can a pixel choose that is black in all images?
</details>

<details><summary>Solution 11a</summary>

```python
def answer_11a(data):
    varies = data.amax(0) != data.amin(0)  # (h, w)
    return 2 ** int(varies.sum())
```

A pixel with both values has two choices, one that never varies has one. The exact denoiser has as many choices as there are
different images, whatever their size.
</details>

**11b.** Drop "at the same place". Kamb and Ganguli's second machine compares the window of a pixel with the windows of *all* pixels of all
images: like a convolution, it does not know where it is. Write it for one noisy image. To keep out of trouble at the border, use only
windows that lie inside the image, in `x` as in `data`; `F.unfold(x, side)` lists them, one in each column.
"""


# %%
def answer_11b(x, signal, sigma, data, radius):
    """x: (1, 1, h, w); data: (n, 1, h, w). Returns x_0_hat at the pixels whose windows fit, (h - 2 radius, w - 2 radius)."""
    ...


check("11b", answer_11b)

# %% [markdown]
r"""
<details><summary>Hint 11b</summary>

`F.unfold(data, side)` is (n, side², places). Make one list of all n · places windows: the softmax runs over that list, and the answer
is the weighted mean of their middle pixels.
</details>

<details><summary>Solution 11b</summary>

```python
def answer_11b(x, signal, sigma, data, radius):
    side, (h, w) = 2 * radius + 1, x.shape[-2:]
    mine = F.unfold(x, side)[0].T  # (places, side²)
    known = F.unfold(data, side).transpose(1, 2).flatten(0, 1)  # (n places, side²)
    distance = torch.cdist(mine, signal * known).square()
    weights = (-distance / (2 * sigma**2)).softmax(1)
    return (weights @ known[:, side**2 // 2]).reshape(h - 2 * radius, w - 2 * radius)
```

The middle of a window is entry `side**2 // 2` of its column. This denoiser commutes with shifts of the image, as a convolution does.
A network is not quite like that either: padding tells it where the border is.
</details>

**11c.** Find the copies. A lazy artist moves each copied digit by up to one pixel, in any of eight directions, and `nearest` no longer
finds it. Write a detective who does.
"""


# %%
def answer_11c(x, data, threshold):
    """x: (b, 1, h, w); data: (n, 1, h, w), with empty borders. Returns (b,): the index of the image of data whose distance to
    x, after the best of the nine shifts, is smallest; and -1 if that distance is not below the threshold."""
    ...


check("11c", answer_11c)

# %% [markdown]
r"""
<details><summary>Hint 11c</summary>

`x.roll((down, right), (2, 3))` shifts images. Keep the distances of all nine shifts to all images, and take the minimum over shifts
before you compare images.
</details>

<details><summary>Solution 11c</summary>

```python
def answer_11c(x, data, threshold):
    shifts = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    moved = torch.stack([x.roll(shift, (2, 3)).flatten(1) for shift in shifts])  # (9, b, h w)
    distance, index = torch.cdist(moved, data.flatten(1)).amin(0).min(1)
    return torch.where(distance < threshold, index, -1)
```

Which copies are found depends on which changes are allowed: a test for copies is always a test for copies *up to something*.
</details>

**11d.** *An experiment.* Memorisation depends on the number of training digits. Give each blinkered denoiser the first 15 of its
150 digits, leave the windows as they are, and draw 50 digits from `noise[:, :5]`. How many are copies of one of the 150 digits
it was given, by `copies(x, digits[:, :15])`?
"""

# %%
prediction = None  # first write down what you expect
measured = None  # then run it, and put the number here
check("11d", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 11d</summary>

`draw` takes a list of ten denoisers, and `local_oracle(data, schedule)` makes one.
</details>

<details><summary>Solution 11d</summary>

```python
prediction = 10
x = draw([local_oracle(data, schedule) for data in digits[:, :15]], noise[:, :5])
measured = copies(x, digits[:, :15])
```

With few digits two neighbouring windows seldom find better matches in two different images, and the pieces grow until one
of them covers the digit. So it is with networks: they copy what they have seen often, and small data sets are seen often.
</details>

## Symbols

| symbol | code name | meaning |
|---|---|---|
| $x_i$ | `data`, `digits` | the images that the denoiser knows |
| $w_i$, $w_i(p)$ | `weights` | how likely image $i$ is, seen whole (11.1), or from pixel $p$ (11.2) |
| $\Omega_p$ | `near`, `radius` | the window of pixel $p$: a square of side 2 `radius` + 1 |
| $\hat x_0$ | `x_0_hat` | what a denoiser returns |
| $z$ | `network` | the network's drawing |
| $r^2$ | `r2` | how well one drawing predicts another (11.4) |

**Next:** [12 · Steering](12_steering.ipynb). A noise decides what will be drawn. The next chapter wants a say in it: it hides half a digit,
and asks for the rest.
"""
