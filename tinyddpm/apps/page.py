# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""The page of `tinyddpm app`: a marimo notebook. A cell runs again when a name among its arguments changes; the last
expression of a cell is what it shows."""

import marimo

app = marimo.App(width="medium", app_title="tinyddpm")

with app.setup:
    import marimo as mo

    from tinyddpm.apps import controls, tabs, training
    from tinyddpm.apps import views as show


@app.cell
def ask():
    net, draw, train, compare = controls.network(), controls.draw(), controls.train(), controls.compare()
    image, half, strip = controls.image(), controls.half(), controls.strip()
    go, halt = mo.ui.run_button(label="Train, or resume"), mo.ui.run_button(label="Stop")
    tick = mo.ui.refresh(default_interval="5s", label="Look again every")
    edits = {"Half hidden": mo.vstack([show.row(image), show.row(half)]), "Style": show.row(image)}
    edit = mo.ui.tabs({**edits, "Strip": show.row(strip)})
    parts = {
        "Draw": show.row(draw),
        "Train": mo.vstack([show.row(train), mo.hstack([go, halt], justify="start")]),
        "Compare": mo.vstack([mo.md(show.COMPARE), show.row(compare)]),
        "Edit": edit,
    }
    tab = mo.ui.tabs(parts)
    mo.vstack([mo.md(show.ABOUT), show.row(net), tab])
    return compare, draw, edit, go, half, halt, image, net, strip, tab, tick, train


@app.cell
def open_network(net, tab, train):
    with show.refusals():
        ddpm = tabs.network(**show.answers(net), folder=train.value["out"])  # again on each tab: it may be in training
    return (ddpm,)


@app.cell
def show_draw(ddpm, draw, tab):
    with show.refusals():
        film = show.denoised(ddpm, **show.answers(draw)) if tab.value == "Draw" else []
    at = mo.ui.slider(0, len(film[1:]), value=len(film[1:]), label="From noise to digit", full_width=True)
    mo.vstack([at] * bool(film))
    return at, film


@app.cell
def show_film(at, ddpm, film):
    mo.stop(not film)
    show.show_film(film, ddpm, at.value)
    return


@app.cell
def show_training(go, halt, tab, tick, train):
    mo.stop(tab.value != "Train")
    if go.value:
        training.start(**show.answers(train))
    if halt.value:
        training.stop()
    going = training.active()  # before it is shown: what ends in between is shown once more
    mo.vstack([show.show_training(), *[tick] * going])
    return


@app.cell
def show_compare(compare, ddpm, tab):
    mo.stop(tab.value != "Compare")
    with show.refusals(), mo.status.spinner("Drawing"):
        drawn = tabs.compare(show.of_digits(ddpm), **show.answers(compare))
    show.show_comparison(drawn)
    return


@app.cell
def show_edit(ddpm, edit, half, image, strip, tab):
    mo.stop(tab.value != "Edit")
    with show.refusals(), mo.status.spinner("Drawing"):
        edited = tabs.edit(show.of_digits(ddpm), edit.value, *map(show.answers, (image, half, strip)))
    show.show_edited(edited)
    return


if __name__ == "__main__":
    app.run()
