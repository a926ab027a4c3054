"""The OpenAPI document of the local API; its schemas are made from the documents' own types (eventing.journal.documents)."""

from functools import cache
from typing import Any, Final

import msgspec

from eventing import __version__
from eventing.journal.documents import Feed, Problem, Standing, Trace, Why

__all__ = ["API", "document"]

API: Final = "/api/v1"
_ANSWERS: Final = (Trace, Feed, Standing, Problem, Why)  # the last is what `eventing why -o json` makes of the third


@cache
def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    references, components = msgspec.json.schema_components(_ANSWERS, ref_template="#/components/schemas/{name}")
    trace, feed, standing, problem, _ = references
    subscription = "Namespace and name of a Subscription, as in default/orders."
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "eventing-mesh: the journal",
            "version": __version__,
            "summary": "Where did my event go?",
            "description": "Served by each data-plane process on its metrics port. Members are added, never renamed or removed.",
        },
        "security": [{"token": []}],
        "paths": {
            f"{API}/trace/{{identity}}": _get(
                "trace",
                "What became of an event: each acceptance, each subscription, each attempt, and why.",
                trace,
                problem,
                _path("identity", "Id of the event, or the receipt of its acceptance."),
                _query("channel", "Only this channel, as NAMESPACE/NAME.", {"type": "string"}),
                _query("data", "The events' whole data, too, in base64.", {"type": "boolean", "default": False}),
            ),
            f"{API}/tail": _get(
                "tail",
                "What happened after a position, oldest first. Without one: nothing yet, and the position to begin with.",
                feed,
                problem,
                _query("after", "`next` of the answer before.", {"type": "string"}),
                _query("wait_s", "How long to wait for something to happen.", {"type": "number", "minimum": 0, "maximum": 25}),
                _query("channel", "Only this channel, as NAMESPACE/NAME.", {"type": "string"}),
                _query("subscription", subscription, {"type": "string"}),
                _query("type", "Only events of this type.", {"type": "string"}),
                _query("failed", "Only what did not succeed.", {"type": "boolean", "default": False}),
            ),
            f"{API}/subscriptions/{{namespace}}/{{name}}": _get(
                "standing",
                "How a Subscription stands in this process: lag, what was delivered and what failed lately, and what to do.",
                standing,
                problem,
                _path("namespace", "Its namespace."),
                _path("name", "Its name."),
                _query("window_s", "What lately means.", {"type": "number", "minimum": 0, "maximum": 86400, "default": 300}),
                missing="No such Subscription is in force in this process.",
            ),
        },
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "The administrator's: the one in the kubeconfig."}
            },
        },
    }


def _get(
    name: str, summary: str, answer: dict[str, Any], problem: dict[str, Any], *parameters: dict[str, Any], missing: str = ""
) -> dict[str, Any]:
    refused = {"content": {"application/problem+json": {"schema": problem}}}
    responses: dict[str, Any] = {
        "200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}},
        "400": {"description": "A parameter makes no sense.", **refused},
        "401": {"description": "The token is missing or wrong.", **refused},
        "429": {"description": "Too many readers at a time.", **refused},
    }
    if missing:
        responses["404"] = {"description": missing, **refused}
    return {"get": {"operationId": name, "summary": summary, "parameters": list(parameters), "responses": responses}}


def _path(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}
