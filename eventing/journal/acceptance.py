"""The record of an event in the journal: that this process accepted it, or met it in a channel that others fill, too."""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from eventing.bindings.http import HeaderNames, decode
from eventing.event import Event
from eventing.journal.places import Place

__all__ = ["ACCEPTANCE", "FLAGS_AT", "FOREIGN", "PEER_MASK", "STRUCTURED", "UNCONFIRMED", "Acceptance", "Arrival", "event_of"]

# receipt, received (clock), hash of the event's id, place of its bytes, their lengths: peer, head, payload; place number
ACCEPTANCE: Final = struct.Struct("<QdqQHIIi")
STRUCTURED: Final = 1 << 31  # set in the length of the payload of a structured event
# Set in the length of the peer. Foreign: it was not accepted here, and the peer is the text of the receipt that it has elsewhere.
# Unconfirmed: the channel did not confirm that it is stored.
FOREIGN: Final = 1 << 15
UNCONFIRMED: Final = 1 << 14
PEER_MASK: Final = UNCONFIRMED - 1
FLAGS_AT: Final = struct.calcsize("<QdqQ") + 1  # the byte that holds both: the upper one of the length of the peer


class Acceptance(NamedTuple):
    """One accepted event, unpacked. `due` are the subscriber numbers to which it was due; `data_kept` is False where the channel
    wants no data in the journal, or it was larger than all of the ring: then the event has none.

    `foreign`: this process has met it in the channel, where another put it; `origin` is the receipt that it was accepted with
    then, "" where nobody of the mesh accepted it, and `due` those who have met it here, as far as that is known. `confirmed` is
    False where the channel did not confirm that it is stored."""

    receipt: int
    received: float  # wall clock, seconds
    stored: float  # the same moment on the loop's clock
    peer: str
    channel: str
    event: Event
    due: tuple[int, ...]
    data_kept: bool
    foreign: bool = False
    origin: str = ""
    confirmed: bool = True


class Arrival(NamedTuple):
    """How an event came. `text`: from whom, or the receipt that it was accepted with elsewhere (`flags` has FOREIGN)."""

    stored: float  # loop's clock
    text: str
    place: Place
    flags: int


def event_of(head: bytes, data: bytes) -> Event:
    """The event of a head in binary mode, as `event_head` makes it, and its data."""
    names = HeaderNames()
    lines: Sequence[tuple[bytes, bytes, bytes]] = [line.partition(b": ") for line in head.split(b"\r\n") if line]
    (event,) = decode([(names[name], value) for name, _, value in lines], data)
    return event
