"""One mesh and one sink for each module."""

from collections.abc import Iterator

import pytest

from eventing.runtime.mesh import Mesh
from eventing.testing.sinks import Sink
from tests.support.loop_thread import mesh_thread, sink_thread
from tests.support.questions import Eventing, run_command


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with mesh_thread(tmp_path_factory.mktemp("mesh") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with sink_thread() as listening:
        yield listening


@pytest.fixture
def eventing(mesh: Mesh, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Eventing:
    """Run a command line on the mesh and check its exit code (None: any will do); its standard output."""
    monkeypatch.setenv("EVENTING_DATA_DIR", str(mesh.data_dir))
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments, code=0: run_command(capsys, arguments, code)
