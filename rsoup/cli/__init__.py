"""The command `rsoup`: parse, call one function, show what came out. Errors become words and exit codes here."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

from rsoup.cli.stopped import Stopped

if TYPE_CHECKING:
    from rsoup.errors import RsoupError

_GARBAGE_THRESHOLD = 100_000  # a header makes a million objects, and none of them garbage
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _stop(number: int, _: FrameType | None) -> None:
    for name in _SIGNALS:
        signal.signal(name, lambda again, _: os._exit(128 + again))  # a second one does not wait
    torch = getattr(sys.modules.get("torch"), "__spec__", None)
    if getattr(torch, "_initializing", False):  # its C++ aborts the process when Python raises meanwhile
        _stop_later(number, 0.02)
        return
    raise Stopped(number)


def _stop_later(number: int, seconds: float) -> None:
    signal.signal(signal.SIGALRM, lambda *_: _stop(number, None))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    """Stop again where a signal came inside a destructor or a weak reference's callback, which swallow it."""
    stopped = _inside(lost.exc_value)
    if stopped is None:
        sys.__unraisablehook__(lost)
        return
    _stop_later(stopped.number, 0.001)  # once the callback is left


def _too_late(lost: sys.UnraisableHookArgs) -> None:
    """The work is done: a signal that a destructor swallowed has nothing left to stop."""
    if _inside(lost.exc_value) is None:
        sys.__unraisablehook__(lost)


def main() -> None:
    """Run the command line and leave with its exit code; a user's mistake never shows a traceback."""
    _open_streams()
    gc.set_threshold(_GARBAGE_THRESHOLD)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's threads, never used here, take memory each
    sys.unraisablehook = _unraisable
    try:
        for name in _SIGNALS:
            if signal.getsignal(name) != signal.SIG_IGN:  # nohup, or a shell's background job
                signal.signal(name, _stop)
        code = _run()
    except BaseException as error:
        if (stopped := _inside(error)) is None:
            raise
        code = _show(_stopped(stopped))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = _too_late
        gc.freeze()  # looking for garbage in all of torch once more at the end takes a third of a second
    sys.exit(code)


def _inside(error: BaseException | None) -> Stopped | None:
    """The signal behind an error: Python wraps what is raised while it makes a class into another one."""
    while error is not None and not isinstance(error, Stopped):
        error = error.__cause__ or error.__context__
    return error


def _open_streams() -> None:
    """Let 0, 1 and 2 be open, or a file of the soup would get such a number and whatever is printed."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _run() -> int:
    from rsoup.cli.app import app
    from rsoup.errors import RsoupError

    try:
        code = app(prog_name="rsoup", standalone_mode=False)
    except RsoupError as error:
        return _show(error)
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # Typer says 1 when nobody reads its help
            return 141
        raise
    except Exception as error:
        if _inside(error) is not None or (known := _known(error)) is None:
            raise
        return _show(known, error)
    return code if isinstance(code, int) else 0


def _known(error: Exception) -> RsoupError | None:
    """What a foreign error means to the user; None for one that must be a bug."""
    from rsoup.errors import RsoupError, TargetError, UsageError, show

    if hasattr(error, "format_message"):  # every complaint of Typer about the command line
        path = getattr(getattr(error, "ctx", None), "command_path", "rsoup")
        return UsageError("E0200", show(error.format_message(), 400), hint=f"{path} --help")
    memory = "there is not enough memory for Python and its libraries"
    if isinstance(error, MemoryError):
        return TargetError(
            "E0608",
            memory,
            hint="rsoup needs some 200 MB, 500 where torch computes (adapters), whatever the size of the model",
        )
    if isinstance(error, ImportError):
        if "map segment" in str(error) or "allocate memory" in str(error):
            return TargetError(
                "E0608",
                memory,
                hint="rsoup needs some 200 MB, 500 where torch computes (adapters), whatever the size of the model",
            )
        hint = "install it again: pip install --upgrade rewarded-soups"
        return RsoupError("E0100", f"the installation is incomplete: {show(error)}", hint=hint)
    if isinstance(error, OSError):
        from rsoup.console import silence
        from rsoup.storage.target import target_error

        if error.filename is not None:
            return target_error(error, show(error.filename))
        silence(sys.stdout)
        return TargetError("E0604", f"writing failed: {show(error.strerror)}")
    return None


def _stopped(stopped: Stopped) -> RsoupError:
    from rsoup.errors import RsoupError, show

    name = signal.Signals(stopped.number).name
    if stopped.kept is None:
        error = RsoupError("E7502", f"stopped by {name}")
    else:
        error = RsoupError(
            "E7502",
            f"stopped by {name}; what is done is kept",
            where=show(stopped.kept),
            hint="type the same command again to go on, or remove it: rsoup clean --yes",
        )
    error.exit_code = 128 + stopped.number
    return error


def _show(error: RsoupError, cause: Exception | None = None) -> int:
    """Print an error in the form that was asked for, and return its exit code."""
    from rsoup.console import Console

    arguments = sys.argv[1 : sys.argv.index("--") if "--" in sys.argv else None]
    if "--debug" in arguments or os.environ.get("RSOUP_DEBUG"):
        import traceback

        traceback.print_exception(cause or error)
    try:
        Console(as_json="--json" in arguments).error(error)
    except type(error):
        return 6  # not even the error could be written
    return error.exit_code
