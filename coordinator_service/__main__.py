"""`python -m coordinator_service`: the one coordinator, until it is told to stop."""

import sys
import time

from coordinator_service.app import create_app
from coordinator_service.settings import Settings
from coordinator_service.store import open_store
from shared.serving.again import Hangups
from shared.serving.doors import tell_of_doors
from shared.serving.logs import start_logging
from shared.serving.server import clock, serve
from shared.serving.storage import or_leave


def main() -> None:
    hangups = Hangups()
    settings = Settings.of(sys.argv[1:], "python -m coordinator_service")
    start_logging(settings.log_format, settings.log_level, Settings.strangers())
    tell_of_doors(settings)
    with or_leave():
        store = open_store(settings)
        serve(
            lambda fail, stopping: create_app(
                settings, clock=clock, wall=time.time, fail=fail, stopping=stopping, store=store
            ),
            settings,
            hangups,
        )


if __name__ == "__main__":
    main()
