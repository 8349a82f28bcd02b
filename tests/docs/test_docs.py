"""README, docs/ and the other pages: their commands and snippets run, their links lead somewhere, README stays short.

A command runs as it is written, but smaller (LESS, QUICK), or stands in NOT_HERE, with the reason and what tests it.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomllib
import torch
from PIL import Image

from tinyddpm import DDPM, Schedule, UNet, mnist
from tinyddpm.cli.main import COMMANDS, main, parsed
from tinyddpm.data import ImageDataset
from tinyddpm.editing.handwriting import slant
from tinyddpm.evaluation import METRICS, Reference, classify, load_classifier

ROOT = Path(__file__).parent.parent.parent
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "chapters/README.md")),
    ROOT / "assets/weights/README.md", *sorted((ROOT / "docs").glob("*.md")),
]}  # fmt: skip
FENCE = re.compile(r"^```(.*)\n((?:(?!```).*\n)*)^```$", re.M)


def blocks(page, language):
    return [code for found, code in FENCE.findall(PAGES[page]) if found == language]


LINES = [
    (page, re.split(r"\s+#", line, maxsplit=1)[0].strip())
    for page in PAGES
    for block in blocks(page, "sh")
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def test_every_block_says_what_it_holds():
    for page, text in PAGES.items():
        assert text.count("```") == 2 * len(FENCE.findall(text)), f"{page} has a block that is not closed"
        assert {language for language, _ in FENCE.findall(text)} <= {"sh", "python", "text"}, page
        for block in blocks(page, "text"):
            first = r"^(tinyddpm|make|python|pytest|pip|uv|conda|git|cd|torchrun|accelerate|OMP_NUM_THREADS=\d+) "
            assert not re.search(first, block, re.M), f"{page} hides a command in a block of text"


# --- commands

# what costs less: fewer images in fewer steps
LESS = {"--per-digit 100": "--per-digit 2", "--per-digit 8": "--per-digit 2", "--hands 5": "--hands 1 --steps 2"}
LESS |= {"inpaint": "inpaint --steps 2 --times 1 --each 1", "morph": "morph --steps 2 --frames 2"}
LESS |= {"write": "write --steps 2", "gif": "gif --steps 2", "sample": "sample --steps 2"}
# two seconds of a small network, not compiled; the last of an option given twice counts
LESS |= {r"--epochs \d+": "", "--compile": ""}
QUICK = {
    "train": "--minutes 0.01 --device cpu --batch-size 4 --network.dims 8 8 16 --network.attention 4 --network.heads 1",
    "eval": "--n 150 --steps 2 --no-sweeps --no-bits",
    "judge": "--n 130 --no-train",
}
CI, BROWSER = "CI runs it", "tests/docs/test_network.py"
# Lines that no test can run as they stand: a pattern of the whole line, the reason, and what tests it instead.
NOT_HERE = {
    r"pip (install|wheel) .*|uv (venv|pip install .*)": ("needs the network", "benchmarks/install.py"),
    r"conda env create -f environment.yml": (
        "needs conda and the network", "tests/test_house.py::test_conda_installs_the_same_package",
    ),
    r"\. \.venv/bin/activate|conda activate tinyddpm": ("changes the reader's shell", "benchmarks/install.py"),
    r"tinyddpm": ("asks at a terminal", "tests/cli/test_menu.py::test_a_sitting_at_a_terminal"),
    r"tinyddpm app": ("serves until Ctrl-C", "tests/apps/test_server.py::test_the_page_is_served_until_ctrl_c"),
    r"python -m http\.server -d site": ("serves until Ctrl-C", f"{BROWSER}::served"),
    r"(torchrun|accelerate launch) .* --recipe tiny": (
        "starts two processes",
        "tests/attacks/test_attacks.py::test_a_line_of_the_docs_starts_two_processes_as_it_stands",
    ),
    r"(torchrun|accelerate launch) .* --out SHARED": (
        "needs two machines; of one", "tests/test_processes.py::test_two_processes_are_one_with_the_double_batch",
    ),
    r"pytest tests/test_samplers\.py": (CI, "Makefile"),
    r"pytest --nbval chapters/01_forward_process\.ipynb": (CI, "Makefile"),
    r"python chapters/build_chapters\.py 01": (
        "takes a minute", "tests/test_chapters.py::test_a_notebook_is_what_its_source_says",
    ),
    r"python benchmarks/browser_network\.py( --npm FOLDER)?": ("measures for minutes", BROWSER),
}  # fmt: skip


def not_here(line):
    return [pattern for pattern in NOT_HERE if re.fullmatch(pattern, line)]


@pytest.fixture
def cheap(tmp_path, monkeypatch):
    """A folder with what the lines ask for, and an evaluation beside few digits without training a classifier."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    few = [ImageDataset(part.images[:200], part.labels[:200]) for part in (mnist(), mnist(train=False))]
    module = sys.modules["tinyddpm.evaluation.evaluate"]  # the package has a function of this name
    monkeypatch.setattr(module, "reference_for", lambda ddpm: Reference(*few))
    judge = sys.modules["tinyddpm.evaluation.judge"]
    monkeypatch.setattr(judge, "load_reference", lambda *key: Reference(*few))
    for name in ("train_on_synthetic", "memorisation"):  # slow; asks for 1,000 digits: tests/evaluation measures both
        for metrics in (METRICS, judge.JUDGED):
            monkeypatch.delitem(metrics, name)
    return tmp_path


def prepare(words):
    """Writes the weights and the data that a line names."""
    from datasets.test_named import write_idx

    for word in words:
        if word.endswith(".safetensors"):
            classes = 26 if "letters" in word else 10
            network = UNet((8, 16), num_classes=classes, attention=(), image_size=32)
            with torch.no_grad():  # off zero, so that it draws something
                for weight in network.parameters():
                    weight.add_(0.1 * torch.randn_like(weight))
            Path(word).parent.mkdir(parents=True)
            DDPM(network, Schedule.named("cosine", 20), "x_0").save(word)
    if words[1] == "judge":
        images, labels = mnist().images[:150, 0].numpy(), mnist().labels[:150].numpy()
        np.savez(words[2], images=images, labels=labels) if words[2].endswith(".npz") else Path(words[2]).mkdir()
        for i, image in enumerate(images if Path(words[2]).is_dir() else ()):
            Image.fromarray(image).save(Path(words[2], f"{labels[i]}_{i}.png"))
    if "--root" in words:
        root, data = Path(words[words.index("--root") + 1]), words[words.index("--data") + 1]
        if data == "folder":
            for k in range(8):
                (root / f"class {k % 2}").mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (70, 80), (30 * k, 0, 99)).save(root / f"class {k % 2}" / f"{k}.png")
        else:
            write_idx(root, data, n=10)


@pytest.mark.parametrize(("page", "line"), [pair for pair in LINES if not not_here(pair[1])], ids=lambda x: x[:50])
def test_a_command_runs(page, line, cheap, capsys):
    words = shlex.split(line)
    if words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout, done.stderr
        return
    assert words[0] == "tinyddpm" and words[1] in COMMANDS, f"{page}: {line!r} is tested by nothing"
    parsed(words[1:])  # as it stands
    prepare(words)
    before = {path for path in cheap.rglob("*") if path.is_file()}
    for pattern, less in LESS.items():
        line = re.sub(rf"(?<= ){pattern}(?= |$)", less, line)
    words = shlex.split(f"{line} {QUICK.get(words[1], '')}")[1:]
    assert main(words) == 0, capsys.readouterr().err
    made = {path for path in cheap.rglob("*") if path.is_file()} - before
    assert made or "--show" in words
    if "--out" in words:
        out = cheap / words[words.index("--out") + 1]
        assert {out, *out.glob("*")} & made, f"{line} does not write {out.name}"
    if words[0] == "train":
        DDPM.load(next(path for path in made if path.name == "model.safetensors")).sample(n=1, steps=1)
    if words[0] == "eval":
        assert {"report.md", "report.json", "samples.png"} <= {path.name for path in made}


@pytest.mark.parametrize("pattern", NOT_HERE)
def test_what_does_not_run_here_is_tested_elsewhere(pattern):
    lines = [line for _, line in LINES if re.fullmatch(pattern, line)]
    assert lines, "no page has this line any more"
    path, _, function = NOT_HERE[pattern][1].partition("::")
    assert f"def {function}(" in (ROOT / path).read_text() if function else (ROOT / path).exists()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in lines:
        assert all((ROOT / name).exists() for name in re.findall(r"[\w/]+\.(?:py|yml|ipynb)\b", line))
        words = shlex.split(line)
        if "tinyddpm" in words and words[-1] != "tinyddpm":
            parsed(words[words.index("tinyddpm") + 1 :])
        assert {extra for group in re.findall(r"\[(.*?)\]", line) for extra in group.split(",")} <= extras.keys()


INLINE = [
    (page, code.replace("\n", " "))
    for page, text in PAGES.items()
    for code in re.findall(r"`([^`]+)`", FENCE.sub("", text))
    if re.match(r"(OMP_NUM_THREADS=1 )?(tinyddpm|make|python|pytest) [a-z-]", code)
]


@pytest.mark.parametrize(("page", "line"), INLINE, ids=lambda x: x[:50])
def test_a_command_within_a_sentence_is_understood(page, line):
    words = shlex.split(line.removeprefix("OMP_NUM_THREADS=1 "))
    if words[0] == "tinyddpm" and "COMMAND" not in words:
        assert parsed(words[1:]) is not None
    elif words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0] in ("python", "pytest"):
        where = [ROOT, (ROOT / page).parent]
        paths = [word for word in words[1:] if word.endswith(".py") or word == "chapters"]
        assert (paths or words[0] == "pytest") and all(
            any((folder / path).exists() for folder in where) for path in paths
        )


# --- snippets


def shaped(*shape, trained=True):
    """Images of this shape; of a trained network they hold ink and background."""

    def check(x, names):
        assert x.shape == shape and x.dtype == torch.float32 and x.isfinite().all()
        assert not trained or (x.min() < -0.9 and x.max() > 0.5)

    return check


def reads(labels, wrong=0):
    """Images that the classifier reads as these labels, but for a few."""
    judge = load_classifier()

    def check(x, names):
        shaped(len(labels), 1, 32, 32)(x, names)
        read = classify(judge, x.clamp(-1, 1)).argmax(1).tolist()
        assert sum(a != int(b) for a, b in zip(read, labels)) <= wrong, read

    return check


def is_a(kind, **attributes):
    def check(x, names):
        assert type(x).__name__ == kind
        assert {name: getattr(x, name) for name in attributes} == attributes

    return check


def film(steps, names):
    assert [step.t for step in steps][::50] == [1000, 0] and len(steps) == 51
    assert all(part.shape == (1, 1, 32, 32) for step in steps for part in (step.x_t, step.x_0_hat))
    reads("7")(steps[-1].x_t, names)


def keeps_what_is_known(x, names):
    shaped(8, 1, 32, 32)(x, names)
    assert (x[..., 16:] - names["known"][..., 16:]).abs().max() < 1e-5
    assert (x[..., :16] - names["known"][..., :16]).abs().max() > 0.5  # and the other half is drawn


def leans(x, names):
    reads(range(10), wrong=2)(x, names)
    assert slant(x).mean() > slant(names["fast"]).mean() + 0.1


def copies(x, names):
    assert (torch.cdist(x.flatten(1), names["data"].flatten(1)).amin(1) < 0.3).all()


def invents(x, names):
    reads(range(10), wrong=1)(x, names)
    assert torch.cdist(x.flatten(1), names["digits"].flatten(1)).amin() > 1  # no copy


def own_data(data, names):
    assert len(data) == 640 and data[0][0].shape == (1, 32, 32) and data[0][0].min() == -1 and data.num_classes == 10


def name_their_digits(probabilities, names):
    assert probabilities.shape == (10, 10) and (probabilities.argmax(1) == names["y"]).sum() >= 9


# For each page, what the names are after each of its snippets (x: value, all names), and the files that it writes.
CHECKS = {
    "README.md": [
        {"x": reads("314"), "steps": film, "seven.gif": None},
        {"step": is_a("TrainStep", number=3), "average": is_a("EMA", decay=0.99)}
        | {"x": shaped(10, 1, 32, 32, trained=False)},
    ],
    "CONTRIBUTING.md": [{"images": reads("314")}],
    "docs/drawing.md": [
        {"x": reads("314")},
        {"student": is_a("DDPM", num_classes=10), "ten": reads(range(10), wrong=1)},
        {
            "fast": reads(range(10)), "early": reads("44444444", wrong=1), "italic": leans,
            "halves": keeps_what_is_known, "strip": shaped(1, 1, 32, 230),
        },
    ],
    "docs/house.md": [{"images": copies}, {"invented": invents}],
    "docs/results.md": [{"probabilities": name_their_digits}],
    "docs/training.md": [
        {"data": own_data, "ddpm": is_a("DDPM", image_shape=(1, 32, 32), num_classes=10)}
        | {f"runs/own/{name}": None for name in ("model.safetensors", "log.csv", "progress.gif")}
    ],
}  # fmt: skip
SHORTER = {
    "README.md": {"steps, schedule = 800": "steps, schedule = 3"},
    "docs/training.md": {"minutes=0.1": "minutes=0.01"},
}


def test_every_snippet_is_checked():
    assert {page: len(blocks(page, "python")) for page in PAGES if blocks(page, "python")} == {
        page: len(checks) for page, checks in CHECKS.items()
    }


@pytest.mark.parametrize("page", CHECKS)
def test_the_snippets_of_a_page_run_in_their_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {}
    for snippet, checks in zip(blocks(page, "python"), CHECKS[page]):
        for before, after in SHORTER.get(page, {}).items():
            assert before in PAGES[page]
            snippet = snippet.replace(before, after)
        exec(snippet, names)
        for name, check in checks.items():
            if check:
                check(names[name], names)
            else:
                assert (tmp_path / name).stat().st_size > 0, name


# --- links and lists


def anchors(path):
    """The places in a file that a link can name: ids, and on a page its headings as GitHub names them."""
    text = path.read_text(encoding="utf-8")
    found = set(re.findall(r"\bid=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#+ +(.*?) *$", FENCE.sub("", text), re.M) if path.suffix == ".md" else ():
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-"))
    return found


def broken(page, text):
    """The links of a page's text that lead nowhere."""
    for link in re.findall(r"(?:\]\(|(?:src|href)=\")([^)\"\s]+)", FENCE.sub("", text)):
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not name.startswith("http") and not (target.exists() and (not anchor or anchor in anchors(target))):
            yield link


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert not list(broken(page, PAGES[page]))


def test_a_link_that_leads_nowhere_is_found():
    good = '[a](training.md#your-own-data) [b](#the-rules) <img src="peers.png"> [c](https://example.org/#x) '
    bad = ["training.md#your-data", "#rules", "none.png", "none.md#the-rules"]
    text = good + f'[a]({bad[0]}) [b]({bad[1]}) <img src="{bad[2]}"> [d]({bad[3]})'
    assert list(broken("docs/house.md", text)) == bad


def test_the_readme_is_short():
    text = PAGES["README.md"]
    assert len(text.splitlines()) <= 170 and len(re.findall(r"\S+", text)) <= 1400


def test_the_house_is_drawn_as_it_is():
    root, *lines = blocks("docs/house.md", "text")[0].splitlines()
    shown = [re.fullmatch(r"  (\S+) +(\S.*)", line).groups() for line in lines if line]
    house = ROOT / "tinyddpm"
    files = {path.name for path in house.glob("*.py")} - {"__init__.py", "__main__.py"}
    folders = {f"{path.parent.name}/" for path in house.glob("*/__init__.py")}
    assert root == "tinyddpm/" and sorted(name for name, _ in shown) == sorted(files | folders)
    parts = dict(shown)["nn/"].rpartition(": ")[2].split(", ")
    assert sorted(parts) == sorted(path.stem for path in (house / "nn").glob("*.py") if path.stem != "__init__")
