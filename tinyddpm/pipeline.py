"""DDPM: a network, a schedule and what the network predicts, as one thing to sample from, save and load."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Generator, Tensor

from .checkpoint import read_checkpoint, write_checkpoint
from .data import asset
from .device import find_device
from .diffusion import Denoiser, check_predicts, make_denoiser
from .guidance import classifier_free_guidance, clip_x_0
from .nn import UNet
from .samplers import Step, ddim, last, noise_like, p_sample_loop
from .schedules import Schedule

SAMPLERS = {"ddim": ddim, "ddpm": p_sample_loop}
DATA_RANGE = [-1, 1]
BETA = "schedule.beta"  # the one tensor in a file that is no weight


class DDPM:
    """A trained network and all that it takes to use it.

    model        a UNet
    schedule     the one it was trained with
    predicts     "eps", "x_0" or "v"
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
        check_predicts(predicts)
        self.model, self.schedule, self.predicts = model, schedule, predicts
        self.image_shape, self.notes = tuple(image_shape), notes or {}

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> "DDPM":
        """Moves the network, and with it the sampling. Raises ValueError for a device that is not there."""
        self.model.to(find_device(device))
        return self

    def denoiser(self, y: Tensor | None = None, scale: float = 1.0) -> Denoiser:
        """(x_t, t) -> x_0_hat for the labels y (b,), under classifier-free guidance, held in [-1, 1].

        y None is the unconditional model, whatever the scale.
        """
        unconditional = make_denoiser(self.model, self.schedule, self.predicts)
        if y is None:
            return clip_x_0(unconditional)
        conditional = make_denoiser(self.model, self.schedule, self.predicts, y.to(self.device))
        return clip_x_0(classifier_free_guidance(conditional, unconditional, scale))

    def sample(
        self,
        y: Sequence[int] | Tensor | int | None = None,
        n: int | None = None,
        steps: int = 50,
        sampler: str = "ddim",
        scale: float = 1.0,
        seeds: Sequence[int] | None = None,
        eta: float = 0.0,
        callback: Callable[[Step], None] | None = None,
    ) -> Tensor:
        """New images, (b, c, h, w) float32 in [-1, 1]: one for each label in y, or n without labels.

        steps    calls of the network for each image, 1..T
        sampler  "ddim" or "ddpm" (ancestral)
        scale    of classifier-free guidance: 1 is the plain conditional model, 0 the unconditional
        seeds    one an image; an image depends on its own seed alone, not on the batch it is in
        eta      how much fresh noise "ddim" adds on the way: 0 none, 1 as much as "ddpm"
        callback is shown every Step on the way

        Raises ValueError for labels, steps, seeds, an eta or a sampler that this model does not have.
        """
        walk = self.sample_steps(y, n, steps, sampler, scale, seeds, eta)
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
        scale: float = 1.0,
        seeds: Sequence[int] | None = None,
        eta: float = 0.0,
        spacing: str = "uniform",
    ) -> Iterator[Step]:
        """The same as a generator of every Step on the way; the last one holds the images."""
        if sampler not in SAMPLERS:
            raise ValueError(f"there is no sampler {sampler!r}: choose one of {', '.join(SAMPLERS)}")
        if eta and sampler != "ddim":
            raise ValueError(f"eta is how much noise ddim adds: {sampler} has none, got eta = {eta:g}")
        options = {"eta": eta} if sampler == "ddim" else {}
        grid = self.schedule.grid(steps, spacing)
        y = self.check_labels(y)
        if y is not None and n is not None:
            raise ValueError("y says already how many to draw: for four sevens give y=[7] * 4 and no n")
        if y is None and n is None:
            raise ValueError("say what to draw: labels y, or for images without labels their number n")
        n = len(y) if n is None else n
        if n < 1:
            raise ValueError(f"the number of images must be at least 1, got {n}")
        if seeds is None:
            seeds = torch.randint(2**63 - 1, (n,)).tolist()
        seeds = [seeds] if isinstance(seeds, int) else list(seeds)
        if len(seeds) != n:
            raise ValueError(f"one seed an image: got {len(seeds)} seeds for {n} images")
        generators = [Generator().manual_seed(int(seed)) for seed in seeds]
        x_T = noise_like(torch.empty(n, *self.image_shape, device=self.device), generators)
        self.model.eval()
        denoiser = self.denoiser(y, scale)
        return SAMPLERS[sampler](denoiser, x_T, self.schedule, grid, generator=generators, **options)

    def check_labels(self, y: Sequence[int] | Tensor | int | None) -> Tensor | None:
        """Labels as (b,) int64. Raises ValueError for labels that the network was not trained on."""
        if y is None:
            return None
        classes = self.model.num_classes
        if classes is None:
            raise ValueError("this model was trained without labels: ask for n images instead of labels y")
        try:
            y = torch.as_tensor(y)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"labels are one integer an image, got {y!r}") from error
        if y.numel() and y.is_floating_point() or y.dtype == torch.bool or y.ndim > 1:
            raise ValueError(f"labels are one integer an image, got {y.dtype} of shape {tuple(y.shape)}")
        if len(y := y.reshape(-1).long()) and (y.min() < 0 or y.max() >= classes):
            raise ValueError(
                f"labels must be in 0..{classes - 1}, got {sorted(set(y.tolist()) - set(range(classes)))}"
            )
        return y

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
