"""What we test with, and what users may: contract suites, sinks, a virtual clock, a TCP proxy, a pytest plugin.

Nothing of the product imports this. pytest is needed by `plugin` and `channels` only; the rest works with any runner.
"""

import sys

# A suite that ships in a package is not rewritten by pytest on its own: a failing contract would say no more than
# "AssertionError". Where pytest is not loaded nobody needs it.
if "pytest" in sys.modules:
    import pytest

    pytest.register_assert_rewrite("eventing.testing.channels")
