"""What an installation costs, and what works without the extras: the figures of docs/install.md.

    python benchmarks/install.py [--keep FOLDER]

Makes a clean virtual environment, installs torch and then the wheel of this checkout, checks that the wheel leaves
torch as it is, and runs every command; then adds one extra after another, and tries again what needed one.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
LARGEST = 1300  # MB of an environment with torch for the CPU and the wheel
COMMANDS = [
    "--version",
    "sample --digits 7 --per-digit 1 --out seven.png",
    "gif --digits 01 --steps 20",
    "morph --digits 01 --steps 5",
    "inpaint --digits 3 --each 2 --steps 10",
    "style --hands 2 --steps 5",
    "style --image seven.png --label 7 --steps 5 --out mine.png",
    "write 2026 --steps 10",
    "eval --n 130 --steps 5 --no-sweeps --no-bits",
    "eval --n 130 --steps 5 --no-bits",
    "train --recipe nano --minutes 0.1 --device cpu",
    "train --data fashion --root data",
    "train --data folder --root pictures --recipe nano --batch-size 2 --epochs 1 --device cpu --out runs/folder",
    "train --recipe nano --minutes 0.1 --device cpu --tensorboard --out runs/board",
    "export",
]
EXTRAS = ("train", "app", "notebooks", "tensorboard", "datasets", "onnx", "interop")


def run(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True)


def must(*words: object, cwd: Path | None = None) -> str:
    done = run(*words, cwd=cwd)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def megabytes(folder: Path) -> float:
    return sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file() or f.is_symlink()) / 1e6


def torch_of(python: Path) -> str:
    return must(python, "-c", "import torch; print(torch.__version__, torch.__file__)").strip()


def try_commands(bin: Path, folder: Path, commands: list[str]) -> list[str]:
    """Runs each command in the folder, prints its seconds or what it needs, and returns those that need an extra."""
    missing = []
    (folder / "pictures").mkdir(exist_ok=True)
    for k in range(4):
        shutil.copy(ROOT / "assets/pictures/style.png", folder / f"pictures/{k}.png")
    for command in commands:
        started = time.perf_counter()
        done = run(bin / "tinyddpm", *command.split(), cwd=folder)
        seconds, last = time.perf_counter() - started, (done.stderr.strip().splitlines() or [""])[-1]
        said = f"works, {seconds:.0f} s" if done.returncode == 0 else last
        if done.returncode == 2 and "pip install 'tinyddpm[" in last:
            missing.append(command)
        elif done.returncode not in (0, 2):  # 2: a sentence about something else, such as no network
            said = f"FAILED ({done.returncode}): {last}"
        print(f"  tinyddpm {command:60.60} {said}", flush=True)
    return missing


def chapter_alone(python: Path, folder: Path) -> None:
    """The first chapter, copied alone into an empty folder."""
    shutil.copy(ROOT / "chapters/01_forward_process.ipynb", folder)
    execute = (python, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", "--output", "done.ipynb")
    done = run(*execute, "01_forward_process.ipynb", cwd=folder)
    print(f"  chapter 01 alone: {'runs' if done.returncode == 0 else done.stderr[-300:]}", flush=True)


def trial(folder: Path, torch: str) -> None:
    venv.create(folder / "venv", with_pip=True)
    bin, work = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin"), folder / "work"
    work.mkdir()
    pip = (bin / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    must(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    empty = megabytes(folder / "venv")
    must(*pip, torch)
    before, size = torch_of(bin / "python"), megabytes(folder / "venv")
    print(f"{torch}: {before.split()[0]}, {size - empty:.0f} MB; an empty environment is {empty:.0f} MB")
    started = time.perf_counter()
    must(*pip, wheel)
    seconds, own = time.perf_counter() - started, megabytes(folder / "venv")
    print(
        f"the wheel: {wheel.stat().st_size / 1e6:.1f} MB, installed with what it needs in {seconds:.0f} s", flush=True
    )
    print(f"its environment: {own:.0f} MB, of which the wheel and what it needs {own - size:.0f} MB", flush=True)
    if torch_of(bin / "python") != before or own > LARGEST:
        sys.exit(f"torch was {before} and is {torch_of(bin / 'python')}; {own:.0f} MB of at most {LARGEST}")
    missing = try_commands(bin, work, COMMANDS)
    for extra in EXTRAS:
        size = megabytes(folder / "venv")
        must(*pip, f"{wheel}[{extra}]", torch)
        print(f"{extra}: {megabytes(folder / 'venv') - size:+.0f} MB; torch {torch_of(bin / 'python').split()[0]}")
    chapter_alone(bin / "python", work)
    try_commands(bin, work, missing)


def main() -> None:
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", __doc__ or "")[0])
    parser.add_argument("--keep", type=Path, help="folder for the environment, kept afterwards")
    parser.add_argument("--torch", default="torch==2.13.0", help="what pip installs first")
    given = parser.parse_args()
    if given.keep:
        given.keep.mkdir(parents=True)
        trial(given.keep.resolve(), given.torch)
    else:
        with tempfile.TemporaryDirectory() as folder:
            trial(Path(folder), given.torch)


if __name__ == "__main__":
    main()
