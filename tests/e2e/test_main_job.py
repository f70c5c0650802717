"""From a fire to audited sessions, through the real commands."""

from __future__ import annotations

import json
import sqlite3
import time

import pytest
from e2e_project import PRODUCTIVE, Project, wait_until

TIER1 = {
    "tier": 1,
    "selected": {"id": "grading", "category": "code"},
    "diversity_alternatives": [{"category": "novelty"}, {"category": "strategic"}, {"category": "content"}],
}
NAMES = ("cleanup", "code", "content", "news", "novelty", "strategic")


def test_a_tier_1_answer_starts_what_the_selector_asked_for_and_not_the_allowlists_head(project: Project) -> None:
    project.configure(*NAMES, slots=3, selector=project.select(TIER1))
    tick = project.json("tick")
    assert [choice["category"] for choice in tick["decision"]["chosen"]] == ["code", "novelty", "strategic"]
    assert sorted(each["category"] for each in tick["started"]) == ["code", "novelty", "strategic"]
    status = project.settle()
    assert status["selection"]["granted"] == {"count": 3, "of": 3}
    assert status["selection"]["followed"]["count"] == status["selection"]["followed"]["of"]
    assert status["selection"]["intent_lost"] == 0
    assert {line[1] for line in project.starts()} <= {"code", "novelty", "strategic", "content"}
    assert sorted({line[2] for line in project.starts() if line[1] == "code"}) == ["grading"]
    project.assert_sound()


def test_a_productive_session_respawns_once_and_the_chain_ends(project: Project) -> None:
    project.configure("code", slots=2)
    project.loop("tick")
    project.settle()
    requested = project.events("session.requested")
    assert [event["data"]["chain"] for event in requested] == [0, 1]
    assert requested[1]["data"]["rule"] == "respawn"
    assert requested[1]["data"]["parent"] == requested[0]["session"]
    verdicts = [event["data"]["candidates"] for event in project.events("fanout.decided")]
    assert [each["verdict"] for each in verdicts[-1]] == ["respawn_spent"]
    project.assert_sound()


def test_a_low_grade_earns_no_respawn(project: Project) -> None:
    project.configure("code", env={"SAY": '{"outcome": "productive", "grade": 0.3}'}).loop("tick")
    project.settle()
    assert len(project.starts()) == 1


def test_exit_0_without_evidence_is_unproven_and_earns_nothing(project: Project) -> None:
    project.configure("code", env={"SAY": "", "NAP": "0"}).loop("tick")
    status = project.settle()
    assert [item["outcome"] for item in status["sessions"]["recent"]] == ["unproven"]
    assert status["noop"] == {"count": 0, "of": 0, "unproven": 1, "rate": None, "upper95": None}


def test_an_agent_that_exits_at_once_does_not_spin(project: Project) -> None:
    project.configure("code", "news", slots=2, env={"SAY": "", "NAP": "0"})
    project.loop("tick")
    project.settle()
    for _ in range(4):
        project.loop("tick")
    project.settle()
    assert len(project.starts()) == 2  # cooling down for a period; five ticks start each of them once
    why = project.json("plan")["decision"]["candidates"]
    assert {each["verdict"] for each in why} == {"cooling_down"}


def test_the_start_rate_limit_holds_for_all_triggers_together(project: Project) -> None:
    project.configure("code", "news", "content", slots=3).loop("config", "check")
    project.edit("max_starts_per_hour = 1000", "max_starts_per_hour = 2")
    tick = project.json("tick")
    assert len(tick["started"]) == 2
    assert tick["decision"]["idle"] == [{"slots": 1, "reason": "rate_limited"}]
    project.settle()
    project.loop("start", "code", code=6)
    assert len(project.starts()) == 2


def test_a_rejected_answer_opens_the_safety_net_for_one_and_exits_3(project: Project) -> None:
    project.configure(*NAMES, selector=project.select({"version": 9, "lanes": [{"name": "code"}]}))
    tick = project.json("tick", code=3)
    assert tick["selection"]["rejected"]
    assert tick["selection"]["reason"] == "unknown_shape"
    assert len(tick["started"]) == 1
    assert tick["decision"]["idle"] == [{"slots": 2, "reason": "rejected"}]
    status = project.settle()
    assert len(project.starts()) == 1  # no respawn, no refill
    assert status["selection"]["intent_lost"] == 1
    assert status["selection"]["granted"] == {"count": 0, "of": 3}
    assert {"selection_rejected", "intent_lost"} <= {problem["code"] for problem in status["problems"]}


def test_hold_starts_nothing_after_a_rejection(project: Project) -> None:
    selector = project.select("not json") + '\non_reject = "hold"'
    project.configure(*NAMES, selector=selector)
    tick = project.json("tick", code=3)
    assert tick["started"] == []
    assert tick["decision"]["idle"] == [{"slots": 3, "reason": "rejected"}]


def test_a_valid_answer_that_wants_nothing_starts_nothing(project: Project) -> None:
    project.configure(*NAMES, selector=project.select({"tier": 3, "all_scores": {"code": -1}}))
    tick = project.json("tick")
    assert tick["started"] == []
    assert tick["decision"]["idle"] == [{"slots": 3, "reason": "nothing_ranked"}]


def test_slots_that_free_up_go_to_what_the_last_answer_still_wants(project: Project) -> None:
    say = '{"outcome": "noop"}'
    project.configure(*NAMES, slots=2, selector=project.select(TIER1), env={"SAY": say})
    assert len(project.json("tick")["started"]) == 2
    project.settle()
    assert sorted(line[1] for line in project.starts()) == ["code", "content", "novelty", "strategic"]
    triggers = [event["data"]["trigger"] for event in project.events("session.requested")]
    assert triggers == ["manual", "manual", "session_end", "session_end"]
    project.assert_sound()


def test_plan_says_what_tick_does_and_writes_nothing(project: Project) -> None:
    project.configure(*NAMES, slots=2, selector=project.select(TIER1))
    project.loop("init", code=2)  # there is a config already
    assert not project.db.exists()
    assert project.loop("plan", "-q").stdout == "code novelty\n"
    assert not project.db.exists()
    planned = project.json("plan")
    tick = project.json("tick", code=0)
    assert tick["inputs"] == planned["inputs"]
    assert tick["decision"]["candidates"] == planned["decision"]["candidates"]
    project.settle()


def test_expect_refuses_when_the_inputs_have_changed(project: Project) -> None:
    project.configure(*NAMES, slots=2, selector=project.select(TIER1))
    inputs = project.json("plan")["inputs"]
    project.select({"tier": 3, "all_scores": {"news": 1}})
    error = project.json("tick", "--expect", inputs, code=6)
    assert error["error"]["code"] == "refused"
    assert project.starts() == []
    assert project.events("session.requested") == []
    project.loop("tick", "--expect", project.json("plan")["inputs"])
    project.settle()
    assert {line[1] for line in project.starts()} == {"news"}


def test_plan_takes_a_payload_from_standard_input(project: Project) -> None:
    project.configure(*NAMES, slots=3)
    done = project.loop("plan", "-q", "--payload", "-", stdin=json.dumps(TIER1))
    assert done.stdout == "code novelty strategic\n"
    assert project.loop("plan", "-q", "--payload", "-", stdin="{}", code=3).stdout == "cleanup\n"
    project.loop("plan", "--exit-code", "--payload", "-", stdin=json.dumps(TIER1), code=10)


def test_why_last_tells_the_fire_and_todays_code_decides_the_same(project: Project) -> None:
    project.configure(*NAMES, slots=3, selector=project.select(TIER1)).loop("tick")
    project.settle()
    why = project.json("why", "last")
    assert why["rederived"]["same"] is True
    assert why["selection"]["tier"] == 1
    ranked = [each["category"] for each in why["decision"]["candidates"]][:4]
    assert ranked == ["code", "novelty", "strategic", "content"]
    text = project.loop("why", "last").stdout
    for words in ("code", "selected", "started on default", "no slot was left", "did not ask for it"):
        assert words in text
    for event in project.events("fanout.decided"):
        assert project.json("why", str(event["position"]))["rederived"]["same"] is True


def test_status_at_a_past_position_is_what_status_was_then(project: Project) -> None:
    project.configure("code", "news", env={"NAP": "1"}).loop("tick")
    wait_until(lambda: len(project.status()["sessions"]["live"]) == 2)
    then = project.status()
    project.settle()
    now = project.status()
    past = project.json("status", "--at", str(then["as_of"]["position"]))
    for name in ("locks", "selection", "mode", "last_tick", "violations"):
        assert past[name] == then[name], name
    assert [item["id"] for item in past["sessions"]["live"]] == [item["id"] for item in then["sessions"]["live"]]
    assert now["sessions"]["live"] == []
    session = then["sessions"]["live"][0]["id"]
    assert project.json("status", "--at", session[:6])["slots"]["live"] >= 1
    assert project.json("status", "--at", "0")["slots"]["capacity"] is None
    assert project.json("status", "--at", then["as_of"]["at"])["slots"]["live"] == 2


def test_a_second_timer_fire_of_one_instant_is_skipped_and_a_manual_tick_is_no_fire(project: Project) -> None:
    project.configure("code", "news", slots=1, env={"SAY": '{"outcome": "noop"}'})
    assert project.json("tick", "--timer")["skipped"] is None
    again = project.json("tick", "--timer")
    assert again["skipped"] == "used"
    assert again["started"] == []
    assert project.json("tick")["skipped"] is None
    assert [event["data"]["reason"] for event in project.events("tick.skipped")] == ["used"]
    project.settle()


def test_missed_fires_coalesce_into_one_and_are_counted(project: Project) -> None:
    project.configure("code", slots=1, env={"SAY": '{"outcome": "noop"}'})
    project.edit('every = "1h"', 'every = "1s"')
    project.loop("tick", "--timer")
    time.sleep(4)
    project.loop("tick", "--timer")
    missed = [event["data"]["missed"] for event in project.events("tick.started") if event["data"]["nominal"]]
    assert len(missed) == 2
    assert missed[0] == 0
    assert missed[1] >= 3
    project.settle()


def test_an_invalid_config_starts_nothing_is_recorded_and_heads_status(project: Project) -> None:
    project.configure("code").loop("tick")
    project.settle()
    good = (project.directory / "loop.toml").read_text()
    (project.directory / "loop.toml").write_text(good.replace("slots", "slotz"))
    error = project.json("tick", code=3)
    assert "did you mean slots" in error["error"]["message"]
    status = project.status()
    assert status["mode"] == "invalid_config"
    assert status["problems"][0]["code"] == "invalid_config"
    (project.directory / "loop.toml").write_text(good)
    project.loop("tick")
    assert project.settle()["mode"] == "running"


def test_start_by_hand_passes_the_allowlist_and_the_cool_down_but_not_a_lock(project: Project) -> None:
    project.configure("code", "cleanup", category='command = ["./agent.sh"]\nparallel = false', env={"NAP": "60"})
    assert project.json("tick")["started"] == []
    assert len(project.json("start", "cleanup", "--task", "dust", "--reason", "spring")["started"]) == 1
    refused = project.json("start", "cleanup", code=6)
    assert refused["decision"]["candidates"][0]["verdict"] == "lock_held"
    assert "cleanup" in project.loop("start", "nonsense", code=2).stderr
    wait_until(lambda: project.starts())
    project.loop("stop", "--kill")
    project.settle()
    assert project.starts()[0][1:] == ["cleanup", "dust"]
    asked = project.events("operator.requested")
    assert asked[0]["data"]["action"] == "start"
    assert asked[0]["private"] == {"reason": "spring"}


def test_pause_outlives_everything_and_resume_undoes_it(project: Project) -> None:
    project.configure("code", "news").loop("pause", "--reason", "holiday")
    tick = project.json("tick")
    assert {each["verdict"] for each in tick["decision"]["candidates"]} == {"paused"}
    assert tick["decision"]["idle"] == [{"slots": 3, "reason": "paused"}]
    assert project.json("tick", "--timer")["skipped"] == "paused"
    assert project.status()["mode"] == "paused"
    project.loop("resume")
    project.loop("pause", "--category", "news", "--until", "2h")
    assert [each["category"] for each in project.json("tick")["started"]] == ["code"]
    project.settle()
    assert "holiday" not in json.dumps([event["data"] for event in project.events()])


def test_drain_waits_for_the_last_session_and_starts_no_other(project: Project) -> None:
    project.configure("code", env={"NAP": "5"}).loop("tick")
    project.loop("drain", "--wait")
    assert project.status()["sessions"]["live"] == []
    assert len(project.starts()) == 1  # productive, but its respawn was refused: draining
    assert project.json("tick")["started"] == []


def test_stop_ends_a_session_as_cancelled_and_frees_its_lock(project: Project) -> None:
    project.configure("code", env={"NAP": "60"}).loop("tick")
    wait_until(lambda: project.starts())
    session = project.status()["sessions"]["live"][0]["id"]
    project.loop("stop", session[:8])
    status = project.settle()
    assert [item["outcome"] for item in status["sessions"]["recent"]] == ["cancelled"]
    assert status["locks"] == []


def test_commands_that_act_refuse_inside_a_session(project: Project) -> None:
    project.configure("code")
    for command in (["tick"], ["run"], ["stop"], ["start", "code"]):
        assert project.loop(*command, code=6, env={"LOOP_SESSION": "sabc"}).stderr.startswith("loop: loop ")
    project.loop("status", env={"LOOP_SESSION": "sabc"})


def test_a_limited_session_closes_its_pool_and_its_category_goes_on_elsewhere(project: Project) -> None:
    limited = '{"outcome": "limited", "resets_at": "2999-01-01T00:00:00Z"}'
    extra = f"""
[backends.one]
pool = "p"
env = {{ SAY = '{limited}' }}
[backends.two]
pool = "p"
[backends.three]
"""
    category = 'command = ["./agent.sh"]\nbackends = ["one", "two", "three"]'
    project.configure("code", slots=1, category=category, extra=extra)
    project.edit(f"SAY = {json.dumps(PRODUCTIVE)}", "")
    project.loop("tick")
    status = project.settle()
    assert (status["backends"]["available"], status["backends"]["total"]) == (1, 3)
    assert {item["name"]: item["state"] for item in status["backends"]["items"]} == {
        "one": "limited",
        "two": "limited",
        "three": "available",
    }
    assert [choice["backend"] for choice in project.json("plan")["decision"]["chosen"]] == ["three"]
    assert status["categories"][0]["spawned"] == 0  # a refusal is no allocation


def test_no_secret_reaches_the_store(project: Project) -> None:
    (project.directory / "secrets.env").write_text("API_KEY=hunter2-secret\n")
    project.configure("code", env={"TOKEN": "swordfish-secret"})
    project.edit('grace = "1s"', 'grace = "1s"\nenv_file = "secrets.env"')
    project.agent.write_text('#!/bin/sh\necho "$API_KEY $TOKEN" > "$MARKS/seen"\n')
    project.loop("tick")
    project.settle()
    assert (project.marks / "seen").read_text() == "hunter2-secret swordfish-secret\n"
    for path in (project.directory / ".loop").rglob("*"):
        if path.is_file():
            assert b"-secret" not in path.read_bytes(), path


def test_hostile_names_are_printed_harmlessly_everywhere(project: Project) -> None:
    task = "[bold red]x[/] \u001b[31mred\u001b]0;title\u0007 \u202egnp"
    payload = {"tier": 1, "selected": {"id": task, "category": "code"}, "alternatives": [{"category": "a\u001b[2Jb"}]}
    project.configure("code", selector=project.select(payload), env={"NAP": "60"}).loop("tick")
    wait_until(lambda: project.starts())
    session = project.events("session.requested")[0]["session"]
    for command in (["status"], ["why", "last"], ["log"], ["sessions"], ["plan"], ["show", session], ["tail", session]):
        done = project.loop(*command, code=None)
        for text in (done.stdout, done.stderr):
            assert "\u001b" not in text, command
            assert "\u202e" not in text, command
            assert "\u0007" not in text, command
    assert "[bold red]" in project.loop("status").stdout
    project.loop("stop", "--kill")
    project.settle()


def test_the_store_is_private_to_its_user(project: Project) -> None:
    project.configure("code").loop("tick")
    project.settle()
    state = project.directory / ".loop"
    assert state.stat().st_mode & 0o777 == 0o700
    for path in state.rglob("*"):
        if not path.name.startswith("outcome"):  # the session's own
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("content", [b"this is no database at all, not even close" * 50, b""])
def test_a_file_that_is_no_store_is_one_clear_error(project: Project, content: bytes) -> None:
    project.configure("code")
    project.db.parent.mkdir()
    project.db.write_bytes(content)
    done = project.loop("status", "--json", code=None)
    if content:
        assert done.returncode == 1
        assert json.loads(done.stdout)["error"]["code"] == "store"
        assert project.json("tick", code=1)["error"]["hint"]
    else:
        assert json.loads(done.stdout)["as_of"]["position"] == 0


def test_another_programs_database_is_left_alone(project: Project) -> None:
    project.configure("code")
    project.db.parent.mkdir()
    with sqlite3.connect(project.db) as other:
        other.execute("CREATE TABLE mine (x)")
    assert "another program" in project.json("tick", code=1)["error"]["message"]
    with sqlite3.connect(project.db) as other:
        assert [row[0] for row in other.execute("SELECT name FROM sqlite_schema")] == ["mine"]


def test_a_newer_store_is_refused_by_readers_and_writers(project: Project) -> None:
    project.configure("code").loop("tick")
    project.settle()
    with sqlite3.connect(project.db) as store:
        store.execute("PRAGMA user_version = 99")
    assert project.json("status", code=1)["error"]["code"] == "store_too_new"
    assert project.json("tick", code=1)["error"]["code"] == "store_too_new"


def test_without_a_config_every_command_says_loop_init(project: Project) -> None:
    for command in (["status"], ["tick"], ["plan"], ["log"], ["why", "last"], ["config", "check"]):
        error = project.json(*command, code=3)
        assert error["error"]["code"] == "config_missing"
        assert "loop init" in error["error"]["hint"]


def test_usage_errors_exit_2_and_speak_json_where_asked(project: Project) -> None:
    project.configure("code")
    for command in (["status", "--at", "99999"], ["why", "nonsense"], ["frobnicate"], ["status", "--at", "xyz"]):
        assert project.json(*command, code=2)["schema"] == "loop.error/1"


def test_a_missing_store_beside_run_directories_refuses_everything(project: Project) -> None:
    project.configure("code").loop("tick")
    project.settle()
    for path in project.db.parent.glob("loop.db*"):
        path.unlink()
    assert "missing" in project.json("tick", code=1)["error"]["message"]
    assert "missing" in project.json("status", code=1)["error"]["message"]


def test_log_follows_and_filters(project: Project) -> None:
    project.configure("code", env={"SAY": '{"outcome": "noop"}'}).loop("tick")
    follower = project.spawn("log", "--type", "session.*", "--json", "-f")
    try:
        project.settle()
        project.loop("start", "code")
        project.settle()
        time.sleep(1.0)
    finally:
        follower.terminate()
        out, _ = follower.communicate(timeout=10)
    types = [json.loads(line)["type"] for line in out.splitlines()]
    assert types == ["session.requested", "session.started", "session.ended"] * 2
    assert {event["type"] for event in project.events("lock.*")} == {"lock.acquired", "lock.released"}
