"""Sizes on the command line."""

import pytest
import typer

from eventing.cli.sizes import byte_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1048576", 1 << 20), ("1MiB", 1 << 20), ("4Mi", 4 << 20), (" 512 KiB ", 512 << 10), ("2B", 2), (7, 7)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert byte_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0MiB", "-1", "1.5Mi", "1M", "1mb", "x", "²", "1 Mi 2"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no size"):
        byte_size(text)
