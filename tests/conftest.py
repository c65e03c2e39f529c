"""What all tests share."""

import sys

import pytest
from jaxtyping import install_import_hook

# Shape annotations (`spikingmoe.shapes`) are checked at run time in the tests.
install_import_hook(
    ["spikingmoe.functional", "spikingmoe.layers", "spikingmoe.model"], "beartype.beartype"
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Small models are slower on several threads, and far slower on a busy machine."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
