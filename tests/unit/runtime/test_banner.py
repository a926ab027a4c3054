"""What `eventing up` prints once it is ready: lines that work when copied into another terminal."""

from pathlib import Path

import pytest

from eventing.runtime.banner import banner
from eventing.runtime.settings import Endpoints, UpSettings

ENDPOINTS = Endpoints("https://127.0.0.1:7443", "http://127.0.0.1:8080", "http://127.0.0.1:9464")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> str:
    """The data directory that is used where nothing is said."""
    monkeypatch.setenv("XDG_DATA_HOME", "/srv")
    monkeypatch.setenv("EVENTING_DATA_DIR", "/somewhere/else")
    monkeypatch.delenv("EVENTING_IN_CONTAINER", raising=False)
    return "/srv/eventing-mesh"


def lines(settings: UpSettings) -> list[str]:
    return [line.strip() for line in banner(settings, ENDPOINTS, 1.25).splitlines()]


def test_the_usual_directory_needs_no_option(home: str) -> None:
    said = lines(UpSettings(home))
    assert "export KUBECONFIG=/srv/eventing-mesh/kubeconfig" in said
    assert "eventing trace ID" in said
    assert not [line for line in said if line.startswith("export PATH")]


def test_another_directory_is_named_in_every_command(home: str) -> None:
    said = lines(UpSettings("/data/my mesh"))
    assert "export KUBECONFIG='/data/my mesh/kubeconfig'" in said
    assert "eventing trace --data-dir '/data/my mesh' ID" in said


def test_a_command_that_the_shell_would_not_find_is_put_on_its_path(home: str) -> None:
    assert "export PATH=/clone/.venv/bin:$PATH" in lines(UpSettings(home, bin_dir="/clone/.venv/bin"))


def test_out_of_a_container_the_other_terminal_goes_through_docker(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTING_IN_CONTAINER", "1")
    monkeypatch.setattr("platform.node", lambda: "3f2a9c01d4e5")
    said = lines(UpSettings("/var/lib/eventing-mesh"))
    assert "(umask 077; docker exec 3f2a9c01d4e5 cat /var/lib/eventing-mesh/kubeconfig >mesh.kubeconfig)" in said
    assert "export KUBECONFIG=mesh.kubeconfig" in said
    assert "docker exec 3f2a9c01d4e5 eventing trace ID" in said
    assert not [line for line in said if "--data-dir" in line]  # the image's own environment says it


def test_every_address_is_there(home: str) -> None:
    text = banner(UpSettings(home), ENDPOINTS, 1.25)
    assert "http://127.0.0.1:8080/NAMESPACE/CHANNEL" in text
    assert "http://127.0.0.1:9464/metrics" in text
    assert str(Path(home)) in text


def test_several_data_plane_processes_are_said_with_their_ports(home: str) -> None:
    planes = {f"embedded-{number}": f"http://127.0.0.1:{9464 + number}" for number in range(3)}
    endpoints = Endpoints(ENDPOINTS.api, ENDPOINTS.ingress, ENDPOINTS.metrics, planes)
    text = banner(UpSettings(home, workers=3), endpoints, 1.25)
    assert "http://127.0.0.1:9464/metrics, and on ports 9465, 9466" in text
    assert "3 processes; in-memory channels need one" in text
