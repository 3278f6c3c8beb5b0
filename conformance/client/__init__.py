"""Clients under test: a server that misbehaves by script, and what a good client does then.

`python -m conformance client NAME ...` runs the catalogue (cases.py) against clients that are installed. A client runs in
a process of its own (drivers.py, driver.js); the server (misbehaving.py) and the judgement are here.
"""
