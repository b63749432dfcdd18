"""The checker itself: it must see what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.adapters.journals.valkey import ValkeyJournal
from penstock.adapters.journals.valkey_entries import id_text, news_of
from penstock.errors import StoreError
from penstock.ports import Append, Entry, EntryId, LogFrame, OwnerMark
from tests.cluster.checker import History, Line, faults, packed
from tests.cluster.conftest import Open
from tests.cluster.owners import IgnorantOwner, Owner
from tests.integration.engines import Server


def frame(epoch: int, *seqs: int, words: str = "w", is_last: bool = False) -> LogFrame:
    lines = [Line(seq, f"{words}{seq}") for seq in seqs]
    return LogFrame(EntryId(epoch, seqs[-1]), seqs[0], packed(lines), is_last)


def mark(epoch: int) -> OwnerMark:
    return OwnerMark(EntryId(epoch, 0), "n")


WHOLE: Sequence[Entry] = (mark(1), frame(1, 1, 2), frame(1, 3), mark(2), frame(2, 4, is_last=True), mark(3))


def test_a_whole_log_has_no_fault() -> None:
    reader = History()
    reader.entries(WHOLE)
    assert faults(WHOLE, [Line(1, "w1"), Line(4, "w4")], [reader]) == []


def test_holes_and_repetitions_are_seen() -> None:
    assert faults([mark(1), frame(1, 1), frame(1, 3)]) == ["event 3 stands where 2 belongs"]
    assert faults([mark(1), frame(1, 1), mark(2), frame(2, 1)]) == ["event 1 stands where 2 belongs"]


def test_what_was_acknowledged_and_is_gone_or_different_is_seen() -> None:
    assert faults([mark(1), frame(1, 1)], [Line(2, "w2")]) == ["event 2 was acknowledged as 'w2', and is None"]
    assert faults([mark(1), frame(1, 1)], [Line(1, "v1")]) == ["event 1 was acknowledged as 'v1', and is 'w1'"]


def test_readers_that_had_something_else_or_too_little_are_seen() -> None:
    spliced, short = History(), History()
    spliced.entries([mark(1), frame(1, 1, 2, words="v")])
    short.entries(WHOLE[:2])
    assert faults(WHOLE, (), [spliced, short]) == [
        "reader 0 had something else than the log has",
        "reader 1 had 2 of 4 events",
    ]


def test_a_second_end_and_an_append_after_anothers_mark_are_seen() -> None:
    assert faults([mark(1), frame(1, 1, is_last=True), frame(1, 2)]) == ["entry 1-2 stands behind the end"]
    found = faults([mark(1), mark(2), frame(1, 1)])
    assert found == ["entry 1-1 stands behind 2-0", "entry 1-1 stands behind the mark of epoch 2"]


# --- planted bugs ----------------------------------------------------------------------------------------------------


class BareJournal(ValkeyJournal):
    """A planted bug: entries are added by XADD with ids that grow, without a look at the tail."""

    def append_all(self, appends: Sequence[Append]) -> Sequence[EntryId | StoreError]:
        for append in appends:
            _, _, rest = news_of(append.expected, append.entry).split(b" ", 2)
            field, value = rest[:1], rest[1:]
            key = self._key_of(append.log)
            with self._engine.client_at("").pipeline() as pipeline:
                pipeline.xadd(key, {field: value}, id=id_text(append.entry.id))
                pipeline.execute()
        return [append.entry.id for append in appends]


def lose_the_last_second(server: Server, store: ValkeyJournal, owner: Owner) -> None:
    """Have the log go back by some events, as after a failover to a replica that lags."""
    owner.say(3)
    owner.wait_for_store()
    with server.client() as client:
        key = store._key_of("s")
        copy = client.dump(key)
        for _ in range(4):
            owner.say()
            owner.wait_for_store()
        client.restore(key, 0, copy, replace=True)
    owner.say(2)
    owner.wait_for_store()


def test_a_failover_to_a_lagging_replica_makes_holes_with_a_bare_xadd_and_none_with_ours(
    server: Server, open_store: Open
) -> None:
    with BareJournal(server.url, prefix="bare") as bare:
        owner = Owner(bare)
        lose_the_last_second(server, bare, owner)
        owner.close()
        found = faults(bare.read("s"), owner.acknowledged)
        assert "event 8 stands where 4 belongs" in found
    store = open_store()
    owner = Owner(store)
    lose_the_last_second(server, store, owner)
    owner.close()
    assert len(owner.acknowledged) == 9
    assert faults(store.read("s"), owner.acknowledged) == []


def test_a_node_that_ignores_that_it_is_fenced_is_seen(open_store: Open) -> None:
    store = open_store()
    ignorant = IgnorantOwner(store)
    ignorant.say()
    owner = Owner(store, number=2)
    owner.say(2)
    owner.wait_for_store()
    ignorant.say()
    owner.close()
    assert "event 2 stands where 4 belongs" in faults(store.read("s"), owner.acknowledged)
