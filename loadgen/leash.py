"""Run a module that ends when whoever started it does, however that came to end.

    python -m loadgen.leash MODULE [ARGUMENT...]

Standard input must be a pipe whose other end only the starter holds. Nothing is ever sent through
it. When the starter is gone, even by SIGKILL, the system closes its end, the read below returns,
and this process asks itself to stop, by SIGTERM; if it is still there some seconds later, it kills
itself. So no process is left behind.

The read goes to the file descriptor: `sys.stdin` has a lock, and a thread that waits inside it
breaks the interpreter's shutdown.
"""

import contextlib
import os
import runpy
import signal
import sys
import threading
import time

STDIN = 0
GRACE_S = 12.0  # longer than a service takes: 5 s for its requests, 5 s for its goodbye


def _end_with_the_starter() -> None:
    with contextlib.suppress(OSError):  # closed from the beginning: there is no starter
        os.read(STDIN, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def run(module: str) -> None:
    threading.Thread(target=_end_with_the_starter, name="leash", daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run(sys.argv.pop(1))
