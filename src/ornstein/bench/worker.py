"""A worker process: reads jobs from standard input, one JSON object a line, and answers each with a row or an error.

It lives as long as its standard input: when the bench ends in any way, also killed, the pipe closes and the worker goes
at once, in the middle of whatever it does. It never writes rows itself.
"""

import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import TextIO

from ornstein.bench.plan import Job


def main(out: Path) -> int:
    """Work until the jobs end; 130 if interrupted, after a checkpoint."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints goes to the log, so that the answers stay clean
    import torch

    torch.set_num_threads(1)
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin, jobs), daemon=True).start()
    try:
        while True:
            _answer(answers, Job(**json.loads(jobs.get())), out)
    except KeyboardInterrupt:
        return 130


def _listen(lines: TextIO, jobs: "queue.Queue[str]") -> None:
    """Pass the lines on; at their end leave without clean-up, as checkpoints are written whole or not at all."""
    for line in lines:
        jobs.put(line)
    os._exit(0)


def _answer(answers: TextIO, job: Job, out: Path) -> None:
    """Do one job and print its row, or what went wrong; only an interrupt ends the worker."""
    from ornstein.bench.measure import measure
    from ornstein.cli import finite

    try:
        reply = {"row": finite(measure(job, out))}
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        reply = {"error": cause, "traceback": traceback.format_exc()}
    answers.write(json.dumps(reply) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
