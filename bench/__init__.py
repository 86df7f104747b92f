"""Side by side with other tools: the same token ids, labels, adapter, order and seed, one after the
other.

`python -m bench` makes the other tool's own environment, runs every engine in its own process,
checks that they computed the same thing, and only then writes what each of them cost
(docs/benchmarks.md).
"""
