"""The command line: `tinyddpm` and a command, or alone for a menu. What is slow to import waits until it is needed."""

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pkgutil import resolve_name

from ..trainer.interrupt import Interrupted, is_first

COMMANDS = {  # and the module that runs each
    "sample": "commands", "gif": "commands", "morph": "art", "inpaint": "art", "style": "art", "write": "art",
    "eval": "commands", "train": "commands",
}  # fmt: skip
OPTIONS = ("--help", "-h", "--version", "--tyro-print-completion", "--tyro-write-completion")
ABOUT = """Denoising diffusion from scratch, on MNIST. Without a command: a menu, on a terminal.

--version prints the version; --tyro-print-completion bash (zsh, fish, tcsh) a script for completion in that shell."""


def parsed(argv: list[str]):
    """What is asked of a command, as one of the classes in `options`. Raises SystemExit after a message: the help, if
    it is asked for, or what is wrong."""
    import tyro

    from ..trainer.recipes import RECIPES
    from . import options

    recipe, words = "tiny", argv[1:]
    if argv[0] == "train":
        find = options.recipe_name
        recipe, _ = tyro.cli(find, prog="tinyddpm train", args=words, return_unknown_args=True, add_help=False)
    classes = {name: getattr(options, name.title()) for name in COMMANDS}
    classes["train"] = partial(options.Train, settings=RECIPES[recipe], command=resuming(argv))
    config = (tyro.conf.FlagCreatePairsOff,)
    if argv[0] not in COMMANDS:
        tyro.extras.subcommand_cli_from_dict(classes, prog="tinyddpm", description=ABOUT, args=argv, config=config)
    about = options.about(argv[0])
    return tyro.cli(classes[argv[0]], prog=f"tinyddpm {argv[0]}", description=about, args=words, config=config)


def resuming(argv: list[str]) -> tuple[str, ...]:
    """The words of the command that resumes this one."""
    return tuple(word for word in argv if word != "--fresh")


def prepared(argv: list[str]) -> Callable[[], int | None]:
    """What argv asks for, with all imported that it needs. Raises ValueError for a command that does not exist."""
    if not argv and sys.stdin.isatty() and sys.stdout.isatty():
        from .menu import menu

        return partial(menu, main)
    if not argv:
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
            parsed(["--help"])
        return lambda: 2
    if argv == ["--version"]:
        from .. import __version__

        return partial(print, __version__)
    if argv[0] not in COMMANDS and argv[0].partition("=")[0] not in OPTIONS:
        import difflib

        near = difflib.get_close_matches(argv[0], [*COMMANDS, *OPTIONS], 1)
        known = f"expected a command ({', '.join(COMMANDS)}), --help or --version, got {argv[0]!r}"
        raise ValueError(known + (f": did you mean {near[0]}?" if near else ""))
    asked = parsed(argv)
    return partial(resolve_name(f"{__package__}.{COMMANDS[argv[0]]}:run_{argv[0]}"), asked)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """A context in which Ctrl-C, if it is not handled, ends the process: an interrupted import may raise anything."""
    main = threading.current_thread() is threading.main_thread()  # Python delivers signals to no other thread
    unhandled = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if unhandled:
        signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        if unhandled:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def end(number: int, frame) -> None:
    os.write(2, b"\ntinyddpm: stopped\n" if is_first() else b"")
    os._exit(128 + number)


def main(argv: list[str] | None = None) -> int:
    """Runs the command in argv. Returns 0; 2 after a message on stderr about bad input; 128 plus the signal's number
    after SIGINT or SIGTERM."""
    argv = sys.argv[1:] if argv is None else argv
    sys.stdout = sys.stdout or open(os.devnull, "w")  # None where the shell has closed it
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names of files may be of another encoding
    try:
        with ending_at_once():
            run = prepared(argv)
        return run() or 0
    except SystemExit as error:  # of tyro, after a message
        return int(error.code or 0)
    except KeyboardInterrupt as error:
        if is_first():
            print(f"\ntinyddpm: {str(error) or 'stopped'}", file=sys.stderr)
            if isinstance(error, Interrupted) or argv[:1] == ["eval"]:
                from ..trainer.state import shell_command

                resume = shell_command(resuming(argv), int(os.environ.get("WORLD_SIZE", "1")))
                print(f"resume with: {resume}", file=sys.stderr)
        return 128 + getattr(error, "signal", signal.SIGINT)
    except (ValueError, OSError) as error:
        print(f"tinyddpm: {error}", file=sys.stderr)
        return 2
