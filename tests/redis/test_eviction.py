"""A Redis that evicts keys when its memory is full is warned of."""

from __future__ import annotations

import pytest

from gateway.redis.eviction import warning_of


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_policy_that_evicts_any_key_endangers_sets(policy: str) -> None:
    """They are kept for good, and gone all the same."""
    assert f"{policy}: when its memory is full it throws away sets and histories" in warning_of(policy)


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"])
def test_a_policy_that_evicts_keys_that_expire_endangers_leases(policy: str) -> None:
    """A node without one counts as dead, however well it is."""
    assert f"{policy}: when its memory is full it throws away leases of nodes" in warning_of(policy)


@pytest.mark.parametrize("policy", ["noeviction", ""])
def test_nothing_is_said_without_need(policy: str) -> None:
    """Nor where Redis does not tell its policy."""
    assert warning_of(policy) == ""
