import re

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from tinyddpm import Schedule, Step
from tinyddpm.cli.terminal import blocks, terminal_colours
from tinyddpm.evaluation.report import save_curves
from tinyddpm.viz import film_strip, frames_even_in_log_snr, image_grid, save_gif, save_picture


def test_a_grid_reads_left_to_right_and_fills_up_with_black():
    x = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 2, 3)
    grid = image_grid(x, columns=3)
    assert grid.shape == (1, 4, 9) and grid.dtype == torch.uint8
    assert grid[0, ::2, ::3].tolist() == [[0, 64, 128], [191, 255, 0]]


def test_the_range_is_fixed_and_noise_is_not_stretched_away():  # trap 35
    assert image_grid(torch.full((1, 1, 2, 2), 0.0)).unique().tolist() == [0, 128]
    faint = image_grid(torch.tensor([-0.1, 0.1, -9.0, 9.0]).reshape(1, 1, 2, 2), columns=1)
    assert faint.flatten().tolist() == [115, 140, 0, 255]


def test_enlarging_repeats_pixels():
    grid = image_grid(torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2), columns=1, enlarge=3)
    assert grid[0].tolist() == [[0, 0, 0, 255, 255, 255]] * 3


def test_fewer_levels_lie_evenly_from_black_to_white():
    x = torch.linspace(-1, 1, 1001).reshape(1, 1, 1, 1001)
    assert image_grid(x, columns=1, levels=4).unique().tolist() == [0, 85, 170, 255]
    near = image_grid(x, columns=1, levels=16).int() - image_grid(x, columns=1).int()
    assert near.abs().max() <= 9  # half of a step of 17
    with pytest.raises(ValueError, match="2 to 256 levels of brightness, got 1"):
        image_grid(x, levels=1)


def test_no_columns_are_refused():
    with pytest.raises(ValueError, match="columns and enlarge must be at least 1, got 0 and 1"):
        image_grid(torch.zeros(1, 1, 2, 2), columns=0)


def test_curves_are_drawn_beside_their_floor(tmp_path):
    save_curves([1, 2], {"a": [1.0, 2.0], "b": [3.0, 4.0]}, {"a": 0.5}, "steps", tmp_path / "x.png")
    assert iio.imread(tmp_path / "x.png").shape[1] > 2 * iio.imread(tmp_path / "x.png").shape[0]


def test_a_film_strip_shows_x_t_above_x_0_hat():
    def image(value):
        return torch.full((2, 1, 4, 4), value)

    steps = [Step(t, image(-t / 10), image(t / 10)) for t in range(10, -1, -1)]
    strip = film_strip(iter(steps), frames=3)
    assert strip.shape == (1, 8, 12)
    assert strip[0, ::4, ::4].tolist() == [[0, 64, 128], [255, 191, 128]]


def test_one_frame_is_a_gif(tmp_path):
    save_gif([image_grid(torch.zeros(1, 1, 8, 8), columns=1)], tmp_path / "one.gif")
    assert iio.imread(tmp_path / "one.gif", index=None).shape[-3:-1] == (8, 8)


def test_a_gif_reads_back_as_it_was_written(tmp_path):
    torch.manual_seed(0)
    frames = [image_grid(torch.rand(4, 1, 8, 8) * 2 - 1, columns=2) for _ in range(5)]
    save_gif(frames, tmp_path / "x.gif", fps=12.5, hold=1.5)
    read = Image.open(tmp_path / "x.gif")
    assert read.info["loop"] == 0
    pages = [(frame.info["duration"], np.array(frame.convert("L"))) for frame in ImageSequence.Iterator(read)]
    assert [duration for duration, _ in pages] == [80, 80, 80, 80, 1500]
    for frame, (_, page) in zip(frames, pages):
        assert np.array_equal(frame[0].numpy(), page)


def test_equal_frames_keep_their_time(tmp_path):  # trap 35
    black, white = (image_grid(torch.full((1, 1, 8, 8), value)) for value in (-1.0, 1.0))
    save_gif([black, white, white, white], tmp_path / "x.gif", fps=10, hold=1)
    frames = ImageSequence.Iterator(Image.open(tmp_path / "x.gif"))
    assert sum(frame.info["duration"] for frame in frames) == 1300


def test_colour_pictures_are_written_as_they_are(tmp_path):
    picture = image_grid(torch.rand(2, 3, 4, 4) * 2 - 1, columns=2)
    save_picture(picture, tmp_path / "x.png")
    assert np.array_equal(iio.imread(tmp_path / "x.png"), picture.permute(1, 2, 0).numpy())


def test_frames_are_even_in_log_snr():
    schedule = Schedule.named("linear")
    times = torch.tensor([t for t, _ in schedule.grid(500)] + [0])
    chosen = frames_even_in_log_snr(schedule.log_snr[times], 25)
    assert len(chosen) == 25 and chosen[-1] == 500 and chosen == sorted(set(chosen))
    values = schedule.log_snr[times][chosen[:-1]]
    assert abs(values[0] + 4) < 0.1 and abs(values[-1] - 6) < 0.3
    assert ((values.diff() - 10 / 23).abs() < 0.2).all()


def test_frames_are_never_more_than_the_steps():
    log_snr = Schedule.named("cosine").log_snr[torch.tensor([1000, 500, 0])]
    assert frames_even_in_log_snr(log_snr, 40) == [1, 2]  # t = 1000 is noise alone
    assert frames_even_in_log_snr(log_snr, 1)[-1] == 2


def xterm(i):
    """What xterm shows as colour i of 256, from 16 on: a cube of 6 x 6 x 6, then 24 greys."""
    if i >= 232:
        return (8 + 10 * (i - 232),) * 3
    return tuple(55 + 40 * n if n else 0 for n in ((i - 16) // 36, (i - 16) // 6 % 6, (i - 16) % 6))


def pixels_of(text):
    """What a terminal shows: lines of half blocks back into pixels (h, w, 3)."""
    rows = []
    for line in text.split("\n"):
        assert line.endswith("\x1b[0m")
        upper, lower = [], []
        for codes, shown in re.findall("\x1b\\[([0-9;]+)m(▀+)", line):
            numbers = [int(n) for n in codes.split(";")]
            half = len(numbers) // 2
            assert (numbers[0], numbers[half]) == (38, 48)
            for row, (kind, *colour) in zip((upper, lower), (numbers[1:half], numbers[half + 1 :])):
                assert kind == {1: 5, 3: 2}[len(colour)]
                row += [tuple(colour) if kind == 2 else xterm(*colour)] * len(shown)
        assert re.sub("\x1b\\[[0-9;]+m|▀", "", line) == ""
        rows += [upper, lower]
    return torch.tensor(rows)


@pytest.mark.parametrize("channels", [1, 3])
def test_blocks_are_the_pixels(channels):
    picture = torch.randint(0, 256, (channels, 6, 5), dtype=torch.uint8)
    picture[:, :, 2:4] = 7  # some that are alike, which share one name of their colour
    assert torch.equal(pixels_of(blocks(picture)), picture.expand(3, -1, -1).permute(1, 2, 0).long())


def test_an_odd_row_stands_above_black():
    shown = pixels_of(blocks(torch.full((1, 3, 2), 200, dtype=torch.uint8)))
    assert shown[:, 0, 0].tolist() == [200, 200, 200, 0]


def test_256_colours_are_the_nearest_there_are():
    greys = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    shown = pixels_of(blocks(greys, 256))
    assert (shown - greys[0, :, :, None].long()).abs().max() <= 8  # between 238 and 255
    assert shown[0, 0].tolist() == [0] * 3 and shown[-1, -1].tolist() == [255] * 3
    cube = torch.tensor([[0, 95], [215, 255]], dtype=torch.uint8)
    colours = torch.stack([cube, cube.flip(0), cube.flip(1)])
    assert torch.equal(pixels_of(blocks(colours, 256)), colours.permute(1, 2, 0).long())


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
def test_colours_are_shown_where_there_are_some(terminal, environment, colours, monkeypatch):
    for name in ("TERM", "COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    assert terminal_colours() == colours


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: image_grid(torch.zeros(28, 28)), r"takes images \(b, 1 or 3, h, w\), got shape \(28, 28\)"),
        (lambda: image_grid(torch.zeros(0, 1, 2, 2)), "got shape"),
        (lambda: image_grid(torch.full((1, 1, 2, 2), torch.nan)), "NaN or infinite"),
        (lambda: film_strip([]), "no steps to show"),
        (lambda: blocks(torch.zeros(1, 2, 2, dtype=torch.uint8), 16), "2, 256 or 16777216 colours, got 16"),
        (lambda: save_gif([], "x.gif"), "at least one frame"),
        (lambda: save_gif([torch.zeros(1, 2, 2), torch.zeros(1, 2, 3)], "x.gif"), "of one shape"),
        (lambda: save_gif([torch.zeros(1, 2, 2)], "x.gif", fps=0), "fps and hold must be above 0, got fps=0"),
    ],
)
def test_what_cannot_be_shown_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
