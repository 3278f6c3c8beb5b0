"""Measurements of a fleet on one machine: real ZooKeeper servers, real mcservers."""
