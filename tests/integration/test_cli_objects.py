"""`eventing apply, get, describe, delete` against a mesh: what people read, and the exit code."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventing.cli.app import run
from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.settings import Endpoints
from tests.support.loop_thread import mesh_thread
from tests.support.manifests import CHANNEL, subscription
from tests.support.waiting import eventually

BOTH = f"{CHANNEL}---\n{subscription('http://localhost:1/')}"
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n"
Eventing = Callable[..., str]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mesh_thread(tmp_path_factory.mktemp("mesh") / "data") as mesh:
        yield mesh.data_dir


@pytest.fixture
def eventing(data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Eventing]:
    """Run a command line on the module's mesh and check its exit code; what it said on both streams."""
    monkeypatch.setenv("EVENTING_DATA_DIR", str(data_dir))

    def execute(*arguments: str, code: int = 0, given: str = "") -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        got = run(list(arguments))
        said = capsys.readouterr()
        assert got == code, said.out + said.err
        return said.out + said.err

    yield execute
    execute("delete", "sub,ch,cm", "--all")


def applied(eventing: Eventing, text: str = BOTH) -> None:
    eventing("apply", "-f", "-", given=text)


def test_apply_says_what_it_did(eventing: Eventing, tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text(BOTH)
    assert eventing("apply", "-f", str(file), "--dry-run").splitlines() == [
        "channel.messaging.knative.dev/orders created (dry run)",
        "subscription.messaging.knative.dev/printer created (dry run)",
    ]
    eventing("get", "ch", "orders", code=3)
    said = eventing("apply", "-f", str(file))
    assert said == "channel.messaging.knative.dev/orders created\nsubscription.messaging.knative.dev/printer created\n"
    assert eventing("apply", "-f", str(file)).count(" unchanged\n") == 2
    changed = BOTH.replace("http://localhost:1/", "http://localhost:2/")
    assert eventing("apply", "-f", "-", given=changed).count(" configured\n") == 1
    assert json.loads(eventing("get", "sub/printer", "-o", "json"))["spec"]["subscriber"]["uri"] == "http://localhost:2/"


def test_what_is_refused_is_named_with_its_field_and_the_rest_is_applied(eventing: Eventing) -> None:
    wrong = subscription("no uri").replace("name: printer", "name: wrong")
    unknown = CHANNEL.replace("name: orders", "name: odd") + "spec: {chanelTemplate: {}}\n"
    foreign = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n"
    said = eventing("apply", "-f", "-", given=f"{wrong}---\n{unknown}---\n{foreign}---\n{CHANNEL}", code=1)
    assert "standard input, document 1: " in said
    assert "spec.subscriber.uri" in said
    assert 'unknown field "spec.chanelTemplate"' in said
    assert "standard input, document 3: kind Widget of apiVersion example.com/v1 is not served here" in said
    assert "channel.messaging.knative.dev/orders created" in said
    assert "namespaces" in eventing("apply", "-f", "-", "-n", "nowhere", given=CHANNEL, code=3)
    said = eventing("apply", "-f", "-", "-n", "b", given=CHANNEL.replace("name: orders", "name: o\n  namespace: a"), code=1)
    assert "of namespace a, --namespace says b" in said


def test_each_fault_of_an_object_has_a_line_of_its_own(eventing: Eventing) -> None:
    wrong = subscription("http://s/").replace("spec:\n", "spec:\n  delivery: {retry: -1, backoffPolicy: sometimes}\n")
    said = eventing("apply", "-f", "-", given=wrong, code=1).splitlines()
    assert said[0].endswith("invalid value: -1: spec.delivery.retry"), said
    assert said[1] == "  invalid value: sometimes: spec.delivery.backoffPolicy", said


def test_tables_are_the_servers(eventing: Eventing) -> None:
    applied(eventing)
    eventually(lambda: "True" in eventing("get", "sub", "printer"), "ready")
    header, row = eventing("get", "channels").splitlines()
    assert header.split() == ["NAME", "URL", "AGE", "READY", "REASON"]
    assert row.split()[0] == "orders"
    assert header.index("URL") == row.index("http://")
    assert [line.split()[0] for line in eventing("get", "ch,sub").splitlines() if line] == [
        "NAME",
        "channel.messaging.knative.dev/orders",
        "NAME",
        "subscription.messaging.knative.dev/printer",
    ]
    everywhere = [line.split()[:2] for line in eventing("get", "ch", "-A").splitlines()]
    assert everywhere == [["NAMESPACE", "NAME"], ["default", "orders"]]
    assert eventing("get", "Channel", "orders") == eventing("get", "channel.messaging.knative.dev/orders")
    assert "No resources found in knative-eventing namespace." in eventing("get", "ch", "-n", "knative-eventing")
    assert "No resources found" in eventing("get", "ch", "-l", "team=none")
    assert eventing("get", "ns", "-o", "name") == "namespace/default\nnamespace/knative-eventing\n"


def test_whole_objects_as_yaml_and_json(eventing: Eventing) -> None:
    applied(eventing)
    one = yaml.safe_load(eventing("get", "ch", "orders", "-o", "yaml"))
    assert (one["kind"], one["metadata"]["name"]) == ("Channel", "orders")
    assert "managedFields" not in one["metadata"]
    many: dict[str, Any] = json.loads(eventing("get", "ch,sub", "-o", "json"))
    assert [item["kind"] for item in many["items"]] == ["Channel", "Subscription"]
    # What was got can be applied again.
    assert eventing("apply", "-f", "-", given=eventing("get", "cm,ns", "-o", "yaml")).count("unchanged") == 2


def test_describe_shows_contents_and_events(eventing: Eventing) -> None:
    applied(eventing)
    eventually(lambda: "SubscriberSync" in eventing("describe", "sub", "printer"), "its event")
    said = eventing("describe", "subscription/printer")
    lines = said.splitlines()
    assert lines[0] == "Name:         printer"
    assert lines[2] == "Labels:       <none>"
    assert "    API Version:  messaging.knative.dev/v1" in lines
    assert "Observed Generation:" in said
    assert "managedFields" not in said
    assert eventing("describe", "ch", "orders", "nowhere", code=3).endswith(
        'channels.messaging.knative.dev "nowhere" not found\n'
    )


def test_describe_hides_what_is_secret(eventing: Eventing) -> None:
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {token: s3cr3t-value}\n"
    applied(eventing, secret)
    said = eventing("describe", "secret", "key")
    assert "12 bytes" in said
    assert "s3cr3t" not in said
    assert "czNjcjN0" not in said
    eventing("delete", "secret", "key")


def test_delete_waits_until_it_is_gone(eventing: Eventing) -> None:
    applied(eventing)
    said = eventing("delete", "sub", "printer", "nowhere", code=3)
    assert 'subscription.messaging.knative.dev "printer" deleted' in said
    assert '"nowhere" not found' in said
    eventing("get", "sub", "printer", code=3)
    assert eventing("delete", "sub", "nowhere", "--ignore-not-found") == ""
    assert eventing("delete", "-f", "-", "--ignore-not-found", given=BOTH) == 'channel.messaging.knative.dev "orders" deleted\n'


def test_delete_says_what_a_deletion_waits_for(eventing: Eventing) -> None:
    held = CONFIG_MAP.replace("name: settings", "name: held, finalizers: [example.com/keep]")
    applied(eventing, held)
    said = eventing("delete", "cm", "held", "--timeout", "0", code=1)
    assert "held is still there after 0 s: it waits for example.com/keep" in said
    applied(eventing, CONFIG_MAP.replace("name: settings", "name: held, finalizers: []"))
    eventing("get", "cm", "held", code=3)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("get", "chanels"), 3, 'no kind "chanels": did you mean "channels"?'),
        (("get", "xyz"), 3, "it has channels, "),
        (("get", "ch/a", "b"), 2, "'b' is not TYPE/NAME"),
        (("get", "ch,sub", "a"), 2, "several kinds"),
        (("get", "ch", "a", "-A"), 2, "a name is of one namespace"),
        (("get", "ch", "-o", "xml"), 2, "xml"),
        (("describe", "ch", "nowhere"), 3, 'channels.messaging.knative.dev "nowhere" not found'),
        (("delete", "ch"), 2, "which channels?"),
        (("delete",), 2, "give a kind with names, or --filename"),
        (("apply", "-f", "/nowhere.yaml"), 1, "/nowhere.yaml: No such file"),
        (("apply",), 2, "--filename"),
    ],
)
def test_mistakes_are_explained(eventing: Eventing, arguments: tuple[str, ...], code: int, expected: str) -> None:
    assert expected in " ".join(eventing(*arguments, code=code).replace("│", "").split())


def completed(words: str, data_dir: Path) -> list[str]:
    """What a shell is offered for the last word."""
    given = {"_EVENTING_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [Path(sys.executable).with_name("eventing")]
    environment = {**os.environ, **given, "EVENTING_DATA_DIR": str(data_dir)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_completion_offers_what_there_is(eventing: Eventing, data_dir: Path) -> None:
    applied(eventing)
    assert completed("eventing get chan", data_dir) == ["channels"]
    assert completed("eventing describe sub ", data_dir) == ["printer"]
    assert completed("eventing delete ch/", data_dir) == ["ch/orders"]
    assert completed("eventing get ch -n k", data_dir) == ["knative-eventing"]
    assert completed("eventing send -c o", data_dir) == ["orders"]


def test_completion_is_silent_without_a_mesh_and_does_not_wait_for_a_hanging_one(tmp_path: Path) -> None:
    assert completed("eventing get chan", tmp_path) == []
    directory = DataDirectory(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"https://127.0.0.1:{deaf.getsockname()[1]}"
        directory.write_endpoints(Endpoints(url, url, url))
        directory.write(directory.tokens, json.dumps({"admin": "t"}))
        directory.pki.mkdir()
        begun = time.monotonic()
        assert completed("eventing get chan", tmp_path) == []
        assert time.monotonic() - begun < 10


def test_describe_tells_the_delivery_in_force_and_who_said_so(eventing: Eventing) -> None:
    channel = CHANNEL + "spec: {delivery: {retry: 9, deadLetterSink: {uri: 'http://localhost:1/dead'}}}\n"
    applied(eventing, f"{channel}---\n{subscription('http://localhost:1/')}  delivery: {{timeout: PT5S}}\n")

    lines = eventing("describe", "subscription", "printer").partition("Delivery in force:\n")[2].splitlines()
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[:8]]
    assert rows == [
        ["WHAT", "VALUE", "FROM", "FIELD"],
        ["retries after the first attempt", "5", "default", "delivery.retry"],
        ["time for one attempt", "5 s", "subscription", "delivery.timeout"],
        ["wait between attempts", "exponential: 0.5, 1, 2, 4, 8 s, each up to 20% longer", "default",
         "delivery.backoffPolicy, delivery.backoffDelay"],
        ["Retry-After on 429 and 503", "honoured up to 5 min", "default", "delivery.retryAfterMax"],
        ["after the last attempt", "to http://localhost:1/dead", "channel", "delivery.deadLetterSink"],
        ["content mode", "as it came", "default", "delivery.format"],
        ["attempts at the same time", "10, in no order", "default", "eventing-mesh.dev/concurrency"],
    ]  # fmt: skip
