"""Makes the notebooks from their sources: python chapters/build_chapters.py [01 02 ...]

The sources are chapters/source/*.py, in jupytext's percent format. A notebook gets a first cell that installs what is
missing where it is opened alone, and the minutes of each section. It is executed from a new kernel, in order, and saved
with its outputs; pictures with at most 256 colours. The figure of the cell tagged "share" is also written to figures/,
for the table of contents.
"""

import base64
import re
import sys
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
WORDS_A_MINUTE, MINUTES_AN_EXERCISE = 200, 5
ALONE = """import importlib.util

if not all(map(importlib.util.find_spec, ["course", "tinyddpm"])):  # opened alone, in Colab for example
    get_ipython().run_line_magic("pip", 'install --quiet "tinyddpm[notebooks]"')"""


def notebook_of(source: Path) -> nbformat.NotebookNode:
    """The notebook that a source stands for, without outputs."""
    notebook = jupytext.read(source, fmt="py:percent")
    first = next(k for k, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    notebook.cells.insert(first, nbformat.v4.new_code_cell(ALONE, metadata={"tags": ["setup"]}))
    say_minutes(notebook.cells)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{source.stem[:2]}-{number:02d}"
        cell.metadata = {"tags": tags} if (tags := cell.metadata.get("tags")) else {}
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return notebook


def say_minutes(cells: list) -> None:
    """Writes each section's minutes at the end of its heading, and the chapter's in place of MINUTES."""
    spent = [0.0]  # before the first heading
    for cell in cells:
        parts = re.split(r"(?m)^## ", cell.source) if cell.cell_type == "markdown" else [cell.source]
        for number, part in enumerate(parts):
            spent += [0.0] if number else []
            spent[-1] += minutes_of(part, cell.cell_type)
    said = iter(max(1, round(minutes)) for minutes in spent[1:])
    total = sum(spent)
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"(?m)^(## .*)$", lambda line: f"{line[1]} · {next(said)} min", cell.source)
            cell.source = re.sub(r"\bMINUTES\b", str(max(5, 5 * round(total / 5))), cell.source)


def minutes_of(text: str, kind: str) -> float:
    """How long a reader needs, exercises included; without what is folded away and the cell that opens a notebook."""
    if kind == "code":
        exercises = len(re.findall(r'(?m)^check\("', text))
        return MINUTES_AN_EXERCISE * exercises + (0 if text == ALONE else len(text.split()) / WORDS_A_MINUTE)
    return len(re.sub(r"(?s)<details>.*?</details>", "", text).split()) / WORDS_A_MINUTE


def build(source: Path) -> Path:
    from course.figures import smaller
    from nbclient import NotebookClient

    notebook = notebook_of(source)
    where = {"metadata": {"path": str(HERE)}}
    NotebookClient(notebook, timeout=600, resources=where, coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran is nobody's business
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop("application/vnd.jupyter.widget-view+json", None)  # lives as long as its kernel
            if "image/png" in data:
                picture = smaller(base64.b64decode(data["image/png"]))
                data["image/png"] = base64.b64encode(picture).decode()
                if "share" in cell.metadata.get("tags", []):
                    suffix = "gif" if picture.startswith(b"GIF") else "png"
                    (HERE / "figures" / f"{source.stem[:2]}.{suffix}").write_bytes(picture)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    path = HERE / f"{source.stem}.ipynb"
    nbformat.write(notebook, path)
    return path


def main() -> None:
    for source in sorted((HERE / "source").glob("*.py")):
        if not sys.argv[1:] or source.stem[:2] in sys.argv[1:]:
            path = build(source)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
