"""DDPM: a network, a schedule and what the network predicts, as one thing to sample from, save and load."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Generator, Tensor

from .ask import check_labels, check_seeds
from .checkpoint import read_checkpoint, write_checkpoint
from .data import asset
from .device import find_device
from .diffusion import Denoiser, check_predicts, make_denoiser
from .extensions.score_sde import euler_maruyama, predictor_corrector
from .guidance import Scale, classifier_free_guidance, clip_x_0
from .nn import UNet
from .samplers import Step, ddim, last, noise_like, p_sample_loop
from .schedules import Schedule
from .solvers import dpm_solver_pp, heun

SAMPLERS = {
    "ddim": ddim,
    "ddpm": p_sample_loop,
    "heun": heun,
    "dpm_solver_pp": dpm_solver_pp,
    "euler_maruyama": euler_maruyama,
    "predictor_corrector": predictor_corrector,
}
WITHOUT_NOISE = ("heun", "dpm_solver_pp")
Guide = Callable[[Denoiser], Denoiser]
DATA_RANGE = [-1, 1]
BETA = "schedule.beta"  # the one tensor in a file that is no weight


class DDPM:
    """A trained network and all that it takes to use it.

    model        a UNet
    schedule     the one it was trained with
    predicts     "eps", "x_0", "v" or "flow"
    image_shape  (c, h, w) of what it draws
    notes        how the weights were made, for people: saved and loaded along
    """

    def __init__(
        self,
        model: UNet,
        schedule: Schedule,
        predicts: str,
        image_shape: tuple[int, int, int] = (1, 32, 32),
        notes: dict | None = None,
    ):
        check_predicts(predicts, schedule)
        self.model, self.schedule, self.predicts = model, schedule, predicts
        self.image_shape, self.notes = tuple(image_shape), notes or {}

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> "DDPM":
        """Moves the network, and with it the sampling. Raises ValueError for a device that is not there."""
        self.model.to(find_device(device))
        return self

    def denoiser(self, y: Tensor | None = None, scale: Scale = 1.0, guide: Guide | None = None) -> Denoiser:
        """(x_t, t) -> x_0_hat for the labels y (b,), under classifier-free guidance, then guide, held in
        [-1, 1].

        y None is the unconditional model, whatever the scale. Raises ValueError for labels that it lacks.
        """
        believed = make_denoiser(self.model, self.schedule, self.predicts)
        self.model.eval()
        if y is not None:
            y = self.check_labels(y)
            conditional = make_denoiser(self.model, self.schedule, self.predicts, y.to(self.device))
            believed = classifier_free_guidance(conditional, believed, scale)
        return clip_x_0(believed if guide is None else guide(believed))

    def sample(
        self,
        y: Sequence[int] | Tensor | int | None = None,
        n: int | None = None,
        steps: int = 50,
        sampler: str = "ddim",
        scale: Scale = 1.0,
        seeds: Sequence[int] | None = None,
        eta: float = 0.0,
        callback: Callable[[Step], None] | None = None,
        spacing: str = "uniform",
        guide: Guide | None = None,
    ) -> Tensor:
        """New images, (b, c, h, w) float32 in [-1, 1]: one for each label in y, or n without labels.

        steps    of the time grid, 1..T: each a call of the network, two with heun and predictor_corrector
        sampler  one of SAMPLERS; "ddpm" is ancestral
        scale    of classifier-free guidance: 1 is the plain conditional model, 0 the unconditional; a number,
                 or a function of t such as guidance.interval makes
        seeds    one an image; an image depends on its own seed alone, not on the batch it is in
        eta      how much fresh noise "ddim" adds on the way: 0 none, 1 as much as "ddpm"
        callback is shown every Step on the way
        spacing  of the grid: "uniform", "quadratic" or "log-snr"
        guide    denoiser -> denoiser: more guidance, such as partial(inpaint, known=known, mask=mask)

        Raises ValueError for labels, steps, seeds, an eta or a sampler that this model does not have.
        """
        walk = self.sample_steps(y, n, steps, sampler, scale, seeds, eta, spacing, guide)
        if callback is None:
            return last(walk).x_t
        for step in walk:
            callback(step)
        return step.x_t

    def sample_steps(
        self,
        y: Sequence[int] | Tensor | int | None = None,
        n: int | None = None,
        steps: int = 50,
        sampler: str = "ddim",
        scale: Scale = 1.0,
        seeds: Sequence[int] | None = None,
        eta: float = 0.0,
        spacing: str = "uniform",
        guide: Guide | None = None,
    ) -> Iterator[Step]:
        """The same as a generator of every Step on the way; the last one holds the images."""
        if sampler not in SAMPLERS:
            raise ValueError(f"there is no sampler {sampler!r}: choose one of {', '.join(SAMPLERS)}")
        if eta and sampler != "ddim":
            raise ValueError(f"eta is how much noise ddim adds: {sampler} has none, got eta = {eta:g}")
        grid = self.schedule.grid(steps, spacing)
        y = self.check_labels(y)
        if y is not None and n is not None:
            raise ValueError("y says already how many to draw: for four sevens give y=[7] * 4 and no n")
        if y is None and n is None:
            raise ValueError("say what to draw: labels y, or for images without labels their number n")
        generators = [
            Generator().manual_seed(seed) for seed in check_seeds(seeds, len(y) if n is None else n)
        ]
        x_T = noise_like(torch.empty(len(generators), *self.image_shape, device=self.device), generators)
        options = {} if sampler in WITHOUT_NOISE else {"generator": generators}
        options |= {"eta": eta} if sampler == "ddim" else {}
        return SAMPLERS[sampler](self.denoiser(y, scale, guide), x_T, self.schedule, grid, **options)

    def check_labels(self, y: Sequence[int] | Tensor | int | None) -> Tensor | None:
        """Labels as (b,) int64. Raises ValueError for labels that the network was not trained on."""
        return None if y is None else check_labels(y, self.model.num_classes)

    def save(self, path: str | Path) -> None:
        """Writes one .safetensors file: the weights, and as metadata all that it takes to rebuild the
        rest. A file of that name is replaced as a whole. Raises ValueError for a folder that cannot be
        written."""
        description = {
            "unet": self.model.arguments,
            "predicts": self.predicts,
            "image_shape": self.image_shape,
            "data_range": DATA_RANGE,
            "notes": self.notes,
        }
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        tensors[BETA] = self.schedule.beta
        write_checkpoint(Path(path), description, tensors)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "DDPM":
        """Reads what save wrote. Nothing is unpickled.

        Raises ValueError for a file that is missing, cut off, of another format or version, or whose
        weights do not fit the network that it describes; and for a device that this machine lacks.
        """
        find_device(device)
        description, tensors = read_checkpoint(Path(path))
        try:
            if description["data_range"] != DATA_RANGE:
                raise ValueError(f"its images lie in {description['data_range']}, not in {DATA_RANGE}")
            unet = {k: tuple(v) if isinstance(v, list) else v for k, v in description["unet"].items()}
            model = UNet(**unet)
            schedule = Schedule(tensors.pop(BETA))
            model.load_state_dict(tensors)
            described = [description[key] for key in ("predicts", "image_shape", "notes")]
            ddpm = cls(model.eval(), schedule, *described)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path} describes another network than the one it holds: {error}") from error
        return ddpm.to(device)


def load_pretrained(name: str = "mnist-tiny", device: torch.device | str = "cpu") -> DDPM:
    """Weights that ship with the package. Raises ValueError for other names, with those there are."""
    folder = asset("weights")
    names = sorted(path.stem for path in folder.glob("mnist-*.safetensors"))
    if name not in names:
        there = (
            f"choose one of {', '.join(names)}" if names else f"{folder} holds none, install tinyddpm again"
        )
        raise ValueError(f"there are no weights {name!r}: {there}")
    return DDPM.load(folder / f"{name}.safetensors", device)
