"""The protocol of committing: a model that is searched through, and the store's own writer, killed between operations.

The other trials are in `test_torture.py`; `make torture` runs all of them.
"""

from __future__ import annotations

from torture.protocol import FORMER, PRESENT, orders, wrong_end


def test_the_former_protocol_keeps_a_fingerprint_that_new_data_contradict():
    """A file of a shard is lost, the inputs change, the run is killed after the new data, the inputs change back."""
    found = wrong_end(FORMER)
    assert found is not None
    assert found[1:3] == ["lost: states", "run with B, killed after: states"]


def test_the_present_protocol_never_ends_wrong():
    assert wrong_end(PRESENT) is None


def test_records_without_retraction_are_not_enough():
    """A run looks at small files only: it cannot see that the states under a record that still stands are others."""
    assert not [p for p in orders(True, "where the states are there") if wrong_end(p) is None]


def test_every_order_of_the_writes():
    safe = [p.order for p in orders(True, "always") if wrong_end(p) is None]
    print("\n".join(" ".join(order) for order in safe))
    assert PRESENT.order in safe
    for order in safe:
        # New data come after the retraction, and something that binds them after the data.
        assert order.index("retract") < order.index("states") < len(order) - 1
    assert not [p for p in orders(False, "always") if wrong_end(p) is None], "a fingerprint alone binds no data"
