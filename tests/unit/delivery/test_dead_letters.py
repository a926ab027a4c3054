"""What a dead letter says about itself."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from eventing.bindings.http import in_format
from eventing.delivery.dead_letters import dead_letter
from tests.support.data_plane import make_event


@given(st.binary(max_size=5000), st.integers(0, 999), st.booleans())
def test_the_error_attributes(data: bytes, code: int, structured: bool) -> None:
    event = make_event(knativeerrordest="of an earlier death", partitionkey="k")
    event = in_format(event, "json") if structured else event
    letter = dead_letter(event, destination="http://sub/", code=code, data=data)
    assert letter.attributes["knativeerrordest"] == "http://sub/"
    assert letter.attributes["knativeerrorcode"] == str(code if 100 <= code <= 599 else 500)
    assert letter.attributes["partitionkey"] == "k"
    assert letter.data == event.data
    encoded = letter.attributes.get("knativeerrordata")
    if data:
        assert encoded is not None
        assert len(encoded) <= 1024
        assert data.startswith(base64.b64decode(encoded, validate=True))
        assert base64.b64decode(encoded) == data[:768]
    else:
        assert encoded is None
    assert event.attributes["knativeerrordest"] == "of an earlier death", "the event itself is untouched"
