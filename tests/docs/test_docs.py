"""README and docs/: their commands and snippets run, what they link to is there, and README stays short."""

import re
import shlex
from pathlib import Path

import pytest
import tomllib

from tinyddpm.cli.main import COMMANDS, main, parsed

ROOT = Path(__file__).parent.parent.parent
PAGES = {p.name if p.parent == ROOT else f"{p.parent.name}/{p.name}": p.read_text() for p in sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "chapters/README.md", *(ROOT / "docs").glob("*.md")]
)}  # fmt: skip
LINES = [
    (page, line.partition("  #")[0].strip())
    for page, text in PAGES.items()
    for block in re.findall(r"```sh\n(.*?)```", text, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]
# what each picture costs less with, and no less: the same command draws fewer images in fewer steps
LESS = {"--per-digit 100": "--per-digit 2", "--per-digit 8": "--per-digit 2", "--hands 5": "--hands 1 --steps 2"}
LESS |= {"inpaint": "inpaint --steps 2 --times 1 --each 1", "morph": "morph --steps 2 --frames 2"}
LESS |= {"write": "write --steps 2", "gif": "gif --steps 2", "sample": "sample --steps 2"}
DRAWS = ("sample", "gif", "morph", "inpaint", "style", "write")


@pytest.mark.parametrize(("page", "line"), LINES, ids=lambda x: x[:40])
def test_a_command_runs_or_is_understood(page, line, tmp_path, monkeypatch, capsys):
    words = shlex.split(line)
    monkeypatch.chdir(tmp_path)
    if words[0] == "tinyddpm" and words[1:2] and words[1] in DRAWS and "--weights" not in words:
        for before, after in LESS.items():
            line = re.sub(rf"(?<= ){before}(?= |$)", after, line)
        monkeypatch.setenv("COLUMNS", "200")
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
        made = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert made or "--show" in words
    elif words[0] == "tinyddpm" and words[1:]:
        assert words[1] in COMMANDS and parsed(words[1:]) is not None
    elif words[0] in ("torchrun", "accelerate"):  # test_attacks starts those of one machine
        parsed(words[words.index("tinyddpm") + 1 :])
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif words[0] in ("pip", "uv"):  # benchmarks/install.py installs
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = [extra for word in words for extra in re.findall(r"\[(.*)\]", word)[0:1]]
        assert {extra for group in asked for extra in group.split(",")} <= extras.keys()
    else:
        known = ("tinyddpm", "python", "conda env create -f environment.yml", "conda activate tinyddpm", "pytest")
        assert line.startswith(known) or words[0] in (".", "cd"), f"{page}: {line!r} is tested by nothing"
        for path in re.findall(r"[\w/]+\.(?:py|yml)", line):
            assert (ROOT / path).exists()


def test_the_snippets_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shorter = {"steps, schedule = 800": "steps, schedule = 3", "minutes=0.1": "minutes=0.01"}
    for text in PAGES.values():
        names: dict = {}
        for snippet in re.findall(r"```python\n(.*?)```", text, re.S):
            for before, after in shorter.items():
                snippet = snippet.replace(before, after)
            exec(snippet, names)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", PAGES[page]):
        target = next(filter(None, link))
        assert target.startswith("http") or (folder / target).exists(), f"{page} links to {target}"


def test_the_readme_is_short():
    text = PAGES["README.md"]
    assert len(text.splitlines()) <= 170 and len(re.findall(r"\S+", text)) <= 1400


def test_the_house_is_drawn_as_it_is():
    for path in sorted((ROOT / "tinyddpm").rglob("*.py")):
        where = path.relative_to(ROOT / "tinyddpm")
        shown = f"{where.parts[0]}/" if len(where.parts) > 1 else where.name
        assert shown in PAGES["docs/house.md"] or where.name in ("__init__.py", "__main__.py"), shown
