"""The mailbox: when its owner runs, and in which thread."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

from penstock.actors.runtime.mailbox import Mailbox, hold_wakes, release_wakes


class Owner:
    def __init__(self) -> None:
        self.handled: list[Any] = []
        self.mailbox: Mailbox

    def run(self, limit: int) -> int:
        count = 0
        while count < limit and not self.mailbox.empty():
            self.handled.append(self.mailbox.get())
            count += 1
        self.mailbox.leave()
        return count


class Dead:
    """Takes the messages in the mailbox of a dead owner."""

    is_closed = True

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.answered: list[Any] = []

    def run(self, limit: int) -> int:
        self.answer_all()
        self.mailbox.leave()
        return 0

    def answer_all(self) -> None:
        while True:
            try:
                self.answer(self.mailbox.get())
            except queue.Empty:
                return

    def answer(self, item: Any) -> None:
        self.answered.append(item)


def make() -> tuple[Mailbox, Owner, list[Mailbox]]:
    queued: list[Mailbox] = []
    owner = Owner()
    mailbox = owner.mailbox = Mailbox(owner, queued.append)
    return mailbox, owner, queued


def test_it_is_held_until_its_owner_has_started() -> None:
    mailbox, _, queued = make()
    mailbox.put("early")
    assert queued == []
    mailbox.leave()
    assert queued == [mailbox]


def test_it_is_queued_once_however_much_is_put() -> None:
    mailbox, owner, queued = make()
    mailbox.leave()
    for number in range(5):
        mailbox.put(number)
    assert queued == [mailbox]
    assert queued.pop().enter().run(3) == 3
    assert queued == [mailbox]
    assert queued.pop().enter().run(3) == 2
    assert (queued, owner.handled) == ([], [0, 1, 2, 3, 4])


def test_left_empty_it_is_not_queued() -> None:
    mailbox, _, queued = make()
    mailbox.leave()
    assert queued == []


def test_called_while_it_is_held_its_owner_runs_once_more_without_a_message() -> None:
    mailbox, _, queued = make()
    mailbox.leave()
    mailbox.call()
    mailbox.call()
    assert queued == [mailbox]
    owner = queued.pop().enter()
    mailbox.call()  # now it is being run
    owner.run(1)
    assert queued == [mailbox]
    queued.pop().enter().run(1)
    assert queued == []


def test_after_a_death_the_sender_itself_has_messages_answered_even_if_a_worker_still_holds_it() -> None:
    mailbox, owner, queued = make()
    mailbox.put("before")
    dead = Dead(mailbox)
    mailbox.mark_dead(dead)
    mailbox.put("after")
    assert (dead.answered, queued, owner.handled) == (["before", "after"], [], [])
    assert mailbox.owner is dead
    assert mailbox.dead_owner is dead


@pytest.mark.usefixtures("restless")
def test_no_message_is_lost_or_handled_twice_and_the_owner_is_never_run_by_two() -> None:
    run_queue: queue.SimpleQueue[Mailbox | None] = queue.SimpleQueue()
    overlaps: list[int] = []

    class Careful(Owner):
        def run(self, limit: int) -> int:
            if not inside.acquire(blocking=False):
                overlaps.append(1)
            count = 0
            while count < limit and not self.mailbox.empty():
                self.handled.append(self.mailbox.get())
                count += 1
            inside.release()
            self.mailbox.leave()
            if len(self.handled) == 4000:
                over.set()
            return count

    inside, over = threading.Lock(), threading.Event()
    owner = Careful()
    mailbox = owner.mailbox = Mailbox(owner, run_queue.put)
    mailbox.leave()

    def work() -> None:
        while (ready := run_queue.get()) is not None:
            ready.enter().run(3)

    def send(sender: int) -> None:
        for number in range(1000):
            mailbox.put((sender, number))

    workers = [threading.Thread(target=work) for _ in range(3)]
    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
    for thread in workers + senders:
        thread.start()
    assert over.wait(20)
    for _ in workers:
        run_queue.put(None)
    for thread in workers + senders:
        thread.join(20)
    assert overlaps == []
    for sender in range(4):
        assert [number for who, number in owner.handled if who == sender] == list(range(1000))


def test_a_borrowed_mailbox_is_run_by_nobody_else_and_then_has_what_came_meanwhile() -> None:
    mailbox, owner, queued = make()
    mailbox.leave()
    assert mailbox.borrow()
    assert not mailbox.borrow()
    mailbox.put("a")
    assert queued == []
    mailbox.leave()
    assert queued == [mailbox]
    mailbox.enter().run(9)
    assert owner.handled == ["a"]


def test_only_an_empty_mailbox_that_runs_nowhere_can_be_borrowed() -> None:
    mailbox, _, queued = make()
    assert not mailbox.borrow()  # its owner is being started
    mailbox.leave()
    mailbox.put("a")
    assert not mailbox.borrow()
    mailbox.enter().run(9)
    mailbox.call()
    assert not mailbox.borrow()
    assert queued == [mailbox, mailbox]


def test_wakes_that_are_held_back_come_at_once_when_they_are_released() -> None:
    (one, _, queued), (other, _, others) = make(), make()
    one.leave()
    other.leave()
    hold_wakes()
    try:
        one.put("a")
        one.put("b")
        assert (queued, others) == ([], [])
        assert not one.borrow()
        thread = threading.Thread(target=other.put, args=("c",))
        thread.start()
        thread.join()
        assert others == [other]  # that thread holds nothing back
    finally:
        release_wakes()
    assert queued == [one]
    one.enter().run(9)
    one.put("d")
    assert queued == [one, one]
    release_wakes()
    assert queued == [one, one]
