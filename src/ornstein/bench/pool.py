"""The processes that do the work: as many as asked for, each given one job after the other, and replaced if it dies."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ornstein.bench.plan import Job

Reply = dict[str, Any]

GRACE = 60.0
"""Seconds that an interrupted worker has for its last step and checkpoint."""


class Worker:
    """One process with one torch thread. It ends with its standard input, so also when this process is killed."""

    def __init__(self, out: Path, number: int) -> None:
        self.log = out / "logs" / f"worker-{number}.log"
        self.log.parent.mkdir(exist_ok=True)
        threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ornstein.bench.worker", str(out)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | threads,
                start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
            )

    def do(self, job: Job) -> Reply:
        """The reply to a job; if the process dies over it, an error that names how."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(asdict(job)) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except (BrokenPipeError, ValueError):
            line = ""
        if line.endswith("\n"):
            return json.loads(line)
        return {"error": _death(self.process.wait()), "traceback": _tail(self.log), "died": True}

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def interrupt(self) -> None:
        """Ask for a checkpoint and an end."""
        if self.alive:
            self.process.send_signal(signal.SIGINT)

    def close(self, grace: float = 0.0) -> None:
        """End the process, after `grace` seconds to go by itself."""
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def replies(jobs: Sequence[Job], out: Path, workers: int) -> Iterator[tuple[Job, Reply]]:
    """Each job with its reply as it comes; the processes end with the iteration, however that ends."""
    waiting: queue.Queue[Job] = queue.Queue()
    done: queue.Queue[tuple[Job, Reply] | BaseException] = queue.Queue()
    for job in jobs:
        waiting.put(job)
    crew = _Crew(out)
    count = min(workers, len(jobs))
    threads = [
        threading.Thread(target=crew.serve, args=(number, waiting, done), daemon=True) for number in range(count)
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in jobs:
            reply = done.get()
            if isinstance(reply, BaseException):
                raise reply
            yield reply
    except KeyboardInterrupt:
        crew.interrupt()
        raise
    finally:
        crew.close()


class _Crew:
    """The workers that are alive, known by number, so that all can be ended together."""

    def __init__(self, out: Path) -> None:
        self.out, self.workers, self.ending = out, {}, False
        self.lock = threading.Lock()

    def serve(self, number: int, waiting: "queue.Queue[Job]", done: "queue.Queue[Any]") -> None:
        """Give a worker of this number job after job, a new one where the last has died."""
        try:
            while not self.ending:
                job = waiting.get_nowait()
                done.put((job, self._worker(number).do(job)))
        except queue.Empty:
            pass
        except BaseException as error:
            done.put(error)

    def _worker(self, number: int) -> Worker:
        with self.lock:
            if self.ending:
                raise KeyboardInterrupt
            worker = self.workers.get(number)
            if worker is None or not worker.alive:
                if worker is not None:
                    worker.close()
                worker = self.workers[number] = Worker(self.out, number)
            return worker

    def interrupt(self) -> None:
        """Have every worker write a checkpoint and end; they are waited for together."""
        with self.lock:
            self.ending = True
        for worker in self.workers.values():
            worker.interrupt()
        for worker in self.workers.values():
            worker.close(GRACE)

    def close(self) -> None:
        """End every worker now."""
        with self.lock:
            self.ending = True
        for worker in self.workers.values():
            worker.close()


def _death(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"the worker process ended with code {code}"
    name = signal.Signals(-code).name
    hint = "; the system may have run out of memory, try fewer --workers" if name == "SIGKILL" else ""
    return f"the worker process was ended by {name}{hint}"


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
