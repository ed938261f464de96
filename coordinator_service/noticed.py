"""What is noticed, and said in the log: who turns silent, who has whose name, what is full.

A name is a label: two workers may bear it, and all that they count is counted. But it is hardly
meant. It cannot be a restart if two sources of one worker and one stream both spoke between two
looks, and both again before the next. Names cost who sends them nothing: so one line is said a
look, of others at the next ones, and a name that nobody bears any more is forgotten.

Of sources that the ledger has forgotten nothing is remembered here, from the next look on.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable

from coordinator_service.answers import Answers
from shared.ledger import Ledger
from shared.rows import Row
from shared.serving.logs import facts

log = logging.getLogger("coordinator")

Name = tuple[str, str]
"""A worker and a stream."""
Key = tuple[str, int]


class Noticed:
    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._states: dict[Key, str] = {}
        self._deltas: dict[Key, int] = {}
        self._spoke: dict[Name, set[Key]] = {}
        self._shared: set[Name] = set()
        self._full = False

    def full(self, ledger: Ledger, now: float) -> None:
        """Say once when it begins that there is no memory for something, and once when it ends."""
        full = ledger.is_full(now=now)
        if full == self._full:
            return
        self._full = full
        what = facts(bytes=ledger.memory.taken, bytes_max=ledger.memory.most)
        if full:
            log.error("rows take as much memory as they may; deltas are refused", extra=what)
        else:
            log.info("no delta was refused for want of memory in three heartbeats", extra=what)

    def state(self, row: Row, now: float) -> None:
        """A new source is silent for a moment: that is no news to worry about."""
        state, before = self._answers.state(row, now), self._states.get(row.source.key, "new")
        if state != before:
            self._states[row.source.key] = state
            worry = logging.WARNING if state == "silent" and before != "new" else logging.INFO
            what = facts(worker=row.source.worker, stream=row.source.stream, before=before)
            log.log(worry, "source %s", state, extra=what)

    def names(self, rows: Iterable[Row]) -> None:
        """Warn, once, of two workers with one name; of one name a look."""
        rows = list(rows)
        before, self._spoke = self._spoke, self._spoken_since(rows)
        self._shared &= {(row.source.worker, row.source.stream) for row in rows}
        for name, keys in self._spoke.items():
            if len(keys & before.get(name, set())) > 1 and name not in self._shared:
                self._shared.add(name)
                what = facts(worker=name[0], stream=name[1])
                log.warning("two workers bear one name; give each its own", extra=what)
                return

    def _spoken_since(self, rows: Iterable[Row]) -> dict[Name, set[Key]]:
        spoke = defaultdict(set)
        before, self._deltas = self._deltas, {}
        for row in rows:
            if row.deltas > before.get(row.source.key, row.deltas):
                spoke[row.source.worker, row.source.stream].add(row.source.key)
            self._deltas[row.source.key] = row.deltas
        self._states = {key: one for key, one in self._states.items() if key in self._deltas}
        return spoke
