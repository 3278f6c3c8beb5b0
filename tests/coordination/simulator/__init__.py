"""A deterministic world: ZooKeeper, a fleet, its clients and their misfortunes, all from one seed.

The machines of mcserver.coordination run in it unchanged. Time is virtual; every choice comes from the seed, so a failing
seed replays: `python -m tests.coordination.simulator SEED`.
"""
