"""What an engine's figures must say of each other, whatever was done to it."""

from collections import Counter

from mcserver.core import Engine

SEGMENTS = ("hot", "warm", "cold", "temp")
COUNTED_MORE = 16  # bytes of an item that memcached counts and that take no room here, at most


def check_figures(engine: Engine) -> None:
    """Raises AssertionError when two figures contradict each other."""
    stats, items = engine.stats(), engine.item_stats()
    classes, active, allocated = engine.slab_stats()
    assert stats["curr_items"] == sum(figures["number"] for figures in items.values()) >= 0
    assert stats["bytes"] == sum(figures["mem_requested"] for figures in items.values())
    assert active == sum(figures["total_pages"] > 0 for figures in classes.values())
    pages = sum(
        figures["total_pages"] * figures["chunk_size"] * figures["chunks_per_page"] for figures in classes.values()
    )
    assert pages <= allocated
    for figures in classes.values():
        assert figures["used_chunks"] + figures["free_chunks"] == figures["total_chunks"]
        assert min(figures.values()) >= 0
    for held in items.values():
        assert held["number"] > 0
        assert held["number"] == sum(held[f"number_{name}"] for name in SEGMENTS)
        assert min(held.values()) >= 0
    assert stats["unfinished_bytes"] >= 0


def check_that_all_is_free(engine: Engine) -> None:
    """Nobody holds a chunk any more: for when everything was flushed and crawled."""
    check_figures(engine)
    classes = engine.slab_stats()[0]
    used = {cls: figures["used_chunks"] for cls, figures in classes.items() if figures["used_chunks"]}
    assert not used, f"chunks that nobody frees, by class: {used}"
    assert engine.stats()["curr_items"] == engine.stats()["unfinished_bytes"] == 0


def check_lists(engine: Engine) -> None:
    """The lists, the chunks and the counts are of the same items; none is lost, none is there twice."""
    items, (classes, _, _) = engine.item_stats(), engine.slab_stats()
    dead = 0
    by_walk = Counter((info.cls, info.key) for part in engine.walk() for info in part)
    assert max(by_walk.values(), default=1) == 1
    assert max(Counter(key for _, key in by_walk).values(), default=1) == 1, "a key in two classes"
    for cls, figures in items.items():
        listed = [key for found in engine.cachedump(cls, 0) for key, _, _ in found]
        assert len(listed) == len(set(listed))
        assert set(listed) == {key for of, key in by_walk if of == cls}
        dead += int(figures["number"]) - len(listed)
        assert figures["number"] >= len(listed)
        if cls in classes and classes[cls]["chunks_per_page"]:
            assert classes[cls]["used_chunks"] >= figures["number"]
    assert len(by_walk) + dead == engine.stats()["curr_items"]
    chunks = sum(figures["used_chunks"] * figures["chunk_size"] for figures in classes.values())
    counted = (len(by_walk) + dead) * COUNTED_MORE
    assert chunks >= engine.stats()["bytes"] - counted, "bytes that lie nowhere"


def check_nothing_leaks(engine: Engine) -> None:
    """When nothing is there, and nobody is in the middle of anything, no chunk is in use."""
    stats = engine.stats()
    assert (stats["curr_items"], stats["bytes"], stats["unfinished_bytes"]) == (0, 0, 0)
    for cls, figures in engine.slab_stats()[0].items():
        assert figures["used_chunks"] == 0, (cls, figures)
