"""A worker of the concurrency tests: `python -m tests.service.worker URL NAME [stuck]`.

It prints a line for each thing it does, `took JOB ATTEMPT`, `done JOB`, `lost JOB`, and ends when nothing is left;
with `stuck` it takes one job and never gives it back.
"""

import sys
import time

from studiolo.errors import LeaseLostError
from studiolo.service.database import Database
from studiolo.service.queue import JobQueue
from studiolo.service.records import Kind

LEASE_S = 2.0


def say(*words: object) -> None:
    """One line, at once: who is killed has said all."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main(url: str, name: str, stuck: bool) -> None:
    """Work until the queue is empty."""
    queue = JobQueue(Database(url, patience_s=60))
    while True:
        for lease in queue.lease([Kind.PORTRAITS], name, LEASE_S):
            say("took", lease.job.id, lease.attempt)
            while stuck:
                time.sleep(60)
            try:
                if queue.complete(lease, {"by": name, "attempt": lease.attempt}):
                    say("done", lease.job.id)
            except LeaseLostError:
                say("lost", lease.job.id)
        backlog = queue.backlog(Kind.PORTRAITS)
        if backlog.queued + backlog.running == 0:
            return
        time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "stuck" in sys.argv[3:])
