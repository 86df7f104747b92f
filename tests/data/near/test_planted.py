"""The planted corpus of the bench, smaller: what docs/benchmarks-data.md promises."""

from __future__ import annotations

import pytest
from bench.leakage import Outcome, contain, judge, plant, search, tables

from llamafarm.data.near.search import NEAR_SIMILARITY


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    planted = plant(400)
    return judge(planted, search([p.row for p in planted]))


def test_planted_copies_are_found_as_often_as_is_asked_for(outcome: Outcome) -> None:
    for recall in outcome.recalls:
        if recall.variant.goal is not None:
            assert recall.share >= recall.variant.goal, recall.variant.name


def test_planted_rows_that_are_near_by_definition_are_found(outcome: Outcome) -> None:
    similar = [recall for recall in outcome.recalls if recall.similar]
    assert len(similar) == 5
    assert all(recall.similar_share >= 0.99 for recall in similar)


def test_free_paraphrases_are_not_near_duplicates(outcome: Outcome) -> None:
    (free,) = (recall for recall in outcome.recalls if recall.variant.goal is None)
    assert free.mean_similarity < NEAR_SIMILARITY / 2
    assert free.found == 0


def test_rows_that_only_look_alike_are_left_alone(outcome: Outcome) -> None:
    assert outcome.precision >= 0.98


def test_rows_inside_documents_are_found() -> None:
    contained = contain(60)
    assert (contained.found, contained.wrong) == (30, 0)
    assert contained.planted == 30


def test_the_tables_are_whole(outcome: Outcome) -> None:
    text = "\n".join(tables(outcome, 100, contain(10)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 8
    assert {line.count("|") for line in lines} == {8}
