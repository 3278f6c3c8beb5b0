"""The queue: coalescing, marks, overflow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcserver.coordination.layout import LATER_MAX
from mcserver.coordination.ports import Change
from mcserver.coordination.queue import Queue

FLUSH = Change("flush")


def delete(key: bytes) -> Change:
    return Change("delete", key)


def test_repeats_coalesce_in_order() -> None:
    queue = Queue(100, 1000)
    for key in (b"a", b"b", b"a", b"c"):
        queue.add(delete(key))
    assert queue.take(100, 1000)[0] == [b"d a", b"d b", b"d c"]
    assert (len(queue), queue.bytes) == (0, 0)


def test_a_batch_is_bounded_and_never_empty() -> None:
    queue = Queue(100, 1000)
    for key in (b"aaaa", b"bbbb", b"cccc"):
        queue.add(delete(key))
    assert queue.take(2, 1000)[0] == [b"d aaaa", b"d bbbb"]
    assert queue.take(100, 1)[0] == [b"d cccc"]


def test_marks_follow_what_was_taken() -> None:
    queue = Queue(100, 1000)
    first, _ = queue.add(delete(b"a"))
    second, _ = queue.add(delete(b"b"))
    assert queue.take(1, 1000)[1] == first
    again, _ = queue.add(delete(b"b"))
    assert again == second
    assert queue.take(1, 1000)[1] == second


def test_overflow_becomes_one_flush_that_stands_for_all() -> None:
    queue = Queue(3, 1000)
    marks = [queue.add(delete(b"%d" % n)) for n in range(4)]
    assert [overflow for _, overflow in marks] == [False, False, False, True]
    lines, mark = queue.take(100, 1000)
    assert lines == [b"F"]
    assert mark >= max(number for number, _ in marks)


def test_overflow_by_bytes() -> None:
    queue = Queue(100, 10)
    assert queue.add(delete(b"0123456789"))[1]
    assert queue.take(9, 99)[0] == [b"F"]


def test_many_prefixes_stay_what_they_are() -> None:
    """Nothing becomes a flush of everything below the queue's own bounds."""
    queue = Queue(100_000, 8 << 20)
    lines = [b"P %d:" % n for n in range(10_000)]
    assert not any(queue.add(Change("prefix", text[2:]))[1] for text in lines)
    assert queue.take(3, 1000)[0] == lines[:3]
    for n in (0, 3, 9_999):
        queue.add(delete(b"%d:key" % n))
    assert queue.take(100_000, 8 << 20)[0] == [*lines[3:], b"d 0:key"], (
        "those that wait cover their keys, a sent one doesn't"
    )


def test_of_many_delayed_flushes_the_last_stay_with_a_flush() -> None:
    queue = Queue(100_000, 8 << 20)
    for due in range(1, 1001):
        queue.add(Change("flush", ttl=due))
    queue.add(FLUSH)
    assert queue.take(9999, 1 << 20)[0] == [b"F", *(b"F %d" % due for due in range(1001 - LATER_MAX, 1001))]


def test_overflow_of_covered_keys_flushes_the_prefixes_only() -> None:
    queue = Queue(2, 1000, [b"a:", b"b:"])
    for key in (b"a:1", b"b:1", b"a:2"):
        queue.add(delete(key))
    assert queue.take(100, 1000)[0] == [b"P a:", b"P b:"]


def test_overflow_with_a_key_outside_flushes_all() -> None:
    queue = Queue(2, 1000, [b"a:"])
    for key in (b"a:1", b"c:1", b"a:2"):
        queue.add(delete(key))
    assert queue.take(100, 1000)[0] == [b"F"]


def test_a_waiting_flush_covers_what_follows() -> None:
    queue = Queue(100, 1000)
    queue.add(delete(b"a"))
    flush, _ = queue.add(FLUSH)
    assert queue.add(delete(b"b")) == (flush, False)
    assert queue.take(100, 1000) == ([b"F"], flush)
    assert queue.add(delete(b"b"))[0] > flush


def test_a_waiting_prefix_covers_only_its_keys() -> None:
    queue = Queue(100, 1000)
    queue.add(Change("prefix", b"a:"))
    queue.add(delete(b"a:1"))
    queue.add(delete(b"b:1"))
    assert queue.take(100, 1000)[0] == [b"P a:", b"d b:1"]


def test_a_delayed_flush_is_not_covered_and_covers_nothing() -> None:
    queue = Queue(100, 1000)
    queue.add(Change("flush", b"", 30))
    queue.add(delete(b"a"))
    queue.add(FLUSH)
    queue.add(Change("flush", b"", 60))
    assert queue.take(100, 1000)[0] == [b"F", b"F 30", b"F 60"]


def test_lines_put_back_come_first_again() -> None:
    queue = Queue(100, 1000)
    for key in (b"a", b"b", b"c"):
        mark, _ = queue.add(delete(key))
    lines, _ = queue.take(2, 1000)
    queue.put_back(lines)
    assert queue.take(100, 1000) == ([b"d a", b"d b", b"d c"], mark)


def test_lines_put_back_below_a_flush_are_covered() -> None:
    queue = Queue(100, 1000)
    queue.add(delete(b"a"))
    lines, _ = queue.take(2, 1000)
    queue.add(FLUSH)
    queue.put_back(lines)
    assert queue.take(100, 1000)[0] == [b"F"]


def test_a_line_that_was_added_again_while_it_was_out_makes_no_mark_too_high() -> None:
    queue = Queue(100, 1000)
    marks = [queue.add(delete(key))[0] for key in (b"a", b"b", b"c")]
    lines, _ = queue.take(3, 1000)
    marks.append(queue.add(delete(b"a"))[0])
    queue.put_back(lines)
    assert queue.take(1, 1000) == ([b"d a"], 0)
    assert queue.take(1, 1000) == ([b"d b"], 0)
    assert queue.take(1, 1000) == ([b"d c"], max(marks))


def test_a_delayed_flush_that_is_put_back_is_not_covered_by_one_of_now() -> None:
    queue = Queue(100, 1000)
    for change in (delete(b"a"), Change("flush", b"", 30)):
        queue.add(change)
    lines, _ = queue.take(9, 1000)
    queue.add(FLUSH)
    queue.put_back(lines)
    assert sorted(queue.take(9, 1000)[0]) == [b"F", b"F 30"]


ACTIONS = st.lists(
    st.one_of(
        st.builds(delete, st.sampled_from([b"a:1", b"a:2", b"b:1", b"c:1", b"c:2", b"c:3"])),
        st.just(FLUSH),
        st.builds(Change, st.just("prefix"), st.sampled_from([b"a:", b"c:"])),
        st.integers(1, 4),
    ),
    max_size=40,
)


@pytest.mark.slow
@settings(deadline=None)  # a loaded machine is no failure
@given(ACTIONS, st.sampled_from([(), (b"a:", b"b:", b"c:")]))
def test_whoever_is_told_done_is_covered_by_what_was_taken_since(
    actions: list[Change | int], prefixes: tuple[bytes, ...]
) -> None:
    """For each change: when a taken mark reaches its own, a line taken after it was added deletes what it names."""
    queue = Queue(4, 1000, prefixes)
    waiting: list[tuple[int, Change]] = []
    since: dict[int, list[bytes]] = {}
    for number, action in enumerate(actions):
        if isinstance(action, Change):
            mark, _ = queue.add(action)
            waiting.append((mark, action))
            since[len(waiting) - 1] = []
            continue
        if not queue:
            continue
        lines, done = queue.take(action, 1000)
        for taken in since.values():
            taken.extend(lines)
        for index, (mark, change) in enumerate(waiting):
            if mark <= done:
                assert any(covers(line, change) for line in since[index]), (number, change, since[index])
    assert len(queue) <= 4 + len(prefixes)


def covers(line: bytes, change: Change) -> bool:
    if line == b"F":
        return True
    if line.startswith(b"P "):
        return bool(change.key) and change.key.startswith(line[2:])
    return change.kind == "delete" and line == b"d " + change.key
