"""The chapters as files: in step with their sources, executed, short, small; every equation is executed, every figure
is of one style and described in words; every exercise can be solved, has a hint, is not solved by its stub, and names
each known mistake."""

import base64
import io
import json
import math
import re
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from build_chapters import ALONE, notebook_of
from course import check, clock, label_lines, play, show_figure
from course.exercises import NOT_ATTEMPTED, OK, Exercise, Experiment, find, verdict
from course.figures import DPI, picture_of
from course.proofs import band, guess, holds, same
from PIL import Image
from wrong_answers import WRONG_ANSWERS

import tinyddpm

ROOT = Path(__file__).parent.parent / "chapters"
SOURCES = sorted((ROOT / "source").glob("*.py"))
matplotlib.use("agg")


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text(cell):
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def words(notebook):
    return "\n".join(text(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def load(source):
    return json.loads((ROOT / f"{source.stem}.ipynb").read_text())


def held(program):
    return set(re.findall(r'\bholds\(\s*"([\w.]+)"', program))


def exercises_of(notebook):
    return {name: cell for cell in code(notebook) for name in re.findall(r'^check\("(\w+)"', text(cell), re.M)}


NOTEBOOKS = {source.stem: load(source) for source in SOURCES}
EXERCISES = [(stem, name) for stem, notebook in NOTEBOOKS.items() for name in exercises_of(notebook)]
ONE_PAGE = "00_diffusion_on_one_page"  # which proves nothing, on purpose
chapters = pytest.mark.parametrize("stem", NOTEBOOKS)
proving_chapters = pytest.mark.parametrize("stem", [stem for stem in NOTEBOOKS if stem != ONE_PAGE])
exercises = pytest.mark.parametrize(("stem", "name"), EXERCISES, ids=[name for _, name in EXERCISES])


def test_the_course_is_complete():
    topics = "diffusion_on_one_page forward_process noise_schedules reverse_process building_blocks unet training"
    topics = f"{topics} conditional_generation making_gifs ten_steps flow_matching why_it_invents steering measuring"
    topics = f"{topics} one_step".split()
    assert list(NOTEBOOKS) == [f"{number:02d}_{topic}" for number, topic in enumerate(topics)]
    readme = (ROOT / "README.md").read_text()
    assert all(f"({stem}.ipynb)" in readme for stem in NOTEBOOKS)


def test_every_paper_is_in_the_bibliography_and_every_question_has_its_place():
    readme = (ROOT / "README.md").read_text()
    prose = "".join(map(words, NOTEBOOKS.values())) + "".join(p.read_text() for p in ROOT.glob("course/*/*.md"))
    papers = set(re.findall(r"arxiv\.org/abs/([\d.]*\d)", prose))
    assert papers == set(re.findall(r"\]\(https://arxiv\.org/abs/([\d.]*\d)\)", readme)) and len(papers) >= 30
    places = re.findall(r"^\| .*\? \| \[\d\d\]\((\w+)\.ipynb\), \*(.*)\* \|$", readme, re.M)
    places += re.findall(r"^\| [^?|]* \| \[\d\d\]\((\w+)\.ipynb\), \*(.*)\* \|$", readme, re.M)
    assert len(places) >= 13
    for stem, section in places:
        assert re.search(rf"^## {re.escape(section)}", words(NOTEBOOKS[stem]), re.M), section


@chapters
def test_a_notebook_is_what_its_source_says(stem):
    wanted = notebook_of(ROOT / "source" / f"{stem}.py").cells
    found = NOTEBOOKS[stem]["cells"]
    assert [(c["cell_type"], c["id"], text(c), c["metadata"]) for c in found] == [
        (c.cell_type, c.id, c.source, dict(c.metadata)) for c in wanted
    ], f"run python chapters/build_chapters.py {stem[:2]}"


@chapters
def test_a_notebook_was_executed_from_the_top_and_without_errors(stem):
    cells = code(NOTEBOOKS[stem])
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    for cell in cells:  # what is printed in one go is shown in one piece
        kinds = [output.get("name") for output in cell["outputs"]]
        assert not [a for a, b in zip(kinds, kinds[1:]) if a == b == "stdout"]
    plain = json.dumps(outputs)
    assert not re.search(r"/(home|tmp|work|root|Users)/", plain)


@chapters
def test_a_notebook_is_small(stem):
    limit = 1_000_000 if stem.startswith("08") else 300_000
    assert (ROOT / f"{stem}.ipynb").stat().st_size <= limit


@chapters
def test_nearly_all_outputs_are_compared(stem):
    cells = code(NOTEBOOKS[stem])
    loose = [
        cell
        for cell in cells
        if {"nbval-ignore-output", "nbval-skip"} & set(cell["metadata"].get("tags", []))
        or re.search(r"NBVAL_(IGNORE_OUTPUT|SKIP)", text(cell))
    ]
    assert len(loose) <= 0.1 * len(cells)


@chapters
def test_no_cell_does_what_cannot_be_compared(stem):
    for cell in code(NOTEBOOKS[stem]):
        assert not text(cell).rstrip().endswith(";")
        assert not re.search(r"clear_output|tqdm|urlopen|download=True|%time|!pip", text(cell))


@proving_chapters
def test_every_equation_is_executed_in_the_next_code_cell(stem):
    cells, tags = NOTEBOOKS[stem]["cells"], []
    for cell, following in zip(cells, [*cells[1:], None]):
        if cell["cell_type"] != "markdown":
            continue
        for tag in (found := re.findall(r"\\tag\{([\w.]+)\}", text(cell))):
            assert following is not None and following["cell_type"] == "code", f"({tag}) is not executed"
            assert tag in held(text(following)), f"({tag}) is not executed in the next code cell"
        tags += found
    assert tags == sorted(tags, key=lambda tag: int(tag.split(".")[1])) and len(tags) == len(set(tags))
    assert len(tags) >= 2 and all(tag.split(".")[0] == str(int(stem[:2])) for tag in tags)
    assert held("\n".join(map(text, code(NOTEBOOKS[stem])))) == set(tags)


@proving_chapters
def test_a_chapter_has_its_parts(stem):
    prose, cells = words(NOTEBOOKS[stem]), code(NOTEBOOKS[stem])
    goals = re.search(r"\*\*After this chapter you can\*\*\n\n((?:\* .*\n(?:  .*\n)*)+)", prose)
    assert goals and len(re.findall(r"^\* ", goals[1], re.M)) == 3
    assert "*You need:*" in prose and "minutes" in prose and "**Next:**" in prose
    names = exercises_of(NOTEBOOKS[stem])
    assert 3 <= len(names) <= 5 and sum(isinstance(find(name), Experiment) for name in names) == 1
    assert any("same(" in text(cell) for cell in cells) and any("guess(" in text(cell) for cell in cells)


@proving_chapters
def test_the_table_of_symbols_names_variables_that_are_there(stem):
    program = "\n".join(map(text, code(NOTEBOOKS[stem])))
    rows = re.findall(r"^\| .*?\$.*?\$.*? \| (.*?) \|", words(NOTEBOOKS[stem]).split("## Symbols")[1], re.M)
    assert len(rows) >= 3
    for name in re.findall(r"`([^`]+)`", " ".join(rows)):
        assert name in program, f"{name} is in the table and in no cell"


def test_the_first_eight_chapters_are_short():
    prose = " ".join(words(notebook) for stem, notebook in NOTEBOOKS.items() if "01" <= stem[:2] <= "08")
    assert len(re.sub(r"(?s)```.*?```", "", prose).split()) <= 19_000


@chapters
def test_no_cell_is_long(stem):
    assert max(len(text(cell).splitlines()) for cell in code(NOTEBOOKS[stem])) <= 30


@chapters
def test_a_notebook_that_is_opened_alone_installs_what_it_needs(stem):
    assert text(code(NOTEBOOKS[stem])[0]) == ALONE
    compile(ALONE, "first cell", "exec")


@chapters
def test_every_section_says_its_minutes(stem):
    headings = re.findall(r"^## (.*)", words(NOTEBOOKS[stem]), re.M)
    assert headings and all(re.search(r" · [1-9]\d* min$", heading) for heading in headings)
    (minutes,) = re.findall(r"\*Reading:\*[^*]*?(\d+) minutes", words(NOTEBOOKS[stem]))
    parts = sum(int(re.search(r"(\d+) min$", heading)[1]) for heading in headings)
    assert abs(int(minutes) - parts) <= 5 + 0.5 * len(headings)
    row = re.search(rf"^\|.*\({stem}.ipynb\).*\| (\d+) \|$", (ROOT / "README.md").read_text(), re.M)
    assert row and row[1] == minutes


def test_the_course_gives_numbers_and_not_verdicts():
    printed = [
        line
        for notebook in NOTEBOOKS.values()
        for cell in code(notebook)
        for output in cell["outputs"]
        for line in "".join(output.get("text", "")).splitlines()
    ]
    assert sum(bool(re.search(r"\b(True|False|yes|no)\b", line)) for line in printed) <= 20


def pictures(stem):
    for cell in code(NOTEBOOKS[stem]):
        for output in cell["outputs"]:
            if png := output.get("data", {}).get("image/png"):
                yield output["metadata"].get("image/png", {}), Image.open(io.BytesIO(base64.b64decode(png))), cell


@chapters
def test_every_figure_is_sharp_and_is_described_in_words(stem):
    found = list(pictures(stem))
    assert len(found) >= 3
    for about, picture, cell in found:
        assert len(about.get("alt", "").split()) >= 4, text(cell)
        if picture.format == "PNG":
            assert picture.info["dpi"] == pytest.approx((DPI, DPI), abs=0.1)
    assert not re.search(r"plt\.show\(|legend\.frameon|rcParams", "\n".join(map(text, code(NOTEBOOKS[stem]))))


@chapters
def test_figures_take_their_colours_from_the_course(stem):
    for cell in code(NOTEBOOKS[stem]):
        named = re.findall(r'(?:color|c|facecolor|edgecolor)="([^"]+)"', text(cell))
        assert not [name for name in named if not re.fullmatch(r"0?\.\d+|none", name)], text(cell)
        assert text(cell).count("imshow(") <= text(cell).count("colorbar("), text(cell)


@proving_chapters
def test_a_chapter_has_one_figure_made_to_be_shared(stem):
    (cell,) = [cell for cell in code(NOTEBOOKS[stem]) if "share" in cell["metadata"].get("tags", [])]
    (png,) = [output["data"]["image/png"] for output in cell["outputs"] if "image/png" in output.get("data", {})]
    (figure,) = (ROOT / "figures").glob(f"{stem[:2]}.*")
    assert figure.read_bytes() == base64.b64decode(png)
    assert f"](figures/{figure.name})" in (ROOT / "README.md").read_text()


@exercises
def test_a_hint_stands_before_the_solution(stem, name):
    prose = words(NOTEBOOKS[stem])
    hint, solution = (prose.index(f"<details><summary>{kind} {name}</summary>") for kind in ("Hint", "Solution"))
    assert hint < solution
    assert 5 <= len(prose[hint : prose.index("</details>", hint)].split()) <= 80


def test_the_one_page_is_short_and_shows_its_numbers():
    prose, cells = words(NOTEBOOKS[ONE_PAGE]), code(NOTEBOOKS[ONE_PAGE])
    program = "\n".join(map(text, cells[1:]))
    lines = [line for line in program.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(prose.split()) <= 1800 and len(lines) <= 160
    assert not re.search(r"\b(same|holds|check|guess)\(|\\tag", program + prose)
    assert "*You need:*" in prose and "minutes" in prose and "**Next:**" in prose
    assert (
        ROOT.parent / "assets" / "pictures" / "three_rows.png"
    ).stat().st_size <= 60_000  # course.chapter_00 makes it
    assert all(f"]({stem}.ipynb)" in prose for stem in NOTEBOOKS if stem[:2] in ("01", "03", "06", "07"))
    printed = "".join("".join(o.get("text", "")) for cell in cells for o in cell["outputs"])
    assert printed.count("(other machines: ") == program.count("band(") >= 8
    assert not re.search(r"\d\.\d{3,}(?!:)", printed)  # nothing after training is compared to the digit


@exercises
def test_an_empty_stub_is_not_attempted_and_breaks_nothing(stem, name):
    outputs = exercises_of(NOTEBOOKS[stem])[name]["outputs"]
    assert f"{name}: {NOT_ATTEMPTED}\n" in "".join("".join(o.get("text", "")) for o in outputs)
    assert name.startswith(stem[:2])


@exercises
def test_a_solution_is_ok(stem, name, capsys):
    """Run in place of the stub, after the cells that are tagged as its setup."""
    notebook, names = NOTEBOOKS[stem], {}
    (solution,) = re.findall(
        rf"<details><summary>Solution {name}</summary>\n\n```python\n(.*?)```\n.*?</details>", words(notebook), re.S
    )
    stub = text(exercises_of(notebook)[name])
    assert stub != solution
    for cell in code(notebook):
        if "setup" in cell["metadata"].get("tags", []):
            exec(text(cell), names)
    call = re.search(rf'^check\("{name}".*', stub, re.M)[0]
    capsys.readouterr()
    exec(f"{solution}\n{call}", names)
    assert capsys.readouterr().out == f"{name}: {OK}\n"


@exercises
def test_each_known_mistake_gets_its_own_diagnosis(stem, name):
    exercise = find(name)
    assert exercise.misconceptions
    for says, wrong in exercise.misconceptions.items():
        if isinstance(exercise, Experiment):
            wrong = 0.5, sum(wrong) / 2
        assert verdict(exercise, wrong) == says
        assert says not in (OK, NOT_ATTEMPTED)


@exercises
def test_no_answer_raises(stem, name):
    def stops(*arguments):
        raise RuntimeError("on purpose")

    def returns_text(*arguments):
        return "seven"

    def returns_another_shape(*arguments):
        return torch.zeros(3, 1, 4)

    for answer in (stops, returns_text, returns_another_shape, "seven", -12345.678, torch.full((3, 5), torch.nan)):
        said = verdict(find(name), answer)
        assert said not in (OK, NOT_ATTEMPTED) and "\n" not in said
    assert verdict(find(name), None) == NOT_ATTEMPTED
    if isinstance(find(name), Experiment):
        assert verdict(find(name), (0.5, None)) == verdict(find(name), (None, 0.5)) == NOT_ATTEMPTED
    elif find(name).arguments is not None:
        assert verdict(find(name), lambda *arguments: None) == NOT_ATTEMPTED


def test_nine_of_ten_plausible_wrong_answers_are_diagnosed():
    """Written by somebody who had not seen the diagnoses. Each comes with words that name its cause."""
    missed = []
    for name, program, words in WRONG_ANSWERS:
        names = {"torch": torch, "math": math, "tinyddpm": tinyddpm}
        exec(program, names)
        said = verdict(find(name), names["answer"])
        assert said not in (OK, NOT_ATTEMPTED), (name, program)
        if words.lower() not in said.lower():
            missed.append((name, program, words, said))
    assert len(WRONG_ANSWERS) >= 100 and {name[:2] for name, *_ in WRONG_ANSWERS} == {s[:2] for s, _ in EXERCISES}
    assert len(missed) <= len(WRONG_ANSWERS) // 10, missed


def test_what_is_not_right_is_named():
    exercise = Exercise(lambda x: 2 * x, lambda: [(torch.ones(2, 3),)], {"that is half": lambda x: x})
    assert verdict(exercise, lambda x: x + x) == OK
    assert verdict(exercise, lambda x: x) == "that is half"
    assert "(2, 3)" in verdict(exercise, lambda x: x[0]) and "(3,)" in verdict(exercise, lambda x: x[0])
    assert "up to 2" in verdict(exercise, lambda x: 2 * x + torch.arange(3))
    assert "TypeError" in verdict(exercise, lambda: 0)
    assert verdict(exercise, lambda x: x * torch.nan) != OK


def told(right, wrong, *arguments):
    return verdict(Exercise(right, lambda: [arguments, arguments] if arguments else None), wrong)


X = torch.linspace(0.3, 4, 12).reshape(3, 4)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda x: -x, "sign"),
        (lambda x: x**2, "squares"),
        (lambda x: x.sqrt(), "roots"),
        (lambda x: 1 - x, "1 minus"),
        (lambda x: 1 / x, "upside down"),
        (lambda x: x.log(), "logarithms"),
        (lambda x: 3 * x, "3 times"),
        (lambda x: x + 0.5, "0.5 too large"),
        (lambda x: x.flip(0), "reversed"),
        (lambda x: x.roll(1, 0), "one place off"),
        (lambda x: x.mean(), "the batch included"),
        (lambda x: x.sum(1), "sum over one axis"),
        (lambda x: x.T, "rows and columns"),
        (lambda x: x.flatten(), "reshape"),
        (lambda x: x[1:], "first value is missing"),
        (lambda x: torch.cat([x, x[:1]]), "too many at the end"),
        (lambda x: (x - 2).sqrt(), "NaN"),
        (lambda x: x + torch.randn(3, 4), "another answer"),
        (lambda x: x + (x > 3.5), "first at index (2, 2)"),
    ],
)
def test_natural_mistakes_are_named_in_any_exercise(wrong, says):
    assert says in told(lambda x: x, wrong, X)
    assert told(lambda x: x, lambda x: x + 0.0, X) == OK


def test_an_axis_that_is_left_is_named():
    assert "take the mean over it" in told(lambda x: x.mean(1), lambda x: x, X)
    assert "take the sum over it" in told(lambda x: x.sum(0), lambda x: x, X)
    assert "take the mean over everything" in told(lambda x: x.mean(), lambda x: x, X)
    assert "sum over" not in told(lambda x: x.sum(0), lambda x: x + 1, X)


def test_a_number_that_is_not_rounded_is_named():
    assert "whole number" in told(lambda x: math.ceil(x), lambda x: x, 2.3)
    assert "whole number" in told(lambda x: math.floor(x), lambda x: x, 2.3)
    assert "whole number" not in told(lambda x: math.ceil(x), lambda x: x + 2, 2.3)


def test_a_known_mistake_that_stops_is_named_all_the_same():
    exercise = Exercise(lambda x: x @ x.mT, lambda: [(X,)], {"transpose the second": lambda x: x @ x})
    assert verdict(exercise, lambda x: x.matmul(x)) == "transpose the second"
    assert "RuntimeError" in verdict(exercise, lambda x: x @ x[:2])


def test_an_ignored_generator_is_named():
    def arguments():
        return [(X, torch.Generator().manual_seed(3))]

    exercise = Exercise(lambda x, g: x + torch.randn(x.shape, generator=g), arguments)
    assert "generator is ignored" in verdict(exercise, lambda x, g: x + torch.randn_like(x))
    assert verdict(exercise, lambda x, generator: x + torch.randn(3, 4, generator=generator)) == OK


def test_a_wrong_value_is_found_with_its_arguments():
    exercise = Exercise(lambda x, t: x * t, lambda: [(X, t) for t in (1, 5, 9)])
    said = verdict(exercise, lambda x, t: x * t if t < 5 else x * t + (x > 3.5))
    assert said == "the values differ from the right ones by up to 1, first at index (2, 2), with t = 5"


def test_an_experiment_wants_a_prediction_first():
    experiment = Experiment(10, 20, {"that is before the change": (30, 40)})
    assert verdict(experiment, (None, 15)) == verdict(experiment, (12, None)) == NOT_ATTEMPTED
    assert verdict(experiment, (99, 15)) == OK
    assert verdict(experiment, (12, 35)) == "that is before the change"
    assert "you measured 50" in verdict(experiment, (12, 50)) and "10 to 20" in verdict(experiment, (12, torch.nan))
    assert "(prediction, measured)" in verdict(experiment, 15)
    for measured, says in ((1 / 15, "upside down"), (0.15, "fraction"), (-15, "sign")):
        assert says in verdict(experiment, (12, measured))


def test_a_guess_comes_before_its_answer(capsys):
    guess(None, 0.61, " %")
    assert capsys.readouterr().out == "write down a number first\n"
    guess(0.5, 0.61, " %")
    assert capsys.readouterr().out == "your guess: 0.5 %, measured: 0.61 %\n"


def test_check_prints_and_returns_nothing(capsys):
    assert check("01b", lambda beta, left: math.ceil(2 * (1 - left) / beta)) is None
    assert capsys.readouterr().out.startswith("01b: factors multiply")


def test_an_equation_that_does_not_hold_stops(capsys):
    holds("9.9", [1.0, 2.0], torch.tensor([1.0, 2.0]))
    assert capsys.readouterr().out == "(9.9) holds to within 1e-06\n"
    with pytest.raises(AssertionError, match="differ by up to 0.5"):
        holds("9.9", 1.0, 1.5)
    with pytest.raises(AssertionError):
        holds("9.9", torch.nan, torch.nan)
    with pytest.raises(AssertionError, match="shapes"):
        holds("9.9", torch.zeros(2), torch.zeros(3))


def test_same_compares_values_and_gives_networks_the_same_weights(capsys):
    same(torch.nn.Linear(2, 3), torch.nn.Linear(2, 3), torch.ones(4, 2))
    assert "(4, 3)" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="differ by up to 1"):
        same(lambda x: x + 1, torch.abs, torch.ones(2))
    with pytest.raises(AssertionError, match="shape"):
        same(lambda x: x[:1], torch.abs, torch.ones(2))
    with pytest.raises(AssertionError, match="weights"):
        same(torch.nn.Linear(2, 2), torch.nn.Linear(2, 3), torch.ones(4, 2))


def test_a_number_outside_its_band_stops(capsys):
    band(92, 80, 98, "of 100 are read")
    assert capsys.readouterr().out == "92 of 100 are read (other machines: 80 to 98)\n"
    for wrong in (79, 99, float("nan")):
        with pytest.raises(AssertionError, match="of 100 are read: expected 80 to 98"):
            band(wrong, 80, 98, "of 100 are read")
    assert capsys.readouterr().out == ""


@pytest.fixture
def displayed(monkeypatch):
    found = []
    monkeypatch.setattr("course.figures.display", lambda data, **about: found.append((data, about["metadata"])))
    return found


def test_a_film_is_a_slider_and_elsewhere_a_strip(displayed, monkeypatch):
    schedule = tinyddpm.Schedule.named("cosine", 10)
    denoiser = tinyddpm.gaussian_oracle(0.0, 0.3, schedule)
    x_T = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    steps = list(tinyddpm.ddim(denoiser, x_T, schedule))
    play(steps, schedule)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    play(steps, schedule)
    (rich, about), (plain, _) = displayed
    assert rich.pop("application/vnd.jupyter.widget-view+json")["model_id"]
    assert rich == plain and set(plain) == {"image/png", "text/plain"} and about["image/png"]["alt"]
    assert clock(10, schedule).startswith("t = 10\nlog-SNR -") and clock(0, schedule) == "clean"


def test_lines_are_labelled_at_their_ends_without_overlap(displayed):
    figure, axes = matplotlib.pyplot.subplots()
    for height in (1, 1.001, 5):
        axes.plot([0, 1], [0, height], label=f"to {height}")
    label_lines(axes)
    heights = sorted(note.xy[1] for note in axes.texts)
    assert len(heights) == 3 and min(b - a for a, b in zip(heights, heights[1:])) >= 0.09 - 1e-9
    show_figure("Three lines that end at different heights")
    (data, about) = displayed[0]
    assert about["image/png"]["alt"].startswith("Three lines") and "1 axes" in data["text/plain"]


def test_tiles_are_enlarged_by_whole_factors():
    x = torch.zeros(3, 1, 32, 32)
    x[:, :, 10, 20] = 1
    small = torch.zeros(3, 1, 16, 16)
    picture = Image.open(io.BytesIO(picture_of({"a row": x, ("at half the side", "#ffffff"): small}, 4))).convert("L")
    values = torch.from_numpy(np.array(picture))
    row, column = (values == 255).nonzero()[0]
    white = [(row + i, column + tile * (28 * 4 + 8) + j) for i in range(4) for tile in range(3) for j in range(4)]
    assert int((values[row : row + 4] == 255).sum()) == len(white) and all(values[i, j] == 255 for i, j in white)
    grey = (values[-20] > 100).sum()  # through the second row: as wide as the first, without its gaps
    assert int(grey) == 3 * 28 * 4
