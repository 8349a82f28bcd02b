"""How `pytest --nbval chapters` runs the notebooks: this environment's kernel, strictly compared."""

import os

os.environ["PYTHONHASHSEED"] = "0"  # the kernels inherit it


def pytest_configure(config):
    option = config.option
    if getattr(option, "nbval", False) or getattr(option, "nbval_lax", False):
        option.nbval_current_env = True
        option.nbval_cell_timeout = 240


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):  # made by renderers, not by the chapter
        collector.skip_compare += ("text/html", "image/svg+xml")
        collector.sanitize_patterns[r"(?m)^\S+(?= .*\(other machines: )"] = "within"  # course.band has checked it
