import pytest

from tinyddpm.cli.questions import (
    Back,
    ask,
    digits_in,
    epochs_or_minutes,
    folder_for_files,
    from_0,
    one_of,
    picture_or_no,
    say,
    whole_number,
)


def answers(monkeypatch, *given):
    asked, left = [], iter(given)

    def answer(question):
        asked.append(question)
        return next(left)

    monkeypatch.setattr("builtins.input", answer)
    return asked


def test_enter_takes_the_default(monkeypatch):
    asked = answers(monkeypatch, "")
    assert ask("How many?", "3", whole_number) == 3
    assert asked[0].startswith("  How many? ") and asked[0].endswith("[3] ")


def test_a_wrong_answer_is_said_to_be_so_and_asked_for_again(monkeypatch, capsys):
    asked = answers(monkeypatch, "none", " 5 ")
    assert ask("Which digits?", "3", digits_in) == "5" and len(asked) == 2
    assert capsys.readouterr().out == "  -> say digits, such as 7 or 2026, got 'none'\n"


def test_back_leads_back(monkeypatch):
    answers(monkeypatch, "back")
    with pytest.raises(Back):
        ask("How many?", "3", whole_number)


def test_no_line_is_wider_than_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "52")
    say("choose one of runs/unconditional-1, runs/my-longest, l1-1000, large-1000\nor none", "  -> ")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "  -> choose one of runs/unconditional-1,",
        "     runs/my-longest, l1-1000, large-1000",
        "  -> or none",
    ]


@pytest.mark.parametrize(
    ("answer", "name"),
    [("draw", "draw"), ("d", "draw"), ("DR", "draw"), ("run", "run"), ("run-", "run-2"), ("Big", "Big")],
)
def test_a_name_may_be_cut_short_where_it_stays_clear(answer, name):
    assert one_of(["draw", "run", "run-2", "quit", "Big", "big"])(answer) == name


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("2 epochs", ["--epochs", "2"]),
        ("0.01 epoch", ["--epochs", "0.01"]),
        ("10m", ["--minutes", "10"]),
        (".5 Min", ["--minutes", "0.5"]),
    ],
)
def test_a_length_is_epochs_or_minutes(answer, words):
    assert epochs_or_minutes(answer) == words


@pytest.mark.parametrize(("answer", "scale"), [("0", "0"), ("1.50", "1.5"), (" 2", "2")])
def test_a_scale_is_written_short(answer, scale):
    assert from_0(answer) == scale


def test_what_is_written_goes_to_a_folder_that_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert picture_or_no("N") == picture_or_no("no") == "no"
    assert picture_or_no("~/new/x.png") == str(tmp_path / "new" / "x.png") and (tmp_path / "new").is_dir()
    assert folder_for_files("~/gifs") == str(tmp_path / "gifs") and (tmp_path / "gifs").is_dir()


@pytest.mark.parametrize(
    ("check", "answer", "message"),
    [
        (one_of(["train", "draw", "down"]), "x", "choose one of train, draw, down, got 'x'"),
        (one_of(["train", "draw", "down"]), "d", "choose one of train, draw, down, got 'd'"),
        (digits_in, "3 4", "say digits, such as 7 or 2026, got '3 4'"),
        (whole_number, "0", "say a whole number of at least 1, got '0'"),
        (whole_number, "1.5", "say a whole number of at least 1, got '1.5'"),
        (from_0, "much", "say a number, got 'much'"),
        (from_0, "-1", "say a number, got '-1'"),
        (from_0, "inf", "say a number, got 'inf'"),
        (from_0, "nan", "say a number, got 'nan'"),
        (epochs_or_minutes, "5", "say a number and its unit, such as 2 epochs or 10 minutes, got '5'"),
        (epochs_or_minutes, "5 hours", "got '5 hours'"),
        (epochs_or_minutes, "0 epochs", "got '0 epochs'"),
        (epochs_or_minutes, "-1 m", "got '-1 m'"),
        (picture_or_no, "x.gif", "a .npz or a .png file, got 'x.gif'"),
        (folder_for_files, "/dev/null/x", "cannot write to the folder /dev/null/x"),
    ],
)
def test_answers_that_will_not_do(check, answer, message):
    with pytest.raises(ValueError) as caught:
        check(answer)
    assert message in str(caught.value)
