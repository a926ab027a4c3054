"""What a subscription has settled of one partition: the position that may be committed, and what is settled beyond it.

Pure. The position never passes an unsettled event (C-15). What is settled beyond it goes along with the commit, as its
metadata, so that a crash repeats little (C-16): a bit for each offset after the position, in base64. Offsets that hold no
record (compaction, transactions, retention) count as settled once a later one has arrived.
"""

import base64
import binascii
from collections import deque
from typing import Final

__all__ = ["AHEAD_MAX", "METADATA_MAX", "Offsets"]

METADATA_MAX: Final = 4096
"""Characters that a broker keeps with a commit (offset.metadata.max.bytes)."""
AHEAD_MAX: Final = 10_000
"""How far beyond the oldest unsettled event events are handed out; so their bits always fit into the metadata."""
_VERSION: Final = "1:"
_BITS_MAX: Final = (METADATA_MAX - len(_VERSION)) // 4 * 3 * 8


class Offsets:
    """`position` is the lowest offset that is not settled, `end` the one after the last that has arrived."""

    __slots__ = ("_beyond", "_gaps", "end", "position")

    def __init__(self, position: int, metadata: str = "") -> None:
        self.position = position
        self.end = position
        self._beyond = _decoded(metadata)  # bit n: position + n is settled; bit 0 never is
        self._gaps: deque[tuple[int, int]] = deque()  # [from, to) beyond the position where there is no record
        self._advance()

    def arrived(self, offset: int) -> bool:
        """The record at `offset` is here, the next one after those before. False: it has been here, or is settled."""
        if offset < self.end:
            return False
        begin = max(self.end, self.position)
        self.end = offset + 1
        if offset > begin:
            if begin == self.position and not self._beyond:
                self.position = offset
            else:
                self._gaps.append((begin, offset))
                if begin == self.position:
                    self._advance()
        ahead = offset - self.position
        return ahead >= 0 and not self._beyond >> ahead & 1

    def settle(self, offset: int) -> None:
        """The event at `offset`, which has arrived, is done with. One that lies behind the position is so already."""
        ahead = offset - self.position
        if ahead > 0:
            self._beyond |= 1 << ahead
        elif ahead == 0:
            if self._beyond or self._gaps:
                self._beyond |= 1
                self._advance()
            else:
                self.position = offset + 1

    def skip_to(self, position: int) -> None:
        """Records before `position` are no longer there: nothing of them is waited for."""
        if position > self.position:
            self._beyond >>= position - self.position
            self.position = position
            self._advance()
        self.end = max(self.end, self.position)

    @property
    def settled_beyond(self) -> int:
        """How many offsets beyond the position are settled or hold no record."""
        return self._beyond.bit_count() + sum(end - begin for begin, end in self._gaps)

    def metadata(self) -> str:
        """What goes along with a commit of `position`; at most METADATA_MAX characters."""
        bits = self._beyond
        if not bits:
            return ""
        bits &= (1 << _BITS_MAX) - 1
        return _VERSION + base64.b64encode(bits.to_bytes((bits.bit_length() + 7) // 8, "little")).decode()

    def _advance(self) -> None:
        while True:
            beyond = self._beyond
            ones = (~beyond & (beyond + 1)).bit_length() - 1
            if ones:
                self._beyond = beyond >> ones
                self.position += ones
            if not self._gaps or self._gaps[0][0] > self.position:
                return
            _, end = self._gaps.popleft()
            if end > self.position:
                self._beyond >>= end - self.position
                self.position = end


def _decoded(metadata: str) -> int:
    """The bits of a commit's metadata; none where somebody else wrote it."""
    if not metadata.startswith(_VERSION):
        return 0
    try:
        return int.from_bytes(base64.b64decode(metadata[len(_VERSION) :], validate=True), "little")
    except (binascii.Error, ValueError):
        return 0
