"""The commands morph, inpaint, style and write: which files, of what, and what is refused before the work."""

import numpy as np
import pytest
import torch
from PIL import Image

from tinyddpm import DDPM, Schedule, UNet
from tinyddpm.cli.art import load_digit, real_digits
from tinyddpm.cli.main import main
from tinyddpm.data import crop_to, mnist, to_uint8


@pytest.fixture
def run(small, tmp_path, monkeypatch):
    """Runs a command in an empty folder with a small network, and returns its exit status."""
    small.save(tmp_path / "small.safetensors")
    monkeypatch.chdir(tmp_path)
    return lambda *words: main([*words, "--weights", "small.safetensors", "--steps", "3"])


def cells(path, columns):
    """The pixels of a grid of digits that were enlarged twice: (rows, columns, 28, 28)."""
    pixels = np.array(Image.open(path))[::2, ::2]
    return pixels.reshape(-1, 28, columns, 28).transpose(0, 2, 1, 3)


def as_pixels(x):
    return to_uint8(crop_to(x))[0].numpy()


def test_morph_writes_a_frame_for_each_part_of_the_way(run, capsys):
    assert run("morph", "--digits", "386", "--frames", "3") == 0
    film = Image.open("morph.gif")
    assert film.size == (4 * 28, 4 * 28) and film.info["loop"] == 0
    assert 2 <= film.n_frames <= 9  # equal frames are one
    assert "9 frames in morph.gif" in capsys.readouterr().out


def test_inpaint_shows_the_digit_what_is_left_of_it_and_the_ways(run, capsys):
    assert run("inpaint", "--digits", "37", "--each", "3", "--hide", "top", "--times", "1", "--out", "x.png") == 0
    grid, real = cells("x.png", 5), real_digits(torch.tensor([3, 7]), 0)
    for row, x in zip(grid, real):
        assert (row[0] == as_pixels(x)).all()
        assert (row[1][14:] == row[0][14:]).all() and (abs(row[1][:14].astype(int) - 128) <= 1).all()
        for way in row[2:]:
            assert (abs(way[14:].astype(int) - row[0][14:]) <= 1).all()
    assert not (grid[0, 2] == grid[0, 3]).all()
    assert "2 rows in x.png\n" in capsys.readouterr().out


def test_inpaint_tells_the_network_the_digit_where_it_is_asked_to(run):
    ask = ["inpaint", "--digits", "3", "--each", "2", "--times", "1", "--out"]
    assert run(*ask, "untold.png") == run(*ask, "told.png", "--labelled") == 0
    assert not (cells("untold.png", 4)[0, 2:] == cells("told.png", 4)[0, 2:]).all()


def test_style_writes_a_row_for_each_hand(run, capsys):
    assert run("style", "--hands", "3", "--digits", "4711", "--out", "new/x.png") == 0
    grid = cells("new/x.png", 5)
    for k, x in enumerate(real_digits(torch.arange(3), 0)):
        assert (grid[k, 0] == as_pixels(x)).all()
    assert (grid[:, 3] == grid[:, 4]).all() and not (grid[:, 1] == grid[:, 2]).all()  # 1 and 1, 4 and 7
    assert "3 rows in" in capsys.readouterr().out


def test_style_takes_a_digit_of_your_own(run):
    x = mnist(train=False)[0][0]  # a 7
    Image.fromarray(as_pixels(x)).resize((280, 280)).save("mine.png")
    assert run("style", "--image", "mine.png", "--label", "7", "--digits", "3") == 0
    assert np.abs(cells("style.png", 2)[0, 0].astype(int) - as_pixels(x)).mean() < 8


def test_write_makes_a_strip_or_a_film_of_it(run, capsys):
    assert run("write", "20 6") == run("write", "20 6", "--out", "x.gif") == 0
    assert Image.open("strip.png").size == (4 * (3 * 22 + 32), 4 * 32)
    film = Image.open("x.gif")
    assert film.size == (2 * (3 * 22 + 32), 2 * 32) and film.n_frames >= 2
    film.seek(film.n_frames - 1)
    last, strip = np.array(film.convert("L")).astype(int), np.array(Image.open("strip.png"))[::2, ::2]
    assert np.abs(last - strip).max() <= 255 / 15 / 2 + 1  # 16 levels
    assert "'20 6' in strip.png" in capsys.readouterr().out


def test_real_digits_are_of_their_labels_and_differ():
    y = torch.tensor([3, 3, 7])
    x, labels = mnist(train=False).tensors()
    first, second = real_digits(y, 0), real_digits(y, 1)
    assert torch.equal(first[1], second[0]) and not torch.equal(first[0], first[1])
    for image, label in zip(first, y):
        assert label in labels[(x == image).flatten(1).all(1)]


# What is refused, and in which words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["morph", "--digits", "3"], "got 1 labels and 12 frames"),
        (["morph", "--digits", "3x"], "expected digits such as 2026, or labels with commas such as 3,14, got '3x'"),
        (["morph", "--out", "x.png"], "expected a .gif file, got 'x.png'"),
        (["inpaint", "--each", "0"], "--each must be in 1..1000, got 0"),
        (["inpaint", "--times", "0"], "--times must be in 1..1000, got 0"),
        (["style", "--hands", "0"], "--hands must be in 1..10000, got 0"),
        (["style", "--image", "x.png"], "which digit it is as --label, got x.png and None"),
        (["style", "--label", "3"], "which digit it is as --label, got None and 3"),
        (["style", "--image", "x.png", "--label", "3"], "x.png cannot be read as an image"),
        (["write", ""], "at least one digit, got ''"),
        (["write", "19-5"], "digits and blanks with at least one digit, got '19-5'"),
        (["write", "1" * 65], "up to 64 digits"),
        (["write", "1", "--variety", "2"], "tinyddpm: expected a variety in [0, 1], got 2.0\n"),
        (["write", "hello"], "expected up to 64 digits and blanks with at least one digit, got 'hello'\n"),
        (["inpaint", "--scale", "2"], "expected --labelled beside --scale"),
        (["write", "1", "--out", "x.jpg"], "expected a .png or .gif file, got 'x.jpg'"),
    ],
)
def test_bad_input_ends_with_one_clear_line(run, words, message, capsys):
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


def test_only_labels_and_halves_that_there_are_can_be_asked_for(run, tmp_path, capsys):
    assert run("inpaint", "--hide", "west") == 2
    assert "'middle'" in capsys.readouterr().err
    Image.fromarray(as_pixels(mnist(train=False)[0][0])).save("mine.png")
    assert run("style", "--image", "mine.png", "--label", "34") == 2
    assert "labels are integers in 0..9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("grey", "said"), [(255, "bright, and digits are white strokes on black: invert it"), (90, "empty, .*: draw one")]
)
def test_a_picture_that_is_bright_or_empty_is_refused_with_what_to_do(grey, said, tmp_path):
    Image.new("L", (28, 28), grey).save(tmp_path / "paper.png")
    with pytest.raises(ValueError, match=said):
        load_digit(tmp_path / "paper.png")


def test_weights_that_draw_something_else_are_refused(tmp_path, capsys):
    unet = UNet((8,), attention=(), heads=1)
    DDPM(unet, Schedule.named("cosine", 20), "v").save(tmp_path / "x.safetensors")
    assert main(["write", "12", "--weights", str(tmp_path / "x.safetensors")]) == 2
    assert "expected weights that draw digits (1, 32, 32) by label" in capsys.readouterr().err
