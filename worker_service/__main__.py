"""`python -m worker_service`: one worker, until it is told to stop."""

import sys

from shared.serving.again import Hangups
from shared.serving.doors import tell_of_doors
from shared.serving.logs import start_logging
from shared.serving.server import clock, serve
from shared.serving.storage import or_leave
from worker_service.app import create_app
from worker_service.settings import Settings
from worker_service.store import open_store


def main() -> None:
    hangups = Hangups()
    settings = Settings.of(sys.argv[1:], "python -m worker_service")
    start_logging(settings.log_format, settings.log_level, Settings.strangers())
    tell_of_doors(settings)
    with or_leave():
        store = open_store(settings)
        serve(
            lambda fail, _: create_app(settings, clock=clock, fail=fail, store=store),
            settings,
            hangups,
        )


if __name__ == "__main__":
    main()
