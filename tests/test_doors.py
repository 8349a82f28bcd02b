"""The public doors: a bad argument is refused when the door is called, in a sentence that says what to do.

A row is a door, a bad input and words that the message must contain. The tests of a wing have more of its doors.
"""

import math
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import tinyddpm
from tinyddpm import (
    DDPM,
    DenoisingLoss,
    Schedule,
    UNet,
    clip_x_0,
    data,
    ddim,
    diffusion_loss,
    interval,
    train_steps,
    viz,
)
from tinyddpm.extensions.learned_variance import LearnedVariance
from tinyddpm.extensions.self_conditioning import self_conditioned
from tinyddpm.files import read_checkpoint, writable_folder, write_checkpoint
from tinyddpm.guidance import classifier_free_guidance
from tinyddpm.nn.conv import ConvBlock
from tinyddpm.nn.embedding import SinusoidalEmbedding
from tinyddpm.nn.resample import SpaceToDepth, Upsample
from tinyddpm.nn.resnet import ResnetBlock
from tinyddpm.pipeline import find_device
from tinyddpm.samplers import SAMPLERS, VARIANCES
from tinyddpm.schedules import BETAS, SPACINGS, check_grid

T50 = Schedule.named("cosine", 50)
PURE_NOISE = Schedule.named("flow", 50)
X = torch.zeros(2, 1, 4, 4)
NAN, INF = math.nan, math.inf


def never(*_):
    raise AssertionError("the door let this through")


def unet(**arguments):
    return UNet(**{"dims": (8, 16), "attention": (), "num_classes": 10} | arguments)


def draw(**how):
    return DDPM(unet(), T50, "v").sample(**{"steps": 2} | how)


def loss(schedule=T50, **how):
    return diffusion_loss(never, X, torch.tensor([1, 2]), X, schedule, **how)


def table(*beta):
    return torch.tensor(beta)


def run(name, grid=None, generator=None):
    return SAMPLERS[name](never, X, T50, grid, generator)


def generators(n):
    return [torch.Generator()] * n


class Plain(nn.Module):
    """A network that lacks what ours have."""

    num_classes = None

    def __init__(self, out=lambda x: x):
        super().__init__()
        self.out, self.weight = out, nn.Parameter(torch.zeros(1))

    def forward(self, x, t, y=None):
        return self.out(x)


def names(table):
    return ", ".join(table)


INSIDE = r"betas must be in \(0, 1\) or be 1 at T, but these for T = 2 range from"
CLEAN = r"beta\[0\] = 0 \(the clean image\), got shape .*: prepend a 0"
SCHEDULES = [
    *[
        (partial(Schedule.named, name, 0), r"T, the number of noising steps, must be an integer of at least 1, got 0")
        for name in BETAS
    ],
    *[(partial(Schedule, table(0, 0.5, bad)), INSIDE) for bad in (-0.1, 0, 1.1, NAN)],
    *[(partial(Schedule, table(0, bad, 0.5)), INSIDE) for bad in (-0.1, 0, 1, 1.1, NAN)],
    *[(partial(Schedule, torch.tensor(bad)), CLEAN) for bad in ([0.1, 0.2], [0.0], [[0.0, 0.1]], 0.0)],
    (
        partial(tinyddpm.linear_betas, 10),
        r"betas must be in \(0, 1\), but .* T = 10 range from 0.01 to 2: choose a larger T",
    ),
    (partial(tinyddpm.linear_betas, 20), r"betas must be in \(0, 1\), but .* to 1: .*or the cosine schedule"),
    (partial(tinyddpm.cosine_betas, 20, max_beta=1.0), r"betas must be in \(0, 1\), but"),
    (lambda: tinyddpm.zero_terminal_snr(tinyddpm.linear_betas(1)), "needs T of at least 2: at T = 1 the last step"),
    *[
        (partial(tinyddpm.zero_terminal_snr, table(0, *bad)), INSIDE)
        for bad in ((0.5, 1.5), (1, 0.5), (0, 0.5), (NAN, 0.5))
    ],
    *[(partial(tinyddpm.zero_terminal_snr, torch.tensor(bad)), CLEAN) for bad in ([0.1, 0.2, 0.3], [0.0])],
    (partial(Schedule.named, "cosin"), f"unknown schedule 'cosin': choose one of {names(BETAS)}"),
]

BOUNDS = "0 <= s < t <= T = 50, got t={}, s={}"
PAIRS = r"a sequence of steps \(t, s\), and not empty: schedule.grid\(steps\) makes one"
GRIDS = [
    *[(partial(T50.grid, n), f"1 <= steps <= start <= T = 50, got steps={n}, start=50") for n in (-1, 0, 51)],
    *[(partial(T50.grid, 1, start=n), f"1 <= steps <= start <= T = 50, got steps=1, start={n}") for n in (-1, 0, 51)],
    *[(partial(T50.grid, n, start=20), f"got steps={n}, start=20") for n in (0, 21, 50)],
    *[(partial(PURE_NOISE.grid, n, "log-snr"), f"got steps={n}, start=50") for n in (0, 51)],
    (partial(T50.grid, 5, "karras"), f"unknown spacing 'karras': choose one of {names(SPACINGS)}"),
    *[(partial(check_grid, bad, 50), PAIRS) for bad in ([], [50, 20, 0], [(50,)], [(50, 20, 0)], ["50"])],
    *[
        (partial(check_grid, [(9, 5), (t, 0)], 50), rf"step \({t}, 0\) .* must start at 5, where the last")
        for t in (4, 6)
    ],
    *[(partial(check_grid, [step], 50), BOUNDS.format(*step)) for step in ((5, 5), (51, 0), (5, -1), (0, 0), (NAN, 0))],
    *[(partial(check_grid, [(9, 5), (5, s)], 50), BOUNDS.format(5, s)) for s in (5, -1)],
    (partial(check_grid, [(9, 5), (5, 7)], 50), BOUNDS.format(5, 7) + " .only p_sample_loop climbs"),
    *[(partial(check_grid, [(9, 5), (5, s)], 50, climbs=True), "s < t <= T = 50, got t=") for s in (5, 51, -1)],
    *[(partial(check_grid, grid, 50, climbs=True), BOUNDS.format(*grid[0])) for grid in ([(20, 30)], [(0, 1), (1, 0)])],
    *[
        (partial(tinyddpm.q_posterior, X, X, *step, T50), BOUNDS.format(*step))
        for step in ((5, 5), (5, 6), (51, 50), (5, -1))
    ],
    *[(partial(tinyddpm.p_sample, X, X, *step, T50), BOUNDS.format(*step)) for step in ((5, 5), (51, 50), (5, -1))],
]

NO_EPS = r"x_T is pure noise \(zero terminal SNR\), .*: predict v, x_0 or flow"
PREDICTION = f"choose one of {names(tinyddpm.PREDICTIONS)}"
DIFFUSION = [
    (partial(tinyddpm.make_denoiser, never, T50, "epsilon"), f"unknown prediction 'epsilon': {PREDICTION}"),
    (partial(loss, predicts="noise"), f"unknown prediction 'noise': {PREDICTION}"),
    (partial(loss, loss="l2"), "unknown loss 'l2': choose one of mse, l1, huber"),
    (partial(tinyddpm.make_denoiser, never, PURE_NOISE), NO_EPS),
    (partial(loss, PURE_NOISE), NO_EPS),
    (lambda: DDPM(unet(), PURE_NOISE, "eps"), NO_EPS),
    (lambda: tinyddpm.dataset_oracle(X[:0], T50), "the oracle of a data set needs at least one image, got none"),
    *[
        (partial(tinyddpm.gaussian_oracle, 0.0, v, T50), "variance cannot be negative")
        for v in (-1.0, table(0.1, -0.1))
    ],
]

ONE_EACH = "expected one generator, or one for each of 2 images, got"
VARIANCE = f"unknown variance 'small': choose one of {names(VARIANCES)}"
BROKEN = [
    ([], "not empty"),
    ([50, 20, 0], r"a sequence of steps \(t, s\)"),
    ([(50, 20), (10, 0)], "must start at 20, where the last ended"),
    ([(20, 30), (30, 0)], BOUNDS.format(20, 30)),
    ([(50, 20), (20, 20)], BOUNDS.format(20, 20)),
    ([(51, 0)], BOUNDS.format(51, 0)),
    ([(3, -1)], BOUNDS.format(3, -1)),
]
SAMPLING = [
    *[(partial(run, name, grid), words) for name in SAMPLERS for grid, words in BROKEN],
    *[(partial(run, name, None, generators(n)), ONE_EACH) for name in SAMPLERS for n in (0, 1, 3)],
    *[(partial(run, name, None, 7), ONE_EACH) for name in SAMPLERS],
    *[
        (partial(run, name, [(9, 5), (5, 7)]), "only p_sample_loop climbs")
        for name in ("ddim", "heun", "dpm_solver_pp")
    ],
    *[
        (partial(ddim, never, X, T50, eta=eta), rf"eta, .* must be in \[0, 1\] .*, got {eta}")
        for eta in (-0.1, 1.1, NAN)
    ],
    (partial(tinyddpm.p_sample_loop, never, X, T50, variance="small"), VARIANCE),
    *[(partial(tinyddpm.p_sample, X, X, 5, s, T50, "small"), VARIANCE) for s in (3, 0)],
    (lambda: tinyddpm.last(iter([])), "trajectory has no steps left: sample again, or keep the steps in a list"),
]

NUMBER = FINITE = "a guidance scale is a finite number, or a function of t"
BAD_SCALES = [(NAN, FINITE), (INF, FINITE), (-INF, FINITE), (table(1.0, 2.0), NUMBER), (1j, NUMBER)]
BAD_FUNCTIONS = [
    (lambda t: NAN, FINITE),
    (lambda t: torch.where(t > 10, INF, 2.0), FINITE),
    (lambda t: torch.full((len(t) + 1,), 2.0), NUMBER),
    (lambda t: torch.full((len(t), 1), 2.0), NUMBER),
    (lambda t: torch.full((len(t), 1, 1, 1), 2.0), NUMBER),
]
GUIDANCE = [
    *[(partial(classifier_free_guidance, never, never, scale), words) for scale, words in BAD_SCALES],
    *[(partial(interval, scale, 1, 10), words) for scale, words in BAD_SCALES],
    *[(partial(interval, 2.0, 1, 10, outside=scale), words) for scale, words in BAD_SCALES],
    *[(partial(draw, y=[1], scale=scale), words) for scale, words in BAD_SCALES + BAD_FUNCTIONS],
    *[
        (partial(interval, 3.0, *ends), "needs low <= high, got {}..{}".format(*ends))
        for ends in ((5, 4), (NAN, 4), (1, NAN))
    ],
    *[
        (partial(clip_x_0, never, *ends), "clipping needs low < high, got")
        for ends in ((1.0, -1.0), (0.5, 0.5), (NAN, 1.0))
    ],
]

LABELS = r"labels are integers in 0..9, one for each image, got"
SEEDS = "expected at least 1 image and an integer seed for each, got"
NETWORK = r"returns the shape that it is given, \(1, 1, 32, 32\) here, got"
PIPELINE = [
    *[(partial(draw, y=y), LABELS) for y in ([0, 10], [-1], [0.5], [[1, 2]], ["a"], "7", [True], table(NAN))],
    (partial(DDPM(unet(), T50, "v").denoiser, torch.tensor([1, 10])), LABELS),
    *[(partial(draw, **how), "give either labels y, .*, or a number n of images") for how in ({}, dict(y=[1], n=2))],
    *[(partial(draw, n=n), SEEDS) for n in (0, -1)],
    (partial(draw, y=[]), SEEDS),
    *[(partial(draw, y=[1, 2], seeds=seeds), SEEDS) for seeds in ([0], [0, 1, 2], 0, [1, 2.5], [1, NAN])],
    *[(partial(draw, n=1, steps=n), f"need 1 <= steps <= start <= T = 50, got steps={n}") for n in (0, 51)],
    (partial(draw, n=1, sampler="euler"), f"unknown sampler 'euler': choose one of {names(SAMPLERS)}"),
    (partial(draw, n=1, sampler=partial(ddim, eta=1.5)), r"eta, .* in \[0, 1\]"),
    (partial(draw, n=1, grid=[(50, 20), (10, 0)]), "must start at 20"),
    (lambda: DDPM(unet(num_classes=None), T50, "v").sample(y=[1]), "trained without labels: ask for n images"),
    (lambda: DDPM(nn.Linear(1, 1), T50, "v"), "Linear lacks the attribute num_classes .*: see tinyddpm.nn"),
    (lambda: DDPM(Plain(lambda x: x[..., :-1]), T50, "v"), NETWORK + r" \(1, 1, 32, 31\)"),
    (lambda: DDPM(Plain(lambda x: x.flatten(1)), T50, "v"), NETWORK + r" \(1, 1024\)"),
    (lambda: DDPM(Plain(lambda x: x[:, :0]), T50, "v"), NETWORK + r" \(1, 0, 32, 32\)"),
    (lambda: DDPM(unet(), T50, "score"), f"unknown prediction 'score': {PREDICTION}"),
    (
        lambda: DDPM(Plain(), T50, "v").save("x.safetensors"),
        "Plain lacks `arguments`, which rebuild it: see tinyddpm.nn",
    ),
    (lambda: DDPM(unet(), T50, "v").to("tpu"), "no device 'tpu' here: choose one of cpu"),
    (partial(find_device, "cuda:99"), "no device 'cuda:99' here: choose one of cpu"),
    (partial(tinyddpm.load_pretrained, "huge"), "unknown weights 'huge': choose one of mnist-tiny"),
]

SIZES = [(28, 30, "32x32"), (33, 16, "40x16"), (12, 12, "16x16")]
NETWORKS = [
    *[
        (partial(SinusoidalEmbedding, dim), rf"even dim of at least 4.*got {dim}: use {use}")
        for dim, use in ((0, 4), (2, 4), (3, 4), (5, 6), (33, 34))
    ],
    *[
        (partial(ConvBlock, 3, c, groups), f"got {c} channels and {groups} groups")
        for c, groups in ((12, 8), (4, 8), (7, 2))
    ],
    (
        lambda: ResnetBlock(8, 8, cond_dim=6)(torch.zeros(1, 8, 4, 4)),
        "built with a condition .cond_dim. but called without",
    ),
    (
        lambda: ResnetBlock(8, 8)(torch.zeros(1, 8, 4, 4), torch.zeros(1, 6)),
        "built without a condition .* but called with",
    ),
    *[(partial(SpaceToDepth(2), torch.zeros(1, 1, h, w)), f"2 divides, got {h}x{w}") for h, w in ((7, 8), (8, 7))],
    (partial(Upsample, 3, 5, mode="bilinear"), '"depth_to_space" or "nearest", got \'bilinear\''),
    *[
        (
            partial(unet(dims=(8, 8, 8)), torch.zeros(1, 1, h, w), torch.tensor([1])),
            f"multiples of 8, got 1x{h}x{w}: pad to {pad}",
        )
        for h, w, pad in SIZES
    ],
    (
        partial(unet().half(), torch.zeros(1, 1, 32, 32), torch.tensor([1])),
        "float32 .torch.float32, weights torch.float16",
    ),
    (
        partial(unet().half(), torch.zeros(1, 1, 32, 32).half(), torch.tensor([1])),
        "float32 .torch.float16, weights torch.float16",
    ),
    (
        partial(unet(), torch.zeros(1, 1, 32, 32).double(), torch.tensor([1])),
        "float32 .torch.float64, weights torch.float32",
    ),
    (partial(unet(channels=3), torch.zeros(1, 1, 16, 16), torch.tensor([1])), "images of 3 channels, .*, got 1x16x16"),
    (
        partial(unet(num_classes=None), torch.zeros(1, 1, 16, 16), torch.tensor([1]), torch.tensor([0])),
        "built? with.* num_classes",
    ),
    (partial(unet, patch=3), r"with patch 3 \(1 or 2\)"),
    (
        partial(unet, dims=(8, 8, 8), image_size=28),
        "3 levels with patch 2 .* need an image_size that 8 divides, got 28",
    ),
    (partial(unet, attention=(8, 7)), r"attention was requested at \[7\], but the maps have the sides \[16, 8\]"),
    (partial(unet, dims=(12, 24)), "groups that divide the channels, got 12 channels and 8 groups"),
    (partial(unet, upsample="bilinear"), '"depth_to_space" or "nearest"'),
]

DATA = [
    (lambda: data.from_uint8(torch.zeros(1, 2, 2)), r"uint8 pixels in \[0, 255\], got torch.float32"),
    (lambda: data.pad_to(torch.zeros(28, 40)), "28x40 does not fit into 32x32: choose a larger size"),
    (lambda: data.crop_to(torch.zeros(20, 28)), "20x28 is smaller than 28x28: choose a smaller size"),
    (lambda: data.ImageDataset(X, torch.zeros(3)), "one label for each image, got 2 images and 3 labels"),
    (lambda: viz.image_grid(torch.zeros(28, 28)), r"takes images \(b, 1 or 3, h, w\), got shape \(28, 28\)"),
    (lambda: viz.image_grid(X[:0]), "got shape"),
    (lambda: viz.image_grid(X / 0), "NaN or infinite values: sampling or training has diverged"),
    *[
        (partial(viz.image_grid, X, **how), "columns and enlarge must be at least 1, levels 2 to 256, got")
        for how in (dict(columns=0), dict(enlarge=0), dict(levels=1), dict(levels=257))
    ],
    (lambda: viz.film_strip([]), "the trajectory has no steps left: sample again, or keep"),
    (lambda: viz.save_gif([], "x.gif"), "a GIF needs at least one frame"),
    (lambda: viz.save_gif([X[0], X[0, :, 1:]], "x.gif"), "all of one shape"),
    *[
        (partial(viz.save_gif, [X[0]], "x.gif", **how), "a GIF needs .*, and fps and hold above 0, .* got")
        for how in (dict(fps=0), dict(hold=-1))
    ],
]

WEIGHT, QUANTILE = r"weight of the second denoiser must be in \[0, 1\], got", r"quantile .* must be in \(0, 1\], got"
WINGS = [
    *[
        (partial(tinyddpm.blend, never, never, weight), WEIGHT)
        for weight in (-0.1, 1.1, NAN, table(0.5, 1.5), table(NAN, 0.0), table())
    ],
    *[(partial(tinyddpm.dynamic_threshold, never, quantile), QUANTILE) for quantile in (0.0, -0.1, 1.1, 99.5, NAN)],
    *[
        (partial(tinyddpm.resampling_grid, [(2, 1), (1, 0)], jump, repeats), f"got jump={jump} and repeats={repeats}")
        for jump, repeats in ((0, 1), (-2, 1), (1, 0), (1, -1))
    ],
    *[
        (partial(door, never, T50, "noise"), f"unknown prediction 'noise': {PREDICTION}")
        for door in (LearnedVariance, self_conditioned)
    ],
    *[(partial(door, never, PURE_NOISE), NO_EPS) for door in (LearnedVariance, self_conditioned)],
]

DOORS = WINGS + SCHEDULES + GRIDS + DIFFUSION + SAMPLING + GUIDANCE + PIPELINE + NETWORKS + DATA


def title(value):
    return value[:40] if isinstance(value, str) else getattr(getattr(value, "func", value), "__name__", "")


@pytest.mark.parametrize(("door", "words"), DOORS, ids=title)
def test_a_bad_argument_is_refused_at_the_door(door, words):
    with pytest.raises(ValueError, match=words):
        door()


# --- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (dict(predicts="noise"), f"unknown prediction 'noise': {PREDICTION}"),
        (dict(loss="l2"), "unknown loss 'l2'"),
        (dict(weights="snr"), "unknown weights 'snr': choose one of none, min-snr, clamped-snr"),
        (dict(schedule=PURE_NOISE), NO_EPS),
    ],
)
def test_an_objective_that_does_not_exist_is_refused_at_the_first_step(how, words):
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters())
    objective = DenoisingLoss(**{"schedule": T50} | how)
    with pytest.raises(ValueError, match=words):
        next(train_steps(model, [(X, None)], objective, optimizer, lambda n: 1.0))


# --- files -----------------------------------------------------------------------------------------

DAMAGED = "is cut off, damaged or of another format .*: get or train it again"


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def describe(path, **change):
    """Changes what a checkpoint says of itself."""
    metadata, tensors = read_checkpoint(path, 2)
    write_checkpoint(path, 2, {**metadata, **change}, tensors)


WHAT = "describes another network than the one it holds"
HARM = [
    (lambda path: path.unlink(), "there is no checkpoint .*x.safetensors: `tinyddpm train` writes one"),
    *[(partial(cut, share=share), DAMAGED) for share in (0, 1e-5, 1e-3, 0.5, 0.9999)],
    (lambda path: torch.save(Bomb(), path), DAMAGED),
    (lambda path: save_file({"a": X}, path), "has format None None, and this tinyddpm reads tinyddpm 1 to 2"),
    (lambda path: save_file({"a": X}, path, {"format": '"tinyddpm"'}), "has format tinyddpm None"),
    (lambda path: save_file({"a": X}, path, {"format": "{"}), DAMAGED),
    (partial(describe, format_version=3), "has format tinyddpm 3, .* 1 to 2: use the tinyddpm that wrote it"),
    (
        partial(describe, network="Foreign"),
        r"holds a network 'Foreign', .*: register its class with tinyddpm.nn.NETWORKS\['Foreign'\]",
    ),
    (partial(describe, arguments=[8]), WHAT),
    (partial(describe, arguments=None), WHAT),
    (partial(describe, arguments={"dims": [8]}), WHAT),
    (partial(describe, arguments={"depth": 8}), WHAT),
    (partial(describe, image_shape=[1, 30, 30]), WHAT),
    (partial(describe, predicts="noise"), f"unknown prediction 'noise': {PREDICTION}"),
]


@pytest.mark.parametrize(("harm", "words"), HARM, ids=title)
def test_a_file_that_is_no_whole_checkpoint_is_refused(harm, words, tmp_path):
    path = tmp_path / "x.safetensors"
    DDPM(unet(), T50, "v").save(path)
    harm(path)
    with pytest.raises(ValueError, match=words):
        DDPM.load(path)


def test_a_checkpoint_for_a_device_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no device 'tpu' here"):
        DDPM.load(tmp_path / "x.safetensors", "tpu")


@pytest.mark.parametrize("door", [lambda path: DDPM(unet(), T50, "v").save(path / "x.safetensors"), writable_folder])
def test_a_folder_that_cannot_be_written_is_refused(door, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot write to the folder .*: choose another"):
        door(tmp_path / "file" / "folder")
