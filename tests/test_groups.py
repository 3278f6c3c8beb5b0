"""Tests of a group run one after the other, in one worker: ensembles side by side would take each other's processor."""

import pytest


@pytest.mark.xdist_group("any")
def test_a_group_is_kept(request: pytest.FixtureRequest) -> None:
    kept = request.node.nodeid.endswith("@any")
    wanted = getattr(request.config.option, "loadgroup", False)  # in a worker of --dist loadgroup
    assert kept == wanted, "pytest and pytest-xdist don't fit each other: see their bounds in pyproject.toml"
