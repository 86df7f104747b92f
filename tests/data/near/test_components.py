from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafarm.data.near.components import Components

NODES = 12
EDGES = st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)), max_size=20)


def columns(edges: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(edges, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


@given(st.lists(EDGES, max_size=4))
@settings(deadline=None)
def test_nodes_are_connected_when_a_path_joins_them(portions: list[list[tuple[int, int]]]) -> None:
    components = Components(NODES)
    reach = np.eye(NODES, dtype=bool)
    first, second = (index.ravel() for index in np.indices((NODES, NODES)))
    for edges in portions:
        components.join(*columns(edges))
        for one, other in edges:
            reach[one, other] = reach[other, one] = True
        for middle in range(NODES):
            reach |= np.outer(reach[:, middle], reach[middle])
        assert components.connected(first, second).tolist() == reach.ravel().tolist()


def test_a_long_chain_is_one_component() -> None:
    components = Components(10_000)
    nodes = np.random.default_rng(0).permutation(10_000)
    components.join(nodes[:-1], nodes[1:])
    assert components.connected(nodes[:-1], nodes[1:]).all()
