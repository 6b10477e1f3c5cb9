"""Who can be reached in the sessions that are known.

A supplier on a Pocket network is sent relays only while a session of one of our applications contains it, and
in each session no more than its stake covers. Outside of that it waits: nothing is wrong with it, and what it
is due stays due.
"""

from __future__ import annotations

from testbench_dagster.transports.plug import KnownSessions


def waiting_for_session(address: str, known: KnownSessions, spent_until: int | None) -> str | None:
    """Why an operator cannot be sent relays in the sessions of now, None if it can.

    Args:
        address: the operator's.
        known: what is known of the sessions of its service.
        spent_until: last height of the session in which its relays are used up.
    """
    current = known.current
    if not current:
        return "no current session of the service's applications is known; is a node reachable?"
    ends = [session.end_height for session in current if address in session.suppliers]
    if not ends:
        until = min(session.end_height for session in current)
        return f"in no session of our applications; the next begins at block {until + 1}"
    # of a later one than there are: another chain's, such as a test network's that began anew
    height = known.height
    if spent_until is not None and (height is None or height <= spent_until) and spent_until <= max(ends):
        return f"its relays of this session are used up; the next begins at block {spent_until + 1}"
    return None
