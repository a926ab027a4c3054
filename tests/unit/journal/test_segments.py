"""The format of the segments, as a reader meets it after a crash: cut off, flipped, newer, or not a segment at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.journal.segments import (
    HEADER_BYTES,
    MARKER,
    NewerSegmentError,
    Payload,
    Segment,
    header,
    new_salt,
    pack_record,
)

payloads = st.lists(st.binary(max_size=60) | st.just(MARKER * 3), max_size=8)


def written(records: list[bytes], salt: int) -> bytes:
    return header(salt) + b"".join(pack_record(record, salt) for record in records)


def read(raw: bytes) -> tuple[list[bytes], int]:
    segment = Segment(raw)
    found = list(segment.payloads())
    return found, segment.damaged


@given(payloads, st.integers(0, 2**64 - 1))
def test_what_was_written_is_read(records: list[bytes], salt: int) -> None:
    assert read(written(records, salt)) == (records, 0)


@given(payloads, st.data())
def test_cut_off_anywhere_all_that_is_whole_is_read(records: list[bytes], data: st.DataObject) -> None:
    raw = written(records, new_salt())
    cut = data.draw(st.integers(0, len(raw)))
    found, damaged = read(raw[:cut])
    assert found == records[: len(found)], "nothing that was not written, nothing left out"
    whole = HEADER_BYTES
    expected = 0
    for record in records:
        whole += 12 + len(record)
        expected += cut >= whole
    assert len(found) == expected
    assert (damaged > 0) == (cut > HEADER_BYTES + sum(12 + len(record) for record in found) or 0 < cut < HEADER_BYTES // 2)


@given(payloads.filter(bool), st.data())
def test_one_flipped_bit_costs_at_most_the_record_that_it_is_in(records: list[bytes], data: st.DataObject) -> None:
    raw = bytearray(written(records, new_salt()))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << (bit % 8)
    found, damaged = read(bytes(raw))
    hit, begin = None, HEADER_BYTES
    for number, record in enumerate(records):
        end = begin + 12 + len(record)
        if begin <= bit // 8 < end:
            hit = number
        begin = end
    assert found == [record for number, record in enumerate(records) if number != hit]
    assert (damaged > 0) == (hit is not None)


@given(payloads, st.data())
def test_bytes_of_any_kind_in_between_cost_nothing_else(records: list[bytes], data: st.DataObject) -> None:
    """As after a write that failed half-way, with what was written later behind it."""
    salt = new_salt()
    at = data.draw(st.integers(0, len(records)))
    rubbish = data.draw(st.binary(min_size=1, max_size=50))
    raw = written(records[:at], salt) + rubbish + b"".join(pack_record(record, salt) for record in records[at:])
    found, damaged = read(raw)
    assert found == records
    assert damaged == len(rubbish)


@given(st.binary(max_size=200))
def test_any_file_can_be_read_be_it_to_find_nothing(raw: bytes) -> None:
    found, damaged = read(raw)
    assert found == []
    assert damaged == len(raw)


def test_data_that_looks_like_a_record_is_none() -> None:
    """An event whose data is a record of its own making, in a record that is damaged."""
    salt = new_salt()
    forged = pack_record(b"forged", salt ^ 1)
    raw = bytearray(written([b"before", forged, b"after"], salt))
    raw[HEADER_BYTES + 12 + 6 + 8] ^= 1  # the checksum around the forged one
    assert read(bytes(raw))[0] == [b"before", b"after"]


def test_a_newer_version_is_refused_with_a_message() -> None:
    with pytest.raises(NewerSegmentError, match=r"x\.seg was written by a newer eventing-mesh \(format 2.*upgrade"):
        Segment(header(1, version=2) + b"whatever comes then", "x.seg")


def test_a_flipped_version_is_damage_and_not_the_future() -> None:
    raw = bytearray(written([b"one"], 7))
    raw[4] = 9
    assert read(bytes(raw))[0] == [b"one"], "the header stands there twice"


@given(st.binary(max_size=50), st.binary(max_size=50), st.binary(max_size=50))
def test_a_payload_is_taken_apart_as_it_was_put_together(document: bytes, head: bytes, data: bytes) -> None:
    payload = Payload(document, head, data)
    assert Payload.decode(payload.encode()) == payload
    assert Payload.decode(b"\xff" * 8) is None
