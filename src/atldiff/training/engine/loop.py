"""The training loop of every part: batches in, weights, checkpoints and reports out, on any number of devices.

A step is a function of the weights, the optimiser's state, the seed and the step's number alone: batches are drawn
from the last two, and so is everything random inside the network. So a run that goes on from a checkpoint takes the
very steps that it would have taken without a stop.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from atldiff.errors import InputError, OutputError
from atldiff.storage.parts import part_folder
from atldiff.training.engine.checkpoint import (
    BEST_NAME,
    Checkpoints,
    ExponentialAverage,
    all_settings,
    check_same_clips,
    check_same_part,
    check_same_settings,
    lock_run,
)
from atldiff.training.engine.draws import reading, start_draws
from atldiff.training.engine.launch import Launch, run_on_devices
from atldiff.training.engine.report import RunLog, StepTimes, Validation
from atldiff.training.engine.settings import TrainingSettings, format_duration
from atldiff.training.engine.task import Batch, Task


def fit(make_task: Callable[[], Task], settings: TrainingSettings, run: Path, launch: Launch) -> Path:
    """Train (or go on training) a part, and return the folder of its best weights.

    Args:
        make_task: makes the task in each process; with several devices it is pickled.
        settings: the task's.
        run: folder for ``checkpoints/``, ``best.pt``, ``log.csv``, ``samples/``, ``tensorboard/`` and the part.

    Raises:
        InputError: the data cannot be used; the loss, a weight or a validation figure is not finite; the run was
            begun with other settings or clips; another process trains in its folder.
        OutputError: the run's folder cannot be written; the last good checkpoint stays.
    """
    settings.clips_per_share(launch.devices * settings.accumulate)
    with lock_run(run):
        return run_on_devices(launch, settings.precision, _fit, make_task, run, launch)


def _fit(fabric: Any, make_task: Callable[[], Task], run: Path, launch: Launch) -> Path:
    began = time.monotonic()
    task = make_task()
    trainer = _Trainer(fabric, task, run, launch, began)
    if trainer.step < task.settings.steps:
        trainer.train()
    if fabric.is_global_zero:
        _export_best(task, run, launch.quiet)
    return run / task.part


def _export_best(task: Task, run: Path, quiet: bool) -> None:
    """Write ``best.pt`` as a part of a model folder, for a run that was trained where that could not be done too."""
    if _can_export():
        task.model.load_state_dict(Checkpoints(run, task.settings.keep).best()["average"])
        task.export(task.model, run)
    elif not quiet:
        print(f"safetensors is not installed: {run / BEST_NAME} has the weights; the same command exports them")


def _can_export() -> bool:
    try:
        import safetensors  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        return False
    return True


class _Loss(nn.Module):
    """The task's loss as a module, so that DDP sees one forward pass through all parameters."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self._task = task

    def forward(self, work: "_Work") -> torch.Tensor:
        return self._task.loss(work.batch, work.step)


class _Work:
    """A batch and its step. Not a container that Fabric knows: it would turn the targets in it to bfloat16."""

    def __init__(self, batch: Batch, step: int) -> None:
        self.batch, self.step = batch, step


class _Trainer:
    """The state of a run, and one step after the other."""

    def __init__(self, fabric: Any, task: Task, run: Path, launch: Launch, began: float) -> None:
        self._fabric, self._task, self._run, self._launch, self._began = fabric, task, run, launch, began
        self._settings = task.settings
        self._checkpoints = Checkpoints(run, task.settings.keep)
        stored = self._checkpoints.latest()
        if stored is None and self._settings.begin_from:
            task.begin_from(part_folder(self._settings.begin_from, task.part))
        torch.backends.cudnn.benchmark = fabric.device.type == "cuda"
        self._module, self._stepper = fabric.setup(_Loss(task), task.optimiser)
        self._average = ExponentialAverage(task.model, task.settings.ema_decay)
        self.step, self._best, self._spent = 0, -math.inf, 0.0
        self._losses: list[float] = []
        self._clips: dict[str, Any] | None = None
        self._take_up(stored)

    def _take_up(self, state: dict[str, Any] | None) -> None:
        if state is None:
            return
        check_same_part(state.get("part", self._task.part), self._task.part, self._run)
        check_same_settings(state["settings"], all_settings(self._settings, self._task.config), self._run)
        self._task.model.load_state_dict(state["model"])
        self._average.module.load_state_dict(state["average"])
        self._task.optimiser.load_state_dict(state["optimiser"])
        self.step, self._best, self._spent = state["step"], state["best"], state["seconds"]
        self._losses, self._clips = state["losses"], state.get("clips_used")

    def train(self) -> None:
        """Go on to the last step, or until the time is up."""
        clips = self._task.describe_clips()
        check_same_clips(self._clips, clips, self._run)
        self._clips = clips
        with self._fabric.rank_zero_first():
            self._task.open(self._fabric.device)
        log = None
        if self._fabric.is_global_zero:
            with self._writing():
                log = RunLog(self._run, self.step, self._settings.steps, self._launch.quiet)
        self._task.model.train()
        try:
            with reading():
                self._take_steps(self._draws(), log)
        finally:
            if log is not None:
                log.close()

    def _take_steps(self, draws: Iterator[Batch], log: RunLog | None) -> None:
        first, settings = self.step, self._settings
        recent, whole = StepTimes(), StepTimes()
        last = False
        while not last:
            begun = time.monotonic()
            batches = [next(draws) for _ in range(settings.accumulate)]
            waited = time.monotonic() - begun
            self._learn(batches)
            seconds = time.monotonic() - begun
            recent.add(seconds, waited)
            if self.step == first + 2:
                whole.clear()  # of the first step, which is slower than all others
            whole.add(seconds, waited)
            due = self.step == settings.steps or self.step % settings.report_every == 0
            last = self.step == settings.steps or self._out_of_time()
            if log is not None:
                log.advance()
            if due or last:
                with self._fabric.rank_zero_first():
                    if log is not None:
                        self._keep(log, recent, due)
                recent.clear()
        if log is not None:
            self._say_the_end(log, whole)

    def _draws(self) -> Iterator[Batch]:
        """The draws of this process, ``accumulate`` for each step that is left."""
        fabric, accumulate = self._fabric, self._settings.accumulate
        numbers = range(self.step * accumulate, self._settings.steps * accumulate)
        on_gpu = fabric.device.type == "cuda"
        return start_draws(self._task, numbers, fabric.global_rank, fabric.world_size, on_gpu)

    def _learn(self, draws: list[Batch]) -> None:
        """One optimiser step.

        Raises:
            InputError: the loss or its gradient is not finite; the weights are left as they were.
        """
        task, fabric, step = self._task, self._fabric, self.step
        torch.manual_seed(_step_seed(self._settings.seed, step, fabric.global_rank))
        for group in task.optimiser.param_groups:
            group["lr"] = task.learning_rate(step)
        task.optimiser.zero_grad(set_to_none=True)
        losses = []
        for number, draw in enumerate(draws, start=1):
            with torch.no_grad():
                batch = task.assemble(fabric.to_device(draw))
            with fabric.no_backward_sync(self._module, enabled=number < len(draws)):
                loss = self._module(_Work(batch, step)) / len(draws)
                fabric.backward(loss)
            losses.append(loss.detach())
        norm = fabric.clip_gradients(
            self._module, self._stepper, max_norm=self._settings.clip_norm, error_if_nonfinite=False
        )
        mean = fabric.all_reduce(torch.stack(losses).sum(), reduce_op="mean").item()
        if not (math.isfinite(mean) and math.isfinite(float(norm))):
            what = "loss" if not math.isfinite(mean) else "gradient"
            value = mean if what == "loss" else float(norm)
            raise self._spoiled(f"the {what} is {value} at step {step}")
        self._stepper.step()
        self._average.update(task.model, step)
        self._losses.append(mean)
        self.step += 1

    def _out_of_time(self) -> bool:
        limit = self._launch.max_seconds
        return math.isfinite(limit) and self._fabric.broadcast(time.monotonic() - self._began > limit)

    def _keep(self, log: RunLog, times: StepTimes, due: bool) -> None:
        """Write a checkpoint, after a report if one is due.

        A run that the clock stops before its first report is judged too, so that it has weights to use; they stay the
        best until that report only, so that the best are those of a run that was not stopped.

        Raises:
            InputError: a weight or a validation figure is not finite; nothing is written.
        """
        with self._writing():
            for module in (self._task.model, self._average.module):
                for name, value in module.state_dict().items():
                    if not bool(torch.isfinite(value).all()):
                        raise self._spoiled(f"the weights {name} are not finite after step {self.step - 1}")
            if due or not self._checkpoints.best_path.is_file():
                self._report(log, times, due)
            if self.step % self._settings.report_every == 0:
                self._losses.clear()
            self._checkpoints.save(self._state())

    def _report(self, log: RunLog, times: StepTimes, due: bool) -> None:
        with self._fabric.autocast():
            validation = self._task.validate(self._average.module)
        for name, value in {"score": validation.score, **validation.figures}.items():
            if not math.isfinite(value):
                raise self._spoiled(f"the validation figure {name} is {value} after step {self.step - 1}")
        better = validation.score > self._best or self._task.keeps_last
        if better or not self._checkpoints.best_path.is_file():
            self._best = validation.score if due else -math.inf
            self._keep_best(validation)
        rate, loss = self._task.learning_rate(self.step - 1), float(np.mean(self._losses))
        figures = {"loss": loss, "learning_rate": rate, "seconds": round(self._seconds, 1)}
        log.report(self.step, figures, times, validation)

    def _spoiled(self, what: str) -> InputError:
        return InputError(
            f"{what}; {self._checkpoints.describe_last()}; "
            f"a lower learning_rate than {self._settings.learning_rate} may help"
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            last = self._checkpoints.describe_last()
            raise OutputError(f"cannot write to {self._run}: {error.strerror or error}; {last}") from error

    @property
    def _seconds(self) -> float:
        return self._spent + time.monotonic() - self._began

    def _keep_best(self, validation: Validation) -> None:
        content = {"average": self._average.module.state_dict(), "step": self.step, "figures": validation.figures}
        self._checkpoints.save_best(content | {"settings": all_settings(self._settings, self._task.config)})
        if _can_export():
            self._task.export(self._average.module, self._run)

    def _state(self) -> dict[str, Any]:
        return {
            "model": self._task.model.state_dict(),
            "average": self._average.module.state_dict(),
            "optimiser": self._task.optimiser.state_dict(),
            "step": self.step,
            "best": self._best,
            "losses": self._losses,
            "seconds": self._seconds,
            "part": self._task.part,
            "clips_used": self._clips,
            "settings": all_settings(self._settings, self._task.config),
        }

    def _say_the_end(self, log: RunLog, times: StepTimes) -> None:
        log.say(str(times))
        if self.step < self._settings.steps:
            log.say(
                f"stopped after {format_duration(time.monotonic() - self._began)} at step {self.step} of "
                f"{self._settings.steps}; the same command goes on"
            )


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> 1)
