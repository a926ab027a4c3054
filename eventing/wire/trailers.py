"""Headers behind a body."""

from eventing.bindings.http import HeaderName

__all__ = ["Sealed"]


class Sealed(list[tuple[HeaderName, bytes]]):
    """The headers of a chunked message once its body has begun."""

    def append(self, _item: tuple[HeaderName, bytes]) -> None:
        """Trailers are read and dropped."""
