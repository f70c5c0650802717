"""A violation that happened anyway: recorded by the next pass, at the head of `status`, a failed check of `verify`."""

from __future__ import annotations

from e2e_project import Project


def tamper(project: Project, key: str) -> str:
    """Let the witness say that a second session took the key while the first, which lives, had it."""
    lock = project.directory / ".loop" / "locks" / f"{key}.lock"
    _, token, session, boot, at, *rest = lock.read_text().splitlines()[-1].split()
    with lock.open("a") as file:
        file.write(f"A {int(token) + 1} {session} {boot} {int(at) + 1} {' '.join(rest)}\n")
    return session


def test_a_key_taken_twice_is_recorded_once_and_heads_the_status(project: Project) -> None:
    project.configure("code", "news", slots=2, env={"NAP": "60"}).loop("tick")
    assert project.json("verify")["ok"]
    session = tamper(project, "code")
    project.loop("tick")
    project.loop("tick")
    (violation,) = project.events("violation.detected")
    assert (violation["category"], violation["session"]) == ("code", session)
    assert violation["data"]["kind"] == "acquired_while_held"
    assert violation["data"]["key"] == "code"
    status = project.status()
    assert status["problems"][0]["code"] == "same_lock"
    assert status["violations"]["same_lock"] == 1
    checks = {check["name"]: check for check in project.json("verify", code=4)["checks"]}
    assert not checks["witnesses"]["ok"]
    assert "acquired_while_held of code" in checks["witnesses"]["detail"]
    project.loop("stop", "--kill")
    project.settle()


def test_a_hold_that_the_log_never_granted_fails_verify(project: Project) -> None:
    project.configure("code", slots=1, env={"NAP": "0"}).loop("tick")
    project.settle()
    lock = project.directory / ".loop" / "locks" / "code.lock"
    lock.write_text(lock.read_text().replace(" s", " sother", 1))
    (check,) = [check for check in project.json("verify", code=4)["checks"] if not check["ok"]]
    assert check["name"] == "witnesses"
    assert "unknown_hold of code" in check["detail"]


def test_a_suspicion_that_the_next_look_dispels_is_none(project: Project) -> None:
    """Sessions come and go while verify reads: their witnesses and the log are read at different instants."""
    project.configure("code", "news", slots=2, env={"NAP": "0.05"}).loop("tick")
    for _ in range(4):
        project.loop("tick")
        assert project.json("verify")["ok"]
    project.settle()
    assert project.events("violation.detected") == []
    project.assert_sound()


def test_it_freezes_its_category_and_the_loop_and_nothing_starts_on_it(project: Project) -> None:
    project.configure("code", "news", slots=2, env={"NAP": "60"}).loop("tick")
    tamper(project, "code")
    project.loop("stop", "--kill")
    project.settle()
    project.loop("resume", code=2)
    frozen = [(event["data"]["scope"], event["data"]["name"]) for event in project.events("loop.frozen")]
    assert frozen == [("category", "code"), ("all", None)]
    assert {event["data"]["because"] for event in project.events("loop.frozen")} == {"violation"}
    status = project.status()
    assert (status["mode"], status["problems"][0]["code"]) == ("frozen", "same_lock")
    for words in (["tick"], ["tick", "--timer"], ["start", "news"]):
        assert project.json(*words)["started"] == []
    assert project.json("resume", "--reason", "an editor had the file open")["mode"] == "running"
    assert [each["category"] for each in project.json("start", "news")["started"]] == ["news"]
    project.loop("tick")
    assert len(project.events("loop.frozen")) == 2, "what was answered does not freeze again"
    assert project.status()["problems"][0]["code"] == "same_lock", "the log cannot unsee it"
    project.loop("stop", "--kill")
    project.settle()
