# %% [markdown]
r"""
# 06 · Training: your own network draws its first digits

**After this chapter you can**

* write the training loop from memory, train the U-Net of chapter 05 with it, and draw digits from noise;
* read a loss by noise level, between a floor and a ceiling, where its average alone says little;
* derive that loss from the likelihood of the images, and say which weight is dropped on the way.

*You need:* chapters 01 and 03; of chapter 05 only that its network maps a noisy image, a time and a label to an image.
*Reading:* about MINUTES minutes, with the exercises; for an evening, stop after "Your network draws". *Running:* about a
minute, offline. *You build and then import:* `train_steps`, `diffusion_loss`, `EMA`.

---

In chapter 03 the sampler drew flawless digits, because its denoiser was exact: it held 2,000 images in memory and drew
nothing but those. Now a network takes its place. First we train it, then we ask what it has learned, and only then
where the loss comes from.
"""

# %% tags=["setup"]
import copy
import math
import time

import torch
import torch.nn.functional as F
from course import EXACT, NETWORK, band, check, guess, holds, same, tiles
from course.chapter_05 import my_unet
from course.chapter_06 import anatomy, given_x_0, log_p, loss_curve, p_chain, q_chain, read, weight_curves
from torch.distributions import Normal, kl_divergence
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.evaluation import nearest

MyUNet = my_unet()  # the class in your notebook of chapter 05, as it stands there
schedule = tinyddpm.Schedule.named("cosine", T=1000)
images, labels = mnist()[:32_000]
images = F.avg_pool2d(images, 2)  # 16 by 16 pixels, to be quick: (32000, 1, 16, 16)
test_images, test_labels = mnist(train=False)[:500]
test_images = F.avg_pool2d(test_images, 2)

# %% [markdown]
r"""
## The loop

This is the one piece of code in the course worth knowing by heart. Four lines are its substance: draw a time for each
image, draw noise, spoil the images, square the error of the network's answer. The others are PyTorch's usual ones: forget the
old gradients, compute the new ones, take a step. Our network predicts the clean image, so it *is* a denoiser.

`middle_times` draws more of the times in the middle than at the ends; we shall see why that pays.
"""


# %% tags=["setup"]
def middle_times(n, T, generator):
    return (T * torch.randn(n, generator=generator).sigmoid()).ceil().long()  # 1 to T


def rate(n, top=5e-3, warmup=100, steps=1000):
    """The learning rate of step n: up to `top`, then along half a cosine down to 0."""
    return top * min(1, n / warmup) * (1 + math.cos(math.pi * n / steps)) / 2


def my_train_steps(model, batches, optimizer, generator):
    for n, (x_0, y) in enumerate(batches, 1):
        t = middle_times(len(x_0), schedule.T, generator)
        eps = torch.randn(x_0.shape, generator=generator)
        x_t = tinyddpm.q_sample(x_0, t, eps, schedule)
        loss = (model(x_t, t, y) - x_0).square().mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate(n)
        optimizer.step()
        yield loss.item()


# %% [markdown]
r"""
`yield` makes it a generator: it takes one step each time it is asked for the next loss, and whoever runs it may look at the
network in between. The library's `train_steps` is built in the same way. What is minimised is passed to it as an *objective*,
`DenoisingLoss`, which draws times and noise. From the same weights and seed, ten steps must give equal losses and equal
weights.
"""


# %%
def ten_steps(loop):
    torch.manual_seed(3)
    model = MyUNet(dims=(8, 16))
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))
    batches = [(x_0, None) for x_0 in images[:160].split(16)]  # without labels
    losses = list(loop(model, batches, adam, torch.Generator().manual_seed(3)))
    return torch.tensor(losses), parameters_to_vector(model.parameters())


def of_the_library(model, batches, optimizer, generator):
    loss, model.num_classes = tinyddpm.DenoisingLoss(schedule, predicts="x_0", times=middle_times), None
    steps = tinyddpm.train_steps(model, batches, loss, optimizer, rate, generator=generator, max_norm=math.inf)
    return (step.losses.mean() for step in steps)


def train_steps():
    return ten_steps(of_the_library)


same(lambda: ten_steps(my_train_steps), train_steps, within=1e-4)

# %% [markdown]
r"""
## The run

Now your U-Net, with two levels and without attention (which pays in longer runs), learns from 32,000 digits. We go through
them exactly **once**, so nothing can be learned by heart, and every loss is a loss on digits that the network has not
seen. It is told the labels (chapter 07 has more to say about them). The optimizer is Adam ([Kingma and Ba
2015](https://arxiv.org/abs/1412.6980)), which divides the running mean of each weight's gradient by the root of its running
mean square: all weights move about equally fast. (Exercise 06b builds it.)

`path` keeps the weights after every step, for the questions below.
"""

# %%
torch.manual_seed(0)
model = MyUNet(dims=(16, 32), attention=False)
adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))
batches = zip(images.split(32), labels.split(32))
losses, path = [], [parameters_to_vector(model.parameters()).detach().half()]
for loss in my_train_steps(model, batches, adam, torch.Generator().manual_seed(0)):
    losses.append(loss)
    path.append(parameters_to_vector(model.parameters()).detach().half())
print(f"{len(path[0]):,} weights, {len(losses)} steps, no digit twice")


def network(weights):
    net = copy.deepcopy(model).eval().requires_grad_(False)
    vector_to_parameters(weights.float(), net.parameters())
    return net


# %%
class_means = torch.stack([images[labels == k].mean(0) for k in range(10)])  # (10, 1, 16, 16)
of_mean = (images - images.mean(0)).square().mean()
of_class_mean = (images - class_means[labels]).square().mean()
levels = {"grey": images.square().mean(), "mean image": of_mean, "mean image of the label": of_class_mean}
loss_curve(losses, levels)
band(sum(losses[-100:]) / 100, 0.045, 0.075, "is the loss of the last 100 steps")

# %% [markdown]
r"""
The dashed lines are answers that need no network: always 0, as untrained; always the mean image; always the mean image of
the label. Then the curve is flat. Is the network done? Ask the samples.

## Your network draws

Nothing about the sampler of chapter 03 changes: it takes a denoiser and does not ask what is inside. The same noise goes to
the network as it was at the start, after 50, 250 and 500 steps, and at the end. The last row is drawn by the weights that ship
with the library: the full network of chapter 05, at 32 by 32 pixels, after 60 epochs in the same loop (with another
optimizer). Your network takes 50 steps, even in log-SNR.
"""

# %% tags=["share"]
y = torch.arange(100) % 10
noise = torch.randn(100, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def draw(denoise, y, x_T, along=schedule):
    denoiser = tinyddpm.clip_x_0(lambda x_t, t: denoise(x_t, t, y))
    walk = tinyddpm.p_sample_loop(
        denoiser, x_T, along, along.grid(50, "log-snr"), generator=torch.Generator().manual_seed(2)
    )
    return tinyddpm.last(walk).x_t


model.eval()
drawn = {n: draw(network(path[n]), y[:10], noise[:10]) for n in (0, 50, 250, 500)}
mine = draw(model, y, noise)
shipped = tinyddpm.load_pretrained()
theirs = shipped.sample(y[:10], steps=20, seeds=range(10))
rows = {f"your network after {n} steps": x for n, x in drawn.items()}
rows |= {
    ("your network after 1000 steps, half a minute", NETWORK): mine[:10],
    "after 60 epochs: shipped weights": theirs,
}
tiles(rows, alt="Rows of digits from one noise: grey, blots, broken strokes, digits, and clean digits after 60 epochs")
band(read(mine, y), 80, 100, "of 100 read as asked: your network")
band(read(theirs, y[:10]), 8, 10, "of 10 read as asked: the shipped weights")

# %% [markdown]
r"""
Handwritten digits, made from noise, by your own code. The rows tell in what order things are learned: first the grey of
nothing, then the ink's place, as a blot, then the strokes. The last half closes gaps and ends strokes. The loss curve shows
little of this. (Three seeds for the training, each with three for the sampling, gave 88 to 96 of 100. Change the seed and
see.)

**"How long will it take on my machine?"** Measure a few steps and multiply. (This is the one cell whose output nobody
compares.)
"""

# %% tags=["nbval-ignore-output"]
for name, net, side in (("yours", copy.deepcopy(model), 16), ("the shipped one", MyUNet(), 32)):
    net.train()
    x, t, y_32 = torch.zeros(32, 1, side, side), torch.full((32,), 500), torch.zeros(32, dtype=torch.long)
    net(x, t, y_32).sum().backward()  # the first call does things that are done once
    started = time.perf_counter()
    for _ in range(3):
        net(x, t, y_32).sum().backward()
    speed = 3 * 32 / (time.perf_counter() - started)
    print(f"{name}: {speed:,.0f} images/s, 60 epochs of 60,000 in {60 * 60_000 / speed / 3600:.1f} hours")

# %% [markdown]
r"""
## A compressed oracle

How new are the digits? The exact denoiser of chapter 03, told the label, compares $x_t$ with the training digits of that
class. It gets the same noise as the network.
"""


# %% tags=["setup"]
def exact_of(x_0, labels, schedule=schedule):
    """The exact denoiser of images x_0 that is told the label."""
    oracles = [tinyddpm.dataset_oracle(x_0[labels == k], schedule) for k in range(10)]

    def denoise(x_t, t, y):
        x_0_hat = torch.empty_like(x_t)
        for k in y.unique().tolist():
            x_0_hat[y == k] = oracles[k](x_t[y == k], t[y == k])
        return x_0_hat

    return denoise


exact = exact_of(images, labels)

# %%
recalled = draw(exact, y[:20], noise[:20])
distance, index = nearest(mine, images)
tiles(
    {
        ("exact denoiser, same noise: copies", EXACT): recalled[:10],
        ("your network", NETWORK): mine[:10],
        "the nearest training digits": images[index[:10]],
    },
    enlarge=4,
)
print(f"exact denoiser: at most {nearest(recalled, images)[0].max():.2f} from a training digit")
unseen = nearest(test_images[:100], images)[0].median()
band(float(distance.median() / unseen), 0.7, 1.5, "times as far from a training digit as real unseen digits")

# %% [markdown]
r"""
Compare the columns. From the same noise the two often draw a similar digit: the network has learned what that denoiser
computes. But it has 140,000 numbers, where the exact one holds 32,000 images of 256 pixels. It cannot store them, so it must
answer with what digits have in common. **Its error against the exact denoiser of the training set is the reason that it
draws new digits at all.** (Chapter 11 says which error.)

## Noise is random: how can a network predict it?

Until 2022 most networks were trained to predict $\varepsilon$; many since predict $v = \sqrt{\bar\alpha_t}\,\varepsilon -
\sqrt{1-\bar\alpha_t}\,x_0$ ([Salimans and Ho 2022](https://arxiv.org/abs/2202.00512)), or the $\varepsilon - x_0$ of chapter
10. [Learners ask](https://github.com/lucidrains/denoising-diffusion-pytorch/issues/10) how noise can be predicted. It cannot:
the network is shown an $x_t$ that *contains* it, and has to tell it from the image. How much of the noise does your network
find, and how much if it is shown an $x_t$ with other noise?
"""

# %%
snr = schedule.alpha_bar / (1 - schedule.alpha_bar)  # infinite at t = 0
generator = torch.Generator().manual_seed(4)
for t in (900, 400, 100):
    eps, other = torch.randn(2, 500, 1, 16, 16, generator=generator)
    found = []
    for inside in (eps, other):
        x_t = tinyddpm.q_sample(test_images, t, inside, schedule)
        with torch.no_grad():
            x_0_hat = model(x_t, torch.full((500,), t), test_labels)
        eps_hat = tinyddpm.eps_from_x_0(x_0_hat, x_t, t, schedule)
        found.append(100 * float(torch.corrcoef(torch.stack([eps.flatten(), eps_hat.flatten()]))[0, 1]) ** 2)
    at_t = f"at t = {t}, log-SNR {schedule.log_snr[t]:.1f}"
    band(found[0], {900: 99, 400: 80, 100: 45}[t], 100, f"% of the noise is found {at_t}")
    band(round(found[1], 1), 0, 0.5, f"% of noise that was not shown {at_t}")

# %% [markdown]
r"""
By (1.5), whoever has $x_t$ and an answer for $x_0$ has one for $\varepsilon$ and for $v$. The three are one answer, and what
changes is how much a mistake *counts* (subtract the two decompositions of one $x_t$):

$$\|x_0 - \hat x_0\|^2 \;=\; \frac{\|\varepsilon - \hat\varepsilon\|^2}{\mathrm{SNR}_t} \;=\; \frac{\|v - \hat v\|^2}{\mathrm{SNR}_t + 1}, \qquad \mathrm{SNR}_t = \frac{\bar\alpha_t}{1 - \bar\alpha_t} \tag{6.1}$$

At $t = T$, where the signal-to-noise ratio is nearly 0, the mistakes of an answer in $\varepsilon$ explode on the way to
$x_0$; in $v$ the divisor is never below 1, and in $x_0$ nothing is divided.
"""


# %%
def squared_error(a, b):
    return (a - b).square().flatten(1).mean(1)  # of each image, a pixel


x_0, eps, mistake = torch.randn(3, 6, 1, 16, 16, generator=generator, dtype=torch.float64)
t = torch.tensor([10, 50, 200, 400, 700, 950])
x_t, eps_hat = tinyddpm.q_sample(x_0, t, eps, schedule), eps + 0.1 * mistake
x_0_hat = tinyddpm.x_0_from_eps(eps_hat, x_t, t, schedule)
v, v_hat = tinyddpm.v_from(x_0, eps, t, schedule), tinyddpm.v_from(x_0_hat, eps_hat, t, schedule)
in_x_0 = squared_error(x_0, x_0_hat)
from_eps, from_v = squared_error(eps, eps_hat) / snr[t], squared_error(v, v_hat) / (snr[t] + 1)
holds("6.1", torch.stack([in_x_0, in_x_0]), torch.stack([from_eps, from_v]), within=1e-9)


def my_diffusion_loss(model, x_0, t, eps, schedule, y=None, predicts="eps"):
    abar = schedule.alpha_bar[t].to(x_0.dtype).reshape(-1, 1, 1, 1)
    x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * eps
    target = {"x_0": x_0, "eps": eps, "v": abar.sqrt() * eps - (1 - abar).sqrt() * x_0}[predicts]
    out = model(x_t, t) if y is None else model(x_t, t, y)
    return (out - target).square().mean()


for predicts in ("eps", "x_0", "v"):
    same(my_diffusion_loss, tinyddpm.diffusion_loss, lambda x_t, t: 0.3 * x_t, x_0, t, eps, schedule, None, predicts)

# %% [markdown]
r"""
## Loss anatomy

What is the loss made of? We measure the error at single times. The **ceiling** always answers with the mean image of the label;
the **floor**, that of memorising, is the exact denoiser on its own training digits. Beside them: the same denoiser on test
digits, and the network on both. The ceiling needs no experiment: a constant answer $m$ errs in $x_0$ by the same amount at all
times; in $\varepsilon$ its error is, by (6.1),

$$\mathbb E\,\|\varepsilon - \hat\varepsilon\|^2 = \mathrm{SNR}_t\;\mathbb E\,\|x_0 - m\|^2 \tag{6.2}$$
"""

# %%
left, right = [], []
for t in (10, 300, 900):
    eps = torch.randn(test_images.shape, generator=generator)
    x_t = tinyddpm.q_sample(test_images, t, eps, schedule)
    eps_hat = tinyddpm.eps_from_x_0(class_means[test_labels], x_t, t, schedule)
    left.append(squared_error(eps, eps_hat).mean().log())
    right.append((snr[t] * squared_error(test_images, class_means[test_labels]).mean()).log())
holds("6.2", torch.stack(left), torch.stack(right), within=1e-3)


@torch.no_grad()
def error_at(t, denoise, x_0, y, along=schedule):
    """The mean squared error in x_0 at time t, under noise that is the same for every denoiser."""
    times = torch.full((len(x_0),), t)
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(t))
    return float(squared_error(denoise(tinyddpm.q_sample(x_0, times, eps, along), times, y), x_0).mean())


train_set, test_set = (images[:200], labels[:200]), (test_images[:200], test_labels[:200])
times = [t for t, _ in schedule.grid(24, "log-snr") if -8 < schedule.log_snr[t] < 8]
curves = {
    "ceiling": [error_at(t, lambda x_t, t, y: class_means[y], *test_set) for t in times],
    "no noise": [float(1 / snr[t]) for t in times],
    "network, test": [error_at(t, model, *test_set) for t in times],
    "network, training": [error_at(t, model, *train_set) for t in times],
    "exact, test": [error_at(t, exact, *test_set) for t in times],
    "floor": [error_at(t, exact, *train_set) for t in times],
}

# %%
anatomy(curves, times, schedule)
of = {name: torch.tensor(values) for name, values in curves.items()}
at = torch.tensor(times)
early, late = at > 950, at < 100
band((of["network, test"] / of["ceiling"])[early].min().item(), 0.85, 1.1, "of the ceiling, the network at t > 950")
band((of["network, test"] / of["network, training"]).max().item(), 0.9, 1.3, "times as hard are test digits, at most")
band((of["exact, test"] / of["network, test"])[late].min().item(), 2, 50, "times smaller than exact, test, at t < 100")

# %% [markdown]
r"""
Go through the figure from left to right, as the sampler does ("no noise" is the answer $x_t / \sqrt{\bar\alpha_t}$).

*At high noise* all curves meet: nobody can know more than the label. In $\varepsilon$ this looks like a triumph: an error of
0.0001, for no knowledge at all. *In the middle* the network lies between floor and ceiling, and here it makes the digits:
that is why `middle_times` pays. *At low noise* the exact denoiser parts into two: its own digits it recognises; to new ones
it can only answer with digits that it holds. The network's two curves lie on each other: it has no memory to profit from.
*At the very right* it is worse than returning $x_t$; the loss in $x_0$ has no reason to care.

So most of the average loss cannot be removed by anybody: it is the doubt that noise leaves. That is why the curve was flat.
When somebody reports a loss, ask: in what quantity, with what times, and what does a constant score?
"""

# %%
every = range(10, 1001, 30)
floor, found = (sum(error_at(t, f, *train_set) for t in every) / len(every) for f in (exact, model))
band(100 * floor / found, 50, 100, "% of the network's average loss is the floor")

# %% [markdown]
r"""
## The running average of the weights

The weights tremble, because each batch pulls in another direction. So one often samples with an average of the weights over
the last steps. It needs no memory of the past: after step $n$, with weights $\theta_n$, the average moves a little towards
them,

$$\bar\theta_n = d_n\,\bar\theta_{n-1} + (1-d_n)\,\theta_n, \qquad d_n = \min\!\left(d,\; \frac{1+n}{10+n}\right), \qquad \bar\theta_0 = \theta_0 \tag{6.3}$$

an *exponential moving average*, EMA. The decay $d$ says how long the memory is, about $1/(1-d)$ steps. The minimum is its
**warm-up**: the average quickly forgets the random weights from which training began. Written out, weight $\theta_k$ enters
with the share $1-d_k$, and is then multiplied by all later $d_j$.
"""


# %%
def my_ema(path, decay, warmup=True):
    average = path[0].float()
    for n, weights in enumerate(path[1:], 1):
        d = min(decay, (1 + n) / (10 + n)) if warmup else decay
        average = d * average + (1 - d) * weights.float()
    return average


def EMA(path, decay):  # the same with the library's
    running = tinyddpm.EMA(network(path[0]), decay)
    for weights in path[1:]:
        running.update(network(weights))
    return parameters_to_vector(running.model.parameters())


d = torch.tensor([0.0] + [min(0.9, (1 + n) / (10 + n)) for n in range(1, 41)], dtype=torch.float64)
later = d.flip(0).cumprod(0).flip(0).roll(-1)  # the product of all d_j with j > k
later[-1] = 1
written_out = ((1 - d) * later) @ torch.stack(path[:41]).double()
holds("6.3", my_ema(path[:41], 0.9), written_out, within=1e-3)
same(my_ema, EMA, path[:41], 0.9, within=1e-4)

# %% [markdown]
r"""
**"EMA: how long?"** We kept the whole path, so every answer can be tried. Halfway, the learning rate is high and the weights
tremble; at the end it is 0, and they have come to rest.

**Guess first:** with $d = 0.999$ and *no* warm-up, which share of the average at the end is still the initial random weights?
"""

# %%
my_guess = None

guess(my_guess, 0.999**1000)


def test_loss(net):
    return sum(error_at(t, net, test_images[:100], test_labels[:100]) for t in range(100, 1000, 200)) / 5


now = {n: test_loss(network(path[n])) for n in (500, 1000)}
for decay, warmup in ((0.9, True), (0.99, True), (0.999, True), (0.999, False), (0.9999, False)):
    ratio = {n: test_loss(network(my_ema(path[: n + 1], decay, warmup))) / now[n] for n in now}
    low, high, how = (0.85, 1.3, "with") if warmup else (1.5, 40, "no")
    for n, when in ((500, "halfway"), (1000, "at the end")):
        band(ratio[n], low, high, f"times the loss of the weights, {when}: d = {decay}, {how} warm-up")

# %% [markdown]
r"""
Long enough to smooth the tremble and short against the run: a tenth of its steps is a fair choice. With a learning rate that
falls to 0 there is little left to gain. An average without warm-up that is longer than the run is mostly noise; users of
[two](https://github.com/openai/improved-diffusion/issues/59) published
[projects](https://github.com/konpatp/diffae/issues/16) met it.

## Bug museum: "The loss is fine and my samples are dark, or noise"

[Many ask that](https://github.com/dome272/Diffusion-Models-pytorch/issues/33). The loss never meets the sampler, so it cannot
see these:

1. **Images left in [0, 1]**, as `ToTensor()` gives them
   ([an issue on that](https://github.com/lucidrains/denoising-diffusion-pytorch/issues/20)). An exact denoiser of such images
   stands in for a network that has learned them perfectly.
2. **Another target in training than in sampling**: the sampler takes the network's $\hat x_0$ for $\hat\varepsilon$.
3. **Another schedule in sampling**: the times mean other noise levels than in training.
4. **The average without warm-up**, $d = 0.9999$, of the last section.
5. **One time for the whole batch**, `torch.randint(1, T + 1, (1,))`. It is right on average and draws digits. But each step
   learns about one noise level, and the loss curve becomes unreadable.
"""

# %%
in_0_1 = exact_of((images[:8000] + 1) / 2, labels[:8000])
as_eps = tinyddpm.make_denoiser(model, schedule, "eps", y[:50])
elsewhere = tinyddpm.Schedule.named("linear")
no_warmup = network(my_ema(path, 0.9999, warmup=False))
y, noise = y[:50], noise[:50]
museum = {
    "right": mine[:50],
    "1. images in [0, 1]": draw(in_0_1, y, noise),
    "2. x_0 taken for eps": draw(lambda x_t, t, y: as_eps(x_t, t), y, noise),
    "3. another schedule": draw(model, y, noise, along=elsewhere),
    "4. average without warm-up": draw(no_warmup, y, noise),
}
tiles({name: x[:10] for name, x in museum.items()}, alt="One good row of digits, and four that failed")
print(f"{images.mean():.2f} is the mean brightness of real digits")
ranges = [(-0.9, -0.7, 40, 50), (0, 0.2), (-0.4, 0.6, 0, 15), (-0.95, -0.5, 0, 45), (-0.3, 0.2, 0, 15)]
for (name, x), (low, high, *of_50) in zip(museum.items(), ranges):
    band(float(x.mean()), low, high, f"is that of: {name}")
    if of_50:  # the library's classifier refuses images in [0, 1]
        band(read(x, y), *of_50, "of 50 are read as asked")

# %% [markdown]
r"""
Each is caught by one line before an hour of training is spent. The first rule is chapter 03's: prove the sampler with an
exact denoiser *before* there is a network.
"""

# %%
print("1. images begin at", float(images.min()), "and not at", float(images.min() + 1) / 2)
for predicts in ("x_0", "eps"):
    as_denoiser = tinyddpm.make_denoiser(model, schedule, predicts, test_set[1])
    ratio = error_at(300, lambda x_t, t, y, f=as_denoiser: f(x_t, t), *test_set) / float(of_class_mean)
    low, high = (0, 0.5) if predicts == "x_0" else (1, 1e3)
    band(ratio, low, high, f"times the mean image's error at t = 300: 2. taken for {predicts}")
print(f"3. log-SNR at t = 400: {schedule.log_snr[400]:.1f} in training, {elsewhere.log_snr[400]:.1f} in sampling")
print(f"4. initial weights left in the average: {100 * 0.9999**1000:.0f} %")
by_batch = torch.tensor([error_at(t, model, *test_set) for t in range(25, 1000, 50)])
band(float(by_batch.std() / by_batch.mean()), 0.3, 2, "is the spread of the loss, over its mean, with one time a batch")

# %% [markdown]
r"""
## Where the loss comes from

The loop works, but its loss is unexplained. What one really wants is that real images be likely. The
reverse process draws $x_T$, then $x_{t-1}$ from a normal distribution $p(x_{t-1} \mid x_t)$ around the denoiser's answer, down
to $x_0$. That gives each image a density $p(x_0)$: the integral over all paths $x_1, \dots, x_T$ that lead to it. Multiply
and divide by the forward process $q$, and it is an average over paths that can be drawn:

$$p(x_0) = \int p(x_{0:T})\, dx_{1:T} = \mathbb E_{q(x_{1:T} \mid x_0)}\!\left[\frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)}\right] \tag{6.4}$$

To execute this we take one pixel with normal values, of mean 0.3 and variance 0.25, ten steps, and the exact denoiser. The
cell compares an average over 200,000 paths with $p(x_0)$ itself, exact as all is normal (bookkeeping: `p_chain`, `log_p`).
"""

# %%
mean, variance = 0.3, 0.25  # of the data
chain = tinyddpm.Schedule.named("cosine-shifted", T=10)
denoiser = tinyddpm.gaussian_oracle(mean, variance, chain)


def p_step(x_t, t):
    """p(x_{t-1} | x_t): the posterior of chapter 03 with the denoiser's answer in place of the image."""
    x_0_hat = denoiser(x_t, torch.full((len(x_t),), t))
    step_mean, step_variance = tinyddpm.q_posterior(x_0_hat, x_t, t, t - 1, chain)
    return Normal(step_mean, (step_variance if t > 1 else 1 - float(chain.alpha_bar[1])) ** 0.5)


x_0 = torch.full((200_000, 1, 1, 1), 0.6, dtype=torch.float64)  # one value of the pixel, many paths from it
x, log_ratio = x_0, torch.zeros_like(x_0)
for t in range(1, chain.T + 1):
    q_step = Normal((1 - chain.beta[t]).sqrt() * x, chain.beta[t].sqrt())
    x_t = q_step.mean + q_step.stddev * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    log_ratio += p_step(x_t, t).log_prob(x) - q_step.log_prob(x_t)
    x = x_t
log_ratio += Normal(0.0, 1.0).log_prob(x)  # p(x_T)
p = p_chain(p_step, chain)
holds("6.4", log_ratio.exp().mean(), log_p(0.6, p).exp(), within=0.01)

# %% [markdown]
r"""
For images the ratios spread over so many orders of magnitude that their average never settles. Their logarithms behave. The
logarithm is concave, so the logarithm of an average is at least the average of the logarithms, and what is lost has a name:

$$\log p(x_0) \;=\; \underbrace{\mathbb E_q\!\left[\log \frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)}\right]}_{\text{the bound}}
   \;+\; \underbrace{\mathrm{KL}\bigl(q(x_{1:T} \mid x_0)\,\|\,p(x_{1:T} \mid x_0)\bigr)}_{\ge\, 0} \tag{6.5}$$

$\mathrm{KL}(q \| p) = \mathbb E_q[\log q - \log p]$ is never negative. Raising the bound does one of two good things: the
image becomes more likely, or the paths on which the model would have made it become more like those on which we destroyed it.
"""

# %%
gap = kl_divergence(q_chain(0.6, chain), given_x_0(0.6, p))
holds("6.5", log_p(0.6, p), log_ratio.mean() + gap, within=0.01)
print(f"log p(x_0) = {log_p(0.6, p):.2f}, the bound {log_ratio.mean():.2f}")

# %% [markdown]
r"""
The bound falls apart into single steps if the forward process is read backwards, by Bayes' rule:

$$q(x_t \mid x_{t-1}) = \frac{q(x_{t-1} \mid x_t, x_0)\; q(x_t \mid x_0)}{q(x_{t-1} \mid x_0)} \tag{6.6}$$
"""

# %%
clean, before, after = torch.randn(3, 1, 1, 1, 1, generator=generator, dtype=torch.float64)  # x_0, x_{t-1}, x_t


def q_jump(t):
    return Normal(chain.sqrt_alpha_bar[t] * clean, chain.sqrt_one_minus_alpha_bar[t])


left, right = [], []
for t in range(2, chain.T + 1):
    back_mean, back_variance = tinyddpm.q_posterior(clean, after, t, t - 1, chain)
    left.append(Normal((1 - chain.beta[t]).sqrt() * before, chain.beta[t].sqrt()).log_prob(after))
    jumps = q_jump(t).log_prob(after) - q_jump(t - 1).log_prob(before)
    right.append(Normal(back_mean, back_variance**0.5).log_prob(before) + jumps)
holds("6.6", torch.stack(left), torch.stack(right), within=1e-9)

# %% [markdown]
r"""
In the product over all steps the jumps cancel in a row like the tubes of a telescope ([in
full](course/derivations/06.md)). Every step of the model is then paired with the posterior of the same step:

$$\text{bound} = \mathbb E_q \log p(x_0 | x_1)
  - \mathrm{KL}\bigl(q(x_T | x_0)\,\|\,p(x_T)\bigr)
  - \sum_{t=2}^{T} \mathbb E_q\, \mathrm{KL}\bigl(q(x_{t-1} | x_t, x_0)\,\|\,p(x_{t-1} | x_t)\bigr) \tag{6.7}$$

([Ho et al. 2020](https://arxiv.org/abs/2006.11239), equation 5). In words: an image is likely if the last step hits it, if
its noisiest version is indeed noise, and if **every step back that the model takes is close to the step back that one would
take if one knew the image**.
"""


# %%
def at_time(t, x_0):
    """x_t by one jump from x_0, under new noise."""
    eps = torch.randn(x_0.shape, generator=generator, dtype=x_0.dtype)
    return chain.sqrt_alpha_bar[t] * x_0 + chain.sqrt_one_minus_alpha_bar[t] * eps


def q_back(t, x_t, x_0):
    back_mean, back_variance = tinyddpm.q_posterior(x_0, x_t, t, t - 1, chain)
    return Normal(back_mean, back_variance**0.5)


split = p_step(at_time(1, x_0), 1).log_prob(x_0).mean()
q_T = Normal(chain.sqrt_alpha_bar[-1] * 0.6, chain.sqrt_one_minus_alpha_bar[-1])
split -= kl_divergence(q_T, Normal(0.0, 1.0))
for t in range(2, chain.T + 1):
    x_t = at_time(t, x_0)
    split -= kl_divergence(q_back(t, x_t, x_0), p_step(x_t, t)).mean()
holds("6.7", log_p(0.6, p) - gap, split, within=0.01)

# %% [markdown]
r"""
For normal distributions the divergence has a closed form,

$$\mathrm{KL}\bigl(\mathcal N(\mu_1, \sigma_1^2)\,\|\,\mathcal N(\mu_2, \sigma_2^2)\bigr)
   = \log\frac{\sigma_2}{\sigma_1} + \frac{\sigma_1^2 + (\mu_1 - \mu_2)^2}{2\,\sigma_2^2} - \frac12 \tag{6.8}$$
"""

# %%
mu_1, mu_2, sigma_1, sigma_2 = torch.rand(4, 1000, generator=generator, dtype=torch.float64) + 0.1
formula = (sigma_2 / sigma_1).log() + (sigma_1**2 + (mu_1 - mu_2) ** 2) / (2 * sigma_2**2) - 0.5
holds("6.8", kl_divergence(Normal(mu_1, sigma_1), Normal(mu_2, sigma_2)), formula, within=1e-9)

# %% [markdown]
r"""
Ours have equal variances, so only the means count, and these differ only by $x_0$ in the place of $\hat x_0$. So each term is
nothing but a weighted squared error ([Kingma et al. 2021](https://arxiv.org/abs/2107.00630); [the
algebra](course/derivations/06.md)):

$$\mathrm{KL}\bigl(q(x_{t-1} \mid x_t, x_0)\,\|\,p(x_{t-1} \mid x_t)\bigr) = \tfrac12\,\bigl(\mathrm{SNR}_{t-1} - \mathrm{SNR}_t\bigr)\,\|x_0 - \hat x_0(x_t, t)\|^2 \tag{6.9}$$

Knowing the image better matters exactly as much as the step improves the signal-to-noise ratio.
"""

# %%
chain_snr = chain.alpha_bar / (1 - chain.alpha_bar)
divergences, errors = [], []
for t in range(2, chain.T + 1):
    x_t = at_time(t, x_0[:100])
    divergences.append(kl_divergence(q_back(t, x_t, x_0[:100]), p_step(x_t, t)))
    error = (x_0[:100] - denoiser(x_t, torch.full((100,), t))) ** 2
    errors.append(0.5 * (chain_snr[t - 1] - chain_snr[t]) * error)
holds("6.9", torch.stack(divergences), torch.stack(errors), within=1e-9)

# %% [markdown]
r"""
## Drop the weight

Now the step that no mathematics forces. By (6.1) the bound is also a weighted error in the noise. Ho et al. left the weight
away and drew $t$ at random instead of summing over it:

$$L_\text{simple} = \mathbb E_{t,\,x_0,\,\varepsilon}\;\bigl\|\varepsilon - \hat\varepsilon\bigl(\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon,\; t\bigr)\bigr\|^2 \tag{6.10}$$

(their equation 14). It is no bound any more, but it has the same minimum: at each $t$ the squared error is smallest for the
exact denoiser, whatever positive weight stands before it. The weight decides only what a network that cannot be exact
everywhere will care about. The cell takes a million values of our pixel and the exact denoiser, and compares with the floor
in theory: the variance of $x_0$ for a known $x_t$, times $\mathrm{SNR}_t$. **A perfect network does not have the loss 0.**
"""

# %%
exact_pixel = tinyddpm.gaussian_oracle(mean, variance, schedule)
pixel = mean + variance**0.5 * torch.randn(1_000_000, 1, 1, 1, generator=generator)
t = torch.randint(1, schedule.T + 1, (len(pixel),), generator=generator)
eps = torch.randn(pixel.shape, generator=generator)


def exact_eps(x_t, t):
    return tinyddpm.eps_from_x_0(exact_pixel(x_t, t), x_t, t, schedule)


abar = schedule.alpha_bar[1:]
floor = (snr[1:] * variance * (1 - abar) / (variance * abar + 1 - abar)).mean()
holds("6.10", my_diffusion_loss(exact_eps, pixel, t, eps, schedule), floor, within=0.005)
print(f"the floor of this loss, which nothing can get under: {float(floor):.2f}")

# %% [markdown]
r"""
By (6.1) and (6.9), each of these losses is an error in $x_0$ with a weight: $\tfrac12(\mathrm{SNR}_{t-1} -
\mathrm{SNR}_t)$ for the bound, $\mathrm{SNR}_t$ for $\varepsilon$, $\mathrm{SNR}_t + 1$ for $v$, and 1 for $x_0$.

**Guess first:** to the eye nothing is wrong yet at $t \le 50$, one twentieth of all times. Which share of the bound's weight
do they have, from 0 to 1?
"""

# %%
my_guess = None

weights = {"bound": 0.5 * (snr[1:-1] - snr[2:]), "eps": snr[2:], "v": snr[2:] + 1, "x_0": torch.ones_like(snr[2:])}
guess(my_guess, float(weights["bound"][:49].sum() / weights["bound"].sum()))

# %% [markdown]
r"""
Here are all four, by time:
"""

# %%
weight_curves(weights)

# %% [markdown]
r"""
The bound cares about the last grey value of each pixel, as a measure of likelihood must: a density counts decimal
places. A likelihood is decided by errors that no eye can see, so decide what a model is for before you choose its loss. Ho et al. report better samples without the weight. The losses in $\varepsilon$ and $v$ lean the same way, though less.
The loss in $x_0$ cares about all times alike, hence more about the high noise, where it is decided *which* digit it will be.
With half a minute of training, shape comes first. Measured (`docs/ablations.md`): networks that differed in nothing but the
target were trained for two minutes each; of 1,000 digits 79 % were read as asked with $\varepsilon$, 88 % with $v$, 91 % with
$x_0$ (single runs).

## What this chapter showed

The wish "real images should be likely" is a weighted squared error of the denoiser, and practice drops the weight. A loss
means something only between its floor and its ceiling. From here on you may use `tinyddpm train --recipe nano`: the same loop
with checkpoints, a progress bar, and whatever accelerator there is.

## Exercises

**06a.** Write the loss of a network that predicts $v$, from a table `alpha_bar` of shape `(T + 1,)`.
"""


# %%
def answer_06a(model, x_0, t, eps, alpha_bar):
    """x_0, eps: (b, 1, h, w); t: (b,). The model is called as model(x_t, t). Returns the mean squared error in v."""
    ...


check("06a", answer_06a)

# %% [markdown]
r"""
<details><summary>Hint 06a</summary>

$v$ uses the factors of $x_t$, exchanged and with one sign changed. Which shape must they have?
</details>

<details><summary>Solution 06a</summary>

```python
def answer_06a(model, x_0, t, eps, alpha_bar):
    abar = alpha_bar[t].reshape(-1, 1, 1, 1)
    x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * eps
    v = abar.sqrt() * eps - (1 - abar).sqrt() * x_0
    return (model(x_t, t) - v).square().mean()
```

Without the reshape the factors are spread along the width, an error only where batch and width differ.
</details>

**06b.** Build Adam. `mean` and `square` are the running means of the gradient and of its square before step `n`, with decays
0.9 and 0.99, and began at 0. Their bias from that start is divided away: by $1 - 0.9^n$ and $1 - 0.99^n$. Then the weight
moves by `lr` times mean over root.
"""


# %%
def answer_06b(weight, grad, mean, square, n, lr):
    """n: 1, 2, ... Returns the new weight, mean and square. (Add 1e-8 to the root.)"""
    ...


check("06b", answer_06b)

# %% [markdown]
r"""
<details><summary>Hint 06b</summary>

At `n = 1`, every weight must move by `lr` exactly, whatever its gradient.
</details>

<details><summary>Solution 06b</summary>

```python
def answer_06b(weight, grad, mean, square, n, lr):
    mean = 0.9 * mean + 0.1 * grad
    square = 0.99 * square + 0.01 * grad**2
    root = (square / (1 - 0.99**n)).sqrt() + 1e-8
    return weight - lr * mean / (1 - 0.9**n) / root, mean, square
```

The corrected values serve for the step alone; what is kept is not divided.
</details>

**06c.** An average has been updated `n` times by (6.3), with warm-up. What share do the *initial* weights still have in it?
"""


# %%
def answer_06c(n, decay):
    """Returns a number between 0 and 1."""
    ...


check("06c", answer_06c)

# %% [markdown]
r"""
<details><summary>Hint 06c</summary>

Each update multiplies what was there by its own $d_k$.
</details>

<details><summary>Solution 06c</summary>

```python
def answer_06c(n, decay):
    return math.prod(min(decay, (1 + k) / (10 + k)) for k in range(1, n + 1))
```

After ten updates less than a thousandth is left, where $0.999^{10}$ is 99 %.
</details>

**06d.** This line draws the times of a batch of `n` images, from 1 to T as ours do. It has two mistakes. Repair it.

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
<details><summary>Hint 06d</summary>

`randint` leaves its upper end out.
</details>

<details><summary>Solution 06d</summary>

```python
def answer_06d(n, T, generator):
    return torch.randint(1, T + 1, (n,), generator=generator)
```

A network that has never seen $t = T$ is asked about it in the very first step of sampling.
</details>

**06e. Experiment.** A colleague uses the schedule `cosine-shifted` and reports a loss in $x_0$, averaged over all times. Both
of you have the *exact* denoiser of the 32,000 digits. Predict: how many times as high is the colleague's loss on the first 200 of
them? Measure with `exact_of(images, labels, other)` at $t = 50, 150, \dots, 950$.
"""

# %%
prediction = None  # first write down what you expect
measured = None  # then compute both averages, divide, and put the number here
check("06e", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 06e</summary>

Spoil the images with the same schedule that you give to the denoiser.
</details>

<details><summary>Solution 06e</summary>

```python
def average_loss(along):
    denoise, generator = exact_of(images, labels, along), torch.Generator().manual_seed(0)
    x_0, y, total = images[:200], labels[:200], 0
    for t in range(50, 1000, 100):
        x_t = tinyddpm.q_sample(x_0, t, torch.randn(x_0.shape, generator=generator), along)
        total += (denoise(x_t, torch.full((200,), t), y) - x_0).square().mean()
    return total / 10


prediction, other = 1, tinyddpm.Schedule.named("cosine-shifted", T=1000)
measured = average_loss(other) / average_loss(schedule)
```

Nothing is worse: the shifted schedule has more times at high noise, where nobody can know the digit. Losses of different
schedules cannot be compared.
</details>

## Symbols

| symbol | variable | where |
|---|---|---|
| $\mathrm{SNR}_t$ | `snr` | (6.1), (6.9) |
| $\hat x_0, \hat\varepsilon, \hat v$ | `x_0_hat`, `eps_hat`, `v_hat` | (6.1) |
| $v$ | `v` | (6.1) |
| $m$ | `class_means` | (6.2) |
| $\bar\theta_n, d_n$ | `average`, `d` | (6.3) |
| $p, q$ | `p_step`, `q_step` | (6.4) |
| $\mathrm{KL}(q \,\Vert\, p)$ | `kl_divergence` | (6.5), (6.7), (6.8) |
| $L_\text{simple}$ | `my_diffusion_loss` | (6.10) |

**Next:** [07 · Conditional generation](07_conditional_generation.ipynb). Our network was told the labels, and still some
digits came out as nothing in particular. There is a dial that makes it listen more closely, and it has a price.
"""
