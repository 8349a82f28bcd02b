"""Distillation into one call: a student whose images are distributed as its teacher's (Yin et al. 2024, "DMD", "DMD2").

    student, follower = GuidedNetwork.of(teacher.model), GuidedNetwork.of(teacher.model)
    loss = DistributionMatchingLoss(teacher, follower, optimizer)

is an objective of train_steps for the student; its batches are reflow_pairs of the teacher.

The student sees the guidance scale, so that no scale costs a second call (Meng et al. 2023, section 3).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..diffusion import Denoiser, Images, Labels, diffusion_loss, make_denoiser, q_sample
from ..guidance import Scale, branches, classifier_free_guidance, clip_x_0
from ..nn import UNet
from ..pipeline import DDPM
from ..samplers import times as same_time
from ..schedules import Schedule, check_step, require
from ..training import Losses, drop_labels, uniform_times
from .few_steps import split_pairs
from .self_conditioning import SelfConditioned

LARGEST_SCALE = 3.0


class GuidedNetwork(SelfConditioned):
    """A network of a few steps that sees the guidance scale, around one of 2c channels in and c out; in the other c it
    finds scale - 1: a module, or the name of its class in NETWORKS with the arguments of that class.
    steps: the most that it was trained for. Raises ValueError for a name that NETWORKS does not have."""

    sees_scale = True

    def __init__(self, network: nn.Module | str, steps: int = 1, **arguments):
        super().__init__(network, **arguments)
        self.steps = steps
        self.arguments |= {"steps": steps}

    @classmethod
    def of(cls, network: UNet, steps: int = 1) -> "GuidedNetwork":
        """A copy of a U-Net, which the scale does not change at first: its weights for the new channels are 0. Raises
        ValueError for another network."""
        require(isinstance(network, UNet), "only a U-Net is copied with the channels of the scale", type(network))
        wide = UNet(**network.arguments | {"channels": 2 * network.channels, "out_channels": network.channels})
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        stem = weights["stem.1.weight"]
        weights["stem.1.weight"] = torch.cat([stem, torch.zeros_like(stem)], dim=1)
        wide.load_state_dict(weights)
        return cls(wide, steps)

    def forward(self, x_t: Images, t: Tensor, y: Labels | None = None, scale: Any = 1.0) -> Images:
        """scale: of classifier-free guidance, one number or one for each image."""
        more = torch.as_tensor(scale, dtype=x_t.dtype, device=x_t.device) - 1
        return super().forward(x_t, t, y, more.reshape(-1, 1, 1, 1).expand_as(x_t))

    @staticmethod
    def make_denoiser(
        model: Callable, schedule: Schedule, predicts: str = "x_0", y: Labels | None = None, scale: Scale = 1.0
    ) -> Denoiser:
        """(x_t, t) -> x_0_hat at this scale, by one call. Raises ValueError as make_denoiser does, and for scales
        outside [1, 3] and those that depend on t."""
        fits = not callable(scale) and 1 <= scale <= LARGEST_SCALE
        require(fits, f"this network was trained for guidance scales from 1 to {LARGEST_SCALE:g}", scale)
        return make_denoiser(partial(model, scale=scale), schedule, predicts, y)


def through_clip(x: Images) -> Images:
    """x clamped to [-1, 1], with the gradient of x (Bengio et al. 2013, the straight-through estimator), but none where
    a step would push x further out of the range: nothing behind the clip would bring it back."""
    made = x + (x.clamp(-1, 1) - x).detach()
    if made.requires_grad:
        made.register_hook(lambda grad: grad.where((x.abs() <= 1) | (grad * x > 0), 0))
    return made


class CriticHead(nn.Module):
    """Scores (b,) how real images of label y are, from one of the teacher's maps (b, c, h, w) of them at noise level t,
    scaled to RMS 1 in each pixel. y, t and the time of the call enter as projections (Miyato & Koyama 2018, eq. 7)."""

    def __init__(self, c: int, num_classes: int, T: int, stride: int, width: int = 64):
        super().__init__()
        first, second = nn.Conv2d(c, width, 3, stride, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.net = nn.Sequential(first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2))
        self.label, self.time = nn.Embedding(num_classes + 1, width), nn.Embedding(T + 1, width)
        self.call, self.out = nn.Embedding(T + 1, width), nn.Linear(width, 1)

    def forward(self, maps: Tensor, y: Labels, t: Tensor, call: Tensor) -> Tensor:
        h = self.net(maps / (maps.square().mean(1, keepdim=True) + 1e-3).sqrt()).mean((2, 3))
        return self.out(h).flatten() + (h * (self.label(y) + self.time(t) + self.call(call))).mean(1)


class Critic(nn.Module):
    """Tells noisy real images from the student's by the maps of the teacher's encoder (Sauer et al. 2024, "LADD",
    section 3; Jolicoeur-Martineau 2019, eq. 7 and 8, where each is compared with a real one):

        loss of the student = weight softplus(critic(real) - critic(image)), and of the critic with the other sign

    A student that only follows its teacher loses variety; real images give it back. The critic takes a step
    of its own for each batch of losses. The teacher is frozen.

    x, y    real images on the student's device, with labels, in 0..num_classes-1
    rate    of its own optimizer, Adam without momentum
    ramp    the steps over which the weight rises

    Raises ValueError for times beyond T, and for a teacher that is no U-Net or has no labels.
    """

    def __init__(
        self,
        teacher: DDPM,
        x: Images,
        y: Labels,
        weight: float = 0.05,
        times: tuple[int, ...] = (5, 60, 200, 400),
        rate: float = 3e-4,
        ramp: int = 150,
    ):
        super().__init__()
        classes, T = cast(int, teacher.num_classes), teacher.schedule.T
        fits, found = isinstance(teacher.model, UNet) and teacher.num_classes is not None, type(teacher.model).__name__
        require(fits, "a critic needs the maps of a U-Net with labels", f"{found} of {teacher.num_classes} classes")
        for t in times:
            check_step(t, 0, T)
        self.teacher, self.weight, self.times, self.ramp = [teacher], weight, times, ramp  # not a part
        teacher.model.requires_grad_(False)
        maps = self.maps(x[:1], torch.ones_like(y[:1]))
        self.heads = nn.ModuleList(CriticHead(m.shape[1], classes, T, 1 + (m.shape[-1] > 4)) for m in maps).to(x)
        self.optimizer = torch.optim.Adam(self.heads.parameters(), rate, betas=(0.0, 0.99))
        self.x = x
        self.order = torch.cat([y.argsort(), torch.randperm(len(y)).to(y)])  # by label, and all for the null one
        self.counts = torch.cat([y.bincount(minlength=classes), torch.tensor([len(y)]).to(y)])
        self.steps = 0

    def maps(self, x: Images, t: Tensor) -> list[Tensor]:
        return cast(UNet, self.teacher[0].model).encode(x, t)[0][1:]

    def real(self, y: Labels, generator: Generator) -> Images:
        """A real image of each label, at random."""
        first, u = self.counts.cumsum(0) - self.counts, torch.rand(len(y), generator=generator, device=y.device)
        return self.x[self.order[first[y] + (u * self.counts[y]).long()]]

    def forward(self, made: Images, y: Labels, call: Tensor, generator: Generator) -> Float[Tensor, " b"]:
        """The loss of each image for the student, which made it at time `call`, (b,)."""
        schedule, n = self.teacher[0].schedule, len(made)
        where: dict = {"generator": generator, "device": made.device}
        t = torch.tensor(self.times, device=made.device)[torch.randint(len(self.times), (n,), **where)]
        eps, real_eps = torch.randn(2, *made.shape, **where)
        with torch.no_grad():
            real = self.maps(q_sample(self.real(y, generator), t, real_eps, schedule), t)
        torch.clear_autocast_cache()
        ours = self.maps(q_sample(made, t, eps, schedule), t)
        F.softplus(-self.margins(real, [m.detach() for m in ours], y, t, call)).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        torch.clear_autocast_cache()
        self.heads.requires_grad_(False)
        losses = F.softplus(self.margins(real, ours, y, t, call)).mean(0)
        self.heads.requires_grad_(True)
        self.steps += 1
        return self.weight * min(1, self.steps / self.ramp) * losses

    def margins(self, real: list[Tensor], ours: list[Tensor], *given: Tensor) -> Float[Tensor, "heads b"]:
        """By how much each head finds the real image of a pair more real."""
        return torch.stack([head(r, *given) - head(o, *given) for head, r, o in zip(self.heads, real, ours)]).float()


@dataclass(frozen=True)
class DistributionMatchingLoss:
    """Moves the student's images to where, with noise, the teacher finds them more probable than a second network does,
    which follows the student (Yin et al. 2024, "DMD", eq. 7 and 8; "DMD2", algorithm 1):

        direction = (x_0_hat of the second network - x_0_hat of the teacher) / mean |image - x_0_hat of the teacher|

    An objective of train_steps. Its batches are reflow_pairs of the teacher, to which the student is also regressed:
    `regress` times the pseudo-Huber distance (Song & Dhariwal 2024, eq. 7). It teaches the second network, the
    follower, once a step; a learning rate of the student that is a fifth of the follower's lets the follower keep up.
    The losses have the right gradients; their values mean nothing.

    times       below T, at which the student is asked again, of its own image with the noise that it came from
    first       the share of images asked at T, where there are other times
    plain       the share of batches at scale 1; the images of the others have scales in [1, 3]
    label_drop  the share of images of a batch at scale 1 that have no label

    Raises ValueError for a teacher that predicts eps, from which no x_0 is found at T, or whose x_T is not pure noise.
    """

    teacher: DDPM
    follower: nn.Module  # the second network, a GuidedNetwork
    optimizer: torch.optim.Optimizer  # of the follower
    times: tuple[int, ...] = ()
    first: float = 0.75
    plain: float = 0.8
    label_drop: float = 0.05
    regress: float = 0.001
    critic: Critic | None = None  # at scale 1

    def __post_init__(self):
        signal = float(self.schedule.sqrt_alpha_bar[-1])
        wanted = "a teacher predicts x_0, v or flow, and at T keeps at most a tenth of the signal"
        require(self.teacher.predicts != "eps" and signal <= 0.1, wanted, f"{self.teacher.predicts} and {signal:.2f}")
        for t in self.times:
            check_step(t, 0, self.schedule.T)

    @property
    def schedule(self) -> Schedule:
        return self.teacher.schedule

    def __call__(self, model: nn.Module, x_0: Images, y: Tensor | None, generator: Generator) -> Losses:
        x_0, eps = split_pairs(x_0)
        t, scale, y = self.draw(x_0, y, generator)
        x_t = self.asked(model, eps, t, y, scale)
        made = through_clip(self.denoiser(model, y, scale)(x_t, t))
        losses = (made * self.direction(made.detach(), y, t, scale, generator)).flatten(1).mean(1)
        if self.critic is not None and y is not None and (scale == 1).all():
            losses = losses + self.critic(made, y, t, generator)
        self.follow(made.detach(), y, t, scale, generator)
        c = 0.00054 * x_0[0].numel() ** 0.5
        huber = ((made - x_0).square().flatten(1).sum(1) + c**2).sqrt() - c
        paired = (t == self.schedule.T) & (scale == 1)
        if y is not None:
            paired &= y != self.teacher.num_classes
        return losses + self.regress * huber * paired, t

    @torch.no_grad()
    def asked(self, model: Callable, eps: Images, t: Tensor, y: Labels | None, scale: Tensor) -> Images:
        """x_t: the noise at T, and below it the student's own image with that noise."""
        x_t, T = eps.clone(), self.schedule.T
        if len(again := (t < T).nonzero().flatten()):
            first = self.denoiser(model, None if y is None else y[again], scale[again])
            x_0_hat = first(eps[again], same_time(T, again)).clamp(-1, 1).to(eps.dtype)
            x_t[again] = q_sample(x_0_hat, t[again], eps[again], self.schedule)
            torch.clear_autocast_cache()  # see self_conditioning
        return x_t

    def draw(self, x_0: Images, y: Labels | None, generator: Generator) -> tuple[Tensor, Tensor, Labels | None]:
        """The times, scales and labels of a batch."""
        where: dict = {"generator": generator, "device": x_0.device}
        n, classes = len(x_0), self.teacher.num_classes
        t = torch.full((n,), self.schedule.T, device=x_0.device)
        if self.times:
            later = torch.tensor(self.times, device=x_0.device)[torch.randint(len(self.times), (n,), **where)]
            t = torch.where(torch.rand(n, **where) < self.first, t, later)
        scale = torch.ones(n, device=x_0.device)
        if y is None or classes is None:
            return t, scale, None
        if torch.rand((), **where) < self.plain:
            return t, scale, drop_labels(y, classes, self.label_drop, generator)
        return t, scale + (LARGEST_SCALE - 1) * torch.rand(n, **where), y

    def denoiser(self, model: Callable, y: Labels | None, scale: Tensor) -> Denoiser:
        return make_denoiser(partial(model, scale=scale), self.schedule, self.teacher.predicts, y)

    def origin(self, t: Tensor, scale: Tensor) -> Tensor:
        """The scale that the follower is shown, less 10 (1 - t / T): by this it tells the calls apart. Without it only
        the mixture of all calls' images is matched, where one call varies too little and two calls too much."""
        return scale - 10 * (1 - t / self.schedule.T)

    def noise(self, made: Images, generator: Generator, edge: int = 0) -> tuple[Tensor, Images]:
        """A time in edge + 1..T - edge and noise for each image."""
        u = edge + uniform_times(len(made), self.schedule.T - 2 * edge, generator)
        return u, torch.randn(made.shape, generator=generator, device=made.device)

    @torch.no_grad()
    def direction(self, made: Images, y: Labels | None, t: Tensor, scale: Tensor, generator: Generator) -> Images:
        """What the second network sees in the noisy images minus what the teacher sees, over the teacher's error. Not
        in the first and last 2 % of the times, where nothing or all is hidden: there the quotient is noise."""
        u, eps = self.noise(made, generator, self.schedule.T // 50)
        x_u, teacher = q_sample(made, u, eps, self.schedule), self.teacher
        wanted = make_denoiser(teacher.model, self.schedule, teacher.predicts)
        if y is not None:
            pair = branches(teacher.model, self.schedule, teacher.predicts, y, cast(int, teacher.num_classes))
            wanted = classifier_free_guidance(*pair, lambda _: scale)
        found = self.denoiser(self.follower, y, self.origin(t, scale))
        x_wanted, x_found = clip_x_0(wanted)(x_u, u), clip_x_0(found)(x_u, u)
        torch.clear_autocast_cache()
        return (x_found - x_wanted) / (made - x_wanted).abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-3)

    def follow(self, made: Images, y: Labels | None, t: Tensor, scale: Tensor, generator: Generator) -> None:
        """One step of the second network, of denoising the student's images."""
        u, eps = self.noise(made, generator)
        network = partial(self.follower, scale=self.origin(t, scale))
        kind = self.teacher.predicts, "mse", "clamped-snr"
        diffusion_loss(network, made, u, eps, self.schedule, y, *kind).backward()
        nn.utils.clip_grad_norm_(self.follower.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
