"""What a reconciler of one kind is: subclass `KindReconciler` in a module of this package, and it runs.

docs/guides/adding-a-kind.md shows a whole one.
"""

import asyncio
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import ClassVar, Final

import eventing.control
from eventing.control.reasons import INVALID
from eventing.control.references import Target, Watcher
from eventing.control.status import begin_status, deleted, fault_of, write_status
from eventing.control.world import World
from eventing.kube import Cache
from eventing.reconcile import Again, Done, Key, Outcome
from eventing.resources.conditions import Conditions, ConditionSet
from eventing.resources.kinds import Kind, Object

__all__ = ["KindReconciler", "Settling", "kind_reconcilers"]

_SETTLES_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Settling:
    """What the object waits for is under way and about to be told: its status says so only if that takes long.

    Writing every step of a thousand objects that become ready together would keep everybody from the next step.
    """


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
        self._put_off: dict[Key, tuple[int, float]] = {}  # generation, when its status is written at the latest

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
            self._put_off.pop(key, None)
            return Done()
        status = begin_status(obj)
        conditions = self.conditions.manage(status, self._world.now)
        outcome: Outcome | Settling = Done()
        if fault := fault_of(self.kind, obj):
            conditions.mark_false(self.conditions.happy, INVALID, fault)
        else:
            outcome = await self.bring_about(obj, status, conditions)
        if isinstance(outcome, Settling):
            if (left_s := self._patience_s(key, obj)) > 0:
                return Again(left_s)
            outcome = Done()
        else:
            self._put_off.pop(key, None)
        self.announce(obj, conditions)
        await write_status(self._world.client, self.objects, obj, status)
        return outcome

    def _patience_s(self, key: Key, obj: Object) -> float:
        """How long the status of an object that is settling may wait; each generation has its patience once."""
        now = asyncio.get_running_loop().time()
        generation = int(obj["metadata"].get("generation", 1))
        known = self._put_off.get(key)
        if known is None or known[0] != generation:
            known = self._put_off[key] = (generation, now + _SETTLES_S)
        return known[1] - now

    @abstractmethod
    async def bring_about(self, obj: Object, status: Object, conditions: Conditions) -> Outcome | Settling:
        """Move the object's world one step nearer to what its spec says, and say in `status` and `conditions` how it stands.

        `obj` is a snapshot that others hold too; fields of `status` are replaced, never altered. An error that is raised
        (EventingError) leaves the status as it was, and the object is tried again after a back-off.
        """

    def announce(self, obj: Object, conditions: Conditions) -> None:  # noqa: B027 - most kinds have nothing to say
        """Say as Kubernetes Events what `conditions`, which are about to be written, have that the object's have not yet."""

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
