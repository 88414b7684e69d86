"""Pages that several processes share: one owner each, whoever dies at whatever instruction."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from segue_cloud.kv.memory import MemoryFile
from segue_cloud.kv.shared_pages import PROCESSES, SharedPages
from segue_cloud.worker.resident import tidy
from segue_protocol.errors import InternalError
from tests.unit.page_sharer import PAGES, attached, memory_for, start_sharer

DEADLINE_S = 30.0
# What the sharer writes: a number, 3 owners, 3 pins, 3 owners, 3 pins.
WRITES = 13


@pytest.fixture
def memory():
    with_memory = memory_for(PAGES)
    yield with_memory
    with_memory.close()


def die(pages: SharedPages) -> None:
    """As the kernel does it: the locks go, the words stay."""
    os.close(pages._locks)
    pages._closed = True


def test_a_page_has_one_owner(memory: MemoryFile) -> None:
    ours, theirs = attached(memory), attached(memory)
    first, second = ours.new_reservation(), theirs.new_reservation()
    assert first != second
    mine = ours.take(first, 4)
    assert mine == [0, 2, 4, 1]
    assert theirs.take(second, 3) is None
    assert theirs.take(second, 2) == [3, 5]
    assert ours.free_pages == 0
    ours.check_owned(mine)
    theirs.check_owned([5, 3])
    for wrong in ([3], [3, 5, 0], [3, 3, 5]):
        with pytest.raises(InternalError, match="not the same"):
            theirs.check_owned(wrong)
    ours.give_back(mine)
    assert theirs.take(second, 4) == mine
    ours.close()
    theirs.close()


def test_a_page_that_another_process_writes_to_gets_no_new_owner(memory: MemoryFile) -> None:
    decode, prefill = attached(memory), attached(memory)
    reservation = decode.new_reservation()
    pages = decode.take(reservation, PAGES)
    prefill.pin(reservation, pages[:2])
    prefill.pin(reservation, pages[:1])
    decode.give_back(pages)
    other = decode.new_reservation()
    assert decode.free_pages == PAGES - 2
    assert decode.take(other, PAGES - 1) is None
    prefill.unpin(pages[:2])
    assert decode.free_pages == PAGES - 1, "one page has a second writer"
    prefill.unpin(pages[:1])
    assert decode.take(other, PAGES) is not None
    for each in (decode, prefill):
        each.close()


def test_pages_of_a_reservation_that_is_over_cannot_be_pinned(memory: MemoryFile) -> None:
    decode, prefill = attached(memory), attached(memory)
    reservation = decode.new_reservation()
    pages = decode.take(reservation, 2)
    assert not prefill.pin(reservation, [*pages, 5])
    assert not prefill.pin(reservation, [*pages, PAGES])
    decode.give_back(pages)
    again = decode.new_reservation()
    assert decode.take(again, 2) == pages
    assert not prefill.pin(reservation, pages)
    with pytest.raises(InternalError, match="is pinned"):
        prefill.unpin(pages)
    for each in (decode, prefill):
        each.close()


def test_what_the_dead_left_is_free_for_whoever_needs_it(memory: MemoryFile) -> None:
    decode, prefill = attached(memory), attached(memory)
    reservation = decode.new_reservation()
    pages = decode.take(reservation, 4)
    prefill.pin(reservation, pages[:1])
    die(decode)
    successor = attached(memory)
    assert successor.process == decode.process
    assert successor.free_pages == PAGES - 1, "the living prefill still writes to one"
    assert successor.take(successor.new_reservation(), PAGES) is None
    die(prefill)
    assert successor.take(successor.new_reservation(), PAGES) is not None
    successor.close()


def test_only_so_many_processes(memory: MemoryFile) -> None:
    every = [attached(memory) for _ in range(PROCESSES)]
    with pytest.raises(InternalError, match=f"{PROCESSES} processes"):
        attached(memory)
    every[3].close()
    every[3].close()
    assert attached(memory).process == 3


@pytest.mark.parametrize("at_write", range(1, WRITES + 1))
def test_sigkill_at_every_write_leaves_the_pages_consistent(
    memory: MemoryFile, at_write: int
) -> None:
    ours = attached(memory)
    mine = ours.take(ours.new_reservation(), 1)
    child = start_sharer(memory, at_write, signal.SIGKILL)
    with child:
        assert child.wait(DEADLINE_S) == -signal.SIGKILL
        ours.reclaim()
        assert ours.free_pages == PAGES - 1
        ours.check_owned(mine)
        ours.close()
        assert attached(memory).free_pages == PAGES


def test_one_that_is_killed_between_query_and_update_holds_nobody_up(memory: MemoryFile) -> None:
    """Stopped at its second owner word, the lock in its hand."""
    ours = attached(memory)
    reservation, taken, begun = ours.new_reservation(), [], threading.Event()
    with start_sharer(memory, 3, signal.SIGSTOP) as child:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert ours.free_pages == PAGES - 1

        def take() -> None:
            begun.set()
            taken.append(ours.take(reservation, PAGES))

        waiting = threading.Thread(target=take)
        waiting.start()
        assert begun.wait(DEADLINE_S)
        waiting.join(0.05)
        assert not taken, "the other is between query and update"
        child.kill()
        waiting.join(DEADLINE_S)
    assert sorted(taken[0]) == list(range(PAGES))


def test_one_that_stops_with_the_lock_in_its_hand_is_ended(memory: MemoryFile) -> None:
    ours = attached(memory)
    with start_sharer(memory, 3, signal.SIGSTOP) as child:
        os.waitpid(child.pid, os.WUNTRACED)

        async def main() -> None:
            ended = asyncio.Event()
            ended.set()
            with anyio.fail_after(DEADLINE_S):
                tidying = asyncio.create_task(
                    tidy(ours.reclaim, child.kill, ended, patience_s=0.01)
                )
                while True:
                    if ours.free_pages == PAGES:
                        break
                    await asyncio.sleep(0.01)
            tidying.cancel()
            await asyncio.gather(tidying, return_exceptions=True)

        asyncio.run(main())


class Sharing(RuleBasedStateMachine):
    """Processes come, take, pin, free and die; a model that knows who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = memory_for(PAGES)
        self.processes: dict[SharedPages, dict[int, list[int]]] = {}
        self.pins: dict[SharedPages, list[list[int]]] = {}

    def teardown(self) -> None:
        for each in self.processes:
            die(each)
        self.memory.close()

    @precondition(lambda self: len(self.processes) < PROCESSES)
    @rule()
    def enter(self) -> None:
        process = attached(self.memory)
        assert all(process.process != other.process for other in self.processes)
        self.processes[process], self.pins[process] = {}, []

    def held(self) -> set[int]:
        owned = {
            page
            for tables in self.processes.values()
            for pages in tables.values()
            for page in pages
        }
        return owned | {page for pins in self.pins.values() for pages in pins for page in pages}

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), count=st.integers(1, PAGES))
    def take(self, data: st.DataObject, count: int) -> None:
        process = data.draw(st.sampled_from(list(self.processes)))
        reservation = process.new_reservation()
        held = self.held()
        pages = process.take(reservation, count)
        assert (pages is not None) == (count <= PAGES - len(held))
        if pages is not None:
            assert len(set(pages)) == count
            assert not held & set(pages)
            self.processes[process][reservation] = pages

    def reservations(self) -> list[tuple[SharedPages, int]]:
        return [(process, each) for process, tables in self.processes.items() for each in tables]

    @precondition(lambda self: self.reservations())
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        process, reservation = data.draw(st.sampled_from(self.reservations()))
        process.give_back(self.processes[process].pop(reservation))

    @precondition(lambda self: self.reservations())
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        owner, reservation = data.draw(st.sampled_from(self.reservations()))
        writer = data.draw(st.sampled_from(list(self.processes)))
        pages = self.processes[owner][reservation]
        assert writer.pin(reservation, pages)
        self.pins[writer].append(pages)

    @precondition(lambda self: any(self.pins.values()))
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        writer = data.draw(st.sampled_from([each for each, pins in self.pins.items() if pins]))
        writer.unpin(self.pins[writer].pop())

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(list(self.processes)))
        die(process)
        del self.processes[process], self.pins[process]

    @invariant()
    def everybody_owns_what_the_model_says(self) -> None:
        for process, tables in self.processes.items():
            process.check_owned([page for pages in tables.values() for page in pages])
            assert process.free_pages <= PAGES - len(self.held()), "what the dead held may be taken"


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
