"""`python -m worker_service`: one worker, until it is told to stop."""

import sys

from shared.serving.logs import start_logging
from shared.serving.server import clock, serve
from worker_service.app import create_app
from worker_service.settings import Settings


def main() -> None:
    settings = Settings.of(sys.argv[1:], "python -m worker_service")
    start_logging(settings.log_format, settings.log_level, Settings.strangers())
    serve(
        lambda fail: create_app(settings, clock=clock, fail=fail),
        host=settings.host,
        port=settings.port,
    )


if __name__ == "__main__":
    main()
