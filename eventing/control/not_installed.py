"""What stands in for the provision half of a back end that cannot be used in this installation."""

from eventing.channels import Provisioned
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber

__all__ = ["NotInstalled"]


class NotInstalled:
    """A provisioner that provisions nothing: `why`, for people, is what channels of the kind say."""

    def __init__(self, why: str) -> None:
        self._said = Provisioned(False, "BackEndNotInstalled", why)

    async def ensure(self, channel: Object) -> Provisioned:
        return self._said

    async def remove(self, channel: Object) -> None:
        """Nothing was made."""

    async def ensure_subscription(self, channel: Object, subscriber: Subscriber) -> Provisioned:
        return self._said

    async def remove_subscription(self, channel: Object, subscription_uid: str) -> None:
        """Nothing was made."""

    async def aclose(self) -> None:
        """Nothing is open."""
