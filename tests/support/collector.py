"""An OpenTelemetry collector for one test: OTLP over HTTP, decoded with OpenTelemetry's own messages."""

import gzip
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from tests.support.waiting import eventually

__all__ = ["Collector", "ReceivedSpan"]

_KINDS = {2: "server", 3: "client"}


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span as it arrived; ids in hexadecimal, `parent` "" where it has none, `error` whether its status is one."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    error: bool
    start: int
    end: int
    attributes: dict[str, Any]
    service: str
    instance: str


class Collector:
    """`with Collector() as collector`: configure `collector.environ`. `refusing` answers 400 from then on."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.refusing = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if outer.refusing or self.path != "/v1/traces":
                    self.send_response(400)
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                outer.take(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_arguments: Any) -> None:
                """Tests are quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def environ(self) -> dict[str, str]:
        """What makes the mesh send its spans here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            attributes = _attributes(resource.resource.attributes)
            service, instance = (attributes.get(f"service.{name}", "") for name in ("name", "instance.id"))
            for scope in resource.scope_spans:
                self.spans += [_received(span, service, instance) for span in scope.spans]

    def wait(self, number: int, condition: Callable[[ReceivedSpan], bool] = lambda _span: True) -> list[ReceivedSpan]:
        """Those that meet the condition, once there are so many; by their start."""

        def found() -> list[ReceivedSpan]:
            return sorted(filter(condition, list(self.spans)), key=lambda span: span.start)

        eventually(lambda: len(found()) >= number, f"{number} spans")
        return found()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _received(span: Any, service: str, instance: str) -> ReceivedSpan:
    return ReceivedSpan(
        span.name, _KINDS.get(span.kind, str(span.kind)), span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
        span.trace_state, span.status.code == 2, span.start_time_unix_nano, span.end_time_unix_nano,
        _attributes(span.attributes), service, instance,
    )  # fmt: skip


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
