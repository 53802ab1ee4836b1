"""What several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cifar_data() -> Path:
    """The folder that holds cifar-10-batches-bin/, where the machine has one."""
    folder = os.environ.get("CIFARNET_TEST_DATA")
    if not folder:
        pytest.skip("CIFARNET_TEST_DATA does not name a folder with cifar-10-batches-bin/")
    return Path(folder)
