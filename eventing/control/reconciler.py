"""What a reconciler of one kind is: subclass `KindReconciler` in a module of this package, and it runs.

docs/guides/adding-a-kind.md shows a whole one.
"""

import pkgutil
from abc import ABC, abstractmethod
from functools import cache
from importlib import import_module
from typing import ClassVar

import eventing.control
from eventing.control.references import Target, Watcher
from eventing.control.status import begin_status, deleted, write_status
from eventing.control.world import World
from eventing.kube import Cache
from eventing.reconcile import Done, Key, Outcome
from eventing.resources.conditions import Conditions, ConditionSet
from eventing.resources.kinds import Kind, Object

__all__ = ["KindReconciler", "kind_reconcilers"]


class KindReconciler(ABC):
    """Reconciles the objects of one kind.

    It is called for an object when that changes, when something that it tracks (`track`) changes, when an object that it
    `owns` changes, and now and then without cause. It looks at how things are, not at what has happened.
    """

    kind: ClassVar[Kind]
    conditions: ClassVar[ConditionSet]
    owns: ClassVar[tuple[Kind, ...]] = ()  # kinds of objects that it makes, with its own as their controller
    workers: ClassVar[int] = 4

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def name(self) -> str:
        """In logs, and as the first half of a Watcher."""
        return self.kind.plural

    @property
    def objects(self) -> Cache:
        """The objects of the kind, as last seen."""
        return self._world.cache(self.kind)

    async def reconcile(self, key: Key) -> Outcome:
        """One round over one object; its status is written once, at the end, and only where it changed."""
        obj = self.objects.get(*key)
        if obj is None or deleted(obj):
            self.track(key, ())
            return Done()
        status = begin_status(obj)
        conditions = self.conditions.manage(status, self._world.now)
        outcome = await self.bring_about(obj, status, conditions)
        await write_status(self._world.client, self.objects, obj, status)
        return outcome

    @abstractmethod
    async def bring_about(self, obj: Object, status: Object, conditions: Conditions) -> Outcome:
        """Move the object's world one step nearer to what its spec says, and say in `status` and `conditions` how it stands.

        `obj` is a snapshot that others hold too; fields of `status` are replaced, never altered. An error that is raised
        (EventingError) leaves the status as it was, and the object is tried again after a back-off.
        """

    def owned(self, kind: Kind, obj: Object) -> list[Object]:
        """The objects of a kind of `owns` that have `obj` as their controller, by name."""
        return self._world.cache(kind).owned_by(obj["metadata"]["uid"])

    def track(self, key: Key, targets: tuple[Target, ...] | list[Target]) -> None:
        """From now on the object is called in when one of these changes, and no longer for earlier ones."""
        watcher: Watcher = (self.name, key)
        self._world.references.track(watcher, targets)


@cache
def kind_reconcilers() -> tuple[type[KindReconciler], ...]:
    """The reconcilers that the modules of this package define."""
    found: dict[str, type[KindReconciler]] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(eventing.control.__path__)):
        for value in vars(import_module(f"{eventing.control.__name__}.{module}")).values():
            if isinstance(value, type) and issubclass(value, KindReconciler) and value is not KindReconciler:
                found[value.kind.plural] = value
    return tuple(found.values())
