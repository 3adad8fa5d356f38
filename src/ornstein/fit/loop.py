"""The only training loop: draws indices and noise, runs updates, logs, checkpoints, resumes exactly, stops cleanly."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ornstein.fit.ledger import Ledger
from ornstein.fit.means import Means
from ornstein.fit.run import Run
from ornstein.fit.validation import HeldOut
from ornstein.log import Log, Progress
from ornstein.memory import keep_freed
from ornstein.noise import Streams
from ornstein.types import Batches, Descend, Growing, Ordered
from ornstein.update import Diverged, OneByOne, Together


def fit(
    learners: Sequence[nn.Module],
    data: Batches,
    *,
    steps: int,
    batch_size: int,
    run: Run,
    stage: str = "train",
    validation: Batches | None = None,
) -> None:
    """Train the learners, one per seed of the run, for one stage; they end in evaluation mode with their last weights.

    Raises Diverged when a loss or gradient is not finite or a loss too large; of several seeds, one alone is frozen as
    it was before the phase that failed, and its `last` checkpoint stays the one before. Raises KeyboardInterrupt, after
    a checkpoint, when interrupted. Eager runs on one machine are bit-equal for equal seeds, also across a resume.
    """
    if len(learners) != len(run.seeds):
        raise ValueError(f"{len(learners)} learners for {len(run.seeds)} seeds: build them with run.build")
    if isinstance(data, Growing) and len(learners) > 1:
        raise ValueError(f"{len(learners)} seeds that make their own data: run them one by one")
    if len(data) < 1 and not isinstance(data, Growing):
        raise ValueError("the data set is empty: it has no window or transition to sample")
    keep_freed()
    ledger = Ledger(run, stage)
    ledger.restore(learners)
    for learner in learners:
        learner.train()
    if not ledger.finished:
        if run.on_stage:
            run.on_stage(stage, learners, data, batch_size)
        held_out = None
        if validation is not None:
            device = next(learners[0].parameters()).device
            held_out = HeldOut(validation, learners[0], rows=4 * batch_size, stage=stage, device=device)
        Loop(learners, data, ledger, steps=run.steps or steps, batch_size=batch_size, held_out=held_out).train()
    for learner in learners:
        learner.eval()


class Loop:
    """One stage of training, from where the ledger stands to its last step."""

    def __init__(
        self,
        learners: Sequence[nn.Module],
        data: Batches,
        ledger: Ledger,
        *,
        steps: int,
        batch_size: int,
        held_out: HeldOut | None = None,
    ) -> None:
        self.learners, self.ledger, self.steps, self.batch_size = learners, ledger, steps, batch_size
        self.run, self.position, self.held_out = ledger.run, ledger.position, held_out
        self.data, self.growing = data, data if isinstance(data, Growing) else None
        self.ordered = data if isinstance(data, Ordered) else None
        self.specs = {p.name: p for p in learners[0].phases() if isinstance(p, Descend)}  # pyright: ignore[reportCallIssue]
        self.seeds = self._seeds(data.to(self.run.device))
        self.streams = Streams(self.run.seeds, self.position.stage, list(self.specs))
        self.means = Means()
        self._load(ledger.states())
        self.logs = [Log(folder, self.run.sinks, resume_at=self.position.total) for folder in ledger.folders]
        label = f"{self.position.stage} seed {','.join(map(str, self.run.seeds))}"
        self.progress = Progress(label, steps, show=not self.run.quiet)

    def train(self) -> None:
        """Run the steps that are left, and leave a checkpoint of the last one."""
        run, position = self.run, self.position
        with ExitStack() as closing:
            for part in (self.progress, *self.logs):
                closing.callback(part.close)
            interrupted = closing.enter_context(_interruptible())
            while position.step < self.steps:
                began = time.perf_counter()
                self._step()
                position.step += 1
                stop, last = interrupted.is_set(), position.step == self.steps
                if self.progress.due(position.step):
                    self.progress.show(position.step, self.means.loss())
                if position.step % run.log_every == 0 or last:
                    self._log()
                position.seconds += time.perf_counter() - began
                if (due := position.step % run.checkpoint_every == 0 or last) or stop:
                    self._checkpoint(measured=due)
                if stop:
                    raise KeyboardInterrupt
        self._mourn()
        self.seeds.write_back()

    def _step(self) -> None:
        step, rows = self.position.step, self.batch_size
        if self.growing is not None:
            self.growing.grow(self.learners[0])
        due = {name: phase.noise for name, phase in self.specs.items() if step % phase.every == 0}
        noises = self.streams.noises(due, rows)
        ordered = self.ordered
        index = self.streams.indices(len(self.data), rows) if ordered is None else [ordered.choose(rows)]
        try:
            self.means.add(self.seeds(step, index, noises))
        except Diverged as error:
            raise self._stopped(str(error)) from None

    def _log(self) -> None:
        """Write the means since the last time, for every seed that is alive."""
        self._mourn()
        values = self.means.take()
        speed = {"time/steps_per_s": self.progress.speed(self.position.step)}
        for i, log in enumerate(self.logs):
            if i not in self.ledger.dead:
                log.write(self.position.total, {name: value[i] for name, value in values.items()} | speed)

    def _mourn(self) -> None:
        """Note which seeds have died since the last time, and stop if none is left."""
        for i, cause in self.seeds.causes().items():
            if i not in self.ledger.dead:
                self.ledger.dead[i] = f"stage {self.position.stage!r}, {cause}"
                print(f"seed {self.run.seeds[i]} is frozen: {self.ledger.dead[i]}", file=sys.stderr)
                if self.logs:
                    self.logs[i].write(self.position.total, {"diverged": 1.0})
        if len(self.ledger.dead) == len(self.learners):
            raise self._stopped(self.ledger.dead[0])

    def _stopped(self, cause: str) -> Diverged:
        text = cause if cause.startswith("stage") else f"stage {self.position.stage!r}, {cause}"
        return Diverged(f"{text}; {self.ledger.last_good()}")

    def _checkpoint(self, *, measured: bool) -> None:
        """Score and write every seed; what is measured is logged first, so that no checkpoint is ahead of its log.

        A checkpoint that is there only because the run was interrupted is not measured: the run would then have a
        score, and perhaps a best one, that an undisturbed run has not. Where the score itself fails, the checkpoints
        are written without it before the error goes on: what was trained is not lost by a simulator that broke.
        """
        self._mourn()
        self.seeds.write_back()
        failed: Exception | None = None
        for i, learner in enumerate(self.learners[: len(self.ledger.folders)]):
            values: dict[str, float] = {}
            if measured and failed is None and i not in self.ledger.dead:
                try:
                    values = self._measure(learner)
                except Exception as error:
                    failed = error
            if values:
                self.logs[i].write(self.position.total, values)
            tensors, kinds = self._state(i)
            self.ledger.write(i, learner, tensors, {"steps": self.steps, "means": kinds}, values)
        if failed is not None:
            raise failed

    def _measure(self, learner: nn.Module) -> dict[str, float]:
        """The validation losses and the score, where they are wanted."""
        values = self.held_out.losses(learner) if self.held_out else {}
        if self.run.score:
            learner.eval()
            try:
                values["score"] = float(self.run.score(learner))
            finally:
                learner.train()
        return values

    def _seeds(self, data: Batches) -> Together | OneByOne:
        """How the seeds are run; those that died in an earlier session or stage stay frozen."""
        run = self.run
        axis = run.device != "cpu" if run.seed_axis is None else run.seed_axis
        kind = Together if axis or len(self.learners) == 1 else OneByOne
        seeds = kind(self.learners, data, steps=self.steps, mode=run.mode, loss_limit=run.loss_limit)
        for i in self.ledger.dead:
            seeds.end(i)
        return seeds

    def _state(self, i: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What it takes to go on with the seed at this position: optimiser, random streams, and unfinished means."""
        sums, kinds = self.means.state(i)
        parts = {"optimiser": self.seeds.state(i), "stream": self.streams.state(i), "mean": sums}
        if self.growing is not None:
            parts["data"] = self.growing.state()
        return {f"{part}/{name}": t for part, tensors in parts.items() for name, t in tensors.items()}, kinds

    def _load(self, states: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> None:
        """Put back what `_state` gave, for all seeds; nothing if the stage has not begun."""
        if not states:
            return

        def part(name: str) -> list[dict[str, Tensor]]:
            return [
                {k.removeprefix(name): t for k, t in tensors.items() if k.startswith(name)} for tensors, _ in states
            ]

        self.seeds.load_state(part("optimiser/"))
        self.streams.load_state(part("stream/"))
        if self.growing is not None:
            self.growing.load_state(part("data/")[0])
        device = next(self.learners[0].parameters()).device
        self.means.load_state(part("mean/"), states[0][1]["means"], device)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that a step is never cut in half; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: Any) -> None:
        if event.is_set():
            os._exit(130)
        event.set()
        print("\nstopping after this step and a checkpoint; press Ctrl-C again to stop at once", file=sys.stderr)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
