"""Makes the pictures of README and docs/, into assets/pictures: `make pictures`.

Those of commands come from the very lines that README shows under "What it can do"; two more are drawn here.
"""

import re
import shlex
import tempfile
from pathlib import Path

import torch
from course.chapter_00 import three_rows
from matplotlib.figure import Figure

from tinyddpm import image_grid, load_pretrained
from tinyddpm.cli.main import main
from tinyddpm.data import crop_to
from tinyddpm.viz import frames_even_in_log_snr

ROOT = Path(__file__).parent.parent
OUT = ROOT / "assets" / "pictures"
GROUND, INK, ACCENT = "#1c1c1c", "#f4f4f4", "#56b4e9"


def commands() -> list[list[str]]:
    """The words of each command that README shows under "What it can do"."""
    section = (ROOT / "README.md").read_text().partition("## What it can do")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.S)
    return [shlex.split(line, comments=True)[1:] for line in block[1].splitlines()] if block else []


def draw_those_of_commands() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for words in commands():
            place = words.index("--out") + 1
            made = Path(folder, words[place])
            words[place] = str(made)
            if main(words) != 0:
                raise SystemExit(f"tinyddpm {shlex.join(words)} failed")
            made = made / "digits.gif" if made.is_dir() else made  # gif writes a folder
            (OUT / made.name).write_bytes(made.read_bytes())


def draw_card(path: Path, seed: int = 0) -> None:
    """The card that is shown where the project is linked, 1280x640: ten digits on their way from noise."""
    ddpm = load_pretrained()
    steps = list(ddpm.sample_steps(range(10), steps=100, scale=2.0, seeds=range(seed, seed + 10)))
    log_snr = ddpm.schedule.log_snr[torch.tensor([step.t for step in steps])]
    rows = [crop_to(steps[i].x_t) for i in frames_even_in_log_snr(log_snr, 4, low=-2.5, high=2.0)]
    picture = image_grid(torch.cat(rows), columns=10, enlarge=4)[0]
    figure = Figure((12.8, 6.4), dpi=100, facecolor=GROUND)
    figure.figimage(picture.numpy(), 80, 60, cmap="gray", vmin=0, vmax=255)
    figure.text(80 / 1280, 560 / 640, "tinyddpm", color=INK, size=44, weight="bold", va="center")
    figure.text(440 / 1280, 560 / 640, "diffusion, from scratch:", color=ACCENT, size=21, va="bottom")
    figure.text(440 / 1280, 553 / 640, "read it, prove it, import it", color=INK, size=21, va="top")
    figure.savefig(path, facecolor=GROUND)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    draw_those_of_commands()
    draw_card(OUT / "card.png")
    three_rows(OUT / "three_rows.png")
    print(f"pictures in {OUT}")
