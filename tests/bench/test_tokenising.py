from __future__ import annotations

from bench.tokenising import Cost, best_of, medical_conversations


def test_every_row_says_something_else() -> None:
    rows = medical_conversations(700)
    assert len({row.messages for row in rows}) == 700
    assert rows[0].messages[0].content.endswith("(case 0)")
    assert [row.source.line for row in rows[:3]] == [1, 2, 3]


def test_the_sides_take_turns_and_the_best_of_each_counts() -> None:
    turns: list[str] = []
    costs = best_of((lambda: turns.append("a"), lambda: turns.append("b")), rounds=3)
    assert turns == ["a", "b"] * 3
    assert len(costs) == 2
    assert all(isinstance(cost, Cost) and cost.wall >= 0 for cost in costs)
