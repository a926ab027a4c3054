"""Spans for an OpenTelemetry collector: made, and sent from a thread of their own.

Configured by OpenTelemetry's own environment variables (docs/traces.md); until then, nothing of OpenTelemetry is imported.
"""

import logging
import os
import re
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from eventing import __version__
from eventing.event import Event
from eventing.observe.trace_context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["Attributes", "Span", "Tracing", "event_attributes", "tracing"]

log = logging.getLogger(__name__)

QUEUE_MAX: Final = 2048  # the defaults of OTEL_BSP_*
BATCH_MAX: Final = 512
DELAY_MS: Final = 5000
_EXPORTER_LOGGER: Final = "opentelemetry.exporter.otlp"
Attributes = Mapping[str, str | int | float | bool]


def tracing(process: str, instance: str = "") -> "Tracing | None":
    """What the environment (OTEL_*) asks for; None where that is nothing. A warning says what is asked for and not here.

    `process` is the role, for `service.name` where the environment gives none; `instance` tells processes of one role apart
    (`service.instance.id`).
    """
    environ = os.environ
    asked = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    exporter = environ.get("OTEL_TRACES_EXPORTER", "otlp" if asked else "none").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter in {"", "none"}:
        return None
    if exporter != "otlp":
        log.warning("no spans are sent: OTEL_TRACES_EXPORTER can be otlp or none here", extra={"given": exporter})
        return None
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    if protocol != "http/protobuf":
        log.warning(
            "no spans are sent: OTEL_EXPORTER_OTLP_PROTOCOL can be http/protobuf here, which collectors take on port 4318",
            extra={"given": protocol},
        )
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        log.warning(
            "no spans are sent: OpenTelemetry is configured and not installed; pip install 'eventing-mesh[otel]', "
            "or set OTEL_SDK_DISABLED=true",
            extra={"missing": error.name},
        )
        return None
    return Tracing(OTLPSpanExporter(), process, environ, instance)


class Span:
    """One span under way. `context` is what goes along with the request that it is of."""

    __slots__ = ("_span", "context")

    def __init__(self, span: Any, state: bytes) -> None:
        self._span = span
        found = span.get_span_context()
        self.context = TraceContext(b"%032x" % found.trace_id, b"%016x" % found.span_id, bool(found.trace_flags & 1), state)

    def end(self, status: int, error: str = "", attributes: Attributes | None = None) -> None:
        """It is over: the status of the answer (0: none), and the kind of error where there was one."""
        span = self._span
        if span.is_recording():
            if attributes:
                span.set_attributes(attributes)
            if status:
                span.set_attribute("http.response.status_code", status)
            if error:
                from opentelemetry.trace import StatusCode

                span.set_attribute("error.type", error)
                span.set_status(StatusCode.ERROR)
        span.end()


class Tracing:
    """Makes spans and has them exported. What the exporter cannot keep up with is dropped and counted: a collector that is slow
    or away costs the mesh a full queue of `queue_max` spans and nothing else."""

    def __init__(self, exporter: "SpanExporter", process: str, environ: Mapping[str, str], instance: str = "") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        self._export = _Export(exporter, environ)
        named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = {"service.version": __version__} | ({} if named else {"service.name": f"eventing-{process}"})
        if instance:  # whatever the environment says is said to each of them
            resource["service.instance.id"] = instance
        provider = TracerProvider(resource=Resource.create(resource), shutdown_on_exit=False)
        provider.add_span_processor(_processor(self._export))
        self._tracer = provider.get_tracer("eventing", __version__)

    def begin(self, name: str, kind: Literal["server", "client"], parent: TraceContext | None, attributes: Attributes) -> Span:
        """A span that begins now; without a parent it is the first of its trace."""
        from opentelemetry.trace import SpanKind

        span = self._tracer.start_span(
            name,
            context=_context(parent),
            kind=SpanKind.SERVER if kind == "server" else SpanKind.CLIENT,
            attributes=attributes,
        )
        return Span(span, parent.state if parent else b"")

    @property
    def counts(self) -> Mapping[str, int]:
        """Spans by what became of them: `exported`, `failed` at the collector, `dropped` because the queue was full."""
        return self._export.counts

    @property
    def fault(self) -> str:
        """Why the last batch could not be exported, "" where it was."""
        return self._export.fault

    def close(self, timeout_s: float) -> None:
        """Export what waits, for at most this long. Blocks."""
        self._export.close(timeout_s)


def event_attributes(event: Event) -> dict[str, str | int | float | bool]:
    """OpenTelemetry's conventions for CloudEvents."""
    known = event.attributes
    named = {"id": "id", "source": "source", "type": "type", "spec_version": "specversion", "subject": "subject"}
    return {f"cloudevents.event_{name}": known[attribute] for name, attribute in named.items() if attribute in known}


def _context(parent: TraceContext | None) -> Any:
    from opentelemetry import trace
    from opentelemetry.context import Context

    if parent is None:
        return Context()  # not what some other library has made the current one
    remote = trace.SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(parent.sampled),
        trace_state=trace.TraceState.from_header([parent.state.decode("ascii")] if parent.state else []),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())


class _Export:
    """A bounded queue and the thread that empties it. OpenTelemetry's own drops without counting."""

    def __init__(self, exporter: "SpanExporter", environ: Mapping[str, str]) -> None:
        self._exporter = exporter
        self._queue_max = _number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_MAX)
        self._batch_max = min(_number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_MAX), self._queue_max)
        self._delay_s = _number(environ, "OTEL_BSP_SCHEDULE_DELAY", DELAY_MS) / 1000
        self._queue: deque[ReadableSpan] = deque()
        self._wake = threading.Event()
        self._closing = False
        self.counts: Counter[str] = Counter(exported=0, failed=0, dropped=0)
        self.fault = ""
        self._said = _LastWords()
        exporter_log = logging.getLogger(_EXPORTER_LOGGER)
        exporter_log.propagate = False  # a line per lost batch: said once, when it begins and when it ends
        exporter_log.handlers[:] = [self._said]
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def put(self, span: "ReadableSpan") -> None:
        """A span has ended. Called in the thread of the event loop."""
        if len(self._queue) >= self._queue_max:
            self.counts["dropped"] += 1
            return
        self._queue.append(span)
        if len(self._queue) >= self._batch_max:
            self._wake.set()

    # The thread

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._delay_s)
            self._wake.clear()
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        queue = self._queue
        while queue:
            self._send([queue.popleft() for _ in range(min(len(queue), self._batch_max))])
            if len(queue) < self._batch_max and not self._closing:
                return  # what is no whole batch waits for its time

    def _send(self, batch: "Sequence[ReadableSpan]") -> None:
        result = self._exporter.export(batch)
        if result.name == "SUCCESS":
            self.counts["exported"] += len(batch)
            if self.fault:
                log.info("spans are exported again", extra=dict(self.counts))
            self.fault = ""
            return
        self.counts["failed"] += len(batch)
        began, self.fault = not self.fault, self._said.text or "the collector did not take them"
        if began:
            log.warning("spans could not be exported and are lost; events are not", extra={"error": self.fault})

    def close(self, timeout_s: float) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        self._exporter.shutdown()


def _processor(export: _Export) -> "SpanProcessor":
    from opentelemetry.sdk.trace import SpanProcessor

    class Processor(SpanProcessor):
        def on_end(self, span: "ReadableSpan") -> None:
            context = span.get_span_context()
            if context is not None and context.trace_flags.sampled:
                export.put(span)

    return Processor()


class _LastWords(logging.Handler):
    """Keeps the last message of the exporter, without what a URL or a header might tell."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = re.sub(r"//[^/@\s]*@", "//", record.getMessage())[:300]


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    if text.isdecimal() and int(text) > 0:
        return int(text)
    if text:
        log.warning("not a positive number, so the default holds", extra={"variable": name, "default": default})
    return default
