from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from llamafarm.web import library, views
from llamafarm.web.app import make_app
from llamafarm.web.stream import Streams
from tests.monitoring.report.records import HOSTILE, full_record, hostile_record
from tests.monitoring.run_directories import write_run, write_whole_run

from .conftest import PORT, TOKEN, Serve

LINK = re.compile(rf'href="(/{TOKEN}/run/([0-9a-f]{{16}}))">([^<]+)</a>')


def links(page: str) -> dict[str, str]:
    """Ids by the names of the runs."""
    return {name: run_id for _, run_id, name in LINK.findall(page)}


def test_the_runs_of_a_directory_are_listed_and_each_has_a_page(serve: Serve, runs: Path) -> None:
    served = serve(runs)
    found = links(served.page())
    assert sorted(found) == ["first", "more/second"]
    page = served.page(f"run/{found['more/second']}")
    assert "Hardly learning" in page
    assert served.defects == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "WHAT"])
@pytest.mark.parametrize("path", ["", "compare", "events/", "static/page.js"])
def test_nothing_but_reading_is_allowed(serve: Serve, runs: Path, method: str, path: str) -> None:
    answer = serve(runs).client.request(method, f"/{TOKEN}/{path}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["", "events/", "static/bokeh.js"])
def test_a_head_has_the_headers_and_no_body(serve: Serve, runs: Path, path: str) -> None:
    answer = serve(runs).client.head(f"/{TOKEN}/{path}")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["", "/", f"/{TOKEN[:-1]}/", f"/{TOKEN}x/", f"/x/{TOKEN}/", "/static/page.js", "/\u00e4/"],
)
def test_without_the_token_nothing_is_told(serve: Serve, runs: Path, path: str) -> None:
    answer = serve(runs).client.get(path)
    assert answer.status_code == 403
    assert "first" not in answer.text


@pytest.mark.parametrize(
    "host",
    ["attacker.example", f"attacker.example:{PORT}", "127.0.0.1", "127.0.0.1:80", "localhost", ""],
)
def test_another_host_is_not_answered(serve: Serve, runs: Path, host: str) -> None:
    answer = serve(runs).client.get(f"/{TOKEN}/", headers={"Host": host})
    assert answer.status_code == 403
    assert "first" not in answer.text


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"LocalHost:{PORT}"])
def test_this_machine_is_answered_by_its_names(serve: Serve, runs: Path, host: str) -> None:
    assert serve(runs).client.get(f"/{TOKEN}/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/{TOKEN}/", 200),
        (f"/{TOKEN}/static/live.js", 200),
        (f"/{TOKEN}/nothing", 404),
        ("/", 403),
    ],
)
def test_every_answer_forbids_what_no_page_needs(
    serve: Serve, runs: Path, path: str, status: int
) -> None:
    answer = serve(runs).client.get(path)
    headers = answer.headers
    assert answer.status_code == status
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    policy = dict(
        part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "run/../../../../etc/passwd",
        "run/%2e%2e%2f%2e%2e%2fsecret",
        "run/first",
        "run/" + "0" * 16,
        "events/run/" + "0" * 16,
        "compare?run=../secret&run=first",
        "static/../app.py",
        "static/%2e%2e%2fapp.py",
        "static/app.py",
        "static//etc/passwd",
    ],
)
def test_no_path_of_a_request_is_a_path_of_the_disk(serve: Serve, runs: Path, path: str) -> None:
    (runs.parent / "secret").mkdir()
    write_run(runs.parent / "secret", title="told to nobody")
    served = serve(runs)
    answer = served.client.get(f"/{TOKEN}/{path}")
    assert answer.status_code in (403, 404)
    assert "told to nobody" not in answer.text
    assert served.defects == []


def test_what_leads_out_of_the_directory_is_not_read(serve: Serve, runs: Path) -> None:
    outside = write_run(runs.parent / "secret", title="told to nobody")
    (runs / "linked").symlink_to(outside, target_is_directory=True)
    for name, file in (("file", "run.json"), ("metrics", "metrics.jsonl")):
        root = write_run(runs / name)
        (root / file).unlink()
        (root / file).symlink_to(outside / file)
    served = serve(runs)
    page = served.page()
    assert "linked" not in page
    found = links(page)
    assert f"run.json leads out of {runs}, and is not read" in page
    for name in ("file", "metrics"):
        assert "leads out of" in served.page(f"run/{found[name]}")
    assert "told to nobody" not in page
    assert served.defects == []


def test_markup_in_texts_of_strangers_is_escaped_everywhere(serve: Serve, runs: Path) -> None:
    write_whole_run(runs / "hostile", hostile_record(runs / "hostile"))
    served = serve(runs)
    page = served.page()
    found = links(page)
    pages = [
        page,
        served.page(f"run/{found['hostile']}"),
        served.page(f"compare?run={found['first']}&run={found['hostile']}"),
    ]
    for text in pages:
        assert HOSTILE not in text
        assert "window.hacked" in text
        # Those of the frame.
        assert text.count("<script") == 4


def test_a_run_that_cannot_be_read_is_told_and_the_others_are_there(
    serve: Serve, runs: Path
) -> None:
    for name, text in (("cut", '{"id": '), ("deep", "[" * 100_000), ("list", "[]")):
        (runs / name).mkdir()
        (runs / name / "run.json").write_text(text)
    (runs / "pipe").mkdir()
    served = serve(runs)
    page = served.page()
    assert page.count("run.json is not a JSON object") == 3
    for run_id in links(page).values():
        served.page(f"run/{run_id}")
    assert served.defects == []


@pytest.mark.parametrize("count", [0, 1, 9])
def test_too_few_or_too_many_runs_to_compare_are_asked_for_again(
    serve: Serve, runs: Path, count: int
) -> None:
    ids = [str(i) for i in range(count)]
    page = serve(runs).page("compare?" + "&".join(f"run={run_id}" for run_id in ids))
    assert "Choose two to 8 runs in the list." in page


def test_runs_are_compared_against_the_first(serve: Serve, runs: Path) -> None:
    served = serve(runs)
    found = links(served.page())
    page = served.page(f"compare?run={found['more/second']}&run={found['first']}")
    assert "Changes are against more/second." in page
    assert "every row is the same" in page
    # The other order, to be chosen.
    assert f"compare?run={found['first']}&amp;run={found['more/second']}" in page


def test_a_name_that_is_no_text_is_still_a_page(serve: Serve, runs: Path) -> None:
    write_whole_run(runs / "odd", full_record(runs / "odd"), title="half a \ud83d character")
    served = serve(runs)
    served.page(f"run/{links(served.page())['odd']}")
    assert served.defects == []


def test_a_directory_that_is_gone_is_told(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path / "gone")
    assert "does not exist" in served.page()
    assert served.defects == []


def test_a_defect_costs_one_page_and_is_told(
    serve: Serve, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    served = serve(runs)
    with monkeypatch.context() as patch:
        patch.setattr(views, "overview_table", fail)
        answer = served.client.get(f"/{TOKEN}/")
    assert (answer.status_code, answer.text.split(":")[0]) == (500, "a defect of llamafarm")
    assert [type(error) for error in served.defects] == [ZeroDivisionError]
    served.page()


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("localhost", 200), ("x", 403)])
def test_a_browser_leaves_the_usual_port_out(runs: Path, host: str, status: int) -> None:
    app = make_app(runs, token=TOKEN, port=80, streams=Streams(), on_defect=print)
    client = TestClient(app, base_url="http://127.0.0.1")
    assert client.get(f"/{TOKEN}/", headers={"Host": host}).status_code == status


def test_a_disk_that_refuses_one_run_costs_that_page_only(
    serve: Serve, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(runs)
    found = links(served.page())

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "evaluations")

    monkeypatch.setattr(library.RunLibrary, "_refuse_ways_out", refuse)
    assert "evaluations: Permission denied" in served.page(f"run/{found['first']}")
    assert served.defects == []
