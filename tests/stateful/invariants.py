"""What an engine's figures must say of each other, whatever was done to it."""

from mcserver.core import Engine


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
    for figures in items.values():
        assert figures["number"] > 0
        assert figures["number"] == sum(figures[f"number_{name}"] for name in ("hot", "warm", "cold", "temp"))
        assert min(figures.values()) >= 0
