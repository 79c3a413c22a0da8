"""What the property tests share: how they are run, and the values they are run with.

Examples are the same in every run, so that a failure is everybody's. Time decides nothing: a loaded machine only
takes longer. To look further: `python -m pytest -p tests.harness.properties --hypothesis-profile=wide`.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["json_values", "texts"]

_timeless = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("gateway", _timeless, derandomize=True)
settings.register_profile("wide", _timeless, max_examples=5000)
if settings.get_current_profile_name() == "default":
    settings.load_profile("gateway")

# Whatever JSON can say, within the 64 bits that the gateway's JSON keeps exact.
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)

# Any text at all, lone surrogates included, some of it too long for a name.
texts = st.text(st.characters(codec=None), max_size=250)
