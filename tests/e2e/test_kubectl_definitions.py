"""A user's own kind, as a third party's sources come: its definition applied with the real kubectl, then served."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.api_server import Kubectl
from tests.support.waiting import eventually

pytestmark = pytest.mark.kubectl

DEFINITION = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: feedsources.sources.example.com
  labels: {duck.knative.dev/source: "true"}
spec:
  group: sources.example.com
  scope: Namespaced
  names:
    plural: feedsources
    kind: FeedSource
    shortNames: [feed]
    categories: [all, knative, sources]
  versions:
    - name: v1alpha1
      served: true
      storage: false
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      additionalPrinterColumns:
        - {name: URL, type: string, jsonPath: .spec.url}
        - {name: Every, type: integer, jsonPath: .spec.everyMinutes}
        - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
        - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
        - {name: Sink, type: string, jsonPath: .status.sinkUri, priority: 1}
      schema:
        openAPIV3Schema:
          type: object
          description: FeedSource sends an event for each entry of a feed.
          properties:
            spec:
              type: object
              description: What is wanted.
              required: [url]
              properties:
                url: {type: string, pattern: '^https?://', description: Where the feed is.}
                everyMinutes: {type: integer, minimum: 1, maximum: 1440, default: 10, description: How often to look.}
                format: {type: string, enum: [rss, atom], default: rss}
                sink: {type: object, x-kubernetes-preserve-unknown-fields: true}
                rules:
                  type: array
                  x-kubernetes-list-type: map
                  x-kubernetes-list-map-keys: [name]
                  items:
                    type: object
                    required: [name]
                    properties:
                      name: {type: string}
                      weight: {x-kubernetes-int-or-string: true, default: 50%}
            status:
              type: object
              properties:
                sinkUri: {type: string}
                conditions:
                  type: array
                  items: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
NAME = "feedsources.sources.example.com"


def feed(name: str = "news", **spec: Any) -> dict[str, Any]:
    kind = {"apiVersion": "sources.example.com/v1", "kind": "FeedSource"}
    return {**kind, "metadata": {"name": name}, "spec": {"url": "https://example.com/feed", **spec}}


@pytest.fixture
def served(k: Kubectl) -> Iterator[Kubectl]:
    k("apply", "-f", "-", given=DEFINITION)
    k("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=20s")
    yield k
    k("delete", "crd", NAME, "--ignore-not-found", "--timeout=20s")


def test_its_objects_are_completed_pruned_and_checked(served: Kubectl) -> None:
    k = served
    rule = {"name": "a"}
    said = k("apply", "-f", "-", given=feed(sink={"ref": {"kind": "Channel", "any": [1]}}, rules=[rule]))
    assert "feedsource.sources.example.com/news created" in said
    assert k.json("get", "feedsources/news")["spec"] == {
        "url": "https://example.com/feed",
        "everyMinutes": 10,
        "format": "rss",
        "sink": {"ref": {"kind": "Channel", "any": [1]}},
        "rules": [{"name": "a", "weight": "50%"}],
    }
    assert 'unknown field "spec.evry"' in k("apply", "-f", "-", given=feed(evry=1), code=1)
    k("apply", "--validate=false", "-f", "-", given=feed("pruned", evry=1, rules=[{**rule, "more": 1}]))
    assert "evry" not in k.json("get", "feedsources/pruned")["spec"]
    assert k.json("get", "feedsources/pruned")["spec"]["rules"] == [{"name": "a", "weight": "50%"}]
    said = k("apply", "-f", "-", given=feed("wrong", everyMinutes=0, format="xml", url="ftp://x", rules=[rule, rule]), code=1)
    assert 'The FeedSource "wrong" is invalid' in said
    for part in (
        "spec.everyMinutes: Invalid value: 0: spec.everyMinutes in body should be greater than or equal to 1",
        'spec.format: Unsupported value: "xml": supported values: "rss", "atom"',
        "spec.url: Invalid value: \"ftp://x\": spec.url in body should match '^https?://'",
        'spec.rules[1]: Duplicate value: {"name":"a"',
    ):
        assert part in said, said
    said = k("apply", "-f", "-", given={**feed("empty"), "spec": {}}, code=1)
    assert "spec.url: Required value" in said


def test_it_is_printed_found_and_explained_as_it_says(served: Kubectl) -> None:
    k = served
    k("apply", "-f", "-", given=feed())
    assert k("get", "feed").split()[:9] == [
        "NAME",
        "URL",
        "EVERY",
        "READY",
        "AGE",
        "news",
        "https://example.com/feed",
        "10",
        "0s",
    ] or (k("get", "feed").split()[:5] == ["NAME", "URL", "EVERY", "READY", "AGE"])
    assert "SINK" in k("get", "feed", "-o", "wide").splitlines()[0]
    for name in ("all", "sources", "knative"):
        assert "feedsource.sources.example.com/news" in k("get", name, "-o", "name"), name
    row = next(line for line in k("api-resources").splitlines() if line.startswith("feedsources"))
    assert row.split() == ["feedsources", "feed", "sources.example.com/v1", "true", "FeedSource"]
    assert "How often to look." in k("explain", "feedsource.spec.everyMinutes")
    assert "sources.example.com/v1" in k("api-versions")
    assert NAME in k("get", "crds", "-l", "duck.knative.dev/source=true", "-o", "name")
    # One of its versions is served, and it is said which.
    conditions = {c["type"]: c for c in k.json("get", "crd", NAME)["status"]["conditions"]}
    assert "of its versions only v1 is served" in conditions["Established"]["message"]
    assert 'no matches for kind "FeedSource" in version "sources.example.com/v1alpha1"' in k(
        "apply", "-f", "-", given={**feed(), "apiVersion": "sources.example.com/v1alpha1"}, code=1
    )


def test_its_status_is_written_apart(served: Kubectl) -> None:
    k = served
    k("apply", "-f", "-", given={**feed(), "status": {"sinkUri": "http://not-taken"}})
    assert "status" not in k.json("get", "feed/news")
    status = (
        '{"spec": {"everyMinutes": 3}, "status": {"sinkUri": "http://x", "conditions": [{"type": "Ready", "status": "True"}]}}'
    )
    k("patch", "feed/news", "--subresource=status", "--type=merge", "-p", status)
    found = k.json("get", "feed/news")
    assert (found["spec"]["everyMinutes"], found["status"]["sinkUri"], found["metadata"]["generation"]) == (10, "http://x", 1)
    k("wait", "--for=condition=Ready", "feed/news", "--timeout=20s")
    k("patch", "feed/news", "--type=merge", "-p", '{"spec": {"everyMinutes": 3}}')
    found = k.json("get", "feed/news")
    assert (found["metadata"]["generation"], found["status"]["sinkUri"]) == (2, "http://x")


def test_a_new_edition_of_the_definition_is_in_force_and_its_end_takes_all_along(served: Kubectl) -> None:
    k = served
    k("apply", "-f", "-", given=feed())
    definition = yaml.safe_load(DEFINITION)
    properties = definition["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    properties["language"] = {"type": "string", "default": "en"}
    definition["spec"]["names"]["shortNames"] = ["fd"]
    assert "configured" in k("apply", "-f", "-", given=definition)
    eventually(lambda: k.json("get", "feedsources/news")["spec"].get("language") == "en", "what is stored already is completed")
    k("apply", "-f", "-", given=feed(language="de"))
    assert k.json("get", "feedsources/news")["spec"]["language"] == "de"
    eventually(lambda: "fd" in k("api-resources", "--cached=false").split(), "the new short name")
    k("delete", "crd", NAME, "--timeout=20s")
    assert "the server could not find the requested resource" in k("get", "feedsources", code=1)
    k("apply", "-f", "-", given=DEFINITION)
    k("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=20s")
    assert k("get", "feedsources", "-o", "name") == ""


def test_a_definition_that_is_wrong_is_refused_with_its_place(k: Kubectl) -> None:
    definition = yaml.safe_load(DEFINITION)
    schema = definition["spec"]["versions"][1]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["everyMinutes"]["default"] = "often"
    del schema["properties"]["status"]["type"]
    said = k("apply", "-f", "-", given=definition, code=1)
    place = "spec.versions[1].schema.openAPIV3Schema.properties"
    assert f"{place}[spec].properties[everyMinutes].default: Invalid value" in said
    assert f"{place}[status].type: Required value: must not be empty for specified object fields" in said
    assert "not found" in k("get", "crd", NAME, code=1)
