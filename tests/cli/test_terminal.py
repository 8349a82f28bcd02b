"""Pictures as text: what a terminal would show of it are the pixels."""

import re

import pytest
import torch

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
