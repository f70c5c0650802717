"""Twelve incidents that befell users of other schedulers of agents, each told by where it was reported.

Each drives the real commands and processes; the clock is injected only where a night would have to pass.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from events.clock import SystemClock
from events.envelope import to_micros
from loop.commands.passes import tick
from loop.home import at
from loop.selector import Ranking, parse
from loop.sessions import proc, rundir
from tests.decider.fleet import Fleet
from tests.e2e.e2e_project import LOOP, Project, kill, wait_until

NOOP = '{"outcome": "noop"}'
AGAIN = 'command = ["./agent.sh"]\ncooldown = "0s"'
pytestmark = pytest.mark.slow

PROBES = importlib.util.find_spec("projections.pools") is not None


def die_at(project: Project, point: str) -> None:
    """A tick during which the first process that comes to the point dies of SIGKILL there."""
    armed = project.directory / "armed"
    armed.touch()
    env = {**os.environ, "FAULTPOINT": f"{point}:{armed}"}
    subprocess.run([*LOOP, "tick"], cwd=project.directory, env=env, capture_output=True, timeout=60, check=False)
    wait_until(lambda: not armed.exists(), what=f"a death at {point}")


def live(project: Project) -> list[dict[str, object]]:
    found: list[dict[str, object]] = project.status()["sessions"]["live"]
    return found


def shim_of(project: Project, session: str) -> rundir.Claim:
    claim = rundir.read_claim(str(project.db.parent / "runs" / session))
    assert claim is not None
    return claim


def verdicts(project: Project) -> dict[str, str]:
    """What the last decision said of each candidate."""
    decided = project.events("fanout.decided")[-1]["data"]
    return {each["category"]: each["verdict"] for each in decided["candidates"]}


def content(directory: Path) -> dict[str, str]:
    """A digest of every file; SQLite's shared memory is no content, and a socket has none."""
    files = (path for path in directory.rglob("*") if path.is_file() and not path.name.endswith("-shm"))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("point", ["pass.committed", "shim.claimed", "shim.locked"])
def test_01_killed_between_claim_and_spawn_the_work_is_not_invisible_for_hours(project: Project, point: str) -> None:
    """hermes #82622: claimed, never started, and nobody looked for four hours."""
    project.configure("code", slots=1, category=AGAIN, env={"SAY": NOOP})
    die_at(project, point)
    (dead,) = [event["session"] for event in project.events("session.requested")]
    assert project.starts() == []
    project.loop("tick")  # the next pass already sees that nobody will ever start it
    project.settle()
    assert [event["session"] for event in project.events("session.lost", "session.spawn_failed")] == [dead]
    project.loop("tick")
    project.settle()
    assert {line[1] for line in project.starts()} == {"code"}
    assert dead not in {line[0] for line in project.starts()}
    project.assert_sound()


def test_02_a_restarted_loop_adopts_what_lives_and_starts_nothing_twice(project: Project) -> None:
    """hive #264: the orphan of a killed orchestrator was not registered again, and dispatched a second time."""
    project.configure("code", "news", slots=2, env={"NAP": "6", "SAY": NOOP})
    first = project.spawn("run", "-q")
    wait_until(lambda: len(project.starts()) == 2, what="both sessions")
    before = {session["id"] for session in live(project)}
    first.kill()
    first.wait()
    second = project.spawn("run", "-q")
    try:
        wait_until(lambda: len(project.events("session.adopted")) == 2, what="the adoption")
        project.loop("tick")
        assert verdicts(project) == {"code": "lock_held", "news": "lock_held"}
        wait_until(lambda: not live(project), what="their own ends")
    finally:
        second.terminate()
        second.wait(timeout=15)
    project.settle()
    ended = {event["session"]: event["data"]["outcome"] for event in project.events("session.ended")}
    assert {session: ended[session] for session in before} == dict.fromkeys(before, "noop")
    assert {line[0] for line in project.starts()} == before
    project.assert_sound()


def test_03_a_stranger_that_was_given_the_pid_is_neither_signalled_nor_taken_for_the_holder(project: Project) -> None:
    """gastown #1681: a reused pid kept a lock for ever. Here its number is written where the dead shim's was."""
    project.configure("code", slots=1, category=AGAIN, env={"NAP": "60"}).loop("tick")
    wait_until(lambda: project.starts())
    (session,) = live(project)
    run_dir = project.db.parent / "runs" / str(session["id"])
    for pid in [*project.helpers(), *proc.marked(str(run_dir))]:
        kill(pid)
    wait_until(lambda: not project.helpers() and not proc.marked(str(run_dir)))
    (project.marks / "live-code").rmdir()  # which the killed agent could not take away
    with subprocess.Popen(["sleep", "60"]) as stranger:
        for name, fields in {"claim": ["pid"], "launched.json": ["pid"], "started.json": ["pid", "shim_pid"]}.items():
            said = json.loads((run_dir / name).read_text())
            (run_dir / name).write_text(json.dumps({**said, **dict.fromkeys(fields, stranger.pid)}) + "\n")
        project.edit('"60"', '"0"')
        project.loop("tick")
        project.settle()
        assert stranger.poll() is None, "a stranger was signalled"
        stranger.kill()
    assert [event["session"] for event in project.events("session.lost")] == [session["id"]]
    assert len(project.starts()) >= 2, "its category is served again"
    project.assert_sound()


def test_04_a_probe_that_gets_no_answer_starts_no_second_session_and_releases_nothing(project: Project) -> None:
    """solid_queue PR #761: after one failed heartbeat a `limit: 1` job ran eleven times at once."""
    project.configure("code", slots=2, category=AGAIN, env={"NAP": "60", "SAY": NOOP}).loop("tick")
    wait_until(lambda: project.starts())
    (session,) = live(project)
    shim = shim_of(project, str(session["id"]))["pid"]
    os.kill(shim, signal.SIGSTOP)
    controller = project.spawn("run", "-q")
    try:
        wait_until(lambda: project.events("session.adopted"), what="the adoption")
        assert [event["data"]["why"] for event in project.events("session.adopted")] == ["no_answer"]
        project.loop("tick")
        assert verdicts(project) == {"code": "lock_held"}
        assert len(project.starts()) == 1
        assert project.events("lock.released") == []
    finally:
        os.kill(shim, signal.SIGCONT)
        controller.terminate()
        controller.wait(timeout=15)
    project.loop("drain")
    project.loop("stop", "--kill")
    project.settle()
    assert len(project.events("lock.released")) == 1
    project.assert_sound()


def limited_account(project: Project, seconds: int) -> None:
    """Four categories on one account, which the first of them finds used up for some seconds."""
    extra = "".join(f'[backends.b{number}]\npool = "account"\n' for number in range(4))
    names = ("a", "b", "c", "d")
    project.configure(*names, slots=1, category=AGAIN + '\nbackends = ["b0"]', env={"NAP": "0"}, extra=extra)
    text = (project.directory / "loop.toml").read_text()
    for number, name in enumerate(names):
        head, _, rest = text.partition(f"[categories.{name}]")
        text = head + f"[categories.{name}]" + rest.replace('["b0"]', f'["b{number}"]', 1)
    (project.directory / "loop.toml").write_text(text)
    project.agent.write_text(f"""#!/bin/sh
echo "$LOOP_SESSION $LOOP_CATEGORY $LOOP_TASK" >> "$MARKS/started"
if ! mkdir "$MARKS/used-up"; then sleep 2; echo '{NOOP}' > "$LOOP_OUTCOME"; exit 0; fi
resets=$(date -u -d '+{seconds} seconds' +%Y-%m-%dT%H:%M:%SZ)
echo '{{"outcome": "limited", "resets_at": "'$resets'"}}' > "$LOOP_OUTCOME"
exit 1
""")
    project.loop("tick")
    project.settle()
    project.edit("slots = 1", "slots = 4")


def test_05_one_refusal_of_an_account_closes_it_for_all_four_that_share_it(project: Project) -> None:
    """commonly #832: four agents on one account each backed off alone, and used it up twice in a day."""
    limited_account(project, seconds=600)
    assert [event["data"]["pool"] for event in project.events("backend.limited")] == ["account"]
    assert project.json("tick")["started"] == []
    assert set(verdicts(project).values()) == {"no_backend"}
    assert len(project.starts()) == 1
    project.assert_sound()


@pytest.mark.skipif(not PROBES, reason="pools open for all at once in this release")
def test_05_and_at_its_reset_one_of_the_four_tries_it_first(project: Project) -> None:
    limited_account(project, seconds=8)
    assert project.json("tick")["started"] == []
    wait_until(lambda: project.status()["backends"]["available"] == 4, seconds=75, what="the reset")
    assert len(project.json("tick")["started"]) == 1, "one probe"
    assert project.json("tick")["started"] == [], "and nobody beside it"
    project.settle()
    project.loop("tick")
    project.settle()
    assert {line[1] for line in project.starts()} == {"a", "b", "c", "d"}
    project.assert_sound()


def test_06_an_answer_of_unknown_shape_is_told_and_never_becomes_the_first_of_the_list(project: Project) -> None:
    """The origin's own bug, and agenta PR #5239: a payload nobody understood quietly ran the defaults."""
    hold = project.select({"version": 2, "lanes": [{"name": "docs"}]}) + '\non_reject = "hold"'
    project.configure("a", "b", "docs", slots=3, selector=hold)
    passed = project.json("tick", code=3)
    assert (passed["started"], passed["selection"]["reason"]) == ([], "unknown_shape")
    (rejected,) = project.events("selection.rejected")
    assert {"version", "lanes"} <= set(rejected["data"]["keys"])
    assert project.starts() == []
    assert "selection_rejected" in {problem["code"] for problem in project.status()["problems"]}


def test_07_one_category_that_offers_9644_items_does_not_push_the_others_out(project: Project) -> None:
    """openregister PR #2267: one flow's 9,644 runs made everybody else wait for 32 hours."""
    flood = [{"category": "flood", "id": f"item-{number}", "score": 9.0} for number in range(9_644)]
    payload = {"tier": 3, "all_scores": [*flood, {"category": "b", "score": 0.2}, {"category": "c", "score": 0.1}]}
    understood = parse(json.dumps(payload).encode())
    assert isinstance(understood, Ranking)
    assert [entry.category for entry in understood.entries] == ["flood", "b", "c"]
    project.configure("flood", "b", "c", slots=3, selector=project.select(payload), env={"SAY": NOOP})
    assert {each["category"] for each in project.json("tick")["started"]} == {"flood", "b", "c"}
    project.settle()
    project.assert_sound()
    fleet = Fleet(2, {name: {"target": 1 / 3} for name in ("flood", "b", "c")}).run(300)
    assert all(abs(fleet.counts[name] - 100) <= 1 for name in ("flood", "b", "c"))


class Laptop(SystemClock):
    """The machine's clocks, on which a night passes at once: the wall and boot time go on, awake time does not."""

    slept = 0  # microseconds

    def __init__(self) -> None:
        self.offset = to_micros("2026-11-23T14:00:10Z") - super().now()

    def now(self) -> int:
        return super().now() + self.offset + self.slept

    def boottime(self) -> int:
        return super().boottime() + self.slept


def test_08_a_laptop_that_sleeps_through_three_fires_makes_good_by_one(project: Project) -> None:
    """claude-code #67195: on wake eight sessions started at once, and others were dropped."""
    project.configure("code", selector=project.select('{"all_scores": {}}'))
    project.edit('every = "1h"', 'every = "30m"')
    home, clock = at(project.directory / "loop.toml"), Laptop()

    def wakes() -> None:
        environ = {"PATH": os.environ["PATH"]}
        assert tick(home, environ, timer=True, expect=None, as_json=True, clock=clock) == 0

    wakes()
    clock.slept = 105 * 60 * 1_000_000  # until 15:45
    for _ in range(3):
        wakes()
    fires = [event["data"] for event in project.events("tick.started")]
    assert [(fire["nominal"][11:16], fire["missed"]) for fire in fires] == [("14:00", 0), ("15:30", 2)]
    (suspended,) = project.events("host.suspended")
    assert suspended["data"]["seconds"] == pytest.approx(105 * 60, abs=5)
    assert project.events("clock.stepped") == []


def test_08_and_by_the_kernels_own_clocks_it_is_a_suspension_that_ends_no_session(project: Project) -> None:
    """In a time namespace whose boot time is 105 minutes ahead, as after a night; awake time and the wall are not."""
    night = ["unshare", "--time", "--boottime", "6300", "--fork"]
    if not shutil.which("unshare") or subprocess.run([*night, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no time namespace can be made here")
    project.configure("code", slots=1, category=AGAIN + '\ntimeout = "100m"', env={"NAP": "60"}).loop("tick")
    wait_until(lambda: project.starts())
    before = live(project)
    subprocess.run([*night, *LOOP, "tick"], cwd=project.directory, check=True, capture_output=True, timeout=60)
    (suspended,) = project.events("host.suspended")
    assert suspended["data"]["seconds"] == pytest.approx(6300, abs=2)
    # Start times read otherwise there: the shim is not who it was by /proc, and says itself that it is.
    assert [(each["id"], each["pid"]) for each in live(project)] == [(each["id"], each["pid"]) for each in before]
    assert project.events("session.stopping", "session.lost", "session.ended") == []
    project.loop("stop", "--kill")
    project.settle()


def test_09_a_dry_run_beside_a_dead_claim_changes_no_byte_and_signals_nobody(project: Project) -> None:
    """hermes PR #104119: `--dry-run` ran every sweep and signalled workers."""
    project.configure("code", "news", slots=2, category=AGAIN, env={"NAP": "60"}).loop("tick")
    wait_until(lambda: len(project.starts()) == 2)
    for pid in project.helpers():
        kill(pid)
    wait_until(lambda: not project.helpers())
    workers = {str(session["id"]): int(str(session["pid"])) for session in live(project)}
    before = content(project.db.parent)
    for _ in range(2):
        planned = project.json("plan")["decision"]
        assert {each["verdict"] for each in planned["candidates"]} == {"lock_held"}
    time.sleep(0.5)  # for a signal to have done its work
    assert content(project.db.parent) == before
    for session, pid in workers.items():
        assert pid in proc.marked(str(project.db.parent / "runs" / session))
    project.loop("pause")
    project.loop("tick")  # and the pass that acts does end them
    project.settle()
    project.assert_sound()


def test_10_exit_0_without_output_or_evidence_is_not_productive_and_earns_no_respawn(project: Project) -> None:
    """cli-sub-agent #1080: fifteen seconds, no work, `success`."""
    project.configure("code", category=AGAIN, env={"SAY": "", "NAP": "0"}).loop("tick")
    (recent,) = project.settle()["sessions"]["recent"]
    assert (recent["exit_code"], recent["outcome"]) == (0, "unproven")
    assert [event["data"]["chain"] for event in project.events("session.requested")] == [0]
    assert project.status()["noop"]["of"] == 0, "it is counted beside the rate and not in it"


def test_11_a_burst_that_fails_everything_heals_without_anybody(project: Project) -> None:
    """gastown #4476: latches never decayed; to reset them was the most frequent thing done by hand.

    From eight failures of ten on it is a storm, which waits for a person on purpose (`loop/guard.py`).
    """
    names = ("a", "b", "c", "d", "e")
    project.configure(*names, slots=5, env={"SAY": NOOP, "NAP": "0"})
    project.edit('every = "1h"', 'every = "4s"')
    text = project.agent.read_text()
    project.agent.write_text("#!/bin/sh\nexit 1\n")
    project.loop("tick")
    project.settle()
    assert Counter(event["data"]["outcome"] for event in project.events("session.ended")) == {"failed": 5}
    project.agent.write_text(text)

    def healed() -> bool:
        project.loop("tick")
        return {line[1] for line in project.starts()} == set(names)

    wait_until(healed, seconds=100, what="all five to be tried again")
    project.settle()
    assert project.events("operator.requested", "loop.frozen", "loop.resumed") == []
    project.assert_sound()


def test_12_what_drains_still_drains_after_every_restart(project: Project) -> None:
    """paperclip #13869: the drain did not survive the restart that it was there to protect."""
    project.configure("code", "news", slots=2, category=AGAIN, env={"SAY": NOOP})
    project.loop("drain")
    for _ in range(2):
        controller = project.spawn("run", "-q")
        begun = len(project.events("controller.started"))
        wait_until(lambda begun=begun: len(project.events("controller.started")) >= max(begun, 1), what="loop run")
        assert project.json("tick")["started"] == []
        controller.kill()
        controller.wait()
    assert project.status()["mode"] == "draining"
    assert set(verdicts(project).values()) == {"draining"}
    assert project.starts() == []
    project.loop("resume")
    project.loop("tick")
    project.settle()
    assert {line[1] for line in project.starts()} == {"code", "news"}
    project.assert_sound()
