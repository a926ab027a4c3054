"""What `eventing up` prints once the mesh is ready."""

import os
import platform
import shlex
from pathlib import Path

from eventing import __version__
from eventing.runtime.data_directory import default_data_dir
from eventing.runtime.settings import Endpoints, UpSettings

__all__ = ["banner"]


def banner(settings: UpSettings, endpoints: Endpoints, took_s: float) -> str:
    """Addresses, the line for kubectl, and the commands to try next; all of them can be copied as they are.

    Our image sets `EVENTING_IN_CONTAINER`: who reads this is outside then, and the other terminal is too.
    """
    data_dir = Path(settings.data_dir)
    kubeconfig = shlex.quote(str(data_dir / "kubeconfig"))
    # The other terminal may not have this one's $EVENTING_DATA_DIR.
    usual = default_data_dir({name: value for name, value in os.environ.items() if name != "EVENTING_DATA_DIR"})
    elsewhere = "" if data_dir == usual else f" --data-dir {shlex.quote(settings.data_dir)}"
    several = (
        f"\n  data plane  {settings.workers} processes; in-memory channels need one and are not served"
        if settings.workers > 1
        else ""
    )
    path = f"\n  export PATH={shlex.quote(settings.bin_dir)}:$PATH" if settings.bin_dir else ""
    export = f"export KUBECONFIG={kubeconfig}{path}"
    inside = ""
    if os.environ.get("EVENTING_IN_CONTAINER") == "1":
        # The host's name is the container's id, unless it was given one; the data directory is in the environment there.
        inside, elsewhere = f"docker exec {platform.node()} ", ""
        export = f"(umask 077; {inside}cat {kubeconfig} >mesh.kubeconfig)\n  export KUBECONFIG=mesh.kubeconfig"
    those = "those lines" if "\n" in export else "that line"
    return f"""
eventing-mesh {__version__} is ready, after {took_s:.1f} s. Ctrl-C stops it.

  events to   {endpoints.ingress}/NAMESPACE/CHANNEL
  metrics     {endpoints.metrics}/metrics{_further(endpoints)}
  data        {settings.data_dir}{several}

  {export}

In another terminal, after {those}:

  kubectl get channels,subscriptions
  {inside}eventing send{elsewhere} --channel orders --type com.example.order --data '{{"n": 1}}'
  {inside}eventing trace{elsewhere} ID

"""


def _further(endpoints: Endpoints) -> str:
    """The ports of the other data-plane processes."""
    ports = [url.rpartition(":")[2] for url in endpoints.data_planes.values() if url != endpoints.metrics]
    if not ports:
        return ""
    consecutive = [str(int(ports[0]) + number) for number in range(len(ports))]
    those = f"{ports[0]} to {ports[-1]}" if ports == consecutive and len(ports) > 2 else ", ".join(ports)
    return f", and on port{'s' if len(ports) > 1 else ''} {those}"
