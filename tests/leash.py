"""A leash: a process that holds it ends when whoever holds the other end is gone.

    python -m tests.leash worker_service

Standard input is a pipe, whose other end only the test run holds. When the run ends, however it
ends, the pipe closes: then this process tells itself to stop, and is killed if that takes long. A
process that is stopped meanwhile cannot read; so it must not lead a session of its own: a stopped
process group that nobody is left to continue gets SIGHUP from the kernel, and goes on. It ends by
that, or by the leash.
"""

import os
import runpy
import signal
import sys
import threading
import time

ENDS_S = 15  # longer than the graceful end of any service


def hold() -> None:
    threading.Thread(target=_read_to_the_end, name="leash", daemon=True).start()


def _read_to_the_end() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ENDS_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    hold()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
