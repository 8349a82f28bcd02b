"""Pictures as text: what a terminal would show of it are the pixels."""

import io
import re
import sys
from types import SimpleNamespace

import imageio.v3 as iio
import pytest
import torch

from tinyddpm import image_grid, show
from tinyddpm.cli.terminal import blocks, terminal_colours


def xterm(i):
    """The colour number i of 16..255."""
    levels = (0, 95, 135, 175, 215, 255)
    if i >= 232:
        return (8 + 10 * (i - 232),) * 3
    return tuple(levels[(i - 16) // n % 6] for n in (36, 6, 1))


def pixels_of(text):
    """Lines of half blocks back into pixels (h, w, 3)."""
    rows = []
    for line in text.split("\n"):
        assert line.endswith("\x1b[0m") and re.sub("\x1b\\[[0-9;]+m|▀", "", line) == ""
        upper, lower = [], []
        for codes, shown in re.findall("\x1b\\[([0-9;]+)m(▀+)", line):
            numbers = [int(n) for n in codes.split(";")]
            half = len(numbers) // 2
            assert (numbers[0], numbers[half]) == (38, 48)
            for row, (kind, *colour) in zip((upper, lower), (numbers[1:half], numbers[half + 1 :])):
                assert kind == {1: 5, 3: 2}[len(colour)]
                row += [tuple(colour) if kind == 2 else xterm(*colour)] * len(shown)
        rows += [upper, lower]
    return torch.tensor(rows)


@pytest.mark.parametrize("channels", [1, 3])
def test_blocks_are_the_pixels(channels):
    picture = torch.randint(0, 256, (channels, 6, 5), dtype=torch.uint8)
    picture[:, :, 2:4] = 7  # equal neighbours share one code
    assert torch.equal(pixels_of(blocks(picture)), picture.expand(3, -1, -1).permute(1, 2, 0).long())


def test_an_odd_row_stands_above_black():
    shown = pixels_of(blocks(torch.full((1, 3, 2), 200, dtype=torch.uint8)))
    assert shown[:, 0, 0].tolist() == [200, 200, 200, 0]


def test_256_colours_are_the_nearest_there_are():
    greys = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    shown = pixels_of(blocks(greys, 256))
    assert (shown - greys[0, :, :, None].long()).abs().max() <= 8  # between 238 and 255
    assert shown[0, 0].tolist() == [0] * 3 and shown[-1, -1].tolist() == [255] * 3
    colours = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8)
    cube = torch.cartesian_prod(*[torch.tensor([0, 95, 135, 175, 215, 255])] * 3)
    pixels = colours.permute(1, 2, 0).reshape(-1, 3).long()
    nearest = (pixels[:, None] - cube).abs().sum(2).min(1).values
    away = (pixels_of(blocks(colours, 256)).reshape(-1, 3) - pixels).abs().sum(1)
    assert (away <= nearest).all()


def test_without_colours_the_bright_half_is_shown():
    picture = torch.tensor([[[0, 255, 127, 128], [0, 0, 128, 255]]], dtype=torch.uint8)
    assert blocks(picture, 2) == " ▀▄█"
    assert blocks(picture[:, :1], 2) == " ▀ ▀"


@pytest.mark.parametrize(
    ("terminal", "environment", "colours"),
    [
        (True, {"TERM": "xterm"}, 256),
        (True, {"TERM": "xterm", "COLORTERM": "truecolor"}, 2**24),
        (True, {"TERM": "dumb", "COLORTERM": "truecolor"}, 2),
        (True, {"TERM": "xterm", "COLORTERM": "truecolor", "NO_COLOR": "1"}, 2),
        (False, {"TERM": "xterm", "COLORTERM": "truecolor"}, 2),
    ],
)
def test_a_terminal_gets_the_colours_that_it_has(terminal, environment, colours, monkeypatch):
    for name in ("TERM", "COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    assert terminal_colours() == colours


# --- show


IMAGES = torch.linspace(-1, 1, 3 * 8 * 8).reshape(3, 1, 8, 8)


def test_show_prints_images_in_a_terminal_of_the_width_there_is(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for columns, row in ((80, 3), (23, 2), (8, 1)):
        monkeypatch.setenv("COLUMNS", str(columns))
        show(IMAGES)
        grid = image_grid(IMAGES, row)[0, :, :, None].long()
        shown = pixels_of(capsys.readouterr().out.strip("\n"))
        assert shown.shape == (*grid.shape[:2], 3) and (shown - grid).abs().max() <= 8  # 256 colours
    monkeypatch.setenv("COLUMNS", "7")
    with pytest.raises(ValueError, match="an image is 8 characters wide, but this terminal 7"):
        show(IMAGES)


@pytest.mark.parametrize("width", [8, 100, 700])
def test_show_enlarges_in_a_notebook(width, monkeypatch, capsys):
    shown = []
    notebook = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=None))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(Image=bytes, display=shown.append))
    x = torch.linspace(-1, 1, 4 * width).reshape(1, 1, 4, width)
    show(x)
    picture = torch.from_numpy(iio.imread(io.BytesIO(shown[0])))
    enlarge = {8: 8, 100: 6, 700: 1}[width]
    assert torch.equal(picture, image_grid(x, enlarge=enlarge)[0]) and not capsys.readouterr().out


def test_show_takes_one_image_a_picture_and_pixels_alike(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    said = []
    for x in (IMAGES[:1], IMAGES[0], image_grid(IMAGES[:1]), image_grid(IMAGES[:1])[None], IMAGES[0].numpy()):
        show(x)
        said.append(capsys.readouterr().out)
    assert len(set(said)) == 1 and "▀" in said[0]


def test_show_without_a_display_says_what_to_do(capsys):
    show(IMAGES)
    assert capsys.readouterr().out == (
        "no notebook or terminal shows images here: save_picture(image_grid(x), 'x.png') writes a file\n"
    )
    with pytest.raises(ValueError, match=r"image_grid takes images \(b, 1 or 3, h, w\), got shape \(8, 8\)"):
        show(IMAGES[0, 0])
