"""The command judge. Like `options`, it imports torch only when it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

JudgedName = Literal["mnist", "mnist-resized", "fashion"]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Measure the samples of any generator beside as many real images."""

    # x.npz with images (`images` or `x`) and their labels, if there are any (`labels` or `y`): grey, light on black, of
    # 28x28 or 32x32, uint8 in [0, 255] or floats in [0, 1] or [-1, 1]. Or a folder of such pictures: their labels are
    # what the names of its folders begin with, or its files, as in 7/1.png or 7_1.png
    samples: Positional[Path]
    data: JudgedName = "mnist"  # data set of the real images
    n: int | None = None  # how many to judge, chosen at random; None: all
    root: Path | None = None  # folder of downloaded data, for real images that do not ship
    skip_broken: bool = False  # leave out pictures of a folder that cannot be read
    train: bool = True  # --no-train leaves out the classifiers that are trained on the images
    out: Path | None = None  # also write a file: x.md has what is printed, x.json all figures


def run_judge(ask: Judge) -> None:
    import json

    from ..evaluation.judge import JUDGED, judge, read_samples, reference_of
    from ..evaluation.report import page
    from ..files import write_whole
    from .commands import file_of

    out = file_of(ask.out, ".md", ".json") if ask.out else None
    images, labels = read_samples(ask.samples, ask.skip_broken)
    metrics = {name: metric for name, metric in JUDGED.items() if ask.train or name != "train_on_synthetic"}
    found = judge(images, labels, reference_of(images, ask.data, ask.root), metrics, ask.n, str(ask.samples))
    print(text := page(found), end="")
    if out:
        write_whole(out, (text if out.suffix == ".md" else json.dumps(found, indent=1)).encode())
        print(f"this is in {out}")
