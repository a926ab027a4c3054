"""The files in which failures are kept: append-only segments of checksummed records.

    segment  = header, the same header again, record…
    header   = magic "EVJF", version u16, 2 zero bytes, salt u64, CRC-32 of what is before it      (little-endian)
    record   = marker, length u32, CRC-32 u32, payload                  the checksum covers salt, length and payload
    payload  = length of the document u32, length of the head u32, document (JSON), head and data of the event

A reader believes no byte that no checksum vouches for. A record that is damaged, or cut off by a crash, is passed over and
counted; reading goes on at the next marker. The salt keeps bytes of an event's data from posing as a record.
"""

import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self
from zlib import crc32

from eventing.errors import StartError

__all__ = ["HEADER_BYTES", "VERSION", "NewerSegmentError", "Payload", "Segment", "pack_record"]

MAGIC: Final = b"EVJF"
VERSION: Final = 1
MARKER: Final = b"\xf5EVr"  # 0xf5 is in no UTF-8 text
_HEADER: Final = struct.Struct("<4sH2xQ")
_U32: Final = struct.Struct("<I")
_FRAME: Final = struct.Struct("<4sII")
_PAYLOAD: Final = struct.Struct("<II")
HEADER_BYTES: Final = 2 * (_HEADER.size + _U32.size)
RECORD_MAX: Final = 2 << 20  # bytes of a payload; a length beyond it is damage


class NewerSegmentError(StartError):
    """Written by a newer version of the mesh."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What a record holds: a document (JSON), the event's head in binary mode, its data."""

    document: bytes
    head: bytes = b""
    data: bytes = b""

    def encode(self) -> bytes:
        return b"".join((_PAYLOAD.pack(len(self.document), len(self.head)), self.document, self.head, self.data))

    @classmethod
    def decode(cls, raw: bytes) -> Self | None:
        """None where the lengths do not fit: the checksum was right, so it was written so."""
        if len(raw) < _PAYLOAD.size:
            return None
        document, head = _PAYLOAD.unpack_from(raw)
        begin = _PAYLOAD.size + document
        if begin + head > len(raw):
            return None
        return cls(raw[_PAYLOAD.size : begin], raw[begin : begin + head], raw[begin + head :])


def new_salt() -> int:
    return secrets.randbits(64)


def header(salt: int, version: int = VERSION) -> bytes:
    """What a segment begins with."""
    fixed = _HEADER.pack(MAGIC, version, salt)
    return (fixed + _U32.pack(crc32(fixed))) * 2


def pack_record(payload: bytes, salt: int) -> bytes:
    """A record, ready to be appended."""
    return _FRAME.pack(MARKER, len(payload), _checksum(payload, salt)) + payload


def _checksum(payload: bytes, salt: int) -> int:
    return crc32(payload, crc32(struct.pack("<QI", salt, len(payload))))


class Segment:
    """The bytes of a segment, to be read. `damaged` counts bytes passed over, once `payloads` has come to its end.

    Raises NewerSegmentError; any other bytes can be read, be it to find nothing in them."""

    def __init__(self, raw: bytes, name: str = "segment") -> None:
        self._raw = raw
        self.damaged = 0
        self.salt = _salt(raw, name)

    def payloads(self) -> Iterator[bytes]:
        """Every payload whose checksum is right, in the order of writing."""
        raw, salt = self._raw, self.salt
        if salt is None:
            self.damaged = len(raw)
            return
        at = HEADER_BYTES
        while at < len(raw):
            found = raw.find(MARKER, at)
            if found < 0:
                self.damaged += len(raw) - at
                return
            self.damaged += found - at
            payload = _payload_at(raw, found, salt)
            if payload is None:
                self.damaged += 1
                at = found + 1
                continue
            yield payload
            at = found + _FRAME.size + len(payload)


def _payload_at(raw: bytes, at: int, salt: int) -> bytes | None:
    if at + _FRAME.size > len(raw):
        return None
    _, length, checksum = _FRAME.unpack_from(raw, at)
    begin = at + _FRAME.size
    if length > RECORD_MAX or begin + length > len(raw):
        return None
    payload = raw[begin : begin + length]
    return payload if _checksum(payload, salt) == checksum else None


def _salt(raw: bytes, name: str) -> int | None:
    """Of the first header that is whole; None where none is."""
    size = _HEADER.size + _U32.size
    newer = 0
    for at in (0, size):
        if at + size > len(raw):
            break
        magic, version, salt = _HEADER.unpack_from(raw, at)
        whole = _U32.unpack_from(raw, at + _HEADER.size)[0] == crc32(raw[at : at + _HEADER.size])
        if magic != MAGIC:
            continue
        if whole and version <= VERSION:
            return int(salt)
        newer = max(newer, version if version > VERSION else 0)
    if newer:
        raise NewerSegmentError(
            f"{name} was written by a newer eventing-mesh (format {newer}; this one reads up to {VERSION}): "
            "upgrade it, or move the file away"
        )
    return None
