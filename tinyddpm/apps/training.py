"""Training in the background: the trainer in a thread, so that the page stays alive and can look at its network."""

import atexit
import copy
import signal
import threading
from pathlib import Path

from ..data import mnist
from ..files import writable_folder
from ..pipeline import DDPM
from ..tools.jobs import alone, needs
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

    def __init__(self, recipe: Recipe | str, minutes: float, out: str | Path, fresh=False, data: Data | None = None):
        self.out, self.end = Path(out), ""
        self.trainer: Trainer | None = None
        self.interrupts = Interrupts()  # not entered: signals stay with the server
        self.thread = threading.Thread(target=self.work, args=(get_recipe(recipe), minutes, fresh, data), daemon=True)
        self.thread.start()

    def work(self, recipe: Recipe, minutes: float, fresh: bool, data: Data | None) -> None:
        try:
            needs("train", "training", "accelerate", "matplotlib")
            out = writable_folder(writable_folder(self.out / "samples").parent)
            data = mnist(size=recipe.image_size) if data is None else data
            with alone(out, "choose another folder"):
                how = make_accelerator(), None, None, minutes
                trainer = Trainer(recipe, data, out, *how, save_every=SAVE, log_every=EVERY)
                trainer.resume(fresh)
                self.trainer = trainer
                trainer.run(self.interrupts)
            self.end = f"finished: the network is {out / 'model.safetensors'}"
        except BaseException as error:  # Interrupted, after it has saved its state, is one
            self.end = str(error) or type(error).__name__

    def stop(self) -> None:
        """Lets the step end and the state be saved, as Ctrl-C does in a terminal, and waits for it."""
        self.interrupts.caught = signal.SIGINT
        self.thread.join()

    def __str__(self) -> str:
        return self.end or (f"training in {self.out}: {self.trainer.at}" if self.trainer else "reading the data")


RUNS: list[Run] = []  # the last run of this process, which all pages share
LOCK = threading.Lock()  # held while a run begins: pages ask in threads of their own


def start(recipe: Recipe | str, minutes: float, out: str | Path, fresh: bool = False, data=None) -> None:
    """Begins or resumes a run, unless one is active."""
    with LOCK:
        if not active():
            RUNS[:] = [Run(recipe, minutes, out, fresh, data)]


@atexit.register
def stop() -> None:
    if active():
        RUNS[-1].stop()


def active() -> bool:
    return bool(RUNS) and RUNS[-1].thread.is_alive()


def trained(out: str | Path) -> DDPM:
    """The network of the last run here, as it is now, if that is its folder; else the file. Raises ValueError."""
    for run in RUNS:
        if run.trainer and run.out.resolve() == Path(out).resolve():
            return copy.deepcopy(run.trainer.ddpm).to("cpu")
    return DDPM.load(Path(out, "model.safetensors"))
