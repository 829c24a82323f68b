"""The leases in hand: added, taken out, closed to newcomers, waited empty."""

from __future__ import annotations

import threading

from millrace.core.claims import Lease
from millrace.worker.in_hand import InHand


def lease(chunk: int, job: str = "job") -> Lease:
    return Lease("millrace.tiny", job, chunk, f"worker/{chunk}", 1)


def test_it_holds_what_was_added_and_not_yet_removed() -> None:
    in_hand = InHand()
    assert all(in_hand.add(lease(chunk)) for chunk in range(3))
    in_hand.remove(lease(1), images=128)
    assert in_hand.leases() == [lease(0), lease(2)]
    assert in_hand.images == 128


def test_the_same_chunk_of_two_jobs_is_two_leases() -> None:
    in_hand = InHand()
    in_hand.add(lease(1, "one"))
    in_hand.add(lease(1, "two"))
    in_hand.remove(lease(1, "one"))
    assert in_hand.leases() == [lease(1, "two")]


def test_once_closed_it_takes_no_more_and_keeps_what_it_has() -> None:
    in_hand = InHand()
    in_hand.add(lease(0))
    assert in_hand.close() == 1
    assert not in_hand.add(lease(1))
    assert in_hand.leases() == [lease(0)]
    assert in_hand.closed


def test_removing_what_is_not_there_counts_its_images_all_the_same() -> None:
    in_hand = InHand()
    in_hand.remove(lease(0), images=5)
    assert in_hand.leases() == []
    assert in_hand.images == 5


def test_waiting_empty_ends_with_the_last_chunk() -> None:
    in_hand = InHand()
    for chunk in range(8):
        in_hand.add(lease(chunk))
    empty = threading.Event()

    def wait() -> None:
        in_hand.wait_empty()
        empty.set()

    threading.Thread(target=wait, daemon=True).start()
    for chunk in range(7):
        in_hand.remove(lease(chunk))
    assert not empty.is_set()
    in_hand.remove(lease(7))
    assert empty.wait(10)


def test_waiting_with_nothing_in_hand_returns_at_once() -> None:
    InHand().wait_empty()


def test_images_are_counted_over_all_threads() -> None:
    in_hand = InHand()
    together = threading.Barrier(4)

    def work(first: int) -> None:
        together.wait(10)
        for chunk in range(first, first + 200):
            in_hand.add(lease(chunk))
            in_hand.remove(lease(chunk), images=3)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert in_hand.images == 4 * 200 * 3
    assert in_hand.leases() == []


def test_a_chunk_in_hand_goes_on_under_its_new_lease() -> None:
    in_hand = InHand()
    in_hand.add(lease(1))
    again = Lease("millrace.tiny", "job", 1, "worker/again", 2)
    assert in_hand.renewed(again)
    assert in_hand.leases() == [again]
    assert not in_hand.renewed(lease(2))
    in_hand.remove(lease(1))
    assert in_hand.leases() == []


def test_one_can_wait_for_it_to_be_closed() -> None:
    in_hand = InHand()
    assert not in_hand.wait_closed(0.01)
    closer = threading.Timer(0.05, in_hand.close)
    closer.start()
    assert in_hand.wait_closed(20)
    closer.join()
