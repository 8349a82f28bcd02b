"""The commands sample, gif, eval and train, and what all commands share: help, errors, signals, exit codes."""

import io
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image, ImageSequence

from tinyddpm import DDPM, Schedule, UNet, ddim
from tinyddpm.cli import options
from tinyddpm.cli.main import COMMANDS, main
from tinyddpm.data import crop_to, to_uint8
from tinyddpm.datasets.named import DATASETS
from tinyddpm.editing.inpainting import HALVES
from tinyddpm.evaluation.evaluate import NAMED_SAMPLERS
from tinyddpm.files import writable_folder
from tinyddpm.schedules import SPACINGS
from tinyddpm.trainer.interrupt import Interrupted
from tinyddpm.trainer.recipes import RECIPES, UNetConfig

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def weights(small, tmp_path):
    small.save(tmp_path / "small.safetensors")
    return str(tmp_path / "small.safetensors")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def shown(capsys):
    """Everything printed, without the boxes and line breaks of a help page."""
    return " ".join("".join(capsys.readouterr()).replace("│", " ").split())


# --- sample


def test_sample_writes_digits_without_their_border(weights):
    ask = ["sample", "--weights", weights, "--steps", "2", "--out", "x.npz"]
    assert main([*ask, "--digits", "305", "--per-digit", "4", "--seed", "11"]) == 0
    file = np.load("x.npz")
    assert file["images"].shape == (12, 28, 28) and file["images"].dtype == np.uint8
    assert file["labels"].tolist() == [3] * 4 + [0] * 4 + [5] * 4 and file["labels"].dtype == np.int64


@pytest.mark.parametrize(
    ("options", "same"),
    [
        (["--scale", "2"], dict(scale=2)),
        (["--sampler", "ddpm"], dict(sampler="ddpm")),
        (["--eta", "0.5", "--grid", "log-snr"], dict(eta=0.5, grid="log-snr")),
    ],
)
def test_an_image_of_sample_is_the_image_of_its_seed(options, same, weights, small):

    ask = ["sample", "--weights", weights, "--steps", "3", "--out", "x.npz", *options]
    assert main([*ask, "--digits", "7", "--per-digit", "3", "--seed", "5"]) == 0
    eta, grid = same.pop("eta", None), small.schedule.grid(3, same.pop("grid", "uniform"))
    same |= {"sampler": partial(ddim, eta=eta)} if eta else {}
    alone = to_uint8(crop_to(small.sample(y=[7], seeds=[7], grid=grid, **same)))[0, 0].numpy()
    assert np.abs(np.load("x.npz")["images"][2].astype(int) - alone).max() <= 1


@pytest.mark.parametrize("sampler", NAMED_SAMPLERS)
def test_the_bar_ends_at_the_steps_of_all_images(sampler, weights, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, **_):
            self.total, self.n = total, 0
            bars.append(self)

        def update(self, n):
            self.n += n

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("tinyddpm.cli.commands.tqdm", Bar)
    main(["sample", "--weights", weights, "--steps", "4", "--sampler", sampler, "--per-digit", "7", "--digits", "0"])
    assert bars[0].n == bars[0].total == 4 * 7


def test_sample_calls_the_network_in_bfloat16_if_asked(weights, monkeypatch, capsys):
    monkeypatch.setattr("tinyddpm.cli.commands.native_bf16", lambda device: True)
    dtypes, call, x = set(), UNet.forward, {}
    monkeypatch.setattr(UNet, "forward", lambda *asked, **how: dtypes.add((y := call(*asked, **how)).dtype) or y)
    for flag in ([], ["--bf16"]):
        ask = ["sample", "--weights", weights, "--steps", "2", "--digits", "3", "--out", "x.npz", *flag]
        assert main(ask) == 0
        x[len(flag)] = np.load("x.npz")["images"].astype(int)
    assert dtypes == {torch.float32, torch.bfloat16} and 0 < np.abs(x[0] - x[1]).mean() < 3
    monkeypatch.setattr("tinyddpm.cli.commands.native_bf16", lambda device: False)
    assert main(ask) == 2
    assert "expected a device that computes in bfloat16 for --bf16, got this cpu" in capsys.readouterr().err


def test_sample_writes_a_grid_of_one_row_a_digit(weights):
    ask = ["sample", "--weights", weights, "--steps", "2", "--out", "x.png"]
    assert main([*ask, "--digits", "12", "--per-digit", "3"]) == 0
    assert Image.open("x.png").size == (4 * 3 * 28, 4 * 2 * 28)  # enlarged


def test_sample_enlarges_by_a_whole_factor(weights, capsys):
    ask = ["sample", "--weights", weights, "--steps", "2", "--digits", "7", "--per-digit", "1"]
    assert main([*ask, "--out", "x.npz"]) == 0
    digit = np.load("x.npz")["images"][0]
    for enlarge in (1, 3):
        assert main([*ask, "--out", "x.png", "--enlarge", str(enlarge)]) == 0
        assert np.array_equal(np.array(Image.open("x.png")), digit.repeat(enlarge, 0).repeat(enlarge, 1))
    for enlarge in ("0", "101"):
        assert main([*ask, "--enlarge", enlarge]) == 2
        assert f"--enlarge must be in 1..100, got {enlarge}" in capsys.readouterr().err


def test_sample_shows_digits_as_text_of_the_width_there_is(weights, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(3 * 28 - 1))
    ask = ["sample", "--show", "--weights", weights, "--steps", "3", "--digits", "50"]
    assert main([*ask, "--per-digit", "3", "--out", "x.npz"]) == 0
    *lines, written = capsys.readouterr().out.splitlines()
    assert written == "6 images in x.npz"
    images = np.load("x.npz")["images"]
    shown = np.array([[{" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}[c] for c in s] for s in lines])
    shown = shown.transpose(0, 2, 1).reshape(4 * 28, 2 * 28)  # each digit starts a row
    black = np.zeros((28, 28), dtype=np.uint8)
    grid = np.block([[images[0], images[1]], [images[2], black], [images[3], images[4]], [images[5], black]])
    assert (shown == (grid > 127)).all() and 0.1 < shown.mean() < 0.9


def test_sample_that_shows_writes_a_file_only_if_told_to(weights, tmp_path, capsys):
    ask = ["sample", "--weights", weights, "--steps", "2", "--per-digit", "1"]
    before = sorted(tmp_path.iterdir())
    assert main([*ask, "--show"]) == 0 and sorted(tmp_path.iterdir()) == before
    assert "\x1b" not in capsys.readouterr().out  # no terminal, no colours
    assert main([*ask, "--enlarge", "1"]) == 0 and Image.open("samples.png").size == (10 * 28, 28)


@pytest.mark.parametrize(
    ("digits", "columns", "rows", "side"),
    [
        ("2026", 200, 1, 28), ("2026", 112, 1, 28), ("2026", 80, 1, 20), ("2026", 60, 1, 15), ("2026", 56, 1, 14),
        ("2026", 55, 2, 27), ("31415926", 80, 2, 20), ("314159265", 60, 3, 20),
    ],
)  # fmt: skip
def test_one_drawing_of_each_digit_reads_as_a_number(digits, columns, rows, side, weights, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    ask = ["sample", "--show", "--weights", weights, "--steps", "1", "--digits", digits, "--per-digit", "1"]
    assert main([*ask, "--out", "x.png"]) == 0
    *lines, written = capsys.readouterr().out.splitlines()
    assert written == f"{len(digits)} images in x.png"
    assert {len(line) for line in lines} == {-(-len(digits) // rows) * side}
    assert len(lines) == -(-rows * side // 2)
    assert Image.open("x.png").size == (4 * 28 * len(digits), 4 * 28)  # a picture has one row


def test_digits_made_smaller_are_still_those_digits(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["sample", "--show", "--digits", "2026", "--per-digit", "1", "--out", "x.npz"]) == 0
    lines, images = capsys.readouterr().out.splitlines()[:-1], np.load("x.npz")["images"]
    shown = np.array([[{" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}[c] for c in s] for s in lines])
    shown = shown.transpose(0, 2, 1).reshape(16, 4, 15)[:15].transpose(1, 0, 2)  # in this order
    for k, small in enumerate(shown):
        alike = [
            np.corrcoef(np.array(Image.fromarray(x).resize((15, 15))).ravel(), small.ravel())[0, 1] for x in images
        ]
        assert int(np.argmax(alike)) == k and alike[k] > 0.8


def test_one_of_something_is_not_several(weights, capsys):
    ask = ["--weights", weights, "--steps", "1", "--digits", "3"]
    assert main(["sample", *ask, "--per-digit", "1"]) == 0 and main(["gif", *ask, "--frames", "1"]) == 0
    assert main(["inpaint", *ask, "--each", "1", "--times", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "1 image in samples.png" and said[1].startswith("1 image, ") and said[2] == "1 row in inpaint.png"


def test_a_terminal_as_wide_as_one_digit_is_wide_enough(weights, capsys, monkeypatch):
    ask = ["sample", "--show", "--weights", weights, "--steps", "1", "--per-digit", "1"]
    monkeypatch.setenv("COLUMNS", "28")
    assert main(ask) == 0
    assert [len(line) for line in capsys.readouterr().out.splitlines()] == [28] * 35  # pairs of half the side
    assert main([*ask, "--digits", "3"]) == 0
    assert [len(line) for line in capsys.readouterr().out.splitlines()] == [28] * 14
    monkeypatch.setattr(DDPM, "sample", lambda *_, **__: pytest.fail("the work had begun"))
    monkeypatch.setenv("COLUMNS", "27")
    assert main(ask) == 2
    assert "an image is 28 characters wide, but this terminal 27" in capsys.readouterr().err
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert main(ask) == 2
    assert "ascii text has no block characters: set PYTHONIOENCODING=utf-8" in capsys.readouterr().err


# --- gif, and other data than digits


def test_gif_writes_each_digit_and_all_of_them(capsys, tmp_path):
    assert main(["gif", "--out", "new/gifs", "--steps", "30", "--digits", "30721"]) == 0
    out = tmp_path / "new" / "gifs"
    names = sorted(path.name for path in out.iterdir())
    assert names == [*(f"digit_{digit}.gif" for digit in (0, 1, 2, 3, 7)), "digits.gif"]
    for name in names:
        assert (out / name).stat().st_size <= (100_000 if name != "digits.gif" else 300_000)
        frames = [np.array(f.convert("L")) for f in ImageSequence.Iterator(Image.open(out / name))]
        assert len(frames) >= 20
        changes = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, frames[1:])]
        assert min(changes) > 0  # something happens in each frame
        assert (frames[-1] < 10).mean() > 0.5 > (frames[0] < 10).mean()  # black around the digit, noise at first
    assert "5 images" in capsys.readouterr().out


def test_a_digit_asked_for_twice_is_one_gif(weights, capsys, tmp_path):
    assert main(["gif", "--weights", weights, "--steps", "3", "--digits", "373", "--out", "gifs"]) == 0
    assert sorted(path.name for path in (tmp_path / "gifs").iterdir()) == ["digit_3.gif", "digit_7.gif", "digits.gif"]
    assert "2 images" in capsys.readouterr().out


def other_weights(channels=1, size=32, classes=10, **notes):
    """The path of an untrained network for such images."""
    network = UNetConfig((8, 16), attention=()).build((channels, size, size), classes)
    DDPM(network, Schedule.named("cosine", 20), "v", (channels, size, size), notes).save("other.safetensors")
    return "other.safetensors"


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (dict(), (28, 28)),  # old weights say nothing of their data: digits
        (dict(data="letters", classes=26), (28, 28)),
        (dict(data="fashion", size=64), (28, 28)),
        (dict(data="mnist", size=28), (28, 28)),
        (dict(data="mnist-resized", size=64), (64, 64)),
        (dict(data="unknown"), (32, 32)),
        (dict(size=64), (64, 64)),
        (dict(data="cifar10", channels=3), (32, 32, 3)),
        (dict(data="folder cats", channels=3, size=64, classes=None), (64, 64, 3)),
    ],
)
def test_only_the_border_of_28x28_images_is_taken_off(network, shape):
    ask = ["--weights", other_weights(**network), "--steps", "1", "--digits", "10"]
    assert main(["sample", *ask, "--per-digit", "1", "--out", "x.npz"]) == 0
    assert np.load("x.npz")["images"].shape == (2, *shape)
    assert ("labels" in np.load("x.npz")) == (network.get("classes", 10) is not None)
    assert main(["gif", *ask, "--out", "gifs"]) == 0
    assert Image.open("gifs/digit_1.gif").size == (4 * network.get("size", 32),) * 2


def test_labels_above_nine_are_asked_for_with_commas(capsys, tmp_path):
    ask = ["--weights", other_weights(classes=26, data="letters"), "--steps", "1", "--digits"]
    assert main(["sample", *ask, "25,3,25", "--per-digit", "1", "--out", "x.npz"]) == 0
    assert np.load("x.npz")["labels"].tolist() == [25, 3, 25]
    assert main(["gif", *ask, "25,3,25", "--out", "gifs"]) == 0
    names = sorted(path.name for path in (tmp_path / "gifs").iterdir())
    assert names == ["digit_25.gif", "digit_3.gif", "digits.gif"]
    assert main(["sample", *ask, "26,0"]) == 2
    assert "labels are integers in 0..25" in capsys.readouterr().err


# --- eval


@pytest.mark.parametrize("checkpoint", [["small.safetensors"], ["--weights", "small.safetensors"]])
def test_eval_measures_the_checkpoint_with_its_options(checkpoint, weights, monkeypatch, capsys):
    asked = {}

    def evaluate(ddpm, out, spec, sweeps, bits):
        asked.update(ddpm=ddpm, out=str(out), spec=spec, sweeps=sweeps, bits=bits)
        return "a report"

    monkeypatch.setattr("tinyddpm.cli.commands.evaluate", evaluate)
    monkeypatch.setattr("tinyddpm.cli.commands.page", lambda report: f"{report}\n")
    options = "--n 1000 --steps 20 --scale 1.5 --eta 0.85 --grid quadratic --seed 3 --no-sweeps --bits-n 30 --out r"
    assert main(["eval", *checkpoint, *options.split()]) == 0
    spec = {name: getattr(asked["spec"], name) for name in "n steps scale sampler seed eta spacing".split()}
    assert list(spec.values()) == [1000, 20, 1.5, "ddim", 3, 0.85, "quadratic"]
    assert asked["ddpm"].notes == {"seed": 0} and asked["out"] == "r" and asked["sweeps"] is False
    assert capsys.readouterr().out == "a report\nthe report is in r\n" and asked["bits"] == 30
    for more, bits in (("", 100), ("--no-bits --bits-n 30", 0)):
        assert main(["eval", *checkpoint, *more.split()]) == 0 and asked["bits"] == bits
    assert main(["eval", *checkpoint, "--bits-n", "1"]) == 2
    assert "--bits-n must be in 2..10000, got 1" in capsys.readouterr().err


def test_two_evals_never_write_to_one_folder(weights, monkeypatch, capsys):
    monkeypatch.setattr(DDPM, "sample", None)  # never called
    with FileLock(writable_folder("report") / "run.lock"):
        assert main(["eval", weights]) == 2
    assert "another run is active in report: wait for it, or write to another one (--out)" in capsys.readouterr().err


def test_eval_that_is_interrupted_says_how_to_resume(weights, monkeypatch, capsys):
    monkeypatch.setattr("tinyddpm.cli.commands.evaluate", interrupt)
    assert main(["eval", weights, "--out", "my report"]) == 128 + signal.SIGINT
    assert capsys.readouterr().err.endswith(f"resume with: tinyddpm eval {weights} --out 'my report'\n")


def test_eval_reads_the_data_of_a_model_from_root(monkeypatch):
    asked = []
    monkeypatch.setattr("tinyddpm.cli.commands.reference_for", lambda ddpm, root: (ddpm.notes["data"], str(root)))
    monkeypatch.setattr("tinyddpm.cli.commands.page", lambda report: "")
    monkeypatch.setattr("tinyddpm.cli.commands.evaluate", lambda *_, **how: asked.append(how.get("reference")))
    path = other_weights(data="fashion")
    assert main(["eval", path, "--steps", "2", "--root", "there"]) == 0 == main(["eval", path, "--steps", "2"])
    assert asked == [("fashion", "there"), None]


# --- train


@pytest.fixture
def trained(monkeypatch):
    """What train of the trainer is called with."""
    calls = []

    def train(recipe, out, data, epochs, minutes, seed, device, **options):
        calls.append(dict(recipe=recipe, out=str(out), data=data, epochs=epochs, minutes=minutes, **options))

    monkeypatch.setattr("tinyddpm.cli.commands.train", train)
    return calls


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_as_it_is(name, trained):
    assert main(["train", "--recipe", name]) == 0
    call = trained[0]
    assert call["recipe"] == RECIPES[name] and call["out"] == f"runs/{name}"
    assert call["epochs"] is None and call["minutes"] is None and call["precision"] == "auto"
    assert call["data"].size == RECIPES[name].image_size


def test_digits_are_enlarged_for_a_network_of_one_level_more(trained):
    assert main("train --recipe tiny --data mnist-resized --size 64".split()) == 0
    call = trained[0]
    assert call["data"][0][0].shape == (1, 64, 64) and call["out"] == "runs/tiny-mnist-resized"
    assert call["recipe"].build((1, 64, 64)).arguments["dims"] == (32, 64, 128, 128)


def test_every_setting_of_a_recipe_is_an_option(trained, capsys):
    words = (
        "train --recipe tiny --learning-rate 1e-3 --network.dims 16 32 64 --times half-logit-normal --grad-norm None"
    )
    assert main([*words.split(), "--epochs", "2", "--num-classes=None"]) == 0
    network = replace(RECIPES["tiny"].network, dims=(16, 32, 64))
    found = trained[0]["recipe"]
    assert trained[0]["epochs"] == 2 and replace(found, epochs=30) == replace(
        RECIPES["tiny"],
        learning_rate=1e-3,
        network=network,
        times="half-logit-normal",
        grad_norm=None,
        num_classes=None,
    )
    assert main(["train", "--recipe=nano", "--help"]) == 0
    page = shown(capsys)
    names = [f.name for f in fields(RECIPES["tiny"]) if f.name != "network"]
    names += [f"network.{f.name}" for f in fields(UNetConfig)]
    assert all(f"--{name.replace('_', '-')} " in page for name in names)
    assert "(default: 16 32 64)" in page  # those of nano


def test_a_recipe_of_another_size_takes_the_next_that_fits_the_data(trained, monkeypatch):
    class Data:
        channels, num_classes = 3, 10

        def __init__(self, name, root, size, **_):
            self.size = size

    monkeypatch.setattr("tinyddpm.cli.commands.load_data", Data)
    main(["train", "--recipe", "conditional-500", "--data", "cifar10"])
    assert trained[0]["recipe"].image_size == 56 and trained[0]["out"] == "runs/conditional-500-cifar10"


def folder(root, n=50):
    for k in range(n):
        (root / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 20, 3), 5 * k, np.uint8)).save(root / "ab"[k % 2] / f"{k}.png")


def test_train_suits_the_recipe_to_the_data_and_leaves_out_broken_images_if_asked(tmp_path, capsys, trained):
    folder(tmp_path / "pictures")
    (tmp_path / "pictures" / "b" / "7.png").write_bytes(b"")
    ask = "train --recipe nano --data folder --root pictures --size 16".split()
    assert main(ask) == 2 and "b/7.png cannot be read" in capsys.readouterr().err
    assert main([*ask, "--skip-broken"]) == 0
    call = trained[0]
    assert (call["recipe"].image_size, call["recipe"].num_classes, call["out"]) == (16, 2, "runs/nano-folder")
    assert (call["data"].name, len(call["data"]), call["data"].channels) == ("folder pictures", 49, 3)


# --- signals


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_ctrl_c_ends_a_command_without_a_traceback(weights, capsys, monkeypatch):
    monkeypatch.setattr(DDPM, "sample", interrupt)
    assert main(["sample", "--weights", weights]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "\ntinyddpm: stopped\n"


@pytest.mark.parametrize(
    ("rank", "size", "said"),
    [("0", "1", "tinyddpm"), ("0", "2", "torchrun --nproc-per-node 2 -m tinyddpm"), ("1", "2", None)],
)
def test_an_interrupted_run_says_how_to_resume_and_not_to_begin_anew(rank, size, said, capsys, monkeypatch):
    def stop(*_, command, **__):
        raise Interrupted("saved" if "--fresh" not in command else "wrong", signal.SIGTERM)

    monkeypatch.setattr("tinyddpm.cli.commands.train", stop)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    assert main(["train", "--out", "my run", "--fresh", "--seed", "1"]) == 128 + signal.SIGTERM
    again = f"\ntinyddpm: saved\nresume with: {said} train --out 'my run' --seed 1\n"
    assert capsys.readouterr().err == (again if said else "")


@pytest.mark.parametrize("module", ["tyro._cli", "numpy", "torch.nn", "tinyddpm.samplers", "tinyddpm.cli.terminal"])
def test_ctrl_c_during_an_import_is_no_traceback(module):
    command = [sys.executable, "-X", "importtime", "-m", "tinyddpm", "sample", "--show", "--per-digit", "100"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a job in the background inherits as ignored
    with subprocess.Popen(command, **pipes, env=environment, preexec_fn=heard) as run:
        for line in run.stderr:
            if line.startswith("import time:") and line.split("|")[-1].strip() == module:
                run.send_signal(signal.SIGINT)
                break
        else:
            run.kill()  # the module was not imported
        said = [line for line in run.communicate()[1].splitlines() if not line.startswith("import time:")]
    assert (run.returncode, said) == (128 + signal.SIGINT, ["", "tinyddpm: stopped"])


# --- help and bad input


@pytest.mark.parametrize(("command", "steps", "scale"), [("sample", 50, 1.0), ("gif", 100, 1.5), ("eval", 50, 1.0)])
def test_the_help_of_a_command_shows_its_defaults_and_choices(command, steps, scale, capsys):
    assert main([command, "--help"]) == 0
    page = shown(capsys)
    assert f"(default: {steps})" in page and f"(default: {scale})" in page
    assert "{" + ",".join(NAMED_SAMPLERS) + "}" in page and "{" + ",".join(SPACINGS) + "}" in page


def test_the_help_of_train_shows_its_choices(capsys):
    assert main(["train", "--help"]) == 0
    page = shown(capsys)
    assert "{" + ",".join(DATASETS) + "}" in page and "{auto,no,bf16,fp16}" in page
    assert all(name in page for name in RECIPES)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_explained(command, capsys):
    assert main([command, "--help"]) == 0
    page = shown(capsys)
    assert "] (default" not in page.replace("--no-", "") and not any(
        f"{kind} (default" in page for kind in ("INT", "FLOAT", "STR", "PATH", "}", "...]]", "linear-attention")
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_in_the_help_are_taken(name, monkeypatch, capsys):
    taken = []
    monkeypatch.setattr(f"tinyddpm.{COMMANDS[name]}.run_{name}", taken.append)
    assert main([name, "--help"]) == 0
    lines = re.findall(rf"^    tinyddpm ({name} .*?)$", capsys.readouterr().out, re.M)
    assert lines == [f"{name} {words}" for words in options.EXAMPLES[name]] and len(lines) in (2, 3)
    for line in lines:
        assert main(shlex.split(line)) == 0
    assert len(taken) == len(lines) and all(type(asked).__name__ == name.title() for asked in taken)
    assert len({repr(asked) for asked in taken}) == len(lines)  # the words mean something


def test_the_choices_are_the_rows_of_the_tables():
    tables = {"SamplerName": NAMED_SAMPLERS, "Spacing": SPACINGS, "DataName": DATASETS, "RecipeName": RECIPES}
    for name, table in {**tables, "Half": HALVES}.items():
        assert list(get_args(getattr(options, name))) == list(table)


@pytest.mark.parametrize("words", [["--help"], ["--version"], [], ["sampel"], *([name, "--help"] for name in COMMANDS)])
def test_help_does_not_wait_for_torch(words):
    program = (
        "import sys; from tinyddpm.cli.main import main; status = main(sys.argv[1:]);"
        "print(status, [m for m in ('torch', 'numpy', 'einops', 'matplotlib') if m in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ended.stderr.splitlines()[-1] == f"{2 if words in ([], ['sampel']) else 0} []", ended.stderr


@pytest.mark.parametrize(
    ("word", "near"), [("sampel", "sample"), ("Train", "train"), ("--versoin", "--version"), ("--hlep", "--help")]
)
def test_a_misspelt_command_is_guessed(word, near, capsys):
    assert main([word, "--digits", "3"]) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"--help or --version, got {word!r}: did you mean {near}?\n") and error.count("\n") == 1
    assert main(["qqq"]) == 2
    assert capsys.readouterr().err.endswith("got 'qqq'\n")


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert not out and all(f"• {name} " in err for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample --digits 12a", "expected digits such as 2026, or labels with commas such as 3,14, got '12a'"),
        ("sample --digits ,3", "expected digits such as 2026"),
        ("sample --per-digit 0", "--per-digit must be in 1..10000, got 0"),
        ("sample --digits 3,", "expected digits such as 2026"),
        ("sample --digits 3,14", "labels are integers in 0..9, one for each image, got [3, 14]"),
        ("sample --steps 0", "tinyddpm: --steps of mnist-tiny must be in 1..1000, got 0"),
        ("sample --steps 1001", "tinyddpm: --steps of mnist-tiny must be in 1..1000, got 1001"),
        ("sample --weights mnist-onestep", "tinyddpm: --steps of mnist-onestep must be in 1..4, got 50"),
        ("morph --weights mnist-onestep", "tinyddpm: --steps of mnist-onestep must be in 1..4, got 20"),
        ("eval mnist-onestep --steps 5", "tinyddpm: --steps of mnist-onestep must be in 1..4, got 5"),
        ("sample --sampler heun --eta 0.5", "sampler with eta 'heun': choose one of ddim"),
        ("sample --device tpu", "there is no device 'tpu' here"),
        ("sample --out samples.bmp", "expected a .npz or .png file, got 'samples.bmp'"),
        ("sample --weights nothing.safetensors", "there is no checkpoint nothing.safetensors"),
        ("gif --eta 2", "must be in [0, 1] (1 is DDPM), got 2.0"),
        ("gif --frames 0", "--frames must be in 1..10000, got 0"),
        ("eval a.safetensors --weights b.safetensors", "expected one checkpoint, got a.safetensors and --weights"),
        ("train --data folder", "expected --root PATH, your folder of images, beside --data folder, got no --root"),
        ("train --data folder --root nothing", "nothing"),
        ("train --size 48", "the nearest size that fits is 32 or 64"),
        ("train --size 200", "mnist comes in sizes from 28 to 128, got 200"),
        ("train --device tpu", "there is no device 'tpu' here: choose one of cpu"),
        ("train --epochs 3 --minutes 1", "got 3.0 epochs and 1.0 minutes: leave one out"),
        ("train --epochs 0", "expected a number of epochs above 0, got 0"),
        ("train --minutes -1", "expected a number of minutes above 0, got -1"),
    ],
)
def test_bad_input_ends_with_one_clear_line(words, message, capsys):
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("tinyddpm: ") and message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample --sampler euler", "ddim"),
        ("sample --steps many", "invalid"),
        ("sample --step 5", "--steps"),
        ("train --recipe huge", "'nano'"),
        ("train --data cats", "'fashion'"),
        ("train --precision fp8", "'bf16'"),
        ("train --network.dims wide", "--network.dims"),
        ("train --times rarely", "half-logit-normal"),
        ("write", "STR"),
        ("paint", "inpaint"),
    ],
)
def test_a_bad_option_ends_with_what_is_possible(words, message, capsys):
    assert main(words.split()) == 2
    assert message in shown(capsys)


@pytest.mark.parametrize("command", ["gif", "train", "sample"])
def test_an_output_folder_that_cannot_be_written_is_found_before_the_work(command, tmp_path, capsys, monkeypatch):
    for name in ("commands.load_pretrained", "commands.load_data"):
        monkeypatch.setattr(f"tinyddpm.cli.{name}", lambda *_, **__: pytest.fail("the work had begun"))
    (tmp_path / "file").write_bytes(b"")
    assert main([command, "--out", str(tmp_path / "file" / "x" / "y.npz")]) == 2
    assert "cannot write to the folder" in capsys.readouterr().err


def test_the_version_and_a_script_for_completion_are_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("tinyddpm")
    assert main(["--tyro-print-completion", "bash"]) == 0
    assert "--per-digit" in capsys.readouterr().out


def test_as_a_program_it_exits_with_a_code():
    command = [sys.executable, "-m", "tinyddpm", "sample", "--digits", "x"]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ended.returncode == 2 and ended.stderr.startswith("tinyddpm: ") and not ended.stdout
