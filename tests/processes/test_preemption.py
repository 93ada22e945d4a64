"""Requests to stop, of which JAX tells all processes of a run."""

from prior_jax.processes import distributed, preemption
from prior_jax.processes.peers import Peers


def test_guards_count_their_turns_together(monkeypatch):
    """A program may train twice, and JAX names the turn at which all processes stop only once."""
    peers = Peers(
        {}, process=0, processes=2, heartbeat_seconds=10, reachable=lambda: True
    )  # fmt: skip
    monkeypatch.setattr(distributed, "_peers", peers)
    turns = []
    monkeypatch.setattr(
        preemption.multihost_utils,
        "reached_preemption_sync_point",
        lambda turn: turns.append(turn) or turn == 4,
    )
    first, second = preemption.PreemptionGuard(), preemption.PreemptionGuard()
    assert [guard.requested() for guard in (first, first, first)] == [False] * 3
    assert second.requested() and not second.requested()
    assert turns == [1, 2, 3, 4, 5]
