"""Profiles of the property tests: fast every day, deep with HYPOTHESIS_PROFILE=deep.  What cannot run on compiled modules."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

import proxy.pipeline

settings.register_profile("fast", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Methods of compiled classes cannot be replaced, so a test that needs it runs on the sources."""
    if str(proxy.pipeline.__file__).endswith(".py"):
        return
    for item in items:
        if item.get_closest_marker("interpreted"):
            item.add_marker(pytest.mark.skip(reason="replaces what is compiled"))
