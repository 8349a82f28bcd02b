"""What the page asks: each dictionary holds the arguments of a function in tabs or training."""

import marimo as mo

from ..editing.inpainting import HALVES
from ..evaluation.evaluate import NAMED_SAMPLERS
from ..schedules import SPACINGS
from ..trainer.recipes import RECIPES
from .tabs import SOURCES

DIGITS = list("0123456789")
KNOWN = [1, 10, 100, 300, 1000, 3000]


def seed(label: str = "Seed"):
    return mo.ui.number(0, 2**31, value=0, label=label)


def network():
    source = mo.ui.dropdown(SOURCES, SOURCES[0], label="Network")
    return mo.ui.dictionary({"source": source, "files": upload(".safetensors", "or a file of weights")})


def upload(kind: str, label: str):
    return mo.ui.file(filetypes=[kind], label=label)


def draw():
    asked = {
        "digits": mo.ui.text("0123456789", label="Digits"),
        "sampler": mo.ui.dropdown(list(NAMED_SAMPLERS), "ddim", label="Sampler"),
        "steps": mo.ui.number(1, value=20, label="Steps"),
        "spacing": mo.ui.dropdown(list(SPACINGS), "uniform", label="Grid"),
        "scale": mo.ui.slider(0, 8, 0.5, value=2, label="Guidance scale", show_value=True),
        "seed": seed(),
    }
    return mo.ui.dictionary(asked)


def train():
    asked = {
        "recipe": mo.ui.dropdown(list(RECIPES), "nano", label="Recipe"),
        "minutes": mo.ui.number(0.1, step=0.1, value=1, label="Minutes"),
        "out": mo.ui.text("runs/app", label="Folder (--out)"),
        "fresh": mo.ui.checkbox(label="begin anew (--fresh)"),
    }
    return mo.ui.dictionary(asked)


def compare():
    asked = {
        "digit": mo.ui.dropdown(DIGITS, "3", label="Digit"),
        "known": mo.ui.slider(steps=KNOWN, value=300, label="The oracles know", show_value=True),
        "steps": mo.ui.number(1, value=20, label="Steps"),
        "seed": seed(),
    }
    return mo.ui.dictionary(asked)


def image():
    label = mo.ui.dropdown(DIGITS, "4", label="Digit")
    own = upload("image/*", "or your own, white on black")
    return mo.ui.dictionary({"label": label, "seed": seed("Which one"), "files": own})


def half():
    hidden = mo.ui.dropdown(list(HALVES), "left", label="Hide")
    return mo.ui.dictionary({"hidden": hidden, "told": mo.ui.checkbox(label="tell the network which digit it is")})


def strip():
    text = mo.ui.text("2026 11 28", label="Digits and blanks")
    variety = mo.ui.slider(0, 1, 0.1, value=0.2, label="Variety", show_value=True)
    return mo.ui.dictionary({"text": text, "variety": variety, "seed": seed()})
