"""What people are told when something is wrong, without what they must not be told."""

from collections.abc import Callable

import pytest

from eventing.back_end_settings import SettingsError

__all__ = ["settings_fault"]


def settings_fault(attempt: Callable[[], object], secret: str) -> tuple[str, str]:
    """Reason and text of the SettingsError that `attempt` raises. Neither it nor what led to it quotes the secret."""
    with pytest.raises(SettingsError) as caught:
        attempt()
    chain: BaseException | None = caught.value
    while chain is not None:
        assert secret not in f"{chain} {chain!r}"
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return caught.value.reason, str(caught.value)
