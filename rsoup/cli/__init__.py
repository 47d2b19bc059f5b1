"""The command `rsoup`: parse, call one function, show what came out. Errors become words and exit codes here."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


class Stopped(BaseException):
    """A signal asked to stop: the work in hand is put down in order, then the exit code is 128 + the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, _: FrameType | None) -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda again, _: os._exit(128 + again))  # a second one does not wait
    raise Stopped(number)


def main() -> None:
    """Run the command line and leave with its exit code; a user's mistake never shows a traceback."""
    from rsoup.cli.app import app
    from rsoup.console import Console
    from rsoup.errors import RsoupError

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _stop)
    arguments = sys.argv[1:]
    try:
        app()
    except RsoupError as error:
        if "--debug" in arguments or os.environ.get("RSOUP_DEBUG"):
            raise
        Console(as_json="--json" in arguments).error(error)
        sys.exit(error.exit_code)
    except Stopped as stopped:
        sys.stderr.write("stopped. What is done is kept: type the same command again to go on\n")
        sys.exit(128 + stopped.number)
