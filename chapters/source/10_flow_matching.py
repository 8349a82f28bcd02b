# %% [markdown]
r"""
# 10 · Flow matching is the same film

**After this chapter you can**

* turn a flow-matching model into a diffusion model and back, and say what changed: the clock, and the weight of the loss;
* explain why the lines of training cross and the paths of sampling do not;
* convert the five things that networks predict into one another, and find the four mistakes of sign, time, shift and name.

*You need:* chapters 03 and 09. *Reading:* about MINUTES minutes. *Running:* half a minute on a laptop. *You build and
then compare:* Euler's method on the straight line, with `ddim`.

---

Many of today's image generators are called *flow-matching* models
([Lipman et al. 2022](https://arxiv.org/abs/2210.02747), [Liu et al. 2022](https://arxiv.org/abs/2209.03003)). The
papers have no betas and no Markov chain in them. Do we have to start again?
"""

# %% tags=["setup"]
import torch
import torch.nn.functional as F
from course import band, check, clock, guess, holds, same, tiles
from course.chapter_10 import crossings, draw_paths, legible

import tinyddpm
from tinyddpm import PREDICTIONS, ddim, last, p_sample_loop
from tinyddpm.data import mnist

flow, cosine = tinyddpm.Schedule.named("flow"), tinyddpm.Schedule.named("cosine")
digits = mnist()[:300][0].double()
points = torch.tensor([-1.0, -0.4, 1.0], dtype=torch.float64).reshape(-1, 1, 1, 1)  # three images of one pixel
of_points = tinyddpm.dataset_oracle(points, flow)


def seed(number):
    return torch.Generator().manual_seed(number)


def noise(*shape, number=0):
    return torch.randn(*shape, generator=seed(number), dtype=torch.float64)


def by_ddim(*arguments):
    return last(ddim(*arguments)).x_t


# %% [markdown]
r"""
## A straight line

Take an image and a noise, and go from one to the other at constant speed. The clock $\tau$ runs from 0, the image, to 1:

$$z_\tau = (1-\tau)\,x_0 + \tau\,\varepsilon, \qquad \frac{\mathrm d z_\tau}{\mathrm d\tau} = u = \varepsilon - x_0 \tag{10.1}$$

The squares of the factors do not add up to 1, so $z_\tau$ is smaller than our $x_t$ in the middle of the way. Divide by
the root of their sum, and it *is* our $x_t$, at the time at which the amplitudes of signal and noise are in the same ratio:

$$x_t = \frac{z_\tau}{\sqrt{(1-\tau)^2 + \tau^2}}, \qquad \tau = \frac{\sqrt{1-\bar\alpha_t}}{\sqrt{\bar\alpha_t} + \sqrt{1-\bar\alpha_t}} \tag{10.2}$$

So every schedule is a straight line, seen through a clock $\tau(t)$. The library's `flow` is the one with $\tau = t/T$.
"""


# %% tags=["setup"]
def tau_of(schedule):
    signal, noise = schedule.sqrt_alpha_bar, schedule.sqrt_one_minus_alpha_bar
    return noise / (signal + noise)  # (T + 1,)


def size_at(tau):
    return ((1 - tau) ** 2 + tau**2) ** 0.5


def line(x_0, eps, tau):
    return (1 - tau) * x_0 + tau * eps


x_0, eps = digits[:4], noise(4, 1, 32, 32)
u = eps - x_0
holds("10.1", (line(x_0, eps, 0.7) - line(x_0, eps, 0.3)) / 0.4, u)
for schedule in (flow, cosine):
    tau = tau_of(schedule)[600]
    holds("10.2", line(x_0, eps, tau) / size_at(tau), tinyddpm.q_sample(x_0, 600, eps, schedule))
    print(f"tau at t = 600 is {tau:.3f}, log-SNR {schedule.log_snr[600]:.2f}")

# %% [markdown]
r"""
## Are flow and diffusion the same?

A flow model samples by Euler's method: start from noise at $\tau = 1$, ask for the velocity, take a step against it. What it asks
for is $\hat u = \hat\varepsilon - \hat x_0$; on the line that is $(z - \hat x_0)/\tau$:

$$z_{\tau'} = z_\tau + (\tau' - \tau)\,\hat u, \qquad \hat u = \frac{z_\tau - \hat x_0}{\tau} \tag{10.3}$$

Insert the second into the first, and you get $z_{\tau'} = (1-\tau')\,\hat x_0 + \tau'\,\hat\varepsilon$: mix the two guesses again.
That is DDIM, and it is exact, not an approximation. We let both make 50 digits with the exact denoiser, on both schedules, in
double precision.
"""


# %%
def euler(denoiser, x_T, schedule, grid):
    tau = tau_of(schedule)
    z = size_at(tau[grid[0][0]]) * x_T
    for t, s in grid:
        x_0_hat = denoiser(z / size_at(tau[t]), torch.full((len(z),), t))
        u_hat = (z - x_0_hat) / tau[t]
        z = z + (tau[s] - tau[t]) * u_hat
    return z / size_at(tau[s])


for schedule in (flow, cosine):
    oracle = tinyddpm.dataset_oracle(digits, schedule)
    walk = oracle, noise(50, 1, 32, 32), schedule, schedule.grid(20)
    same(euler, by_ddim, *walk, within=1e-12)
holds("10.3", euler(*walk), by_ddim(*walk), within=1e-12)

# %% [markdown]
r"""
The same denoiser gives the same film. Two things are left in which the two differ, and both can be chosen freely in either:

* **the clock**: at which noise levels the sampler asks and the training practises;
* **the weight of the loss**: a squared error in $\hat u$ is a squared error in $\hat x_0$ times a factor, see below.

## Marginal or conditional velocity?

Training shows the network pairs, and the velocity of a pair is $\varepsilon - x_0$: the *conditional* velocity, along one line.
Through the same point run many lines, with different velocities. With a squared error the network learns their mean (chapter 03), the *marginal*
velocity:

$$\hat u(z, \tau) = \mathbb E\,[\,\varepsilon - x_0 \mid z_\tau = z\,] \tag{10.4}$$

In one dimension it can be seen. The data are three numbers. The cell draws a million pairs, keeps those whose lines pass near
$z = 0.3$ at $\tau = 0.6$, and takes the mean of their velocities.

**Guess first:** sixty lines join noises to data, at random. How often do they cross? And how often do the paths that follow $\hat u$?
"""

# %%
x_0, eps = points[torch.randint(3, (1_000_000,), generator=seed(1))].flatten(), noise(1_000_000)
near = (line(x_0, eps, 0.6) - 0.3).abs() < 0.02
z = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64)
u_hat = (z - of_points(z / size_at(0.6), torch.tensor([600]))) / 0.6
holds("10.4", u_hat.flatten(), [(eps - x_0)[near].mean()], within=0.05)
print(
    f"{int(near.sum())} lines with velocities of standard deviation {(eps - x_0)[near].std():.2f}, mean {u_hat.item():.2f}"
)

my_guess = None  # crossings of the sixty lines
starts = noise(60, 1, 1, 1, number=7)
ends = points[torch.randint(3, (60,), generator=seed(2))]
guess(my_guess, crossings(torch.stack([starts, ends])), " crossings")

# %% [markdown]
r"""
## Sixty lines, sixty paths

The lines; the paths that follow $\hat u$ from the same noises; and fifteen paths with fresh noise.
"""

# %% tags=["share"]
levels = size_at(tau_of(flow))
lines = torch.stack([line(ends, starts, tau) for tau in torch.linspace(1, 0, 101)])
ode = torch.stack([levels[step.t] * step.x_t for step in ddim(of_points, starts, flow, flow.grid(100))])
sde = p_sample_loop(of_points, starts, flow, flow.grid(100), seed(3))
sde = torch.stack([levels[step.t] * step.x_t for step in sde])[:, :15]
draw_paths({"what training shows": lines, "what sampling follows": ode, "with fresh noise": sde})

# %% [markdown]
r"""
*Sixty noises (left) and three data points (right). The lines of training cross, since noise and image were drawn independently. A
field has one velocity at each point, so its paths cannot cross; they bend instead. With fresh noise (15 paths) they
cross again.*

**The lines are straight, the paths are not.** "Straight" is what the network is shown, not what it does, and so flow models take steps
like all others (exercise 10e).

## One film with noise and one without

The third panel is DDPM, a stochastic differential equation (SDE); the second is the ODE of chapter 09. No path is the same. What is the same is
the *distribution* at each moment, and that is what a generator is judged by
([Song et al. 2021](https://arxiv.org/abs/2011.13456)). The cell follows four thousand paths of each, and noises four thousand images
forwards. The library's `euler_maruyama` solves the SDE as the paper writes it; `p_sample_loop` does the same with fewer steps.
"""

# %%
many = noise(4000, 1, 1, 1, number=4)
walks = {
    "ODE": list(ddim(of_points, many, flow, flow.grid(200))),
    "SDE": list(p_sample_loop(of_points, many, flow, flow.grid(200), seed(5))),
}
for t in (800, 500, 200, 0):
    forwards = tinyddpm.q_sample(points[torch.arange(3999) % 3], t, noise(3999, 1, 1, 1, number=6), flow)
    found = {name: next(step.x_t for step in walk if step.t == t) for name, walk in walks.items()} | {
        "forwards": forwards
    }
    print(f"t = {t:3}: standard deviation " + ", ".join(f"{x.std():.2f} {name}" for name, x in found.items()), end="; ")
    print("below 0 " + ", ".join(f"{(x < 0).double().mean():.2f}" for x in found.values()))

# %% [markdown]
r"""
## Five views of one answer

A network may be asked for $x_0$, for $\varepsilon$, for $u$, or for $v = \sqrt{\bar\alpha_t}\,\varepsilon - \sqrt{1-\bar\alpha_t}\,x_0$
([Salimans & Ho 2022](https://arxiv.org/abs/2202.00512)); and the *score*, the gradient of the log-density, is the fifth. At a given $x_t$ they are one
answer in five coordinates. From $\hat x_0$:

$$\hat\varepsilon = \frac{x_t - \sqrt{\bar\alpha_t}\,\hat x_0}{\sqrt{1-\bar\alpha_t}}, \quad \hat v = \sqrt{\bar\alpha_t}\,\hat\varepsilon - \sqrt{1-\bar\alpha_t}\,\hat x_0, \quad \hat u = \hat\varepsilon - \hat x_0, \quad \text{score} = -\frac{\hat\varepsilon}{\sqrt{1-\bar\alpha_t}} \tag{10.5}$$

The cell goes there, and comes back with the library's `PREDICTIONS`.
"""

# %%
several = torch.tensor([950, 850, 700, 500, 200])
signal, sigma = flow.coefficients(several, digits[:5])
x_t = signal * digits[7] + sigma * noise(1, 1, 32, 32, number=7)
oracle = tinyddpm.dataset_oracle(digits, flow)
x_0_hat = oracle(x_t, several)
eps_hat = (x_t - signal * x_0_hat) / sigma
v = signal * eps_hat - sigma * x_0_hat
views = {"eps": eps_hat, "x_0": x_0_hat, "v": v, "flow": eps_hat - x_0_hat}
for name, view in views.items():
    holds("10.5", PREDICTIONS[name].to_x_0(view, x_t, several, flow), x_0_hat)
holds("10.5", -eps_hat / sigma, tinyddpm.score(oracle, flow)(x_t, several))
rows = {"x_t": x_t, "x_0_hat": x_0_hat, "eps_hat / 3": eps_hat / 3, "v / 3": v / 3, "u / 3": views["flow"] / 3}
columns = [clock(t, flow) for t in several.tolist()]
tiles(
    rows,
    enlarge=2,
    columns=columns,
    alt="One noisy digit at five noise levels, and what four predictions look like there",
)

# %% [markdown]
r"""
With much noise $\hat v$ is the image, in the negative; with little it is the noise. So it always asks for what cannot be read off
the input, which is its merit. $\hat u$ contains both at all times, each in full strength.

*Why predict noise, if it is random?* Because of these conversions: whoever knows the noise in $x_t$ knows the image. What can be known of
it is $\hat\varepsilon$, a mean, and not random at all.

## My v loss is lower and my picture black

*[A learner asks](https://github.com/LTH14/JiT/issues/26).* Lower than what? An error in one view is an error in $\hat x_0$ times a
factor, which depends on the noise. Its square is the weight of the loss (with $\mathrm{SNR} = \bar\alpha_t/(1-\bar\alpha_t)$):

$$w_\varepsilon = \mathrm{SNR}, \qquad w_{x_0} = 1, \qquad w_v = \mathrm{SNR} + 1, \qquad w_u = \bigl(\sqrt{\mathrm{SNR}} + 1\bigr)^2 \tag{10.6}$$

To see what that does, take the library's network, and blindfold it: above some noise level it answers "black". Measure all of them on
test digits, with all four losses.
"""

# %%
a, b = noise(2, 5, 1, 32, 32)  # two answers for x_0
snr = flow.log_snr[several].exp()
weights = {"eps": snr, "x_0": torch.ones(5), "v": snr + 1, "flow": (snr.sqrt() + 1) ** 2}
squared = []
for name in weights:
    target = PREDICTIONS[name].target
    views_of = [target(x, tinyddpm.eps_from_x_0(x, x_t, several, flow), several, flow) for x in (a, b)]
    squared.append((views_of[0] - views_of[1]).square().mean((1, 2, 3)) / (a - b).square().mean((1, 2, 3)))
holds("10.6", torch.stack(squared), torch.stack([w.double() for w in weights.values()]))

ddpm = tinyddpm.load_pretrained()
x_0, labels_of_test = mnist(train=False)[:200]
eps, t = torch.randn(x_0.shape, generator=seed(8)), torch.randint(1, 1001, (200,), generator=seed(9))
with torch.no_grad():
    answer = ddpm.denoiser(labels_of_test)(tinyddpm.q_sample(x_0, t, eps, ddpm.schedule), t)
lam = ddpm.schedule.log_snr


def losses(x_0_hat):
    wrong, abar = (x_0_hat - x_0).square().mean((1, 2, 3)), ddpm.schedule.alpha_bar[t]
    return {name: float((row.weight(abar) / (1 - abar) * wrong).mean()) for name, row in PREDICTIONS.items()}


# %%
ten, start = torch.arange(10), torch.randn(10, 1, 32, 32, generator=seed(3))


def blindfolded(denoiser, dark):
    return lambda x_t, t: denoiser(x_t, t) if lam[t[0]] >= dark else torch.full_like(x_t, -1)


expected = {-99: (0.022, 0.085, 0.123), -4: (0.0225, 0.111, 0.153), -1: (0.0375, 0.225, 0.34)}
rows = {}
for dark, usual in expected.items():
    name = f"blind below log-SNR {dark}" if dark > -99 else "as it is"
    found = losses(torch.where((lam[t] >= dark)[:, None, None, None], answer, -1))
    for kind, loss in zip(("eps", "v", "flow"), usual):
        band(found[kind], round(0.9 * loss, 3), round(1.1 * loss, 3), f"{kind} loss, {name}")
    denoiser = blindfolded(ddpm.denoiser(ten), dark)
    rows[name] = last(ddim(denoiser, start, ddpm.schedule, ddpm.schedule.grid(15))).x_t
tiles(rows, alt="Ten digits in three rows: good; with thin and broken strokes; and nearly black")

# %% [markdown]
r"""
The last network draws next to nothing, and its $\varepsilon$ loss is less than half of the good one's $v$ loss. The middle one's
$v$ loss is lower than the good one's $u$ loss, and its strokes break. **Losses of different predictions, weights or schedules cannot be compared.** Compare samples, or
all of them in one and the same loss, as here. And see how little the $\varepsilon$ loss cares for what goes wrong where noise is strong: its
weight there is nearly 0.

## A network with the flow prediction

Nothing new is needed: `predicts="flow"` and the schedule `flow`. To practise more often where the drawing is decided, draw times from a bell
over the middle, as [Esser et al. 2024](https://arxiv.org/abs/2403.03206) do. At 16×16 pixels a few seconds get
us something to look at; guidance (chapter 07) helps a network that has seen so little.
"""


# %%
def middle(n, T, generator):
    return 1 + ((T - 1) * torch.randn(n, generator=generator).sigmoid()).round().long()


images, labels = mnist()[:20_000]
small, rounds = F.avg_pool2d(images, 2), 220
torch.manual_seed(0)
net = tinyddpm.UNet(dims=(32, 64), num_classes=10, image_size=16, attention=())
generator = seed(10)
chosen = (torch.randint(len(small), (32,), generator=generator) for _ in range(rounds))
batches = ((small[k], labels[k]) for k in chosen)
loss = tinyddpm.DenoisingLoss(flow, "flow", times=middle)
adam, rate = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99)), tinyddpm.warmup_cosine(4e-3, 30, rounds)
for step in tinyddpm.train_steps(net, batches, loss, adam, rate, generator=generator):
    pass

# %%
y = torch.arange(10).repeat_interleave(10)
mine = tinyddpm.DDPM(net.eval(), flow, "flow", (1, 16, 16))
x = mine.sample(y, steps=12, scale=3, seeds=range(100))
band(legible(x, y), 50, 90, "of 100 read as asked")
tiles(
    {"after 7,000 noisy digits": x[::10], "more": x[1::10]}, enlarge=4, alt="Twenty small digits, most of them legible"
)

# %% [markdown]
r"""
## Bug museum: four conventions

No convention of flow matching is wrong, but each comes in two versions, and [they must not be mixed](https://github.com/sii-research/tau-0-vla/issues/7).

1. **Sign.** $u = \varepsilon - x_0$ here; $x_0 - \varepsilon$ where the film starts at noise. [Teacher and
   student](https://github.com/primepake/splitmeanflow/issues/2) may differ.
2. **Reversed time.** In many papers $\tau = 1$ is the image. The network is then asked for the wrong noise level.
3. **Two things called v.** $v$ of (10.5), and the velocity $u$, which many call $v$, too.
4. **Shift, applied twice.** For large images the clock is shifted towards noise, $\tau' = k\tau/(1 + (k-1)\tau)$. Where that is done
   [in the schedule and again where the schedule is used](https://github.com/huggingface/diffusers/issues/13243), 3 becomes 9. There is no
   error and no wrong shape; the sampler just spends its steps in the noise. Look at the log-SNR in the middle of the grid.

In log-SNR a shift is a constant, and that is what one should print:

$$\lambda(\tau') = \lambda(\tau) - 2\log k \tag{10.7}$$
"""


# %%
def shift(tau, k):
    return k * tau / (1 + (k - 1) * tau)


def log_snr_of(tau):
    return 2 * ((1 - tau) / tau).log()


tau = torch.linspace(0.05, 0.95, 19)
shifted = tinyddpm.Schedule.named("cosine-shifted").log_snr[1:1000]  # the library's, with k = 2
holds("10.7", log_snr_of(shift(tau, 3)), log_snr_of(tau) - 2 * torch.tensor(3.0).log(), within=1e-5)
holds("10.7", shifted, cosine.log_snr[1:1000] - 2 * torch.tensor(2.0).log(), within=1e-6)
for times, k in (("not at all", 1), ("once", 3), ("twice", 9)):
    print(
        f"shift 3 applied {times}: half-way tau = {shift(0.5, k):.2f}, log-SNR {log_snr_of(torch.tensor(shift(0.5, k))):.1f}"
    )

# %%
right, S = ddpm.denoiser(ten), ddpm.schedule


def velocity(x_t, t):
    x_0_hat = right(x_t, t)
    return tinyddpm.eps_from_x_0(x_0_hat, x_t, t, S) - x_0_hat


museum = {
    "right": right,
    "1. sign": lambda x_t, t: tinyddpm.x_0_from_flow(-velocity(x_t, t), x_t, t, S),
    "2. reversed time": lambda x_t, t: right(x_t, S.T + 1 - t),
    "3. u taken for v": lambda x_t, t: tinyddpm.x_0_from_v(velocity(x_t, t), x_t, t, S),
}
rows = {name: last(ddim(denoiser, start, S, S.grid(10))).x_t for name, denoiser in museum.items()}
tiles(
    rows, alt="Ten digits, and what three mistakes make of them: pure noise, blurred digits, and digits that look right"
)
a_digit_each = torch.stack([x_0[labels_of_test == digit][0] for digit in range(10)])
x_t = tinyddpm.q_sample(a_digit_each, 300, start, S)
for (name, denoiser), (low, high) in zip(museum.items(), ((0.13, 0.175), (1.2, 1.6), (0.18, 0.23), (0.28, 0.38))):
    with torch.no_grad():
        error = (denoiser(x_t, torch.full((10,), 300)) - a_digit_each).square().mean().sqrt()
    band(float(error), low, high, f"rms error of x_0_hat at log-SNR {S.log_snr[300]:.1f}: {name}")

# %% [markdown]
r"""
The third mistake hides best: the film arrives at good digits, because at its end both formulas agree. Only a number shows it. To catch the first
and the third, convert a known pair there and back, as the cell of (10.5) does. That says nothing of a network's clock: to catch the second,
noise a known image and look at the error, as this cell does.

## Exercises

**10a.** A score network is given: turn its answer into the velocity $u$.
"""


# %%
def answer_10a(score, x_t, t, schedule):
    """score and x_t of shape (b, 1, h, w), t of shape (b,). Returns u, of the same shape as x_t."""
    ...


check("10a", answer_10a)

# %% [markdown]
r"""
<details><summary>Hint 10a</summary>

First $\hat\varepsilon$ from the score, then $\hat x_0$ from $\hat\varepsilon$. `schedule.coefficients(t, x_t)` gives both factors.
</details>

<details><summary>Solution 10a</summary>

```python
def answer_10a(score, x_t, t, schedule):
    signal, sigma = schedule.coefficients(t, x_t)
    eps_hat = -sigma * score
    x_0_hat = (x_t - sigma * eps_hat) / signal
    return eps_hat - x_0_hat
```

The score points from the noise back to the data, hence its sign.
</details>

**10b.** In the other convention the film starts at $r = 0$, which is noise, and ends at $r = 1$; its network returns
$x_0 - \varepsilon$. Write Euler's method for it.
"""


# %%
def answer_10b(velocity, z, steps):
    """velocity(z, r) with a number r. Returns z at r = 1 after `steps` equal steps."""
    ...


check("10b", answer_10b)

# %% [markdown]
r"""
<details><summary>Hint 10b</summary>

At which $r$ is the first call, and at which the last? And do you go along the velocity, or against it?
</details>

<details><summary>Solution 10b</summary>

```python
def answer_10b(velocity, z, steps):
    for k in range(steps):
        z = z + velocity(z, k / steps) / steps
    return z
```

Both the time and the velocity have changed their sign, so the step has none. Change only one of them, and it is bug 1.
</details>

**10c.** Double the sides of an image, and each block of $2\times2$ pixels averages four noises: the SNR of what one sees is four times
higher. Shift the clock so that a digit of any side is as hard to see as at 32.
"""


# %%
def answer_10c(tau, side):
    """tau: a tensor of times in [0, 1]. Returns the shifted times."""
    ...


check("10c", answer_10c)

# %% [markdown]
r"""
<details><summary>Hint 10c</summary>

(10.7) says what $k$ does to log-SNR. Which log-SNR do you want to take away?
</details>

<details><summary>Solution 10c</summary>

```python
def answer_10c(tau, side):
    # log-SNR is to fall by log((side / 32) ** 2) = 2 log(side / 32)
    k = side / 32
    return k * tau / (1 + (k - 1) * tau)
```

A side of 64 gives $k = 2$, which is the library's `cosine-shifted` (there in terms of its inverse, 0.5).
</details>

**10d.** At time $t$ a network has a mean squared error of `eps_loss` in $\hat\varepsilon$. What is its error in $\hat u$?
"""


# %%
def answer_10d(eps_loss, t, schedule):
    """Returns the mean squared error of u_hat at the same time, a number."""
    ...


check("10d", answer_10d)

# %% [markdown]
r"""
<details><summary>Hint 10d</summary>

Both are the error of $\hat x_0$ times a weight of (10.6).
</details>

<details><summary>Solution 10d</summary>

```python
def answer_10d(eps_loss, t, schedule):
    snr = float(schedule.log_snr[t].exp())
    of_x_0 = eps_loss / snr
    return of_x_0 * (snr**0.5 + 1) ** 2
```

With much noise the quotient has no bound: a network that is good in $\varepsilon$ may know nothing there.
</details>

**10e. Experiment: how straight is a flow?** The lines of training are straight, and Euler's method is exact on straight lines. How
many of its steps do the paths need, until at least 95 % of 1,000 noises are within 0.05 of one of the three points? Predict, then call
`arrived(steps)` with more and more steps.
"""

# %% tags=["setup"]
thousand = noise(1000, 1, 1, 1, number=11)


def arrived(steps):
    """The share of noises that end within 0.05 of a data point."""
    x = by_ddim(of_points, thousand, flow, flow.grid(steps))
    return float(((x - points.flatten()).abs().amin(-1) < 0.05).double().mean())


# %%
prediction = None  # first write down what you expect
measured = None  # then put the first number of steps here with which arrived(steps) is at least 0.95
check("10e", (prediction, measured))

# %% [markdown]
r"""
<details><summary>Hint 10e</summary>

Print `arrived(1)` first, and think of where (10.4) sends all noises in one step.
</details>

<details><summary>Solution 10e</summary>

```python
prediction = 1
measured = next(steps for steps in range(1, 50) if arrived(steps) >= 0.95)
```

In one step everything lands on the mean of the data, since at $\tau = 1$ nothing is known: the mean velocity leads to the mean image. The
paths bend where it is decided which point they go to. Chapter 14 makes the paths themselves straight.
</details>

## Symbols

| symbol | code name | meaning |
|---|---|---|
| $\tau$ | `tau` | the clock of the straight line: 0 the image, 1 the noise, (10.1) |
| $z_\tau$ | `z` | the point on the line, (10.1) |
| $u$, $\hat u$ | `u`, `u_hat` | $\varepsilon - x_0$, and its mean, (10.3), (10.4) |
| $v$ | `v` | the prediction of Salimans and Ho, (10.5) |
| $\hat\varepsilon$, $\hat x_0$ | `eps_hat`, `x_0_hat` | two views of the denoiser's answer |
| $w$ | `weights` | of a squared error in $\hat x_0$, (10.6) |
| $k$ | `k` | the shift of the clock, (10.7) |
| $\lambda$ | `lam`, `log_snr` | log-SNR |

**Next:** [11 · Why it invents](11_why_it_invents.ipynb). The exact denoiser gives the exact film, by any name, and it ends at
the training digits. Networks are trained towards it, and draw new ones. Why?
"""
