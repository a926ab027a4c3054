"""The page that explains conditions and reasons knows all of them."""

from pathlib import Path

from eventing.control import reasons

PAGE = (Path(__file__).parents[3] / "docs" / "kinds.md").read_text(encoding="utf-8")
# What goes into messages is explained by itself.
MESSAGES = {"NO_DEAD_LETTER_SINK", "NO_HOSTNAME", "NOT_YET_RECONCILED", "NO_AUTHORISATION", "NO_OIDC"}


def test_every_condition_and_reason_is_explained() -> None:
    words = {value for name, value in vars(reasons).items() if name.isupper() and name not in MESSAGES}
    assert len(words) > 25
    assert {word for word in words if f"`{word}`" not in PAGE} == set()
