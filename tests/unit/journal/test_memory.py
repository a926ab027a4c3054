"""The journal's memory at any load: filled many times over with everything that a stranger can make large."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eventing.bindings.http import event_head
from eventing.event import Event
from eventing.journal import Decision, Journal, Rule

MIB = 1 << 20
# All rings at their defaults are 33 MiB; what is kept as objects (subscribers, places, chains, refusals) comes on top.
BOUND_MIB = 64
GROWTH_MIB = 4.0  # from the second filling to the last: the allocator's, and nobody's
FILLINGS = 3
EVENTS, ATTEMPTS = 70_000, 140_000  # of a filling: a little more than the rings hold


def fill(journal: Journal, random_: random.Random, number: int) -> None:
    """One filling: events of all sizes, failures with the longest texts, refusals, channels and subscribers that come and go."""
    blob = random_.randbytes(MIB)
    place = journal.place("default/orders", (1, 2, 3))
    for event_number in range(EVENTS):
        size = MIB if event_number % 10_000 == 0 else random_.choice((0, 10, 300, 900))
        event = Event(
            {"specversion": "1.0", "id": f"{number}-{event_number}", "source": "/s" * random_.randrange(1, 60), "type": "t"},
            blob[:size],
        )
        event.receipt = journal.next_receipt()
        if event_number % 100 == 0:
            event_head(event)
        journal.accepted(event, place, b"192.0.2.1:65535")
        if event_number % 10 == 0:
            journal.forget_place(place)
            place = journal.place(f"default/channel-{number}-{event_number}", tuple(range(1, 100)))
    for attempt_number in range(ATTEMPTS):
        receipt = random_.randrange(1 << 40)  # as many chains as there are records
        if attempt_number % 4:
            journal.attempted(receipt, 1, 1, time.monotonic(), 0.001, 200, Decision.DELIVERED, Rule.ACCEPTED)
        else:
            long = 5000 if attempt_number % 64 == 0 else 500  # masking secrets in them is what takes time here
            journal.attempted(
                receipt, attempt_number, 1, 0.0, 0.1, 503, Decision.RETRYING, Rule.EXPONENTIAL,
                limit=5, wait_s=1.0, note="n" * long, delay_s=0.5, head="x-header: " + "h" * long,
            )  # fmt: skip
    for refusal_number in range(3000):
        journal.refused("192.0.2.1:65535", "/p" * 8000, "i" * 16_000 + str(refusal_number), 400, "d" * 16_000)
    for subscriber_number in range(30_000):
        uri = "http://s/" + "u" * (2000 if subscriber_number % 20 == 0 else 300)
        journal.subscriber(f"default/s-{number}-{subscriber_number}", f"uid-{subscriber_number}", uri)


def held_kib() -> int:
    """Of this process: what is its own in memory (Linux), else the most that it ever had."""
    rollup = Path("/proc/self/smaps_rollup")
    if rollup.exists():
        return sum(int(line.split()[1]) for line in rollup.read_text().splitlines() if line.startswith("Private_"))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def main() -> None:
    random_ = random.Random(1)
    before = held_kib()
    journal = Journal(clock=time.monotonic, wall=time.time)
    idle = held_kib() - before
    held = []
    for number in range(FILLINGS):
        fill(journal, random_, number)
        held.append(held_kib() - before)
    counts = {
        "events": journal.accepted_events,
        "events_kept": journal.accepted_events - journal.acceptances_kept_from,
        "attempts": journal.attempts_written,
        "attempts_overwritten": journal.attempts_kept_from,
        "refused": journal.refused_requests.total,
        "refused_kept": len(journal.refusals),
    }
    json.dump({"idle": idle, "held": held, "counts": counts}, sys.stdout)


@pytest.mark.timeout(180)  # seconds of computing, on a machine that may be busy with other things
def test_it_stays_within_its_bound_at_any_load_and_counts_what_went() -> None:
    """In a process of its own, whose memory is nobody else's."""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, __file__],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        cwd=root,
        env={"PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    held = [kib / 1024 for kib in found["held"]]
    assert found["idle"] < 1024, "an idle journal costs nothing"
    assert max(held) < BOUND_MIB, held
    assert held[-1] - held[1] < GROWTH_MIB, held
    counts = found["counts"]
    assert (counts["events"], counts["attempts"]) == (FILLINGS * EVENTS, FILLINGS * ATTEMPTS)
    assert counts["attempts_overwritten"] == FILLINGS * ATTEMPTS - (1 << 17)
    assert 0 < counts["events_kept"] < EVENTS
    assert (counts["refused"], counts["refused_kept"]) == (FILLINGS * 3000, 1024)


if __name__ == "__main__":
    main()
