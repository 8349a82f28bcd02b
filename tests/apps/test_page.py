"""The page without a browser: what its cells show for what is asked, and what they say to bad input."""

import base64
from types import SimpleNamespace

import pytest
import torch

from tinyddpm import DDPM, Schedule, UNet, load_pretrained
from tinyddpm.apps import tabs, training
from tinyddpm.apps.page import app, ask, show_film


def file(name, contents):
    return SimpleNamespace(name=name, contents=contents)


@pytest.fixture(scope="module")
def asked():
    """What the page asks, with the answers that it begins with."""
    _, names = ask.run()
    return {name: getattr(names[name], "value", None) for name in ask.defs}


@pytest.fixture
def page(asked, tmp_path, monkeypatch):
    """Runs the page with other answers, and returns the text that it shows, without its pictures, and its names."""
    monkeypatch.chdir(tmp_path)
    training.RUNS.clear()

    def run(tab, **answers):
        new = asked | {"tab": tab}
        new["draw"] = new["draw"] | {"steps": 2}
        for name, answer in answers.items():
            new[name] = new[name] | answer if isinstance(answer, dict) else answer
        outputs, names = app.run(defs={name: SimpleNamespace(value=value) for name, value in new.items()})
        shown = " ".join(output.text for output in outputs if hasattr(output, "text"))
        return shown, names

    return run


def holds(shown, *files):
    """Whether these files are on the page."""
    return all(base64.b64encode(file).decode() in shown for file in files)


def test_the_page_opens_with_ten_digits_of_the_shipped_network():
    outputs, names = app.run()
    x = load_pretrained().sample(range(10), steps=20, scale=2, seeds=range(10))
    assert torch.equal(names["film"][-1].x_t, x)
    assert any(holds(output.text, *tabs.each(x, names["ddpm"])) for output in outputs if output is not None)


def test_the_slider_walks_the_film(page):
    shown, names = page("Draw", draw={"digits": "7", "steps": 4, "scale": 1, "seed": 5})
    film = list(load_pretrained().sample_steps([7], steps=4, seeds=[5]))
    assert [step.t for step in names["film"]] == [step.t for step in film] and names["at"].value == 4
    assert holds(shown, *tabs.each(film[-1].x_t, names["ddpm"]))
    output, _ = show_film.run(at=SimpleNamespace(value=1), film=film, ddpm=names["ddpm"])
    assert holds(output.text, *tabs.each(film[1].x_t, names["ddpm"])) and "t = 750 of 1000" in output.text


def test_compare_and_edit_show_what_their_functions_give(page):
    shown, names = page("Compare", compare={"known": 10, "steps": 2})
    for images, nearest, _ in tabs.compare(names["ddpm"], "3", 10, steps=2).values():
        assert holds(shown, *(tabs.png(torch.stack(pair), columns=1) for pair in zip(images, nearest)))
    shown, names = page("Edit", edit="Strip", strip={"text": "20 6", "seed": 3})
    assert holds(
        shown, tabs.png(tabs.edit(names["ddpm"], "Strip", {}, {}, {"text": "20 6", "seed": 3, "variety": 0.2}))
    )


TEXT = file("../x.png", b"text")
EMPTY, NONE = file("black.pgm", b"P5 28 28 255\n" + bytes(784)), file("notes.safetensors", b"not weights")


@pytest.mark.parametrize(
    ("tab", "answers", "said"),
    [
        ("Draw", {"draw": {"steps": 2000}}, "T = 1000, got steps=2000"),
        ("Draw", {"draw": {"steps": None}}, "a number is missing"),
        ("Draw", {"draw": {"digits": "3,14"}}, "labels are integers in 0..9"),
        ("Draw", {"draw": {"digits": "x"}}, "expected digits such as 2026"),
        ("Draw", {"net": {"files": [NONE]}}, "notes.safetensors is cut off, damaged or of another format"),
        ("Draw", {"net": {"source": tabs.SOURCES[1]}}, "there is no checkpoint runs/app/model.safetensors"),
        ("Compare", {"compare": {"steps": 2000}}, "T = 1000, got steps=2000"),
        ("Edit", {"image": {"files": [EMPTY]}}, "black.pgm is empty"),
        (
            "Edit",
            {"image": {"files": [file("../x.png", b"text")]}, "edit": "Style"},
            "x.png cannot be read as an image",
        ),
        ("Edit", {"strip": {"text": "now"}, "edit": "Strip"}, "expected up to 64 digits and blanks"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(tab, answers, said, page):
    shown, names = page(tab, **answers)
    assert (
        said in shown
        and f"/{said.split()[0]}" not in shown
        and "Traceback" not in shown
        and tabs.UPLOADS.name not in shown
    )


@pytest.mark.parametrize("tab", ["Compare", "Edit"])
@pytest.mark.parametrize(("size", "classes"), [(32, None), (16, 10), (32, 3)])
def test_a_network_that_does_not_draw_digits_by_label_is_refused(size, classes, tab, page, tmp_path):
    network = UNet((8, 16), image_size=size, num_classes=classes, attention=())
    DDPM(network, Schedule.named("cosine-shifted", 50), "v", (1, size, size)).save(tmp_path / "other.safetensors")
    shown, _ = page(tab, net={"files": [file("other.safetensors", (tmp_path / "other.safetensors").read_bytes())]})
    said = (
        f"expected a network that draws digits by label, at least 28x28, and this one draws images (1, {size}, {size})"
    )
    assert f"{said} of {classes or 'no'} classes: choose the shipped one" in shown


def test_train_says_that_nothing_was_trained(page):
    assert "Nothing was trained here yet" in page("Train")[0]
