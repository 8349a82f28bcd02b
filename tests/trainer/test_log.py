"""The table, the plot and the film of a run: true, whole after interruptions, and of all processes."""

import sys

import imageio.v3 as iio
import pytest
import torch
from small_run import MINI, run, table

from tinyddpm.trainer.log import BANDS, Log
from tinyddpm.trainer.processes import make_accelerator
from tinyddpm.training import TrainStep
from tinyddpm.viz import save_picture


def log(folder, T=100, images=3, every=2):
    made = Log(folder, T, images, make_accelerator("cpu", "no"), every)
    made.begin(0.0)
    return made


def step(losses, t, norm=1.0):
    return TrainStep(1, torch.tensor(losses), torch.tensor(t), torch.tensor(norm))


def test_a_row_holds_the_means_of_its_steps_and_of_each_band(tmp_path):
    made = log(tmp_path)
    made.record(step([1.0, 2.0, 6.0], [1, 10, 11], 3.0))
    made.record(step([4.0, 5.0, 6.0], [100, 91, 90], 4.0))
    made.write(2, 7, 2 / 60, 0.25)
    (row,) = table(tmp_path)
    bands = [row[name] for name in made.bands]
    assert bands == ["1.5", "6", *[""] * 6, "6", "4.5"] and len(bands) == BANDS
    assert (made.bands[0], made.bands[-1]) == ("loss_t_1_10", "loss_t_91_100")
    found = {name: float(row[name]) for name in row if name not in made.bands}
    assert found == {
        "step": 2, "epoch": 7, "minutes": pytest.approx(2 / 60, rel=1e-4), "loss": 4.0,
        "learning_rate": 0.25, "gradient_norm": 3.5, "images_per_s": pytest.approx(3.0, rel=1e-3),
    }  # fmt: skip
    made.write(2, 7, 2 / 60, 0.25)  # nothing new, no row
    assert len(table(tmp_path)) == 1


@pytest.mark.parametrize("T", [1, 3, 10, 25, 64, 1000])
def test_every_time_has_the_band_that_is_named_for_it(tmp_path, T):
    made = log(tmp_path, T)
    for t in range(1, T + 1):
        made.sums.zero_()
        made.record(step([1.0], [t]))
        (band,) = made.sums[1].nonzero().flatten().tolist()
        first, last = map(int, made.bands[band].split("_")[2:])
        assert first <= t <= last


def test_a_step_that_overflowed_is_not_in_the_mean_of_the_norms(tmp_path):
    made = log(tmp_path)
    for norm in (2.0, torch.inf, torch.nan, 4.0):
        made.record(step([1.0], [1], norm))
    made.write(4, 1, 0.1, 0.1)
    made.record(step([1.0], [1], torch.inf))
    made.write(5, 1, 0.1, 0.1)
    assert [row["gradient_norm"] for row in table(tmp_path)] == ["3", ""]


@pytest.mark.parametrize("lost", [b"", b"\x89PNG"])
def test_a_picture_that_was_lost_does_not_end_the_run(tmp_path, lost):
    (tmp_path / "samples").mkdir()
    for epoch in (1, 2, 3):
        save_picture(torch.full((1, 8, 8), 80 * epoch, dtype=torch.uint8), tmp_path / f"samples/epoch_{epoch:03d}.png")
    (tmp_path / "samples" / "epoch_001.png").write_bytes(lost)
    log(tmp_path).film(3)
    assert len(iio.imread(tmp_path / "progress.gif", index=None)) == 2


def test_a_run_writes_a_table_a_plot_and_a_film(tmp_path, plots):
    run(tmp_path, tensorboard=True)
    rows = table(tmp_path)
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [int(row["epoch"]) for row in rows] == [1, 1, 1, 2, 2, 2]
    assert all(float(row["gradient_norm"]) > 0 and float(row["images_per_s"]) > 0 for row in rows)
    assert iio.imread(tmp_path / "log.png").shape == (680, 1300, 4)
    assert len(iio.imread(tmp_path / "progress.gif", index=None)) == 2
    (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    assert b"gradient_norm" in events.read_bytes()


@pytest.mark.parametrize(("minutes", "films"), [(0, 1), (1, 3)])
def test_plot_and_film_are_drawn_at_the_end_and_each_minute(tmp_path, monkeypatch, minutes, films):
    made, now = [], iter(range(1000))
    monkeypatch.setattr("tinyddpm.trainer.log.save_panels", lambda *_: made.append("plot"))
    monkeypatch.setattr("tinyddpm.trainer.log.save_gif", lambda frames, *_, **__: made.append(len(frames)))
    run(tmp_path, epochs=3, clock=lambda: 60 * minutes * next(now))
    assert made == [x for epoch in range(4 - films, 4) for x in ("plot", epoch)]


def test_rows_are_written_every_few_steps(tmp_path):
    run(tmp_path, epochs=1, log_every=2)
    assert [int(row["step"]) for row in table(tmp_path)] == [2, 3]
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    for package in ("tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"TensorBoard needs tensorboardX: pip install 'tinyddpm\[tensorboard\]'"):
        run(tmp_path, recipe=MINI, tensorboard=True)
