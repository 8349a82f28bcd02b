"""Training in the background: the trainer in a thread, so that the page stays alive and can look at its network."""

import atexit
import copy
import signal
import threading
from pathlib import Path

from ..data import mnist
from ..files import writable_folder
from ..pipeline import DDPM
from ..tools.jobs import alone
from ..trainer.batches import Data
from ..trainer.interrupt import Interrupts
from ..trainer.processes import make_accelerator
from ..trainer.recipes import Recipe, get_recipe
from ..trainer.trainer import Trainer

EVERY, SAVE = 10, 1.0  # steps of a point of the curves, and minutes between two saved states


class Run:
    """A run of the trainer, begun or resumed in its folder, in a thread of its own; the arguments are those of train.

    trainer  from when the data are read; `trainer.ddpm` has the averaged weights of this moment
    end      how the run ended, as a sentence; empty while it lasts
    """

    def __init__(
        self, recipe: Recipe | str, minutes: float, out: str | Path, fresh: bool = False, data: Data | None = None
    ):
        self.out, self.end = Path(out), ""
        self.trainer: Trainer | None = None
        self.interrupts = Interrupts()  # not entered: signals stay with the server
        self.thread = threading.Thread(target=self.work, args=(get_recipe(recipe), minutes, fresh, data), daemon=True)
        self.thread.start()
        atexit.register(self.stop)

    def work(self, recipe: Recipe, minutes: float, fresh: bool, data: Data | None) -> None:
        try:
            out = writable_folder(writable_folder(self.out / "samples").parent)
            data = mnist(size=recipe.image_size) if data is None else data
            with alone(out, "choose another folder"):
                trainer = Trainer(
                    recipe, data, out, make_accelerator(), None, None, minutes, save_every=SAVE, log_every=EVERY
                )
                trainer.resume(fresh)
                self.trainer = trainer
                trainer.run(self.interrupts)
            self.end = f"finished: the network is {out / 'model.safetensors'}"
        except (Exception, KeyboardInterrupt) as error:  # Interrupted, after it has saved its state, is one
            self.end = str(error)

    def stop(self) -> None:
        """Lets the step end and the state be saved, as Ctrl-C does in a terminal, and waits for it."""
        self.interrupts.caught = signal.SIGINT
        self.thread.join()

    def __str__(self) -> str:
        return self.end or (f"training in {self.out}: {self.trainer.at}" if self.trainer else "reading the data")


RUNS: list[Run] = []  # of this process, which all pages share: the last one may be active


def start(recipe: Recipe | str, minutes: float, out: str | Path, fresh: bool = False, data=None) -> None:
    """Begins or resumes a run, unless one is active."""
    if not active():
        RUNS.append(Run(recipe, minutes, out, fresh, data))


def stop() -> None:
    if active():
        RUNS[-1].stop()


def active() -> bool:
    return bool(RUNS) and not RUNS[-1].end


def trained(out: str | Path) -> DDPM:
    """The network of the last run here, as it is now; else the one in the folder. Raises ValueError without any."""
    trainer = RUNS[-1].trainer if RUNS else None
    return DDPM.load(Path(out, "model.safetensors")) if trainer is None else copy.deepcopy(trainer.ddpm)
