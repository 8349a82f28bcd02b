"""Bits of a report: in both units, beside compressors, and by time for a network that was trained for the bound."""

import gzip
import io
import json
import lzma

import numpy as np
import pytest
import torch
from PIL import Image

from tinyddpm import DDPM, Schedule, UNet
from tinyddpm.evaluation.bits import add_bits, bits_table, compressed, own_bits, picture
from tinyddpm.evaluation.report import ReportCache, page
from tinyddpm.extensions.vdm import GreyLevels, bound_betas


def test_compressors_are_given_the_pixels_and_nothing_else():
    images = torch.randint(256, (7, 5, 4), generator=torch.Generator().manual_seed(0)).byte()
    found, raw = compressed(images), images.numpy().tobytes()
    assert [*found] == ["PNG", "WebP, lossless", "gzip", "LZMA"]
    for name, compress in (("gzip", gzip.compress), ("LZMA", lzma.compress)):
        alone = sum(len(compress(image.numpy().tobytes())) for image in images)
        assert found[name] == pytest.approx((alone * 8 / 140, len(compress(raw)) * 8 / 140), abs=0.2)  # a time stamp
    for how in ({"format": "PNG"}, {"format": "WebP", "lossless": True}):
        read = np.array(Image.open(io.BytesIO(picture(images.numpy(), **how))).convert("L"))
        assert np.array_equal(read.reshape(5, 7, 4).swapaxes(0, 1), images.numpy())
    assert picture(np.zeros((101, 2, 2), np.uint8), format="PNG")  # 100 columns, two rows
    assert compressed(images * 0)["gzip"][1] < found["gzip"][1]


def grey(T=60):
    inner = UNet((16, 32), 5, None, attention=(), image_size=28, out_channels=32)
    return DDPM(GreyLevels(inner), Schedule(bound_betas(T)), "x_0", (1, 28, 28), {"data": "mnist"})


def test_the_images_together_visit_all_times():
    ddpm, x = grey(60), -torch.ones(40, 1, 28, 28)
    by_time = own_bits(ddpm, x, None, torch.Generator().manual_seed(0))
    assert by_time.shape == (61, 40) and (by_time[:2] > 0).all() and (by_time.sum(1) > 0).all()
    assert ((by_time[2:] > 0).sum(0) <= 30).all() and float((by_time > 0).sum()) == 40 * 2 + 59 * 20


@pytest.mark.parametrize("side", [28, 32])
def test_a_report_has_both_units_and_what_compressors_need(side, reference, tmp_path):
    samples = {"n": 130, "steps": 2, "sampler": "ddim", "eta": 0, "scale": 1, "seed": 0}
    cache = ReportCache(tmp_path / "report.json", {"weights": "w", "data": "mnist", "samples": samples})
    ddpm = grey() if side == 28 else DDPM(Shrink(), Schedule.named("cosine", 5), "x_0")
    add_bits(cache, ddpm, reference, 2, plots=True)
    mean, error, n = json.loads((tmp_path / "report.json").read_text())["bits_per_dim"]
    factor = (side / 28) ** 2
    assert n == 2 and page(cache).count(f"| {mean:.4f} ± {error:.4f} (2 digits) |") == 1
    lines = bits_table(cache)
    assert lines[1].startswith("| bits per pixel of 28x28 | each image alone | ")
    assert f"| this model's bound | {mean * factor:.3f} ± {error * factor:.3f} (2) | |" in lines
    assert any(line.startswith("| its probability-flow ODE") for line in lines) == (side == 28)
    assert (tmp_path / "bits.png").exists() == (side == 28)
    gzipped = cache["bits_beside"]["compressed"]["gzip"]
    assert f"| gzip | {gzipped[0]:.2f} | {gzipped[1]:.2f} |" in lines and 1 < gzipped[1] < gzipped[0] < 3
    assert "| Residual Flow, as published (Chen et al. 2019, table 1) | 0.97 | |" in lines
    assert bits_table({}) == []


class Shrink(torch.nn.Module):
    num_classes = None

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.1))

    def forward(self, x, t, y=None):
        return self.weight * x
