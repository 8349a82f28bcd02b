"""The table, the plot and the film of a run: true, whole after interruptions, and of all processes."""

import csv
import signal
from dataclasses import replace

import imageio.v3 as iio
import pytest
import torch
from small_run import MINI, Fetched, send, weights

from tinyddpm.trainer.clock import Clock
from tinyddpm.trainer.interrupt import Interrupted
from tinyddpm.trainer.log import BANDS, TABLE, Watch
from tinyddpm.trainer.trainer import make_accelerator, train


def table(folder):
    with open(folder / TABLE, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def a_row_a_step(monkeypatch):
    monkeypatch.setattr("tinyddpm.trainer.log.EVERY", 1)


def at(steps):
    clock = Clock(1000, None)
    clock.go_on(steps, 0.5, steps / 60)  # a second a step
    return clock


def test_a_row_holds_the_means_of_its_steps_and_of_each_band(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyddpm.trainer.log.EVERY", 2)
    watch = Watch(tmp_path, 100, 3, make_accelerator("cpu", "no", False))
    watch.begin(Clock(1000, None))
    watch.see(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1, 10, 11]), torch.tensor(3.0))
    assert not watch.due()
    watch.see(torch.tensor([4.0, 5.0, 6.0]), torch.tensor([100, 91, 90]), torch.tensor(4.0))
    assert watch.due()
    watch.write(at(2), 7, 0.25)
    (row,) = table(tmp_path)
    bands = [row[name] for name in watch.bands]
    assert bands == ["1.5", "6", *[""] * 6, "6", "4.5"] and len(bands) == BANDS
    assert (watch.bands[0], watch.bands[-1]) == ("loss_t_1_10", "loss_t_91_100")
    found = {name: float(row[name]) for name in row if name not in watch.bands}
    assert found == {
        "step": 2, "epoch": 7, "minutes": pytest.approx(2 / 60, rel=1e-4), "loss": 4.0,
        "learning_rate": 0.25, "gradient_norm": 3.5, "images_per_s": pytest.approx(3.0, rel=1e-3),
    }  # fmt: skip
    watch.write(at(2), 7, 0.25)  # nothing new, no row
    assert len(table(tmp_path)) == 1


@pytest.mark.parametrize("T", [1, 3, 10, 25, 64, 1000])
def test_every_time_has_the_band_that_is_named_for_it(tmp_path, T):
    watch = Watch(tmp_path, T, 1, make_accelerator("cpu", "no", False))
    for t in range(1, T + 1):
        watch.sums.zero_()
        watch.see(torch.ones(1), torch.tensor([t]), torch.ones(()))
        (band,) = watch.sums[1].nonzero().flatten().tolist()
        first, last = map(int, watch.bands[band].split("_")[2:])
        assert first <= t <= last


def test_a_step_that_overflowed_is_not_in_the_mean_of_the_norms(tmp_path):
    watch = Watch(tmp_path, 10, 1, make_accelerator("cpu", "no", False))
    watch.begin(Clock(10, None))
    for norm in (2.0, torch.inf, torch.nan, 4.0):
        watch.see(torch.ones(1), torch.ones(1, dtype=torch.long), torch.tensor(norm))
    watch.write(at(4), 1, 0.1)
    watch.see(torch.ones(1), torch.ones(1, dtype=torch.long), torch.tensor(torch.inf))
    watch.write(at(5), 1, 0.1)
    assert [row["gradient_norm"] for row in table(tmp_path)] == ["3", ""]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b",", b";"),
        lambda text: b"\xff\xfe" + text,
        lambda text: b"",
        lambda text: text.replace(b"step,", b"step,note,"),
    ],
)
def test_a_table_that_is_none_any_more_is_put_aside(tmp_path, change):
    with pytest.raises(Interrupted):
        train(MINI, tmp_path, Fetched(1 + 4 * 2, send(signal.SIGTERM)), device="cpu")
    changed = change((tmp_path / TABLE).read_bytes())
    (tmp_path / TABLE).write_bytes(changed)
    train(MINI, tmp_path, Fetched(), device="cpu")
    assert [int(row["step"]) for row in table(tmp_path)] == [3, 4, 5, 6]
    assert (tmp_path / "log.unread.csv").read_bytes() == changed


@pytest.mark.parametrize("lost", [b"", b"\x89PNG"])
def test_a_picture_that_was_lost_does_not_end_the_run(tmp_path, lost):
    with pytest.raises(Interrupted):
        train(MINI, tmp_path, Fetched(1 + 4 * 4, send(signal.SIGTERM)), device="cpu")
    (tmp_path / "samples" / "epoch_001.png").write_bytes(lost)
    train(MINI, tmp_path, Fetched(), device="cpu")
    assert len(iio.imread(tmp_path / "progress.gif", index=None)) == 1


def test_a_run_writes_a_table_a_plot_and_a_film(tmp_path):
    train(MINI, tmp_path, Fetched(), device="cpu")
    rows = table(tmp_path)
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [int(row["epoch"]) for row in rows] == [1, 1, 1, 2, 2, 2]
    assert all(float(row["gradient_norm"]) > 0 and float(row["images_per_s"]) > 0 for row in rows)
    assert iio.imread(tmp_path / "log.png").ndim == 3
    assert len(iio.imread(tmp_path / "progress.gif", index=None)) == 2
    assert not list(tmp_path.glob("*/tensorboard"))


def test_plot_and_film_are_not_made_at_every_step_or_epoch(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("tinyddpm.trainer.log.Watch.draw", lambda _: made.append("plot"))
    monkeypatch.setattr("tinyddpm.trainer.log.Watch.film", lambda _, epochs: made.append(f"film of {epochs}"))
    train(MINI, tmp_path, Fetched(), device="cpu", epochs=3)
    assert made == ["plot", "film of 3"]
    monkeypatch.setattr("tinyddpm.trainer.log.REDRAW", -1.0)
    made.clear()
    train(MINI, tmp_path, Fetched(), device="cpu", epochs=2, fresh=True)
    assert made == [*["plot"] * 4, "film of 1", *["plot"] * 4, "film of 2"]


def steady(folder):
    """The table without what depends on the clock."""
    return [{n: v for n, v in row.items() if n not in ("minutes", "images_per_s")} for row in table(folder)]


@pytest.mark.parametrize("step", [2, 3, 4])
def test_the_table_of_a_run_that_was_stopped_is_that_of_one_that_was_not(tmp_path, step):
    train(MINI, tmp_path / "whole", Fetched(), device="cpu")
    with pytest.raises(Interrupted):
        train(MINI, tmp_path / "cut", Fetched(1 + 4 * step, send(signal.SIGTERM)), device="cpu")
    with open(tmp_path / "cut" / TABLE, "a") as file:  # as a crash leaves it: steps not saved, half a row
        file.write(",".join(["9", "9", *["1"] * (BANDS + 5)]) + "\n7,3,0.1")
    train(MINI, tmp_path / "cut", Fetched(), device="cpu")
    assert steady(tmp_path / "cut") == steady(tmp_path / "whole")


def test_a_fresh_run_begins_a_new_table(tmp_path):
    train(MINI, tmp_path, Fetched(), device="cpu")
    train(MINI, tmp_path, Fetched(), device="cpu", epochs=1, fresh=True)
    assert len(table(tmp_path)) == 3
    assert len(iio.imread(tmp_path / "progress.gif", index=None)) == 1


@pytest.mark.parametrize("what", ["DDPM.save", "Watch.film", "Watch.draw"])
def test_a_disk_that_is_full_at_the_end_of_an_epoch_leaves_the_last_state(tmp_path, monkeypatch, what):
    def full(*_):
        raise OSError(28, "No space left on device")

    whole = weights(train(MINI, tmp_path / "whole", Fetched(), device="cpu"))
    with monkeypatch.context() as patch:
        name, method = what.split(".")
        patch.setattr(f"tinyddpm.{'pipeline' if name == 'DDPM' else 'watch'}.{name}.{method}", full)
        with pytest.raises(ValueError, match="cannot write .*No space left.*the last good state is that of"):
            train(MINI, tmp_path / "full", Fetched(), device="cpu")
    assert torch.equal(weights(train(MINI, tmp_path / "full", Fetched(), device="cpu")), whole)


def test_figures_go_to_tensorboard_when_asked_for(tmp_path):
    train(MINI, tmp_path, Fetched(), device="cpu", tensorboard=True)
    (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    assert b"gradient_norm" in events.read_bytes()


def test_tensorboard_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.utils.is_tensorboard_available", lambda: False)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        train(MINI, tmp_path, Fetched(), device="cpu", tensorboard=True)


def test_the_parts_of_a_batch_are_part_of_the_settings(tmp_path):
    with pytest.raises(Interrupted):
        train(MINI, tmp_path, Fetched(6, send(signal.SIGINT)), device="cpu")
    with pytest.raises(ValueError, match="accumulate 1 -> 2"):
        train(MINI, tmp_path, Fetched(), device="cpu", accumulate=2)
    with pytest.raises(ValueError, match=r"grow \[\] -> \[5\]"):
        train(replace(MINI, grow=(5,)), tmp_path, Fetched(), device="cpu")
