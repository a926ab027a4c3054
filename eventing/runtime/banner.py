"""What `eventing up` prints once the mesh is ready."""

import shlex
from pathlib import Path

from eventing import __version__
from eventing.runtime.data_directory import default_data_dir
from eventing.runtime.settings import Endpoints, UpSettings

__all__ = ["banner"]


def banner(settings: UpSettings, endpoints: Endpoints, took_s: float) -> str:
    """Addresses, the line for kubectl, and the commands to try next; all of them can be copied as they are."""
    data_dir = Path(settings.data_dir)
    elsewhere = "" if data_dir == default_data_dir() else f" --data-dir {shlex.quote(settings.data_dir)}"
    kubeconfig = shlex.quote(str(data_dir / "kubeconfig"))
    return f"""
eventing-mesh {__version__} is ready, after {took_s:.1f} s. Ctrl-C stops it.

  events to   {endpoints.ingress}/NAMESPACE/CHANNEL
  metrics     {endpoints.metrics}/metrics
  data        {settings.data_dir}

  export KUBECONFIG={kubeconfig}

In another terminal, after that line:

  kubectl get channels,subscriptions
  eventing send{elsewhere} --channel orders --type com.example.order --data '{{"n": 1}}'
  eventing trace{elsewhere} ID

"""
