"""DDPM: a network, its schedule and what it predicts, as one object to sample from, save and load."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

from .diffusion import Denoiser, check_predicts, make_denoiser
from .files import asset, read_checkpoint, write_checkpoint
from .guidance import Scale, branches, check_scale, classifier_free_guidance, clip_x_0
from .nn import NETWORKS
from .samplers import SAMPLERS, Sampler, Step, ddim, last, noise_like
from .schedules import Grid, Schedule, choose, require

FORMAT_VERSION = 2
BETA = "schedule.beta"  # the only tensor in a file that is not a weight
LabelsLike = Sequence[int] | Tensor | int
Seeds = Sequence[int] | int
Guide = Callable[[Denoiser], Denoiser]
Guidance = Callable[[Denoiser, Denoiser, Scale], Denoiser]


class DDPM:
    """A trained network and everything needed to use it: model, a network as described in tinyddpm.nn; the schedule it
    was trained with; what it predicts, "eps", "x_0", "v" or "flow"; the shape (c, h, w) of its images; and notes on how
    it was trained. Raises ValueError for a network without num_classes, for one that returns another shape than it is
    given, and for a prediction that does not exist or does not fit the schedule."""

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predicts: str,
        image_shape: tuple[int, int, int] = (1, 32, 32),
        notes: dict | None = None,
    ):
        check_predicts(predicts, schedule)
        self.model, self.schedule, self.predicts = model, schedule, predicts
        self.image_shape, self.notes = tuple(image_shape), notes or {}
        self.num_classes: int | None = attribute(model, "num_classes", "the attribute num_classes (None: no labels)")
        check_network(model, self.image_shape)

    def __repr__(self) -> str:
        size, network = sum(map(torch.numel, self.model.parameters())), type(self.model).__name__
        schedule, data = (self.notes.get(name, "unknown") for name in ("schedule", "data"))
        kind = f"{network} of {size:,} parameters, predicts {self.predicts}, schedule {schedule}, T = {self.schedule.T}"
        return f"DDPM({kind}, images {self.image_shape}, {self.num_classes or 'no'} classes, data {data})"

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> "DDPM":
        """Moves the network. Raises ValueError for a device that this machine lacks."""
        self.model.to(find_device(device))
        return self

    def denoiser(
        self,
        y: LabelsLike | None = None,
        scale: Scale = 1.0,
        guide: Guide | None = None,
        guidance: Guidance = classifier_free_guidance,
    ) -> Denoiser:
        """(x_t, t) -> x_0_hat in [-1, 1]: `guidance` of the conditional and the unconditional branch, then `guide`,
        then clipping. Without labels y it is unconditional. Raises ValueError for unknown labels and invalid scales."""
        make: Any = getattr(self.model.eval(), "make_denoiser", make_denoiser)  # a network may bring its own
        what = self.model, self.schedule, self.predicts
        denoiser = make(*what)
        if y is not None:
            check_scale(scale, self.schedule.T)
            y = self.check_labels(y).to(self.device)
            joined = make is make_denoiser and (callable(scale) or scale != 0)
            with_y, without = branches(*what, y, cast(int, self.num_classes)) if joined else (make(*what, y), denoiser)
            sees = getattr(self.model, "sees_scale", False)  # and needs no second branch
            denoiser = make(*what, y, scale) if sees else guidance(with_y, without, scale)
        return clip_x_0(denoiser if guide is None else guide(denoiser))

    def sample_steps(
        self,
        y: LabelsLike | None = None,
        n: int | None = None,
        steps: int | None = None,
        sampler: Sampler | str = ddim,
        scale: Scale = 1.0,
        seeds: Seeds | None = None,
        grid: Grid | None = None,
        guide: Guide | None = None,
        guidance: Guidance = classifier_free_guidance,
    ) -> Iterator[Step]:
        """The sampling trajectory of one image for each label in y, or of n images without labels. Raises ValueError,
        at the call, for arguments that do not fit the model.

        steps     of a grid uniform in t, by default 50, or 1 for a network made for a few, which refuses more than its
                  attribute `steps`; or give a `grid`, such as schedule.grid(20, "log-snr")
        sampler   a function with the signature of ddim, such as partial(ddim, eta=0.5), or a name in SAMPLERS
        scale     of classifier-free guidance: 1 conditional, 0 unconditional, or a function of t such as `interval`
        seeds     one for each image: an image depends on its own seed, not on its batch; random by default
        guide     denoiser -> denoiser: more guidance, such as partial(inpaint, known=known, mask=mask)
        guidance  (conditional, unconditional, scale) -> denoiser; one network call if it asks unconditional first
        """
        walk = choose(SAMPLERS, sampler, "sampler") if isinstance(sampler, str) else sampler
        few = getattr(self.model, "steps", None)
        grid = self.schedule.grid((1 if few else 50) if steps is None else steps) if grid is None else grid
        require(few is None or len(grid) <= few, f"this network takes few steps: at most {few}", len(grid))
        y, generators = self.ask(y, n, seeds)
        x_T = noise_like(torch.empty(len(generators), *self.image_shape, device=self.device), generators)
        return walk(self.denoiser(y, scale, guide, guidance), x_T, self.schedule, grid, generators)

    def sample(self, y: LabelsLike | None = None, n: int | None = None, *, batch_size: int = 200, **how) -> Tensor:
        """New images, (b, c, h, w) in [-1, 1], batch_size at once: the end of sample_steps, with its arguments."""
        y, generators = self.ask(y, n, how.pop("seeds", None))
        images = []
        for first in range(0, len(generators), batch_size):
            part = slice(first, first + batch_size)
            how["seeds"] = [generator.initial_seed() for generator in generators[part]]
            walk = self.sample_steps(n=len(how["seeds"]), **how) if y is None else self.sample_steps(y[part], **how)
            images.append(last(walk).x_t)
        return torch.cat(images)

    def ask(self, y: LabelsLike | None, n: int | None, seeds: Seeds | None) -> tuple[Tensor | None, list[Generator]]:
        """The labels, checked, and a generator for each image."""
        if (y is None) == (n is None):
            raise ValueError("give either labels y, one for each image, or a number n of images without labels")
        labels = None if y is None else self.check_labels(y)
        return labels, seeded(seeds, cast(int, n) if labels is None else len(labels))

    def check_labels(self, y: LabelsLike) -> Tensor:
        """Labels as (b,) int64. Raises ValueError unless they are integers in 0..num_classes-1."""
        classes = self.num_classes
        if classes is None:
            raise ValueError("this model was trained without labels: ask for n images instead of labels y")
        try:
            labels = torch.as_tensor(y)
        except (TypeError, ValueError, RuntimeError):
            labels = torch.tensor(math.nan)
        whole = not labels.is_floating_point() and labels.dtype != torch.bool or not labels.numel()
        if not whole or labels.ndim > 1 or ((labels < 0) | (labels >= classes)).any():
            raise ValueError(f"labels are integers in 0..{classes - 1}, one for each image, got {y}")
        return labels.reshape(-1).long()

    def save(self, path: str | Path) -> None:
        """Writes one .safetensors file. Raises ValueError for a read-only folder, and a network without `arguments`."""
        arguments = attribute(self.model, "arguments", "`arguments`, which rebuild it")
        description: dict = {"network": type(self.model).__name__, "arguments": arguments}
        description |= {"predicts": self.predicts, "image_shape": self.image_shape, "notes": self.notes}
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        write_checkpoint(path, FORMAT_VERSION, description, tensors | {BETA: self.schedule.beta})

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "DDPM":
        """Reads what save wrote; nothing is unpickled. Raises ValueError for a file that is missing, damaged or of
        another format, for a network that NETWORKS does not name, and for a device that this machine lacks."""
        device = find_device(device)
        description, tensors = read_checkpoint(path, FORMAT_VERSION)
        name = str(description.get("network", "UNet"))  # format 1 had U-Nets only
        arguments = description.get("arguments") or description.get("unet") or {}
        if name not in NETWORKS:
            known = f"{path} holds a network {name!r}, and this program knows {', '.join(NETWORKS)}"
            raise ValueError(f"{known}: register its class with tinyddpm.nn.NETWORKS[{name!r}] = {name}")
        try:
            network = choose(NETWORKS, name, "network")
            predicts, (c, h, w), notes = (description[key] for key in ("predicts", "image_shape", "notes"))
            if not (min(c, h, w) >= 1 and c * h * w <= 2**18):
                raise ValueError(f"an image of a file has 1 to {2**18} numbers, got {c} x {h} x {w}")
            schedule = Schedule(tensors.pop(BETA))
            with Bounded(tensors):
                model = network(**{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()})
            model.load_state_dict(tensors)
            return cls(model, schedule, predicts, (c, h, w), dict(notes)).to(device)
        except (ImportError, AttributeError, KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise ValueError(f"{path} describes another network than the one it holds: {error}") from error


class Bounded(TorchFunctionMode):
    """Raises ValueError where a network built from a file makes far more numbers than the file holds."""

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        self.left = 20 * sum(map(torch.numel, weights.values())) + 10**6  # each is made, filled and scaled

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))  # its memory is not touched yet
        self.left -= max(made.numel(), 1) if isinstance(made, Tensor) else 1
        if self.left < 0:
            raise ValueError("its arguments ask for more weights than there are")
        return made


def attribute(model: nn.Module, name: str, what: str) -> Any:
    """An attribute that tinyddpm.nn asks of networks. Raises ValueError for a network without it."""
    if not hasattr(model, name):
        raise ValueError(f"{type(model).__name__} lacks {what}: see tinyddpm.nn")
    return getattr(model, name)


def check_network(model: nn.Module, image_shape: tuple[int, ...]) -> None:
    """Raises ValueError for a network that returns another shape than it is given."""
    x, training = torch.zeros(1, *image_shape, device=next(model.parameters()).device), model.training
    with torch.no_grad():
        out = model.eval()(x, torch.ones(1, dtype=torch.long, device=x.device))
    model.train(training)
    if out.ndim != 4 or out.shape[1] < x.shape[1] or out.shape[2:] != x.shape[2:]:
        raise ValueError(f"a network returns the shape that it is given, {tuple(x.shape)} here, got {tuple(out.shape)}")


def seeded(seeds: Seeds | None, n: int) -> list[Generator]:
    """One generator for each of n >= 1 images; by default of random seeds. Raises ValueError for other counts."""
    seeds = torch.randint(2**63 - 1, (max(n, 0),)).tolist() if seeds is None else seeds
    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    if n < 1 or len(seeds) != n or not all(float(seed).is_integer() for seed in seeds):
        raise ValueError(f"expected at least 1 image and an integer seed for each, got {n} images, seeds {seeds[:5]}")
    return [Generator().manual_seed(int(seed)) for seed in seeds]


def find_device(name: torch.device | str | None = None) -> torch.device:
    """The device of that name; by default the fastest there is. Raises ValueError for one that this machine lacks."""
    cuda = [*(f"cuda:{i}" for i in range(torch.cuda.device_count())), "cuda"]
    known = [*cuda * (len(cuda) > 1), *["mps"] * torch.backends.mps.is_available(), "cpu"]
    name = known[0] if name is None else str(name)
    if name not in known:
        raise ValueError(f"there is no device {name!r} here: choose one of {', '.join(reversed(known))}")
    return torch.device(name)


def load_pretrained(name: str = "mnist-tiny", device: torch.device | str = "cpu") -> DDPM:
    """The weights of that name that ship with the package. Raises ValueError for another name, with those there are."""
    paths = sorted(asset("weights").glob("*.safetensors"), reverse=True)
    shipped = {path.stem: path for path in paths if not path.stem.endswith("-classifier")}
    return DDPM.load(choose(shipped, name, "weights"), device)
