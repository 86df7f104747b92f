from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.planning.locations import (
    find_data_file,
    missing_file,
    search_directories,
    shown_path,
)
from llamafarm.strategy.model import Origin, Strategy
from tests.planning.building import at_line

PATH = "dataset.path"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("work/data.jsonl", "strategies/data.jsonl", "bundled/medical/medical_qa.jsonl"):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_text("{}\n")
    return tmp_path


def strategy(here: Path, origin: Origin | None) -> Strategy:
    origins = {} if origin is None else {PATH: origin}
    return Strategy(id="s", file=here / "strategies" / "s.yaml", origins=origins)


def test_a_path_of_a_strategy_is_looked_for_beside_it_first(here: Path) -> None:
    directories = search_directories(strategy(here, at_line(3)), PATH, here / "work")
    assert directories == (here / "strategies", here / "work")
    assert find_data_file("data.jsonl", directories, None) == here / "strategies" / "data.jsonl"


@pytest.mark.parametrize("origin", [Origin(kind="flag", text="--dataset data.jsonl"), None])
def test_a_path_given_as_a_flag_starts_in_the_working_directory(
    here: Path, origin: Origin | None
) -> None:
    directories = search_directories(strategy(here, origin), PATH, here / "work")
    assert directories == (here / "work", here / "strategies")


def test_bundled_data_are_found_by_their_bare_name_last(here: Path) -> None:
    found = find_data_file("medical_qa.jsonl", (here / "work",), here / "bundled")
    assert found == here / "bundled" / "medical" / "medical_qa.jsonl"
    (here / "work" / "medical_qa.jsonl").write_text("{}\n")
    found = find_data_file("medical_qa.jsonl", (here / "work",), here / "bundled")
    assert found == here / "work" / "medical_qa.jsonl"


def test_bundled_data_are_not_found_by_a_path(here: Path) -> None:
    assert find_data_file("medical/medical_qa.jsonl", (here / "work",), here / "bundled") is None


def test_an_absolute_path_is_taken_as_it_is(here: Path) -> None:
    file = here / "strategies" / "data.jsonl"
    assert find_data_file(str(file), (here / "work",), None) == file


def test_a_missing_file_names_those_that_are_near(here: Path) -> None:
    problem = missing_file(strategy(here, at_line(3)), PATH, "dta.jsonl", (here / "work",))
    assert problem.message == "there is no file dta.jsonl"
    assert problem.hint == "did you mean data.jsonl?"
    assert (problem.where, problem.path) == ("strategies.yaml:3", PATH)


def test_a_missing_file_in_a_directory_is_compared_with_its_neighbours(here: Path) -> None:
    problem = missing_file(strategy(here, None), PATH, "strategies/dat.jsonl", (here,))
    assert problem.hint == "did you mean strategies/data.jsonl?"


def test_a_missing_absolute_path_is_compared_with_its_neighbours(here: Path) -> None:
    name = str(here / "work" / "data.json")
    assert "data.jsonl" in missing_file(strategy(here, None), PATH, name, (here,)).hint


def test_without_a_near_name_the_places_are_listed(here: Path) -> None:
    problem = missing_file(strategy(here, None), PATH, "other.csv", (here / "work",))
    assert problem.hint == f"it was looked for in {here / 'work'}"


def test_a_directory_is_not_a_data_file(here: Path) -> None:
    problem = missing_file(strategy(here, None), PATH, "work", (here,))
    assert problem.message == "work is a directory"


def test_a_name_of_the_hub_in_place_of_a_file_is_recognised(here: Path) -> None:
    problem = missing_file(strategy(here, None), PATH, "tatsu-lab/alpaca", (here,))
    assert "`dataset_name: tatsu-lab/alpaca`" in problem.hint


def test_files_below_the_working_directory_are_shown_relative(here: Path) -> None:
    assert shown_path(here / "work" / "data.jsonl", here) == "work/data.jsonl"
    assert shown_path(Path("/elsewhere/data.jsonl"), here) == "/elsewhere/data.jsonl"
