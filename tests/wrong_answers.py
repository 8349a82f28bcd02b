"""Plausible wrong answers to the exercises of the course: the exercise, a program that sets `answer`, and words that
its diagnosis must contain. Written from the notebooks alone, without the course's own list of mistakes."""

WRONG_ANSWERS: list[tuple[str, str, str]] = [
    # 01 The forward process
    ("01a", "def answer(x, s, t, e, a):\n k = a[t] / a[s]\n return k.sqrt() * x + (1 - k).sqrt() * e", "reshape"),
    ("01a", "def answer(x, s, t, e, a):\n k = (a[t] / a[s])[:, None, None, None]\n return k * x + (1 - k) * e", "root"),
    (
        "01a",
        "def answer(x, s, t, e, a):\n k = (a[t] / a[s]).view(-1, 1, 1, 1).sqrt()\n return k * x + (1 - k) * e",
        "sqrt(1 - kept)",
    ),
    (
        "01a",
        "def answer(x, s, t, e, a):\n k = a[t].view(-1, 1, 1, 1)\n return k.sqrt() * x + (1 - k).sqrt() * e",
        "clean image",
    ),
    (
        "01a",
        "def answer(x, s, t, e, a):\n k = a[t - s].view(-1, 1, 1, 1)\n return k.sqrt() * x + (1 - k).sqrt() * e",
        "t - s",
    ),
    ("01b", "def answer(beta, left):\n return math.ceil(math.log(left) / math.log(1 - beta))", "root"),
    ("01b", "def answer(beta, left):\n return math.floor(2 * math.log(left) / math.log(1 - beta))", "round"),
    ("01b", "def answer(beta, left):\n return 2 * math.log(left) / math.log(1 - beta)", "whole"),
    (
        "01c",
        "def answer(x, beta, g):\n return (1 - beta) ** 0.5 * x + beta * torch.randn(x.shape, generator=g)",
        "sqrt(beta)",
    ),
    (
        "01c",
        "def answer(x, beta, g):\n return (1 - beta) ** 0.5 * x + beta**0.5 * torch.rand(x.shape, generator=g)",
        "uniform",
    ),
    ("01c", "def answer(x, beta, g):\n return (1 - beta) ** 0.5 * x + beta**0.5 * torch.randn_like(x)", "generator"),
    ("01c", "def answer(x, beta, g):\n return x + beta**0.5 * torch.randn(x.shape, generator=g)", "shr"),
    ("01d", "answer = 900, 0.319", "accuracy"),
    ("01d", "answer = 900, 500", "still"),
    # 02 Noise schedules
    ("02a", "def answer(lam):\n a = lam.sigmoid()\n return 1 - a[1:] / a[:-1]", "T + 1"),
    ("02a", "def answer(lam):\n return torch.cat([torch.zeros(1).double(), 1 - lam.sigmoid()])", "alpha_bar"),
    (
        "02a",
        "def answer(lam):\n a = torch.cat([torch.ones(2).double(), lam.exp()])\n return 1 - a[1:] / a[:-1]",
        "sigmoid",
    ),
    (
        "02a",
        "def answer(lam):\n a = lam.sigmoid()\n return torch.cat([torch.zeros(2).double(), 1 - a[1:] / a[:-1]])",
        "first",
    ),
    ("02b", "def answer(T):\n return 1000 // T", "not the smallest"),
    (
        "02b",
        "def answer(T):\n b = torch.linspace(1e-4, 0.02, T)\n"
        " return next(k for k in range(1, 50) if (1 - k * b).prod() < 0.01)",
        "root",
    ),
    (
        "02b",
        "def answer(T):\n b = torch.linspace(1e-4, 0.02, T)\n"
        " return max(k for k in range(1, 50) if (1 - k * b).prod().sqrt() >= 0.01)",
        "one too few",
    ),
    ("02c", "def answer(a, k):\n return ((a / (1 - a)).log() + 2 * math.log(k)).sigmoid()", "lower"),
    ("02c", "def answer(a, k):\n return ((a / (1 - a)).log() - math.log(k)).sigmoid()", "pixels"),
    ("02c", "def answer(a, k):\n return a / k**2", "SNR"),
    ("02d", "answer = 30, 0.3", "share"),
    # 03 The reverse process
    (
        "03a",
        "def answer(x, e, t, s):\n b, a = s.beta[t], s.alpha_bar[t]\n return (x - b / (1 - a) * e) / (1 - b).sqrt()",
        "root",
    ),
    ("03a", "def answer(x, e, t, s):\n b, a = s.beta[t], s.alpha_bar[t]\n return x - b / (1 - a).sqrt() * e", "divi"),
    (
        "03a",
        "def answer(x, e, t, s):\n b, a = s.beta[t], s.alpha_bar[t]\n"
        " return (x + b / (1 - a).sqrt() * e) / (1 - b).sqrt()",
        "subtracted",
    ),
    ("03a", "def answer(x, e, t, s):\n a = s.alpha_bar[t]\n return (x - (1 - a).sqrt() * e) / a.sqrt()", "x_0"),
    (
        "03b",
        """
def answer(denoiser, x, schedule, generator):
    for t in range(schedule.T, 0, -1):
        x, _ = tinyddpm.q_posterior(denoiser(x, torch.full((len(x),), t)), x, t, t - 1, schedule)
        x = x + schedule.beta[t].sqrt() * torch.randn(x.shape, generator=generator)
    return x""",
        "last",
    ),
    (
        "03b",
        """
def answer(denoiser, x, schedule, generator):
    for t in range(schedule.T, 0, -1):
        x, _ = tinyddpm.q_posterior(denoiser(x, torch.full((len(x),), t)), x, t, t - 1, schedule)
        if t > 1:
            x = x + schedule.beta[t] * torch.randn(x.shape, generator=generator)
    return x""",
        "root",
    ),
    (
        "03b",
        """
def answer(denoiser, x, schedule, generator):
    for t in range(schedule.T, 0, -1):
        x, _ = tinyddpm.q_posterior(denoiser(x, torch.full((len(x),), t)), x, t, t - 1, schedule)
        if t > 1:
            x = x + schedule.beta[t].sqrt() * torch.randn_like(x)
    return x""",
        "generator",
    ),
    ("03c", "def answer(x, a):\n return torch.tanh(x / (1 - a))", "signal"),
    ("03c", "def answer(x, a):\n return torch.tanh(a**0.5 * x / (1 - a) ** 0.5)", "variance"),
    ("03c", "def answer(x, a):\n return torch.sigmoid(2 * a**0.5 * x / (1 - a))", "probability"),
    ("03c", "def answer(x, a):\n return x.sign()", "nearer number"),
    (
        "03d",
        """
def answer(V, alpha_bar):
    variance = 1.0
    for t in range(len(alpha_bar) - 1, 0, -1):
        abar, before = float(alpha_bar[t]), float(alpha_bar[t - 1])
        a, k = abar / before, abar**0.5 * V / (abar * V + 1 - abar)
        A = (before**0.5 * (1 - a) * k + a**0.5 * (1 - before)) / (1 - abar)
        variance = A**2 * variance + 1 - a
    return variance""",
        "last",
    ),
    (
        "03d",
        """
def answer(V, alpha_bar):
    variance = 1.0
    for t in range(len(alpha_bar) - 1, 0, -1):
        abar, before = float(alpha_bar[t]), float(alpha_bar[t - 1])
        a, k = abar / before, abar**0.5 * V / (abar * V + 1 - abar)
        A = (before**0.5 * (1 - a) * k + a**0.5 * (1 - before)) / (1 - abar)
        variance = A * variance + (1 - a if t > 1 else 0)
    return variance""",
        "square",
    ),
    (
        "03d",
        """
def answer(V, alpha_bar):
    variance = 1.0
    for t in range(len(alpha_bar) - 1, 0, -1):
        abar, before = float(alpha_bar[t]), float(alpha_bar[t - 1])
        a, k = abar / before, abar**0.5 * V / (abar * V + 1 - abar)
        A = (before**0.5 * (1 - a) * k + a**0.5 * (1 - before)) / (1 - abar)
        variance = A**2 * variance
    return variance""",
        "noise",
    ),
    ("03e", "answer = 12.5, 0.06", "per cent"),
    ("03e", "answer = 12.5, 25.3", "all"),
    # 04 Building blocks
    ("04a", "def answer(w, eps):\n return (w - w.mean()) * (w.var(unbiased=False) + eps).rsqrt()", "filter"),
    (
        "04a",
        "def answer(w, eps):\n v, m = torch.var_mean(w, (1, 2, 3), keepdim=True, unbiased=False)\n"
        " return (w - m) / (v + eps).rsqrt()",
        "rsqrt",
    ),
    (
        "04a",
        "def answer(w, eps):\n v, m = torch.var_mean(w, (1, 2, 3), keepdim=True)\n return (w - m) * (v + eps).rsqrt()",
        "unbiased",
    ),
    (
        "04a",
        "def answer(w, eps):\n v, m = torch.var_mean(w, (2, 3), keepdim=True, unbiased=False)\n"
        " return (w - m) * (v + eps).rsqrt()",
        "channel",
    ),
    ("04b", "def answer(y, r):\n return torch.nn.functional.pixel_shuffle(y, r)", "order"),
    ("04b", "def answer(y, r):\n b, c, h, w = y.shape\n return y.reshape(b, c // r**2, h * r, w * r)", "reshape alone"),
    (
        "04b",
        "def answer(y, r):\n b, c, h, w = y.shape\n"
        " return y.reshape(b, r, r, -1, h, w).permute(0, 3, 4, 2, 5, 1).reshape(b, -1, h * r, w * r)",
        "r1",
    ),
    ("04c", "def answer(q, k, i):\n return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)[:, :, i].mean(0)", "column"),
    ("04c", "def answer(q, k, i):\n return (q @ k.mT).softmax(-1)[:, i].mean(0)", "sqrt(d)"),
    ("04c", "def answer(q, k, i):\n return (q @ k.mT / q.shape[-1] ** 0.5).mean(0).softmax(-1)[i]", "scores"),
    ("04c", "def answer(q, k, i):\n return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)[:, i].sum(0)", "heads"),
    (
        "04d",
        "def answer(d, dim):\n m = dim // 2\n w = 10000.0 ** (-torch.arange(m) / (m - 1))\n"
        " return torch.cos(d[:, None] * w).sum(1)",
        "length",
    ),
    (
        "04d",
        "def answer(d, dim):\n m = dim // 2\n w = 10000.0 ** (-torch.arange(m) / m)\n"
        " return torch.cos(d[:, None] * w).mean(1)",
        "m - 1",
    ),
    (
        "04d",
        "def answer(d, dim):\n w = 10000.0 ** (-torch.arange(dim) / (dim - 1))\n"
        " return torch.cos(d[:, None] * w).mean(1)",
        "half",
    ),
    ("04e", "answer = 90, 0.3", "per cent"),
    ("04e", "answer = 90, 99.8", "1000"),
    # 05 The U-Net
    (
        "05a",
        "def answer(size, patch, levels):\n d = patch * 2**levels\n n = -(-size // d) * d // patch\n"
        " return [n // 2**k for k in range(levels)]",
        "halv",
    ),
    ("05a", "def answer(size, patch, levels):\n return [size // patch // 2**k for k in range(levels)]", "pad"),
    (
        "05a",
        "def answer(size, patch, levels):\n d = patch * 2 ** (levels - 1)\n n = -(-size // d) * d // patch\n"
        " return [n // 2**k for k in reversed(range(levels))]",
        "the largest first",
    ),
    (
        "05a",
        "def answer(size, patch, levels):\n d = patch * 2 ** (levels - 1)\n n = -(-size // d) * d\n"
        " return [n // 2**k for k in range(levels)]",
        "patch",
    ),
    (
        "05b",
        """
def answer(x, stem, down, smaller, middle, larger, up, out):
    h, skips = stem(x), []
    for k, block in enumerate(down):
        h = block(smaller[k - 1](h) if k else h)
        skips.append(h)
    h = middle(h)
    for k, block in enumerate(up):
        h = larger[k - 1](h) if k else h
        h = block(torch.cat([skips.pop(), h], 1))
    return out(h)""",
        "h comes first",
    ),
    (
        "05b",
        """
def answer(x, stem, down, smaller, middle, larger, up, out):
    h, skips = stem(x), []
    for k, block in enumerate(down):
        h = block(smaller[k - 1](h) if k else h)
        skips.append(h)
    h = middle(h)
    for k, block in enumerate(up):
        h = larger[k - 1](h) if k else h
        h = block(torch.cat([h, skips.pop(0)], 1))
    return out(h)""",
        "last",
    ),
    (
        "05b",
        """
def answer(x, stem, down, smaller, middle, larger, up, out):
    h, skips = stem(x), []
    for k, block in enumerate(down):
        h = smaller[k - 1](h) if k else h
        skips.append(h)
        h = block(h)
    h = middle(h)
    for k, block in enumerate(up):
        h = larger[k - 1](h) if k else h
        h = block(torch.cat([h, skips.pop()], 1))
    return out(h)""",
        "was given",
    ),
    (
        "05b",
        """
def answer(x, stem, down, smaller, middle, larger, up, out):
    h, skips = stem(x), []
    for k, block in enumerate(down):
        h = block(smaller[k - 1](h) if k else h)
        skips.append(h)
    h = middle(h)
    for k, block in enumerate(up):
        h = larger[k - 1](h) if k else h
        h = block(h + skips.pop())
    return out(h)""",
        "join",
    ),
    (
        "05b",
        """
def answer(x, stem, down, smaller, middle, larger, up, out):
    h, skips = stem(x), []
    for k, block in enumerate(down):
        h = block(smaller[k - 1](h) if k else h)
        skips.append(h)
    for k, block in enumerate(up):
        h = larger[k - 1](h) if k else h
        h = block(torch.cat([h, skips.pop()], 1))
    return out(h)""",
        "middle",
    ),
    ("05c", "answer = 3, 0.25", "other way round"),
    ("05c", "answer = 3, 1.0", "join"),
    # 06 Training
    (
        "06a",
        "def answer(model, x_0, t, eps, a):\n a = a[t]\n x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps\n"
        " return (model(x_t, t) - a.sqrt() * eps + (1 - a).sqrt() * x_0).square().mean()",
        "shape",
    ),
    (
        "06a",
        "def answer(model, x_0, t, eps, a):\n a = a[t].view(-1, 1, 1, 1)\n"
        " x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps\n"
        " return (model(x_t, t) - a.sqrt() * x_0 + (1 - a).sqrt() * eps).square().mean()",
        "exchange the factors",
    ),
    (
        "06a",
        "def answer(model, x_0, t, eps, a):\n a = a[t].view(-1, 1, 1, 1)\n"
        " x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps\n"
        " return (model(x_t, t) - (1 - a).sqrt() * x_0 + a.sqrt() * eps).square().mean()",
        "sign",
    ),
    (
        "06a",
        "def answer(model, x_0, t, eps, a):\n a = a[t].view(-1, 1, 1, 1)\n"
        " x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps\n return (model(x_t, t) - eps).square().mean()",
        "predicts the noise",
    ),
    (
        "06a",
        "def answer(model, x_0, t, eps, a):\n a = a[t].view(-1, 1, 1, 1)\n"
        " x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps\n"
        " return (model(x_t, t) - a.sqrt() * eps + (1 - a).sqrt() * x_0).square().sum()",
        "mean",
    ),
    (
        "06b",
        "def answer(w, g, m, s, n, lr):\n m, s = 0.9 * m + 0.1 * g, 0.99 * s + 0.01 * g**2\n"
        " return w - lr * m / (s.sqrt() + 1e-8), m, s",
        "bias",
    ),
    (
        "06b",
        "def answer(w, g, m, s, n, lr):\n m = (0.9 * m + 0.1 * g) / (1 - 0.9**n)\n"
        " s = (0.99 * s + 0.01 * g**2) / (1 - 0.99**n)\n return w - lr * m / (s.sqrt() + 1e-8), m, s",
        "kept",
    ),
    (
        "06b",
        "def answer(w, g, m, s, n, lr):\n m, s = 0.9 * m + 0.1 * g, 0.99 * s + 0.01 * g**2\n"
        " return w - lr * m / (1 - 0.9**n) / (s / (1 - 0.99**n) + 1e-8), m, s",
        "root",
    ),
    ("06c", "def answer(n, decay):\n return decay**n", "warm"),
    ("06c", "def answer(n, decay):\n return min(decay, (1 + n) / (10 + n)) ** n", "each"),
    (
        "06c",
        "def answer(n, decay):\n return math.prod(min(decay, (1 + k) / (10 + k)) for k in range(n))",
        "count from 1",
    ),
    (
        "06d",
        "def answer(n, T, generator):\n return torch.randint(0, T, (n,), generator=generator)",
        "0 is the clean image",
    ),
    (
        "06d",
        "def answer(n, T, generator):\n return torch.randint(1, T + 1, (1,), generator=generator).expand(n)",
        "one time",
    ),
    ("06d", "def answer(n, T, generator):\n return torch.randint(1, T, (n,), generator=generator)", "never"),
    ("06d", "def answer(n, T, generator):\n return torch.randint(1, T + 1, (n,))", "generator"),
    ("06e", "answer = 1, 0.6", "other way round"),
    # 07 Conditional generation
    (
        "07a",
        """
def answer(y, style, p, generator):
    a, b = torch.rand(len(y), generator=generator), torch.rand(len(y), generator=generator)
    return torch.where(a < p, 10, y), torch.where(b < p, 4, style)""",
        "two coins",
    ),
    (
        "07a",
        """
def answer(y, style, p, generator):
    u = torch.rand((), generator=generator)
    no_y, no_style = u < 2 * p, (u < p) | ((u >= 2 * p) & (u < 3 * p))
    return torch.where(no_y, 10, y), torch.where(no_style, 4, style)""",
        "batch",
    ),
    (
        "07a",
        """
def answer(y, style, p, generator):
    u = torch.rand(len(y), generator=generator)
    return torch.where(u < p, 10, y), torch.where(u < p, 4, style)""",
        "alone",
    ),
    (
        "07a",
        """
def answer(y, style, p, generator):
    u = torch.rand(len(y), generator=generator)
    no_y, no_style = u < 2 * p, (u < p) | ((u >= 2 * p) & (u < 3 * p))
    return torch.where(no_y, 10, y), torch.where(no_style, 10, style)""",
        "null class",
    ),
    (
        "07b",
        "def answer(x, signal, noise, data, y):\n w = (-torch.cdist(x, data) ** 2 / (2 * noise**2)).softmax(1)\n"
        " return w @ torch.nn.functional.one_hot(y, 10).to(w)",
        "signal",
    ),
    (
        "07b",
        "def answer(x, signal, noise, data, y):\n w = (-torch.cdist(x, signal * data) / (2 * noise**2)).softmax(1)\n"
        " return w @ torch.nn.functional.one_hot(y, 10).to(w)",
        "square",
    ),
    (
        "07b",
        """
def answer(x, signal, noise, data, y):
    logits = -torch.cdist(x, signal * data) ** 2 / (2 * noise**2)
    means = [logits[:, y == k].mean(1) if (y == k).any() else torch.full((len(x),), -torch.inf) for k in range(10)]
    return torch.stack(means, 1).softmax(1)""",
        "averaged logarithms",
    ),
    (
        "07b",
        "def answer(x, signal, noise, data, y):\n"
        " w = (-torch.cdist(x, signal * data) ** 2 / (2 * noise**2)).softmax(0)\n"
        " return w @ torch.nn.functional.one_hot(y, 10).to(w)",
        "over the batch",
    ),
    (
        "07c",
        "def answer(of, p, y, w):\n c, u = of[y, torch.arange(len(y))], torch.einsum('bk,kbchw->bchw', p, of)\n"
        " return (1 + w) * c - w * u",
        "Ho and Salimans",
    ),
    (
        "07c",
        "def answer(of, p, y, w):\n c, u = of[y, torch.arange(len(y))], of.mean(0)\n return u + w * (c - u)",
        "likely",
    ),
    (
        "07c",
        "def answer(of, p, y, w):\n c, u = of[y, torch.arange(len(y))], torch.einsum('bk,kbchw->bchw', p, of)\n"
        " return c + w * (u - c)",
        "changed places",
    ),
    ("07d", "answer = 20, 0.43", "per cent"),
    ("07d", "answer = 20, 12", "after"),
    # 08 Making GIFs
    (
        "08a",
        """
def answer(path, frames):
    moved = path.diff(dim=0).flatten(1).norm(dim=1).cumsum(0)
    return sorted({int((moved - v).abs().argmin()) for v in torch.linspace(0, float(moved[-1]), frames)})""",
        "one too small",
    ),
    (
        "08a",
        "def answer(path, frames):\n return torch.linspace(0, len(path) - 1, frames).round().long().tolist()",
        "even in t",
    ),
    (
        "08a",
        """
def answer(path, frames):
    away = (path - path[0]).flatten(1).norm(dim=1)
    return sorted({int((away - v).abs().argmin()) for v in torch.linspace(0, float(away[-1]), frames)})""",
        "crow flies",
    ),
    (
        "08a",
        """
def answer(path, frames):
    moved = torch.cat([torch.zeros(1), path.diff(dim=0).flatten(1).norm(dim=1).cumsum(0)])
    return [int((moved - v).abs().argmin()) for v in torch.linspace(0, float(moved[-1]), frames)]""",
        "twice",
    ),
    (
        "08b",
        """
def answer(levels):
    v = torch.linspace(-1, 1, levels).double()
    c = torch.distributions.Normal(0.0, 1.0).cdf((v[1:] + v[:-1]) / 2)
    return float(torch.special.entr(torch.cat([torch.zeros(1), c, torch.ones(1)]).diff()).sum())""",
        "nat",
    ),
    ("08b", "def answer(levels):\n return math.log2(levels)", "equal"),
    (
        "08b",
        """
def answer(levels):
    p = torch.exp(-(torch.linspace(-1, 1, levels).double() ** 2) / 2)
    p = p / p.sum()
    return float(-(p * p.log2()).sum())""",
        "density",
    ),
    (
        "08b",
        """
def answer(levels):
    c = torch.distributions.Normal(0.0, 1.0).cdf(torch.linspace(-1, 1, levels + 1).double()[1:-1])
    p = torch.cat([torch.zeros(1), c, torch.ones(1)]).diff()
    return float(-(p * p.log2()).sum())""",
        "equal parts",
    ),
    ("08c", "def answer(n):\n return [*range(n), *range(n - 1, -1, -1)]", "twice"),
    ("08c", "def answer(n):\n return [*range(n), *range(n - 2, -1, -1)]", "twice"),
    ("08c", "def answer(n):\n return [*range(n), *range(n - 2, 1, -1)]", "left out"),
    ("08d", "answer = 53, 0.45", "per cent"),
    ("08d", "answer = 53, 310", "upside down"),
    # 09 Ten steps
    (
        "09a",
        "def answer(t, s, schedule):\n a = schedule.alpha_bar\n return float((1 - a[t]) / (1 - a[s]))",
        "eta squared",
    ),
    (
        "09a",
        "def answer(t, s, schedule):\n a = schedule.alpha_bar\n return float(((1 - a[s]) / (1 - a[t])) ** 0.5)",
        "upside down",
    ),
    ("09a", "def answer(t, s, schedule):\n a = schedule.alpha_bar\n return float((1 - a[t] / a[s]) ** 0.5)", "sigma"),
    ("09a", "def answer(t, s, schedule):\n return 1.0", "posterior"),
    ("09b", "def answer(v, b, turn, before):\n return 1.5 * v - 0.5 * b", "equal"),
    ("09b", "def answer(v, b, turn, before):\n return v + (v - b) / before * turn", "middle"),
    ("09b", "def answer(v, b, turn, before):\n return v - (v - b) / before * turn / 2", "back"),
    ("09b", "def answer(v, b, turn, before):\n return (v + b) / 2", "mean"),
    ("09c", "def answer(found, calls, order, wanted):\n return math.ceil(calls * found / wanted)", "order"),
    ("09c", "def answer(found, calls, order, wanted):\n return int(calls * (found / wanted) ** (1 / order))", "round"),
    ("09c", "def answer(found, calls, order, wanted):\n return math.ceil(calls * (found / wanted) ** order)", "root"),
    (
        "09d",
        "def answer(T, steps):\n t = [T // steps * k for k in range(steps - 1, -1, -1)]\n return list(zip(t, t[1:]))",
        "start",
    ),
    ("09d", "def answer(T, steps):\n return [T // steps * k for k in range(steps, -1, -1)]", "pairs"),
    (
        "09d",
        "def answer(T, steps):\n t = [T // steps * k + 1 for k in range(steps, -1, -1)]\n return list(zip(t, t[1:]))",
        "offset",
    ),
    (
        "09d",
        "def answer(T, steps):\n t = [T // steps * k for k in range(steps + 1)]\n return list(zip(t, t[1:]))",
        "upwards",
    ),
    ("09e", "answer = 0.5, 1.0", "grid"),
    # 10 Flow matching
    (
        "10a",
        "def answer(score, x, t, schedule):\n a, s = schedule.coefficients(t, x)\n e = s * score\n"
        " return e - (x - s * e) / a",
        "sign",
    ),
    (
        "10a",
        "def answer(score, x, t, schedule):\n a, s = schedule.coefficients(t, x)\n e = -score\n"
        " return e - (x - s * e) / a",
        "sigma",
    ),
    (
        "10a",
        "def answer(score, x, t, schedule):\n a, s = schedule.coefficients(t, x)\n e = -s * score\n"
        " return a * e - s * (x - s * e) / a",
        "is v",
    ),
    (
        "10a",
        "def answer(score, x, t, schedule):\n a, s = schedule.coefficients(t, x)\n e = -s * score\n"
        " return (x - s * e) / a - e",
        "sign",
    ),
    ("10b", "def answer(f, z, n):\n for k in range(n):\n  z = z - f(z, k / n) / n\n return z", "against"),
    ("10b", "def answer(f, z, n):\n for k in range(n):\n  z = z + f(z, 1 - k / n) / n\n return z", "time"),
    (
        "10b",
        "def answer(f, z, n):\n for k in range(1, n + 1):\n  z = z + f(z, k / n) / n\n return z",
        "start of a step",
    ),
    ("10b", "def answer(f, z, n):\n for k in range(n):\n  z = z + f(z, k / n)\n return z", "step"),
    ("10c", "def answer(tau, side):\n k = 32 / side\n return k * tau / (1 + (k - 1) * tau)", "wrong way round"),
    (
        "10c",
        "def answer(tau, side):\n k = (side / 32) ** 2\n return k * tau / (1 + (k - 1) * tau)",
        "shift applied twice",
    ),
    ("10c", "def answer(tau, side):\n return 2 * tau / (1 + tau)", "side"),
    (
        "10d",
        "def answer(loss, t, schedule):\n return loss * (float(schedule.log_snr[t].exp()) ** 0.5 + 1) ** 2",
        "weight of u alone",
    ),
    (
        "10d",
        "def answer(loss, t, schedule):\n snr = float(schedule.log_snr[t].exp())\n return loss / snr * (snr**0.5 + 1)",
        "square",
    ),
    (
        "10d",
        "def answer(loss, t, schedule):\n snr = float(schedule.alpha_bar[t])\n return loss / snr * (snr**0.5 + 1) ** 2",
        "alpha_bar",
    ),
    ("10e", "answer = 1, 1", "the paths are not"),
    ("10e", "answer = 1, 0.97", "share"),
    # 11 Why it invents
    ("11a", "def answer(data):\n return 2 ** data[0].numel()", "no choice"),
    ("11a", "def answer(data):\n return len(data.unique(dim=0))", "whole"),
    ("11a", "def answer(data):\n return int((data.amax(0) != data.amin(0)).sum())", "doubles"),
    (
        "11b",
        """
def answer(x, signal, sigma, data, r):
    n = 2 * r + 1
    mine = torch.nn.functional.unfold(x, n)[0].T
    known = torch.nn.functional.unfold(data, n).transpose(1, 2).flatten(0, 1)
    w = (-torch.cdist(mine, known).square() / (2 * sigma**2)).softmax(1)
    return (w @ known[:, n * n // 2]).reshape(x.shape[-2] - 2 * r, x.shape[-1] - 2 * r)""",
        "signal",
    ),
    (
        "11b",
        """
def answer(x, signal, sigma, data, r):
    n = 2 * r + 1
    mine = torch.nn.functional.unfold(x, n)[0].T
    known = torch.nn.functional.unfold(data, n).transpose(1, 2).flatten(0, 1)
    w = (-torch.cdist(mine, signal * known).square() / (2 * sigma**2)).softmax(1)
    return (w @ known[:, 0]).reshape(x.shape[-2] - 2 * r, x.shape[-1] - 2 * r)""",
        "first pixel",
    ),
    (
        "11b",
        """
def answer(x, signal, sigma, data, r):
    n = 2 * r + 1
    mine = torch.nn.functional.unfold(x, n)
    known = torch.nn.functional.unfold(data, n)
    w = (-(mine - signal * known).square().sum(1) / (2 * sigma**2)).softmax(0)
    return (w * known[:, n * n // 2]).sum(0).reshape(x.shape[-2] - 2 * r, x.shape[-1] - 2 * r)""",
        "place",
    ),
    (
        "11b",
        """
def answer(x, signal, sigma, data, r):
    n = 2 * r + 1
    mine = torch.nn.functional.unfold(x, n)[0].T
    known = torch.nn.functional.unfold(data, n).transpose(1, 2).flatten(0, 1)
    w = (-torch.cdist(mine, signal * known).square() / (2 * sigma**2)).softmax(1)
    return w @ known[:, n * n // 2]""",
        "shape",
    ),
    (
        "11c",
        "def answer(x, data, limit):\n d, i = torch.cdist(x.flatten(1), data.flatten(1)).min(1)\n"
        " return torch.where(d < limit, i, -1)",
        "shift",
    ),
    (
        "11c",
        """
def answer(x, data, limit):
    moved = torch.stack([x.roll(s, (2, 3)).flatten(1) for s in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))])
    d, i = torch.cdist(moved, data.flatten(1)).amin(0).min(1)
    return torch.where(d < limit, i, -1)""",
        "diagonal",
    ),
    (
        "11c",
        """
def answer(x, data, limit):
    moved = torch.stack([x.roll((a, b), (2, 3)).flatten(1) for a in (-1, 0, 1) for b in (-1, 0, 1)])
    return torch.cdist(moved, data.flatten(1)).amin(0).argmin(1)""",
        "threshold",
    ),
    (
        "11c",
        """
def answer(x, data, limit):
    moved = torch.stack([x.roll((a, b), (2, 3)).flatten(1) for a in (-1, 0, 1) for b in (-1, 0, 1)])
    d, i = torch.cdist(moved, data.flatten(1)).amin(0).min(1)
    return torch.where(d < limit, d, -1)""",
        "index",
    ),
    ("11d", "answer = 10, 0.5", "share"),
    # 12 Steering
    ("12a", "def answer(noises, w):\n return torch.einsum('k,kbchw->bchw', w, noises)", "variance"),
    ("12a", "def answer(noises, w):\n return torch.einsum('k,kbchw->bchw', w, noises) / w.square().sum()", "root"),
    ("12a", "def answer(noises, w):\n return noises.sum(0) / len(noises) ** 0.5", "same weight"),
    ("12a", "def answer(noises, w):\n return torch.einsum('k,kbchw->bchw', w.sqrt(), noises)", "root"),
    (
        "12b",
        "def answer(x, signal, noise, data, k, mask, sigma):\n"
        " a = -torch.cdist(x, signal * data).square() / (2 * noise**2)\n"
        " b = -torch.cdist(k * mask, signal * data * mask).square() / (2 * sigma**2)\n"
        " return (a + b).softmax(1) @ data",
        "shr",
    ),
    (
        "12b",
        "def answer(x, signal, noise, data, k, mask, sigma):\n"
        " a = -torch.cdist(x, signal * data).square() / (2 * noise**2)\n"
        " b = -torch.cdist(k, data).square() / (2 * sigma**2)\n return (a + b).softmax(1) @ data",
        "mask",
    ),
    (
        "12b",
        "def answer(x, signal, noise, data, k, mask, sigma):\n"
        " a = -torch.cdist(x, signal * data).square() / (2 * noise**2)\n"
        " b = -torch.cdist(k * mask, data * mask).square() / (2 * sigma**2)\n"
        " return (a.softmax(1) + b.softmax(1)) / 2 @ data",
        "witnesses multiply",
    ),
    (
        "12b",
        "def answer(x, signal, noise, data, k, mask, sigma):\n"
        " a = (-torch.cdist(x, signal * data).square() / (2 * noise**2)).softmax(1) @ data\n"
        " return torch.where(mask.bool(), k, a)",
        "paste",
    ),
    (
        "12c",
        "def answer(x, known, mask, t, schedule, generator):\n a, s = schedule.signal_noise(t)\n"
        " return torch.where(mask.bool(), a * known + s * torch.randn_like(x), x)",
        "generator",
    ),
    (
        "12c",
        "def answer(x, known, mask, t, schedule, generator):\n a, s = schedule.signal_noise(t)\n"
        " return torch.where(mask.bool(), x, a * known + s * torch.randn(x.shape, generator=generator))",
        "mask",
    ),
    ("12c", "def answer(x, known, mask, t, schedule, generator):\n return torch.where(mask.bool(), known, x)", "noise"),
    (
        "12c",
        "def answer(x, known, mask, t, schedule, generator):\n a, s = schedule.signal_noise(t)\n"
        " return torch.where(mask.bool(), known + s * torch.randn(x.shape, generator=generator), x)",
        "shr",
    ),
    ("12d", "answer = 20, 0.4", "share"),
    # 13 Measuring
    ("13a", "def answer(p, q):\n return math.ceil((p * (1 - p) + q * (1 - q)) / (p - q) ** 2)", "twice"),
    ("13a", "def answer(p, q):\n return math.ceil(4 * p * (1 - p) / (p - q) ** 2)", "q scatters"),
    (
        "13a",
        "def answer(p, q):\n return math.ceil(2 * (p * (1 - p) + q * (1 - q)) / (p - q) ** 2)",
        "four times the variance",
    ),
    ("13a", "def answer(p, q):\n return math.floor(4 * (p * (1 - p) + q * (1 - q)) / (p - q) ** 2)", "round"),
    (
        "13a",
        "def answer(p, q):\n return math.ceil(4 * ((p - p * p) ** 0.5 + (q - q * q) ** 0.5) ** 2 / (p - q) ** 2)",
        "variances",
    ),
    ("13b", "def answer(p):\n return torch.special.entr(p).sum(1).mean().exp()", "mean"),
    ("13b", "def answer(p):\n return torch.special.entr(p.mean(0)).sum()", "e to its power"),
    ("13b", "def answer(p):\n return 2 ** torch.special.entr(p.mean(0)).sum()", "nat"),
    ("13b", "def answer(p):\n return len(p.argmax(1).unique())", "count"),
    (
        "13b",
        "def answer(p):\n e = torch.special.entr\n return (e(p.mean(0)).sum() - e(p).sum(1).mean()).exp()",
        "inception",
    ),
    ("13c", "def answer(nats):\n return nats * math.log(2) / 28**2", "divide"),
    ("13c", "def answer(nats):\n return nats / 28**2", "nat"),
    ("13c", "def answer(nats):\n return nats / math.log(2) / 32**2", "32"),
    ("13d", "answer = 0.27, 1.5", "mean"),
    ("13d", "answer = 0.27, 0.0", "same"),
    # 14 One step
    (
        "14a",
        "def answer(average, z, clocks):\n for u, s in zip(clocks, clocks[1:]):\n"
        "  z = z - (u - s) * average(z, u, 0.0)\n return z",
        "its own end",
    ),
    (
        "14a",
        "def answer(average, z, clocks):\n for u, s in zip(clocks, clocks[1:]):\n"
        "  z = z + (u - s) * average(z, u, s)\n return z",
        "subtracted",
    ),
    (
        "14a",
        "def answer(average, z, clocks):\n for u, s in zip(clocks, clocks[1:]):\n  z = z - average(z, u, s)\n return z",
        "time",
    ),
    ("14b", "def answer(path):\n return (path[1:] - path[:-1] - (path[-1] - path[0])).square().mean()", "time"),
    (
        "14b",
        "def answer(path):\n return (len(path) * (path[1:] - path[:-1]) - (path[-1] - path[0])).square().mean()",
        "one less",
    ),
    (
        "14b",
        "def answer(path):\n k = len(path) - 1\n"
        " return (k * (path[1:] - path[:-1]) - (path[-1] - path[0])).square().mean().sqrt()",
        "root",
    ),
    (
        "14c",
        "def answer(f, z, u, s, v, h):\n return v - (u - s) * (f(z, u + h, s) - f(z, u - h, s)) / (2 * h)",
        "z moves",
    ),
    (
        "14c",
        "def answer(f, z, u, s, v, h):\n"
        " return v + (u - s) * (f(z + h * v, u + h, s) - f(z - h * v, u - h, s)) / (2 * h)",
        "subtracted",
    ),
    (
        "14c",
        "def answer(f, z, u, s, v, h):\n return v - (u - s) * (f(z + h * v, u + h, s) - f(z - h * v, u - h, s)) / h",
        "two h",
    ),
    (
        "14c",
        "def answer(f, z, u, s, v, h):\n return v - (u - s) * (f(z + h * v, u + h, s) - f(z, u, s)) / h",
        "central",
    ),
    ("14d", "answer = 20, 3", "half"),
]
