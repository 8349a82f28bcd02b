"""The command line: `tinyddpm` and a command, or alone for a menu. What is slow to import waits until it is needed."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module

from ..trainer.interrupt import Interrupted, Interrupts, is_first

COMMANDS = {  # and the module that runs each
    "sample": "cli.commands", "gif": "cli.commands", "morph": "cli.art", "inpaint": "cli.art", "style": "cli.art",
    "write": "cli.art", "eval": "cli.commands", "judge": "cli.judge", "train": "cli.commands", "export": "cli.export",
    "app": "apps.server",
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

        def find(recipe: options.RecipeName = "tiny") -> str:
            return recipe

        recipe, _ = tyro.cli(find, prog="tinyddpm train", args=words, return_unknown_args=True, add_help=False)
    classes = {name: getattr(options, name.title()) for name in COMMANDS}
    about = f"{classes[argv[0]].__doc__}\n\nExamples:" if argv[0] in COMMANDS else ABOUT
    about += "".join(f"\n    tinyddpm {argv[0]} {example}" for example in options.EXAMPLES.get(argv[0], ()))
    classes["train"] = partial(options.Train, settings=RECIPES[recipe], command=resuming(argv))
    how: dict = {"description": about, "config": (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)}
    if argv[0] not in COMMANDS:
        return tyro.extras.subcommand_cli_from_dict(classes, prog="tinyddpm", args=argv, **how)
    return tyro.cli(classes[argv[0]], prog=f"tinyddpm {argv[0]}", args=words, **how)


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
    return partial(getattr(import_module(f"..{COMMANDS[argv[0]]}", __package__), f"run_{argv[0]}"), asked)


def end(number: int, frame) -> None:
    """What a signal does while modules are imported: an exception in an import may be lost, or become another."""
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
        with Interrupts(end):
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
