"""The demo: a whole system on this machine, hard streams through it, and every answer checked.

It goes round by round. In each, every worker that receives in it is posted a batch, all at once.
Meanwhile the coordinator is asked for the median, and once more when all batches are acknowledged.
Both answers are held against all values, see `loadgen/truth.py`. In the end all is flushed, and the
coordinator must count each acknowledged value once.

Whatever fails ends the demo with a sentence, and everything it started is stopped.
"""

import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from loadgen.calls import BadReply, Calls, Traffic
from loadgen.services import ServiceFailed, Services, running
from loadgen.streams import Floats, Round, planned, rounds
from loadgen.truth import Values, judged
from loadgen.view import Score, Show, result, view

WORKERS = 4
ROUND_S = 0.1
REPLAY_S_MAX = 25.0
LOOK_S = 0.2


class BrokenPromise(RuntimeError):
    """What the services were found to do, against what they promise."""


class Replay:
    """The rounds of a plan, played through running services; every answer is checked."""

    def __init__(self, services: Services, calls: Calls, pool: ThreadPoolExecutor, most: int):
        self._services, self._calls, self._pool = services, calls, pool
        self._coordinator = services.coordinator.url
        self._values = Values(most)
        self._sent = dict.fromkeys(range(len(services.workers)), 0)
        self.score = Score(most)

    def play(self, plan: Iterable[Round], show: Show) -> None:
        for one in plan:
            self._play_round(one)
            self.score = replace(
                self.score,
                phase=one.phase.name,
                what=one.phase.what,
                acknowledged=len(self._values),
                exact=self._values.median(),
                traffic=sum(self._calls.traffic(self._coordinator).values(), Traffic()),
            )
            show(self.score)

    def settle(self) -> None:
        """Flush, ask once more, and compare what is counted with what was acknowledged."""
        for worker in self._services.workers:
            self._calls.flush(worker.url)
        self._check()
        traffic = self._calls.traffic(self._coordinator)
        counts = {name: one.count for name, one in traffic.items()}
        sent = {self._services.workers[at].name: count for at, count in self._sent.items()}
        if counts != sent or self.score.counted != len(self._values):
            raise BrokenPromise(
                f"acknowledged were {sent}, in all {len(self._values)}; "
                f"counted are {counts}, in all {self.score.counted}"
            )
        if not self.score.checked:
            raise BrokenPromise("no answer was complete, so there was none to check")
        self.score = replace(self.score, traffic=sum(traffic.values(), Traffic()))

    def _play_round(self, one: Round) -> None:
        posts = [
            self._pool.submit(self._post, worker, batch) for worker, batch in one.batches.items()
        ]
        self._check(flying=list(one.batches.values()))
        self._wait_for(posts)
        for batch in one.batches.values():
            self._values.add(batch)
        self._check()

    def _post(self, worker: int, batch: Floats) -> None:
        service = self._services.workers[worker]
        count = self._calls.post(service.url, batch)
        self._sent[worker] += len(batch)
        if count != self._sent[worker]:
            sent = f"{self._sent[worker]:,} values were sent to {service.name}"
            raise BrokenPromise(f"{sent}, and it says that it received {count:,}")

    def _wait_for(self, posts: list[Future[None]]) -> None:
        waiting = set(posts)
        while waiting:
            done, waiting = wait(waiting, timeout=LOOK_S)
            for post in done:
                post.result()
            self._services.watch()

    def _check(self, flying: Iterable[Floats] = ()) -> None:
        answer = self._calls.median(self._coordinator)
        verdict = judged(answer, self._values.all, list(flying))
        if verdict.breach:
            raise BrokenPromise(verdict.breach)
        self.score = replace(
            self.score,
            served=answer.median,
            counted=answer.count,
            error=verdict.error,
            certificate=answer.rank_error,
            epsilon=answer.epsilon,
            incomplete=self.score.incomplete + (not answer.complete),
        )
        if answer.complete:
            self.score = replace(
                self.score,
                checked=self.score.checked + 1,
                error_max=max(self.score.error_max, verdict.error),
                certificate_max=max(self.score.certificate_max, answer.rank_error),
            )


def demo(values: int, seed: int) -> int:
    """Play it; returns the status to exit with."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does
    console, logs = Console(highlight=False), Path(tempfile.mkdtemp(prefix="running-median-demo-"))
    status = 1
    try:
        status = _played(console, logs, values, seed)
    except (BadReply, BrokenPromise, ServiceFailed) as failed:
        console.print(f"\n{failed}\nAll logs are in {logs}", markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print("Stopped before the end: nothing is shown by this.")
        status = 130
    if status != 1:
        shutil.rmtree(logs)
    return status


def _played(console: Console, logs: Path, values: int, seed: int) -> int:
    """The services are the last to be opened: when they stop, nobody waits for them any more."""
    console.print(f"Starting a coordinator and {WORKERS} workers.")
    with (
        ThreadPoolExecutor(WORKERS) as pool,
        closing(Calls()) as calls,
        running(WORKERS, logs) as services,
    ):
        most = planned(values, WORKERS)
        console.print(f"The coordinator is {services.coordinator.url}.")
        replay = Replay(services, calls, pool, most)
        with _last_words(services), view(console, most) as show:
            replay.play(_paced(rounds(values, WORKERS, seed)), show)
            replay.settle()
        console.print(result(replay.score))
        if console.is_terminal:
            _stay(console, services)
    return 0


def _paced(plan: Iterable[Round]) -> Iterator[Round]:
    """No round sooner than a while after the one before, and none when the time is over."""
    start = time.monotonic()
    for one in plan:
        began = time.monotonic()
        if began - start > REPLAY_S_MAX:
            return
        yield one
        time.sleep(max(0.0, began + ROUND_S - time.monotonic()))


@contextmanager
def _last_words(services: Services) -> Iterator[None]:
    """Where a service did not reply because one has ended, that one is to be heard."""
    try:
        yield
    except BadReply:
        time.sleep(LOOK_S)
        services.watch()
        raise


def _stay(console: Console, services: Services) -> None:
    console.print(f"It runs until Ctrl-C. Try: curl {services.coordinator.url}/median")
    with suppress(KeyboardInterrupt):
        while True:
            services.watch()
            time.sleep(LOOK_S)
    console.print("Stopping.")
