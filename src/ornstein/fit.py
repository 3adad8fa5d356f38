"""The only training loop: draws indices and noise, runs updates, logs, checkpoints, resumes exactly, stops cleanly."""

import hashlib
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ornstein import __version__, checkpoint
from ornstein.capture import Captured, gather
from ornstein.log import Log, Progress, Sink
from ornstein.noise import draw, generator
from ornstein.types import Batches, Noise
from ornstein.update import Diverged, Mode, Update

Score = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Run:
    """Where and how to train. `directory` None keeps everything in memory: no log, no checkpoint.

    `steps` overrides the configuration's. `seeds` of length N > 1 train N learners at once, each into `directory/seed-<seed>`.
    `mode`: "eager" is bit-exact from run to run, "compiled" uses torch.compile, "graphs" replays CUDA graphs.
    `validation`: share of episodes held out, whose loss is logged at every checkpoint. `score`: called on the learner at every
    checkpoint; the best one is kept beside the last. `init_from`: a checkpoint whose weights training starts from.
    """

    directory: Path | None = None
    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    device: str = "cpu"
    mode: Mode = "eager"
    resume: bool = False
    checkpoint_every: int = 10_000
    log_every: int = 500
    keep: int = 2
    validation: float = 0.0
    init_from: Path | None = None
    sinks: tuple[Sink, ...] = ()
    quiet: bool = False
    loss_limit: float = 1e9
    score: Score | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse values that no run can have."""
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: give at least one seed, each once")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps = {self.steps} must be at least 1")
        if not 0.0 <= self.validation < 1.0:
            raise ValueError(f"validation = {self.validation} is a share of the episodes in [0, 1)")
        if self.checkpoint_every < 1 or self.log_every < 1 or self.keep < 2:
            raise ValueError(
                "checkpoint_every and log_every must be at least 1, keep at least 2 (resuming several seeds needs two)"
            )

    def folders(self) -> list[Path]:
        """One run directory per seed; none for a run in memory."""
        if self.directory is None:
            return []
        return [self.directory] if len(self.seeds) == 1 else [self.directory / f"seed-{seed}" for seed in self.seeds]

    def build(self, factory: Callable[[], nn.Module]) -> list[nn.Module]:
        """One learner per seed, its weights drawn from that seed alone, on the run's device."""
        learners = []
        for seed in self.seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                learner = factory()
            if self.init_from is not None:
                saved = checkpoint.read(self.init_from)
                checkpoint.restore(learner, saved.weights, saved.path / "weights.safetensors")
            learners.append(learner.to(self.device))
        return learners

    def batches(self, episodes: Any, make: Callable[[Any], Batches]) -> tuple[Batches, Batches | None]:
        """Training and held-out batches of `episodes` (the latter None without a validation share), made by `make`."""
        if not self.validation:
            return make(episodes), None
        train, held_out = episodes.split(self.validation, generator("validation split"))
        return make(train), make(held_out)

    def claim(self) -> None:
        """Make the directory this run's own: refuse one that holds another run, or one that is to be resumed but differs."""
        for folder in self.folders():
            record, identity = folder / "run.json", dict(self.meta)
            if record.exists() and not self.resume:
                raise ValueError(f"{folder}: holds another run; choose an empty directory, or resume it")
            if record.exists():
                old = checkpoint.read_json(record)
                if differs := sorted(k for k in identity if old.get(k) != identity[k]):
                    raise ValueError(
                        f"{folder}: cannot resume, {differs[0]} was {old.get(differs[0])!r} and is now {identity[differs[0]]!r}"
                    )
            elif (
                folder.exists()
                and any(folder.iterdir())
                and not all(p.name.startswith("seed-") for p in folder.iterdir())
            ):
                raise ValueError(f"{folder}: is not empty and holds no run; choose an empty directory")
            checkpoint.write_json(record, identity)


@dataclass
class Position:
    """How far a run has come: finished stages with their steps, the present stage and its step."""

    done: dict[str, int] = field(default_factory=dict)
    stage: str = ""
    step: int = 0

    @property
    def total(self) -> int:
        """Steps over all stages, which names the checkpoint."""
        return sum(self.done.values()) + self.step


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

    Raises Diverged when a loss or gradient is not finite (every seed's, if there are several), KeyboardInterrupt after a
    checkpoint when interrupted. Eager runs on one machine are bit-equal for equal seeds, also across a resume.
    """
    if len(learners) != len(run.seeds):
        raise ValueError(f"{len(learners)} learners for {len(run.seeds)} seeds: build them with run.build")
    if len(data) < 1:
        raise ValueError("the data set is empty: it has no window or transition to sample")
    Loop(learners, data, run.steps or steps, batch_size, run, stage, validation).train()
    for learner in learners:
        learner.eval()


class Loop:
    """One stage of training, and all that has to be put back to continue it."""

    def __init__(
        self,
        learners: Sequence[nn.Module],
        data: Batches,
        steps: int,
        batch_size: int,
        run: Run,
        stage: str,
        validation: Batches | None,
    ) -> None:
        self.learners, self.run, self.steps, self.batch_size = learners, run, steps, batch_size
        self.stage = stage
        saved = self._saved()
        self.position = self._enter(saved, stage)
        self.finished = stage in self.position.done
        self.data = data.to(run.device)
        self.update = Update(learners, steps=steps, mode=run.mode, loss_limit=run.loss_limit)
        self.captured = Captured(self.update, self.data) if run.mode == "graphs" else None
        names = ["batch", *(phase.name for phase in self.update.descents)]
        self.generators = [{name: generator(seed, stage, name) for name in names} for seed in run.seeds]
        if saved and self.position.step:
            self._load_state(saved)
        self.held_out = self._held_out(validation)
        self.logs = [Log(folder, run.sinks, resume_at=self.position.total) for folder in run.folders()]
        self.began = time.monotonic()
        self.best = float("-inf")

    def train(self) -> None:
        """Run the steps that are left, and leave a checkpoint of the last one."""
        if self.finished:
            return
        progress = Progress(
            f"{self.stage} seed {','.join(map(str, self.run.seeds))}", self.steps, show=not self.run.quiet
        )
        totals: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for learner in self.learners:
            learner.train()
        with _interruptible() as interrupted:
            while self.position.step < self.steps:
                metrics = self._step()
                for name, value in metrics.items():
                    totals[name] = totals[name] + value if name in totals else value.clone()
                    counts[name] = counts.get(name, 0) + 1
                self.position.step += 1
                step, last = self.position.step, self.position.step == self.steps
                if step % self.run.log_every == 0 or last:
                    self._log({name: total / counts[name] for name, total in totals.items()}, progress)
                    totals, counts = {}, {}
                if step % self.run.checkpoint_every == 0 or last or interrupted.is_set():
                    self._checkpoint()
                if interrupted.is_set():
                    progress.close()
                    raise KeyboardInterrupt
        progress.close()
        self.update.write_back()
        for log in self.logs:
            log.close()

    def _step(self) -> dict[str, Tensor]:
        step, seeds = self.position.step, self.generators
        index = _stack([torch.randint(len(self.data), (self.batch_size,), generator=g["batch"]) for g in seeds])
        specs = {p.name: p.noise for p in self.update.descents if step % p.every == 0}
        noises: dict[str, Noise] = {}
        for name, spec in specs.items():
            draws = [draw(spec, self.batch_size, g[name]) for g in seeds]
            noises[name] = {entry: _stack([d[entry] for d in draws]) for entry in spec}
        try:
            if self.captured:
                return self.captured(step, index, noises)
            device = self.update.device
            if device.type != "cpu":
                index = index.to(device)
                noises = {name: {k: v.to(device) for k, v in noise.items()} for name, noise in noises.items()}
            return self.update(step, gather(self.data, index), noises)
        except Diverged as error:
            raise Diverged(f"{error}; {self._last_good()}") from None

    def _log(self, means: dict[str, Tensor], progress: Progress) -> None:
        if causes := self.update.obituary():
            for i, cause in causes.items():
                if len(causes) == len(self.learners):
                    raise Diverged(f"{cause}; {self._last_good()}")
                self._say(i, {"diverged": 1.0})
        values = {name: mean.tolist() for name, mean in means.items()}
        first = next((v for name, v in values.items() if name.endswith("/loss")), [float("nan")])
        progress.update(self.position.step, sum(first) / len(first))
        for i in range(len(self.learners)):
            self._say(
                i,
                {name: value[i] for name, value in values.items()}
                | {"time/steps_per_s": progress.speed(self.position.step)},
            )

    def _say(self, i: int, values: dict[str, float]) -> None:
        if self.logs:
            self.logs[i].write(self.position.total, values)

    def _last_good(self) -> str:
        folders = self.run.folders()
        links = [folder / "checkpoints" / "last" for folder in folders]
        if links and links[0].exists():
            return f"the last good checkpoint is {links[0]}"
        return "there is no checkpoint yet" if links else "the run keeps no checkpoints"

    def _checkpoint(self) -> None:
        self.update.write_back()
        values: list[dict[str, float]] = [{} for _ in self.learners]
        if self.held_out:
            for i, learner in enumerate(self.learners):
                values[i] |= self._validate(learner)
        alive = self.update.alive.tolist()
        for i, folder in enumerate(self.run.folders()):
            if alive[i]:
                self._write(i, folder, values[i])

    def _write(self, i: int, folder: Path, values: dict[str, float]) -> None:
        learner, total = self.learners[i], self.position.total
        if self.run.score:
            learner.eval()
            values["score"] = self.run.score(learner)
            learner.train()
        position = {
            "done": self.position.done,
            "stage": self.position.stage,
            "step": self.position.step,
            "steps": self.steps,
        }
        states = {f"optimiser/{name}": tensor for name, tensor in self.update.state(i).items()}
        states |= {f"generator/{name}": g.get_state() for name, g in self.generators[i].items()}
        weights = learner.state_dict()
        card = {
            "ornstein": __version__, "torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads(),
            "device": str(self.update.device), "mode": self.run.mode, "seed": self.run.seeds[i], "stage": self.stage, "step": total,
            "seconds": round(time.monotonic() - self.began, 3), "weights_sha256": digest(weights), "values": values,
        }  # fmt: skip
        checkpoint.write(
            folder,
            total,
            config=dict(self.run.meta),
            weights=weights,
            card=card,
            state=(states, position),
            keep=self.run.keep,
        )
        if "score" in values and values["score"] > self._best(folder):
            checkpoint.point(folder, "best", f"{total:08d}")
        if values:
            self._say(i, values)

    def _best(self, folder: Path) -> float:
        link = folder / "checkpoints" / "best"
        return checkpoint.read_json(link / "card.json")["values"]["score"] if link.exists() else float("-inf")

    @torch.no_grad()
    def _validate(self, learner: nn.Module) -> dict[str, float]:
        """The losses on the held-out batch, always with the same noise."""
        assert self.held_out is not None
        batch, noises = self.held_out
        single = Update([learner], steps=self.steps)
        return {f"validation/{p.name}/loss": float(p.loss(batch, noises[p.name])[0]) for p in single.descents}

    def _held_out(self, validation: Batches | None) -> tuple[Any, dict[str, Noise]] | None:
        if validation is None:
            return None
        rows = min(len(validation), 4 * self.batch_size)
        index = torch.randperm(len(validation), generator=generator("held out", self.stage))[:rows]
        device = self.update.device
        noises = {p.name: draw(p.noise, rows, generator("held out", self.stage, p.name)) for p in self.update.descents}
        on_device = {name: {k: v.to(device) for k, v in noise.items()} for name, noise in noises.items()}
        return validation.to(self.run.device).gather(index.to(device)), on_device

    def _saved(self) -> list[Path]:
        """The checkpoints to continue from, one per seed and all of one step: of an interrupted run, or of an earlier stage."""
        folders = self.run.folders()
        common = set.intersection(*(set(checkpoint.steps(folder)) for folder in folders)) if folders else set()
        if not common:
            return []
        found = [checkpoint.locate(folder, max(common)) for folder in folders]
        if not self.run.resume and checkpoint.read_json(found[0] / "training_state.json")["stage"] == self.stage:
            raise ValueError(f"{folders[0]}: holds another run; choose an empty directory, or resume it")
        return found

    def _enter(self, saved: list[Path], stage: str) -> Position:
        """Restore the learners and find where this stage begins, from the checkpoint of this stage or of an earlier one."""
        if not saved:
            return Position(stage=stage)
        raw = checkpoint.read_json(saved[0] / "training_state.json")
        position = Position(raw["done"], raw["stage"], raw["step"])
        for learner, path in zip(self.learners, saved, strict=True):
            checkpoint.restore(learner, checkpoint.read(path).weights, path / "weights.safetensors")
        if position.stage != stage and stage not in position.done:
            return Position(position.done | {position.stage: position.step}, stage, 0)
        return position

    def _load_state(self, saved: list[Path]) -> None:
        tensors = [checkpoint.read_tensors(path / "training_state.safetensors") for path in saved]
        strip = "optimiser/"
        self.update.load_state([{k[len(strip) :]: v for k, v in t.items() if k.startswith(strip)} for t in tensors])
        for generators, t in zip(self.generators, tensors, strict=True):
            for name, g in generators.items():
                g.set_state(t[f"generator/{name}"])


def digest(weights: Mapping[str, Tensor]) -> str:
    """A SHA-256 over names and values, by which two checkpoints are told to be bit-equal."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(name.encode())
        total.update(weights[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _stack(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors)


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

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
