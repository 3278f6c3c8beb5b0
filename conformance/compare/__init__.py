"""Two servers, one stream of commands: do they answer the same?

`python -m conformance.compare A B --seconds N --seed S` sends random, nasty streams to both, compares the replies, and
shrinks what differs to the shortest stream, printed as a case. What versions are known to do differently stands in
differences.txt, with reasons, and is not sent to servers of different versions.
"""
