import io
import signal

import numpy as np
import pytest
from PIL import Image, ImageSequence

from tinyddpm import DDPM, Schedule
from tinyddpm.cli.main import build_parser, main
from tinyddpm.trainer.interrupt import Interrupted
from tinyddpm.trainer.recipes import Recipe


@pytest.fixture
def weights(small, tmp_path):
    small.save(tmp_path / "small.safetensors")
    return str(tmp_path / "small.safetensors")


def test_gif_writes_each_digit_and_all_of_them(tmp_path, capsys):
    out = tmp_path / "new" / "gifs"
    assert main(["gif", "--out", str(out), "--steps", "40"]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [*(f"digit_{digit}.gif" for digit in range(10)), "digits.gif"]
    for name in names:
        assert (out / name).stat().st_size <= (100_000 if name != "digits.gif" else 300_000)
        frames = [np.array(f.convert("L")) for f in ImageSequence.Iterator(Image.open(out / name))]
        assert len(frames) >= 20
        changes = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, frames[1:])]
        assert min(changes) > 0  # something happens in each frame
        assert (frames[-1] < 10).mean() > 0.5 > (frames[0] < 10).mean()  # black around the digit, noise at first
    assert "10 images" in capsys.readouterr().out


def test_sample_writes_digits_without_their_padding(weights, tmp_path):
    out = tmp_path / "samples.npz"
    ask = ["sample", "--weights", weights, "--steps", "2", "--out", str(out)]
    assert main([*ask, "--digits", "305", "--per-digit", "4", "--seed", "11"]) == 0
    file = np.load(out)
    assert file["images"].shape == (12, 28, 28) and file["images"].dtype == np.uint8
    assert file["labels"].tolist() == [3] * 4 + [0] * 4 + [5] * 4


def test_an_image_of_sample_is_the_image_of_its_seed(weights, tmp_path, small):
    from tinyddpm.data import crop_to, to_uint8

    ask = ["sample", "--weights", weights, "--steps", "3", "--scale", "2", "--out", str(tmp_path / "x.npz")]
    assert main([*ask, "--digits", "7", "--per-digit", "3", "--seed", "5"]) == 0
    alone = small.sample(y=[7], steps=3, scale=2, seeds=[7])
    third = np.load(tmp_path / "x.npz")["images"][2].astype(int)
    assert np.abs(third - to_uint8(crop_to(alone))[0, 0].numpy()).max() <= 1


def test_sample_writes_a_grid_of_one_row_a_digit(weights, tmp_path):
    ask = ["sample", "--weights", weights, "--steps", "2", "--out", str(tmp_path / "x.png")]
    assert main([*ask, "--digits", "12", "--per-digit", "3"]) == 0
    assert Image.open(tmp_path / "x.png").size == (3 * 28, 2 * 28)


def test_sample_shows_digits_as_text_of_the_width_there_is(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(3 * 28 - 1))
    ask = ["sample", "--show", "--weights", weights, "--steps", "3", "--digits", "50"]
    assert main([*ask, "--per-digit", "3", "--out", "x.npz"]) == 0
    *lines, written = capsys.readouterr().out.splitlines()
    assert written == "6 images in x.npz"
    images = np.load("x.npz")["images"]
    shown = np.array([[{" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}[c] for c in s] for s in lines])
    shown = shown.transpose(0, 2, 1).reshape(4 * 28, 2 * 28)  # a new digit begins a new row
    black = np.zeros((28, 28), dtype=np.uint8)
    grid = np.block([[images[0], images[1]], [images[2], black], [images[3], images[4]], [images[5], black]])
    assert (shown == (grid > 127)).all() and 0.1 < shown.mean() < 0.9


def test_sample_that_shows_writes_only_what_it_was_told_to(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ask = ["sample", "--weights", weights, "--steps", "2", "--per-digit", "1"]
    before = sorted(tmp_path.iterdir())
    assert main([*ask, "--show"]) == 0 and sorted(tmp_path.iterdir()) == before
    assert "\x1b" not in capsys.readouterr().out  # no terminal, no colours
    assert main(ask) == 0 and Image.open("samples.png").size == (10 * 28, 28)


def test_a_terminal_of_one_digit_is_wide_enough(weights, capsys, monkeypatch):
    ask = ["sample", "--show", "--weights", weights, "--steps", "1", "--per-digit", "1"]
    monkeypatch.setenv("COLUMNS", "28")
    assert main(ask) == 0
    assert [len(line) for line in capsys.readouterr().out.splitlines()] == [28] * 140
    monkeypatch.setenv("COLUMNS", "27")
    monkeypatch.setattr("tinyddpm.cli.commands.draw", lambda *_: pytest.fail("the work had begun"))
    assert main(ask) == 2
    assert "an image is 28 characters wide, but this terminal 27" in capsys.readouterr().err


def test_text_without_block_characters_is_refused_before_the_work(weights, capsys, monkeypatch):
    monkeypatch.setattr("tinyddpm.cli.commands.draw", lambda *_: pytest.fail("the work had begun"))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert main(["sample", "--show", "--weights", weights]) == 2
    assert "ascii text has no block characters: set PYTHONIOENCODING=utf-8" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "steps", "scale"), [("sample", 50, 1.0), ("gif", 100, 1.5), ("eval", 50, 1.0)])
def test_each_command_has_its_own_defaults(command, steps, scale):
    args = build_parser().parse_args([command])
    assert (args.steps, args.scale) == (steps, scale)


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    shown = capsys.readouterr().err
    assert all(f"\n    {name} " in shown for name in "sample gif morph inpaint style write eval train".split())


@pytest.mark.parametrize("fresh", ["--fresh", "--fr"])
def test_what_goes_on_does_not_begin_anew(fresh, capsys, monkeypatch):
    def stopped(args):
        raise Interrupted("saved", 15)

    monkeypatch.setattr("tinyddpm.cli.main.run_train", stopped)
    assert main(["train", "--out", "my run", fresh, "--seed", "1"]) == 128 + 15
    assert capsys.readouterr().err.endswith("to go on: tinyddpm train --out 'my run' --seed 1\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sample", "--digits", "12a"], "--digits takes digits such as 0123456789, got '12a'"),
        (["sample", "--digits", ""], "--digits takes digits"),
        (["sample", "--per-digit", "0"], "--per-digit must be at least 1, got 0"),
        (["sample", "--steps", "0"], "steps must be in 1..T = 1..1000, got 0"),
        (["sample", "--steps", "1001"], "steps must be in 1..T = 1..1000, got 1001"),
        (["sample", "--sampler", "euler"], "choose one of ddim, ddpm"),
        (["sample", "--device", "tpu"], "there is no device 'tpu' here"),
        (["sample", "--out", "samples.bmp"], "a .npz or a .png file, got 'samples.bmp'"),
        (["sample", "--weights", "nothing.safetensors"], "there is no checkpoint nothing.safetensors"),
        (["gif", "--eta", "2"], "eta goes from 0 (no fresh noise) to 1 (as much as DDPM), got 2.0"),
        (["gif", "--frames", "0"], "--frames must be at least 1, got 0"),
        (["train", "--recipe", "huge"], "there is no recipe 'huge': choose one of tiny, nano, "),
        (["train", "--data", "cats"], "there is no data set 'cats': choose one of mnist, fashion, "),
        (["train", "--data", "folder"], "which folder of images? give it as root (--root DIR)"),
        (["train", "--data", "folder", "--root", "nothing"], "there is no folder nothing"),
        (["train", "--size", "48"], "the nearest size that fits is 32 or 64"),
        (["train", "--size", "200"], "mnist comes in sizes from 28 to 128, got 200"),
        (["train", "--precision", "fp8"], "there is no precision 'fp8': choose one of no, bf16"),
        (["train", "--device", "tpu"], "there is no device 'tpu' here: choose one of cpu"),
    ],
)
def test_bad_input_ends_with_one_clear_line(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("tinyddpm: ") and message in error and "Traceback" not in error


@pytest.mark.parametrize("command", ["gif", "train", "sample"])
def test_an_output_folder_that_cannot_be_written_is_found_before_the_work(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tinyddpm.cli.commands.load", lambda _: pytest.fail("the work had begun"))
    monkeypatch.setattr("tinyddpm.trainer.trainer.mnist", lambda **_: pytest.fail("the work had begun"))
    (tmp_path / "file").write_bytes(b"")
    assert main([command, "--out", str(tmp_path / "file" / "x" / "y.npz")]) == 2
    assert "cannot write to the folder" in capsys.readouterr().err


def drawing(tmp_path, channels=1, size=32, classes=10, **notes):
    """The path of an untrained network for such images."""
    recipe = Recipe(dims=(8, 16), attention=(), channels=channels, image_size=size, num_classes=classes)
    ddpm = DDPM(recipe.network(), Schedule.named("cosine", 20), "v", (channels, size, size), notes)
    ddpm.save(tmp_path / "other.safetensors")
    return str(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (dict(), (28, 28)),  # older weights say nothing of their data: digits
        (dict(data="letters", classes=26), (28, 28)),
        (dict(data="fashion", size=64), (28, 28)),
        (dict(data="mnist", size=28), (28, 28)),
        (dict(data="unknown"), (32, 32)),
        (dict(size=64), (64, 64)),
        (dict(data="cifar10", channels=3), (32, 32, 3)),
        (dict(data="folder cats", channels=3, size=64, classes=None), (64, 64, 3)),
    ],
)
def test_only_the_padding_of_28x28_is_taken_off(network, shape, tmp_path):
    weights, out = drawing(tmp_path, **network), tmp_path / "x.npz"
    ask = ["--weights", weights, "--steps", "1", "--digits", "10"]
    assert main(["sample", *ask, "--per-digit", "1", "--out", str(out)]) == 0
    assert np.load(out)["images"].shape == (2, *shape)
    assert ("labels" in np.load(out)) == (network.get("classes", 10) is not None)
    assert main(["gif", *ask, "--out", str(tmp_path / "gifs")]) == 0
    size = 4 * network.get("size", 32)
    assert Image.open(tmp_path / "gifs" / "digit_1.gif").size == (size, size)


def test_labels_above_nine_are_asked_for_between_commas(tmp_path, capsys):
    weights, out = drawing(tmp_path, classes=26, data="letters"), tmp_path / "x.npz"
    ask = ["--weights", weights, "--steps", "1", "--digits", "25,3,25"]
    assert main(["sample", *ask, "--per-digit", "1", "--out", str(out)]) == 0
    assert np.load(out)["labels"].tolist() == [25, 3, 25]
    assert main(["gif", *ask, "--out", str(tmp_path / "gifs")]) == 0
    names = sorted(path.name for path in (tmp_path / "gifs").iterdir())
    assert names == ["digit_25.gif", "digit_3.gif", "digits.gif"]
    assert main(["sample", "--weights", weights, "--steps", "1", "--digits", "26,0", "--out", str(out)]) == 2
    assert "labels must be in 0..25, got [26]" in capsys.readouterr().err


def folder(root, n=50):
    for k in range(n):
        (root / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 20, 3), 5 * k, np.uint8)).save(root / "ab"[k % 2] / f"{k}.png")


def test_train_suits_the_recipe_to_the_data(tmp_path, capsys):
    folder(tmp_path / "pictures")
    out = tmp_path / "run"
    ask = ["train", "--recipe", "nano", "--device", "cpu", "--epochs", "1", "--out", str(out)]
    ask += ["--data", "folder", "--root", str(tmp_path / "pictures"), "--size", "16"]
    assert main(ask) == 0
    ddpm = DDPM.load(out / "model.safetensors")
    assert ddpm.image_shape == (3, 16, 16) and ddpm.model.num_classes == 2
    assert ddpm.notes["data"] == "folder pictures" and ddpm.notes["images"] == 50
    assert main(["eval", str(out / "model.safetensors"), "--out", str(tmp_path / "report")]) == 2
    assert "only models of MNIST's digits can be measured" in capsys.readouterr().err


def test_train_names_a_broken_image_and_leaves_it_out_when_asked(tmp_path, capsys):
    folder(tmp_path / "pictures")
    (tmp_path / "pictures" / "b" / "7.png").write_bytes(b"")
    ask = ["train", "--recipe", "nano", "--device", "cpu", "--epochs", "1", "--out", str(tmp_path / "run")]
    ask += ["--data", "folder", "--root", str(tmp_path / "pictures"), "--size", "16"]
    assert main(ask) == 2 and "b/7.png cannot be read" in capsys.readouterr().err
    assert main([*ask, "--skip-broken"]) == 0
    assert DDPM.load(tmp_path / "run" / "model.safetensors").notes["images"] == 49


def test_other_data_goes_to_a_folder_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "pictures", 3)
    assert main(["train", "--device", "cpu", "--data", "folder", "--root", "pictures"]) == 2
    assert "the data has 3" in capsys.readouterr().err and (tmp_path / "runs" / "tiny-folder").is_dir()


def test_a_digit_asked_for_twice_is_one_gif(weights, tmp_path, capsys):
    ask = ["gif", "--weights", weights, "--steps", "3", "--digits", "373", "--out", str(tmp_path / "gifs")]
    assert main(ask) == 0
    names = sorted(path.name for path in (tmp_path / "gifs").iterdir())
    assert names == ["digit_3.gif", "digit_7.gif", "digits.gif"] and "2 images" in capsys.readouterr().out


def test_ctrl_c_ends_a_command_without_a_traceback(weights, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tinyddpm.cli.commands.draw", interrupt)
    assert main(["sample", "--weights", weights]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "\ntinyddpm: stopped\n"


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_first_of_several_processes_says_how_all_go_on(rank, capsys, monkeypatch):
    def stop(_):
        raise Interrupted("saved", signal.SIGTERM)

    monkeypatch.setattr("tinyddpm.cli.main.run_train", stop)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "--out", "my run", "--fresh"]) == 128 + signal.SIGTERM
    again = "to go on: torchrun --nproc-per-node 2 -m tinyddpm train --out 'my run'\n"
    assert capsys.readouterr().err == (f"tinyddpm: saved\n{again}" if rank == "0" else "")


def test_a_recipe_of_another_size_takes_the_next_that_fits_the_data(tmp_path, monkeypatch):
    class Data:
        channels, num_classes = 3, 10

        def __init__(self, name, root, size, **_):
            self.size = size

    seen = []
    monkeypatch.setattr("tinyddpm.cli.commands.load_data", Data)
    monkeypatch.setattr("tinyddpm.trainer.trainer.train", lambda recipe, *_, **__: seen.append(recipe))
    main(["train", "--recipe", "conditional-500", "--data", "cifar10", "--out", str(tmp_path)])
    assert seen[0].image_size == 56 and seen[0].network()
