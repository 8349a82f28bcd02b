import imageio.v3 as iio
import numpy as np
import torch
from PIL import Image, ImageSequence

from tinyddpm import Schedule, Step
from tinyddpm.viz import film_strip, frames_even_in_log_snr, image_grid, save_gif, save_picture


def test_a_grid_reads_left_to_right_and_fills_up_with_black():
    x = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 2, 3)
    grid = image_grid(x, columns=3)
    assert grid.shape == (1, 4, 9) and grid.dtype == torch.uint8
    assert grid[0, ::2, ::3].tolist() == [[0, 64, 128], [191, 255, 0]]


def test_a_grid_is_no_wider_than_its_images():
    assert image_grid(torch.zeros(1, 1, 2, 3)).shape == (1, 2, 3)
    assert image_grid(torch.zeros(4, 3, 2, 3), columns=5, enlarge=2).shape == (3, 4, 24)


def test_the_range_is_fixed_and_noise_is_not_stretched_away():  # trap 35
    assert image_grid(torch.full((1, 1, 2, 2), 0.0)).unique().tolist() == [128]
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
