"""The commands sample, gif, eval and train, and how the options of a command draw."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data import crop_to, to_uint8
from ..datasets.named import DATASETS, LARGEST, load_data
from ..editing.strip import LONGEST
from ..evaluation.evaluate import SampleSpec, evaluate
from ..evaluation.judges import reference_for
from ..evaluation.report import page
from ..files import writable_folder, write_whole
from ..pipeline import DDPM, load_pretrained
from ..samplers import Sampler, Step
from ..tools.jobs import count, progress
from ..trainer.interrupt import is_first
from ..trainer.processes import native_bf16
from ..trainer.recipes import RECIPES
from ..trainer.run import train
from ..viz import frames_even_in_log_snr, image_grid, save_gif, save_picture
from .options import DIGIT, GREYS, Drawing, Eval, Gif, Sample, Sampling, Train, expect, labels_in, number_in
from .terminal import as_number, blocks, images_in_a_row, terminal_colours


def run_sample(ask: Sample) -> None:
    out = None if ask.show and not ask.out else file_of(ask.out or Path("samples.png"), ".npz", ".png")
    y, each = labels_in(ask.digits), number_in(ask.per_digit, "--per-digit")
    enlarge, ddpm = number_in(ask.enlarge, "--enlarge", most=100), load(ask)
    side, how = shown_size(ddpm), sample_arguments(ask, ddpm, y, each)
    columns = images_in_a_row(side) if ask.show else 0
    device = torch.device(ask.device).type
    expect(not ask.bf16 or native_bf16(device), "a device that computes in bfloat16 for --bf16", f"this {device}")
    half = torch.autocast(device, torch.bfloat16, enabled=ask.bf16)
    with half, tqdm(total=len(y) * each * ask.steps, desc="sampling", leave=False, disable=None) as bar:
        x = crop_to(ddpm.sample(**how | {"sampler": partial(counted, how["sampler"], bar)}).cpu(), side)
    for part in x.split(each if each > 1 else len(x)) if ask.show else ():
        print(blocks(image_grid(part, columns) if each > 1 else as_number(part), terminal_colours()))
    if out and out.suffix == ".png":
        save_picture(image_grid(x, each if each > 1 else LONGEST, enlarge), out)
    elif out:
        images = to_uint8(x[:, 0] if x.shape[1] == 1 else x.permute(0, 2, 3, 1)).numpy()
        np.savez_compressed(content := io.BytesIO(), images=images, **({"labels": how["y"]} if "y" in how else {}))
        write_whole(out, content.getvalue())
    if out:
        print(f"{count(len(x), 'image')} in {out}")


def run_gif(ask: Gif) -> None:
    out, frames = writable_folder(ask.out), number_in(ask.frames, "--frames")
    y, ddpm = list(dict.fromkeys(labels_in(ask.digits))), load(ask)
    shown = frames_of(ddpm.sample_steps(**sample_arguments(ask, ddpm, y)), ask.steps, ddpm, frames, ask.poster)
    for i, digit in enumerate(y):
        save_gif([image_grid(x[i : i + 1], enlarge=4, levels=GREYS) for x in shown], out / f"digit_{digit}.gif")
    save_gif([image_grid(x, columns=5, enlarge=2, levels=GREYS) for x in shown], out / "digits.gif")
    print(f"{count(len(y), 'image')}, {count(len(shown), 'frame')} each, in {out}")


def run_eval(ask: Eval) -> None:
    expect(not (ask.checkpoint and ask.weights), "one checkpoint", f"{ask.checkpoint} and --weights {ask.weights}")
    ddpm = load(replace(ask, weights=ask.checkpoint or ask.weights))
    bits = number_in(ask.bits_n, "--bits-n", 2) if ask.bits else 0
    beside: dict = {"reference": reference_for(ddpm, ask.root)} if ask.root else {}
    print(page(evaluate(ddpm, ask.out, spec_of(ask, ask.n), sweeps=ask.sweeps, bits=bits, **beside)), end="")
    print(f"the report is in {ask.out}")


def run_train(ask: Train) -> None:
    expect(ask.data != "folder" or ask.root, "--root PATH, your folder of images, beside --data folder", "no --root")
    recipe = ask.settings
    out = writable_folder(ask.out or Path("runs", ask.recipe if ask.data == "mnist" else f"{ask.recipe}-{ask.data}"))
    least = max(recipe.image_size, DATASETS[ask.data].smallest)
    number_in(ask.seed, "--seed", 0, 2**62)
    size = next(filter(recipe.network.fits, range(least, LARGEST + 1)), least) if ask.size is None else ask.size
    data = load_data(ask.data, ask.root, size, skip_broken=ask.skip_broken)
    epochs = None if recipe.epochs == RECIPES[ask.recipe].epochs else recipe.epochs  # refused beside minutes
    options = {name: getattr(ask, name) for name in ("precision", "compile", "fresh", "accumulate", "tensorboard")}
    train(recipe.suited(data), out, data, epochs, ask.minutes, ask.seed, ask.device, **options, command=ask.command)
    if is_first():
        print(f"the trained network is {out / 'model.safetensors'}")


def load(ask: Drawing, digits: bool = False) -> DDPM:
    """The weights to draw with. Raises ValueError for too many steps; with `digits` unless they draw those by label."""
    number_in(ask.seed, "--seed", 0, 2**62)
    weights = ask.weights or Path("mnist-tiny")
    named = not weights.suffix and not weights.exists()  # of what ships
    ddpm = load_pretrained(str(weights), ask.device) if named else DDPM.load(weights, ask.device)
    right = not digits or ddpm.image_shape == (1, 32, 32) and ddpm.num_classes == 10
    found = f"images {ddpm.image_shape} of {ddpm.num_classes} classes: leave out --weights for the shipped ones"
    expect(right, "weights that draw digits (1, 32, 32) by label", found)
    number_in(ask.steps, f"--steps of {weights}", most=getattr(ddpm.model, "steps", ddpm.schedule.T))
    return ddpm


def spec_of(ask: Sampling, n: int) -> SampleSpec:
    return SampleSpec(n, ask.steps, ask.scale, ask.sampler, ask.seed, ask.eta, ask.grid)


def sample_arguments(ask: Sampling, ddpm: DDPM, y: list[int], each: int = 1) -> dict:
    """Those of ddpm.sample and ddpm.sample_steps, for so many images of each label."""
    n = len(y) * each
    labels: dict = {"n": n} if ddpm.num_classes is None else {"y": ddpm.check_labels(y).repeat_interleave(each)}
    how = spec_of(ask, n).arguments(ddpm.schedule)
    return labels | {"seeds": range(ask.seed, ask.seed + n)} | {k: how[k] for k in ("sampler", "scale", "grid")}


def counted(sampler: Sampler, bar: tqdm, *asked) -> Iterator[Step]:
    """The steps of a sampler, moving the bar by its images at each but the first."""
    for k, step in enumerate(sampler(*asked)):
        bar.update(len(step.x_t) if k else 0)
        yield step


def frames_of(steps: Iterable[Step], total: int, ddpm: DDPM, frames: int, poster: bool) -> list[Tensor]:
    """At most `frames` x_t of a trajectory, even in log-SNR, and the last one, which a poster shows first, too."""
    steps = list(progress(steps, "denoising", total + 1))
    chosen = frames_even_in_log_snr(ddpm.schedule.log_snr[[step.t for step in steps]], frames)
    return [steps[i].x_t for i in chosen[-1:] * poster + chosen]


def shown_size(ddpm: DDPM) -> int:
    """The side of images without the border of 28x28 ones. Old weights, which do not name their data, draw digits."""
    data = ddpm.notes.get("data", "mnist" if ddpm.image_shape == (1, 32, 32) else "")
    return DIGIT if data in DATASETS and DATASETS[data].smallest == DIGIT else ddpm.image_shape[-1]


def file_of(path: Path, *endings: str) -> Path:
    """A file with one of these endings, in a folder that can be written."""
    expect(path.suffix in endings and not path.is_dir(), f"a {' or '.join(endings)} file", repr(path.name))
    return writable_folder(path.parent) / path.name
