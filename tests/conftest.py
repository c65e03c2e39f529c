"""What all tests share."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _one_thread():
    """Small models are slower on several threads, and far slower on a busy machine."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
