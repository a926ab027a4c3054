"""Logs: one line each on standard error, as text for people or JSON for collectors.

Modules log with `logging.getLogger(__name__)`: the message is constant, what varies goes into `extra`::

    log.warning("subscriber refused the event", extra={"subscription": "default/a", "status": 503})

Secrets are never logged. As a last guard, the value of a field whose name says that it holds one is masked.
"""

import logging
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Final, TextIO

from eventing.observe.lines import LogFormat, render
from eventing.observe.redaction import MASK, is_secret

__all__ = ["LineFormatter", "configure"]

log = logging.getLogger(__name__)

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """Formats records with `render`; every key given in `extra` is a field."""

    def __init__(self, log_format: LogFormat, process: str) -> None:
        super().__init__()
        self._log_format = log_format
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            name: MASK if is_secret(name) else value
            for name, value in vars(record).items()
            if name not in _OWN and not name.startswith("_")
        }
        if record.levelno <= logging.DEBUG or not record.name.startswith("eventing"):
            fields["logger"] = record.name
        return render(
            self._log_format,
            moment=record.created,
            level=record.levelname,
            process=self._process,
            message=record.getMessage(),
            fields=fields,
            detail=self.formatException(record.exc_info) if record.exc_info else "",
        )


def configure(log_format: LogFormat, process: str, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (standard error), and what Python itself would print there: warnings, and errors
    that end the process, a thread, or come too late to be raised.

    Libraries speak from WARNING on; the mesh's own modules from `level` on.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(LineFormatter(log_format, process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("eventing").setLevel(level)

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        detail = "".join(traceback.format_exception(kind, error, trace))
        moment, message = time.time(), "ended by an error"
        line = render(log_format, moment=moment, level="critical", process=process, message=message, detail=detail)
        handler.stream.write(line + "\n")

    def ended_thread(arguments: threading.ExceptHookArgs) -> None:
        error = arguments.exc_value
        name = arguments.thread.name if arguments.thread else ""
        log.error("a thread was ended by an error", extra={"ended": name}, exc_info=error)

    def unraisable(arguments: "sys.UnraisableHookArgs") -> None:
        log.error("an error came too late to be raised", extra={"where": arguments.err_msg or ""}, exc_info=arguments.exc_value)

    sys.excepthook = uncaught
    threading.excepthook = ended_thread
    sys.unraisablehook = unraisable
    logging.captureWarnings(True)
