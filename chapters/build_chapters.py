"""Makes the notebooks from their sources: python chapters/build_chapters.py [01 02 ...]

The sources are chapters/source/*.py, in jupytext's percent format. Each notebook is executed from a new
kernel, in order, and saved with its outputs; its pictures with 64 colours, which noise needs to stay small.
"""

import base64
import io
import sys
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).parent


def notebook_of(source: Path) -> nbformat.NotebookNode:
    """The notebook that a source stands for, without outputs."""
    notebook = jupytext.read(source, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{source.stem[:2]}-{number:02d}"
        cell.metadata = {"tags": tags} if (tags := cell.metadata.get("tags")) else {}
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return notebook


def build(source: Path) -> Path:
    from nbclient import NotebookClient

    notebook = notebook_of(source)
    where = {"metadata": {"path": str(HERE)}}
    NotebookClient(notebook, timeout=600, resources=where, coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran is nobody's business
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                output["data"]["image/png"] = smaller(png)
    notebook.metadata["language_info"] = {"name": "python"}
    path = HERE / f"{source.stem}.ipynb"
    nbformat.write(notebook, path)
    return path


def smaller(png: str) -> str:
    """A picture in base64, with at most 64 colours where that makes it smaller; a GIF as it is."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.format == "GIF":
        return png
    content = io.BytesIO()
    picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(content, "png", optimize=True)
    return min(png, base64.b64encode(content.getvalue()).decode(), key=len)


def main() -> None:
    for source in sorted((HERE / "source").glob("*.py")):
        if not sys.argv[1:] or source.stem[:2] in sys.argv[1:]:
            path = build(source)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
