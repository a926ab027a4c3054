"""The controllers over an API server that is a dictionary, with a data plane that applies what it sees."""

import asyncio
import contextlib
import copy
import itertools
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest

from eventing.channels import BackEndSettings, Channel, ChannelConditions, ChannelHost, Configuration, Provisioned
from eventing.control import Controllers
from eventing.errors import EventingError, ObjectConflictError, ObjectExistsError, ObjectNotFoundError
from eventing.kube import Cache, KubeClient
from eventing.kube.client import MERGE_PATCH
from eventing.resources.channelable import CONTROLLER_USER, channelable_kind
from eventing.resources.conditions import is_ready
from eventing.resources.core import CORE_KINDS
from eventing.resources.dataplane import DATA_PLANE, DATA_PLANE_NAMESPACE
from eventing.resources.kinds import Admission, Kind, Object
from eventing.resources.messaging import EVENTING_KINDS
from eventing.resources.subscribers import Subscriber

MEMORY = channelable_kind(kind="InMemoryChannel", plural="inmemorychannels", scoped=True)
DURABLE = channelable_kind(kind="DurableChannel", plural="durablechannels", version="v1beta1")


def _refuse(self: object, *_: object, **__: object) -> Any:
    raise AssertionError("an object that others hold too is altered in place")


class FrozenDict(dict[str, Any]):
    """A dict that cannot be altered; a copy of it can."""

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __deepcopy__(self, memo: Any) -> dict[str, Any]:
        return {name: copy.deepcopy(value, memo) for name, value in self.items()}


class FrozenList(list[Any]):
    """A list that cannot be altered; a copy of it can."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __deepcopy__(self, memo: Any) -> list[Any]:
        return [copy.deepcopy(value, memo) for value in self]


def frozen(value: Any) -> Any:
    """What a cache holds is a snapshot for everybody: whoever alters it here is caught in the act."""
    if isinstance(value, dict):
        return FrozenDict({name: frozen(item) for name, item in value.items()})
    return FrozenList(map(frozen, value)) if isinstance(value, list) else value


class FakeApi(KubeClient):
    """As much of a Kubernetes API as the controllers need, in this process; counts writes by (verb, plural).

    What it gives out cannot be altered.
    """

    def __init__(self) -> None:
        self.kinds = {kind.plural: kind for kind in (*CORE_KINDS, *EVENTING_KINDS, DATA_PLANE, MEMORY, DURABLE)}
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.version = itertools.count(1)
        self.writes: Counter[tuple[str, str]] = Counter()
        self.watchers: list[tuple[str, str | None, asyncio.Queue[tuple[str, Object]]]] = []
        self.refuse: Callable[[str, Kind, Object], None] = lambda _verb, _kind, _obj: None

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        await asyncio.sleep(0)
        try:
            return frozen(self.objects[kind.plural, namespace or "", name])  # type: ignore[no-any-return]
        except KeyError:
            raise ObjectNotFoundError(404, "NotFound", f'{kind.plural} "{name}" not found') from None

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, name: str = ""
    ) -> tuple[list[Object], str]:
        await asyncio.sleep(0)
        found = [
            frozen(obj)
            for (plural, at, called), obj in self.objects.items()
            if plural == kind.plural and namespace in {None, at} and name in {"", called}
        ]
        return found, str(next(self.version))

    async def watch(
        self, kind: Kind, namespace: str | None = None, *, resource_version: str, timeout_s: float, name: str = ""
    ) -> AsyncGenerator[tuple[str, Object]]:
        queue: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        self.watchers.append((kind.plural, namespace, queue))
        for (plural, at, called), obj in list(self.objects.items()):
            late = int(obj["metadata"]["resourceVersion"]) > int(resource_version)
            if late and plural == kind.plural and namespace in {None, at} and name in {"", called}:
                yield "MODIFIED", frozen(obj)
        while True:
            type_, obj = await queue.get()
            if name in {"", obj["metadata"]["name"]}:
                yield type_, obj

    async def create(self, kind: Kind, obj: Object, *, field_manager: str = "") -> Object:
        return await self.write("create", kind, obj, user=CONTROLLER_USER)

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> Object:
        assert content_type == MERGE_PATCH
        old = await self.get(kind, namespace, name)
        metadata = body.get("metadata") or {}
        for field in ("uid", "resourceVersion"):
            if field in metadata and metadata[field] != old["metadata"][field]:
                raise ObjectConflictError(409, "Conflict", f"{field} differs")
        new = merged(old, body)
        if subresource == "status":
            new = {**old, "status": new.get("status")}
        return await self.write("patch", kind, new, user=CONTROLLER_USER, admitted=subresource != "status")

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None) -> None:
        old = copy.deepcopy(await self.get(kind, namespace, name))
        if uid and old["metadata"]["uid"] != uid:
            raise ObjectConflictError(409, "Conflict", "uid differs")
        old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        await self.write("delete", kind, old, user=CONTROLLER_USER)

    async def kind_of(self, api_version: str, kind_name: str) -> Kind:
        for kind in self.kinds.values():
            if (kind.api_version, kind.kind) == (api_version, kind_name):
                return kind
        raise ObjectNotFoundError(404, "NotFound", f"no kind {kind_name}")

    async def write(self, verb: str, kind: Kind, obj: Object, *, user: str = "kubernetes-admin", admitted: bool = True) -> Object:
        await asyncio.sleep(0)
        obj = copy.deepcopy(obj)
        self.refuse(verb, kind, obj)
        metadata = obj["metadata"]
        key = (kind.plural, metadata.get("namespace", ""), metadata["name"])
        old = self.objects.get(key)
        if verb == "create" and old is not None:
            raise ObjectExistsError(409, "AlreadyExists", "exists")
        admission = Admission(user, "CREATE" if old is None else "UPDATE")
        obj |= {"apiVersion": kind.api_version, "kind": kind.kind}
        if admitted:
            kind.default(obj, admission)
            kind.validate(obj, old, admission)
        if old is None:
            number = next(self.version)
            metadata |= {"uid": f"uid-{number}", "generation": 1}
            metadata.setdefault("creationTimestamp", f"2026-01-01T00:00:{number % 60:02}Z")
        elif obj == old:
            return frozen(obj)  # type: ignore[no-any-return]
        else:
            metadata["generation"] = old["metadata"]["generation"] + (obj.get("spec") != old.get("spec"))
        self.writes[verb, kind.plural] += 1
        metadata["resourceVersion"] = str(next(self.version))
        gone = metadata.get("deletionTimestamp") and not metadata.get("finalizers")
        if gone:
            del self.objects[key]
        else:
            self.objects[key] = obj
        type_ = "DELETED" if gone else "ADDED" if old is None else "MODIFIED"
        for plural, namespace, queue in self.watchers:
            if plural == kind.plural and namespace in {None, key[1]}:
                queue.put_nowait((type_, frozen(obj)))
        return frozen(obj)  # type: ignore[no-any-return]


def merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


class FakePlane:
    """A data-plane process: applies every backing channel it sees while `applying`, and says so."""

    def __init__(self, api: KubeClient, name: str, kinds: tuple[Kind, ...]) -> None:
        self.api = api
        self.name = name
        self.kinds = kinds
        self.applying = asyncio.Event()
        self.applying.set()

    async def run(self) -> None:
        changed: asyncio.Queue[tuple[Kind, Object, bool]] = asyncio.Queue()
        body: Object = {
            "apiVersion": DATA_PLANE.api_version,
            "kind": DATA_PLANE.kind,
            "metadata": {"namespace": DATA_PLANE_NAMESPACE, "name": self.name},
            "spec": {"instance": self.name},
        }
        await self.api.create(DATA_PLANE, body)
        async with asyncio.TaskGroup() as group:
            for kind in self.kinds:
                cache = Cache(self.api, kind)
                cache.on_change(
                    lambda change, kind=kind: changed.put_nowait((kind, change.obj, change.type == "DELETED"))  # type: ignore[misc]
                )
                group.create_task(cache.run())
            while True:
                kind, obj, gone = await changed.get()
                await self.applying.wait()
                metadata = obj["metadata"]
                name = f"{kind.plural}.{kind.group}/{metadata['namespace']}/{metadata['name']}"
                leaving = gone or metadata.get("deletionTimestamp")
                applied = None if leaving else {"uid": metadata["uid"], "generation": metadata["generation"]}
                await self.api.patch(
                    DATA_PLANE,
                    DATA_PLANE_NAMESPACE,
                    self.name,
                    {"status": {"applied": {name: applied}}},
                    subresource="status",
                )


class FakeFactory:
    """A back end whose word the test gives; notes what it was asked."""

    def __init__(self, name: str, kind: Kind, *, external: bool) -> None:
        self.name = name
        self.kind = kind
        self.external = external
        self.shared = external
        self.config_map = f"{name}-config" if external else ""
        self.options: frozenset[str] = frozenset({"group.id"}) if external else frozenset()
        self.settings = BackEndSettings()
        self.missing = ""
        self.conditions = ChannelConditions(provision=("ConfigParsed", "TopicReady")) if external else ChannelConditions()
        self.removal_fails: EventingError | None = None
        self.says = Provisioned(True)
        self.says_of_subscription: dict[str, Provisioned] = {}
        self.calls: Counter[str] = Counter()
        self.closed = False

    def configuration(self, address: str) -> Configuration:
        raise NotImplementedError

    def provisioner(self, settings: BackEndSettings) -> "FakeFactory":
        self.settings = settings
        return self

    def open(self, channel: Object, host: ChannelHost) -> Channel:
        raise NotImplementedError

    async def ensure(self, channel: Object) -> Provisioned:
        self.calls["ensure"] += 1
        return self.says

    async def remove(self, channel: Object) -> None:
        self.calls["remove"] += 1
        if self.removal_fails is not None:
            raise self.removal_fails

    async def ensure_subscription(self, channel: Object, subscriber: Subscriber) -> Provisioned:
        self.calls["ensure_subscription"] += 1
        return self.says_of_subscription.get(subscriber.uid, Provisioned(True))

    async def remove_subscription(self, channel: Object, subscription_uid: str) -> None:
        self.calls[f"remove {subscription_uid}"] += 1
        if self.removal_fails is not None:
            raise self.removal_fails

    async def aclose(self) -> None:
        self.closed = True


class Mesh:
    """API, controllers and data plane, and how a test looks at them."""

    def __init__(self, group: asyncio.TaskGroup, api: FakeApi) -> None:
        self.group = group
        self.api = api
        self.memory = FakeFactory("memory", MEMORY, external=False)
        self.durable = FakeFactory("durable", DURABLE, external=True)
        self.controllers = Controllers(
            api,
            factories={"memory": self.memory, "durable": self.durable},
            ingress_url="http://localhost:8080/",
            rand=random.Random(1),
        )
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, *, plane: bool = True) -> FakePlane:
        self.tasks.append(self.group.create_task(self.controllers.run()))
        return self.plane("plane-0", run=plane)

    def plane(self, name: str, *, run: bool = True) -> FakePlane:
        """One more data-plane process."""
        fake = FakePlane(self.api, name, (MEMORY, DURABLE))
        if run:
            self.tasks.append(self.group.create_task(fake.run()))
        return fake

    async def apply(self, kind_plural: str, name: str, *, namespace: str = "default", **parts: Any) -> Object:
        kind = self.api.kinds[kind_plural]
        annotations = parts.pop("annotations", {})
        obj = {"metadata": {"namespace": namespace, "name": name, "annotations": annotations}} | parts
        old = self.api.objects.get((kind_plural, namespace, name))
        if old is not None:
            obj = merged(old, obj)
        return await self.api.write("apply", kind, obj)

    async def channel(self, name: str = "orders", **spec: Any) -> Object:
        return await self.apply("channels", name, spec=spec)

    async def subscription(self, name: str = "sub", *, channel: str | Object = "orders", **spec: Any) -> Object:
        annotations = spec.pop("annotations", {})
        named = {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": channel}
        reference = named if isinstance(channel, str) else channel
        spec = {"channel": reference, "subscriber": {"uri": f"http://{name}.example.com/"}} | spec
        return await self.apply("subscriptions", name, spec=spec, annotations=annotations)

    def find(self, plural: str, name: str, namespace: str = "default") -> Object | None:
        return self.api.objects.get((plural, namespace, name))

    def ready(self, plural: str, name: str, type_: str = "Ready") -> tuple[str, str]:
        """Status and reason of a condition; ("", "") where there is none."""
        obj = self.find(plural, name)
        for condition in ((obj or {}).get("status") or {}).get("conditions") or ():
            if condition["type"] == type_:
                return condition["status"], condition.get("reason", "")
        return "", ""

    async def until(self, *checks: Callable[[], object]) -> None:
        """Wait until all checks hold."""
        try:
            async with asyncio.timeout(5):
                while not all(check() for check in checks):
                    await asyncio.sleep(0.002)
        except TimeoutError:
            state = {key: obj.get("status") for key, obj in self.api.objects.items()}
            raise AssertionError(f"did not come about; {state}") from None

    async def until_ready(self, plural: str, *names: str) -> None:
        """As `kubectl wait` has it: Ready, and said of the present generation."""
        await self.until(*(lambda name=name: is_ready(self.find(plural, name) or {"metadata": {}}) for name in names))

    async def until_still(self) -> None:
        """Wait until nothing has been written for a while."""
        writes = -1
        while writes != self.api.writes.total() or not self.controllers.idle:
            writes = self.api.writes.total()
            await asyncio.sleep(0.3)

    def events(self) -> list[tuple[str, str, int]]:
        found = [obj for (plural, *_), obj in self.api.objects.items() if plural == "events"]
        return sorted((obj["involvedObject"]["name"], obj["reason"], obj["count"]) for obj in found)


@pytest.fixture
async def mesh(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Mesh]:
    """Stopped at the end, whatever the test has started. A defect that the loop would try again fails the test."""
    group = asyncio.TaskGroup()
    async with group:
        mesh = Mesh(group, FakeApi())
        yield mesh
        for task in mesh.tasks:
            task.cancel()
        for task in mesh.tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
    defects = [record.getMessage() for record in caplog.records if record.exc_info]
    assert not defects, defects
