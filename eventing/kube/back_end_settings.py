"""Follows the ConfigMap of a back end, and the Secret that this names, into what the back end reads.

Keys of Knative's Kafka ConfigMaps (`auth.secret.ref.name`, `auth.secret.ref.namespace`), which serve every back end here.
"""

import asyncio
import base64
import binascii
import logging

from eventing.back_end_settings import SECRET_NAME, SECRET_NAMESPACE, SETTINGS_NAMESPACE
from eventing.channels import BackEndSettings
from eventing.kube.cache import Cache, Change
from eventing.kube.client import KubeClient
from eventing.resources.core import CONFIG_MAP, SECRET
from eventing.resources.kinds import Object

__all__ = ["SettingsFollower"]

_log = logging.getLogger(__name__)


class SettingsFollower:
    """Keeps `settings` as the API server has them, for as long as it runs."""

    def __init__(self, client: KubeClient, config_map: str) -> None:
        self.settings = BackEndSettings()
        self._client = client
        self._config_map = Cache(client, CONFIG_MAP, SETTINGS_NAMESPACE, name=config_map)
        self._config_map.on_change(self._config_changed)
        self._config: dict[str, str] | None = None
        self._secret: Cache | None = None
        self._secret_key = ("", "")
        self._another_secret = asyncio.Event()
        self._known = asyncio.Event()

    async def synced(self) -> None:
        """Wait until both objects have been looked for."""
        await self._known.wait()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._config_map.run())
            await self._config_map.synced()
            if self._secret is None:
                self._tell()
            while True:
                await self._another_secret.wait()
                self._another_secret.clear()
                following = tasks.create_task(self._follow(self._secret)) if self._secret is not None else None
                await self._another_secret.wait()
                if following is not None:
                    following.cancel()

    async def _follow(self, secret: Cache) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(secret.run())
            await secret.synced()
            self._tell()  # also where there is none of that name
            secret.on_change(lambda _: self._tell())

    def _config_changed(self, change: Change) -> None:
        self._config = None if change.type == "DELETED" else dict(change.obj.get("data") or {})
        named = self._config or {}
        name = named.get(SECRET_NAME, "")
        key = (named.get(SECRET_NAMESPACE) or SETTINGS_NAMESPACE, name) if name else ("", "")
        if key != self._secret_key:
            self._secret_key = key
            self._secret = Cache(self._client, SECRET, key[0], name=name) if name else None
            self._another_secret.set()
        if self._secret is None or self._secret.is_synced:
            self._tell()  # else with the Secret: half of what changed together would be told as a fault

    def _tell(self) -> None:
        found = self._secret.get(*self._secret_key) if self._secret is not None else None
        self.settings.change(
            self._config, _decoded(found) if found is not None else None, "/".join(filter(None, self._secret_key))
        )
        self._known.set()


def _decoded(secret: Object) -> dict[str, bytes]:
    values: dict[str, bytes] = {}
    for key, text in (secret.get("data") or {}).items():
        try:
            values[key] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            _log.warning(
                "a value of a Secret is no base64 and is passed over", extra={"secret": secret["metadata"]["name"], "key": key}
            )
    return values
