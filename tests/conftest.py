"""What all tests share: whether a browser is there, and how long properties are tried."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# A run takes minutes at most; `HYPOTHESIS_PROFILE=thorough make test-unit` looks twenty times as hard.
settings.register_profile("quick", max_examples=50)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> Path | None:
    return next((Path(found) for name in BROWSERS if (found := shutil.which(name))), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A desk without a browser skips the browser tests and says so; where CI is set, that is a failure."""
    if item.get_closest_marker("browser") is None or find_browser() is not None:
        return
    reason = "no chromium on PATH (Debian, Ubuntu: sudo apt-get install chromium)"
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Executable for Playwright's `chromium.launch(executable_path=...)`, in tests marked `browser`."""
    found = find_browser()
    if found is None:
        pytest.skip("no chromium on PATH")
    return found
