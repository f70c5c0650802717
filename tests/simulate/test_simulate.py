"""`loop simulate`: real passes on a told clock; the same seed is the same log, and nothing of a project is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from random import Random

import pytest

from events.catalog import ControllerStarted
from events.errors import ConfigError, RefusedError, StoreError, UsageError
from events.store import Draft, EventLog, Filter
from loop import report
from loop.config import Config
from loop.simulate.compare import difference
from loop.simulate.run import BATCH, START, simulate
from loop.simulate.settings import settings
from loop.simulate.tally import FIGURES, Tally, figures
from loop.simulate.workload import Workload, find, load
from loop.simulate.writer import writing
from projections import snapshots

ROOT = Path(__file__).resolve().parents[2]
LOOP = [sys.executable, str(ROOT / "cli.py")]
SMALL = """
[session]
seconds = { edges = [60, 600], counts = [1] }
outcomes = { productive = 3, noop = 1 }
without_work = { noop = 1 }
grades = { edges = [0.5, 0.9], counts = [1] }
[config.loop]
slots = 2
[config.selector]
command = ["never-run"]
[config.session]
timeout = "5m"
[config.categories.code]
target = 0.5
command = ["never-run"]
[config.categories.triage]
target = 0.5
command = ["never-run"]
"""


def workload(tmp_path: Path, text: str = "") -> Workload:
    """SMALL, with `text` before its config."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL.replace("[config.loop]", f"{text}\n[config.loop]", 1))
    return load(file)


def simulated(
    tmp_path: Path, text: str = "", *changes: str, days: float = 1, seed: int = 1, name: str = "s"
) -> EventLog:
    model = workload(tmp_path, text)
    done = simulate(settings(None, model, changes), model, tmp_path / name, days=days, seed=seed)
    return EventLog.read(done.db)


def loop(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LOOP, *words], cwd=cwd, capture_output=True, text=True, timeout=100, check=False)


def types(log: EventLog) -> dict[str, int]:
    found: dict[str, int] = {}
    for event in log.events():
        found[event.type] = found.get(event.type, 0) + 1
    return found


# ── the log ───────────────────────────────────────────────────────────────────────────────────────────────────────────


TROUBLE = """
[outages]
every = "6h"
lasts = "1h"
[crashes]
every = "8h"
lasts = "10m"
"""


def test_a_process_that_writes_apart_makes_the_same_log_and_the_same_report(tmp_path: Path) -> None:
    model = workload(tmp_path, TROUBLE)
    rows, told = [], []
    for apart in (False, True):
        done = simulate(settings(None, model, ()), model, tmp_path / str(apart), days=8, seed=3, apart=apart)
        log = EventLog.read(done.db)
        rows.append(log.select(Filter()))
        told += [report.told(done.history, done.position)]
        told += [report.report(log, upto=done.position, now=done.now, span=done.span)]
        assert log.load_snapshot(snapshots.version(), done.position) is not None
        log.close()
    assert rows[0] == rows[1]
    assert len(rows[0]) > BATCH, "more than one batch"
    assert all(each == told[0] for each in told), "what was counted on the way is what the store tells"
    assert told[0]["data"]["sessions"] > 400


def test_what_keeps_the_other_process_from_writing_is_told_here(tmp_path: Path) -> None:
    path = tmp_path / "loop.db"
    log = EventLog.open(path)
    draft, _ = Draft.of("2030-01-01T00:00:00.000000Z", ControllerStarted(pid=1, start=0, boot="b", release="x"), "a")
    with writing(path, START, Random(1), apart=True) as writer:
        writer.write(([draft], snapshots.load(log).dump()))
    log.close()
    path.write_bytes(b"no database any more" * 500)

    def write() -> None:
        with writing(path, START, Random(1), apart=True) as writer:
            while True:
                writer.write(([draft] * 1_000, b""))

    with pytest.raises(StoreError, match="not a database"):
        write()


def test_a_process_that_is_killed_while_it_writes_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "loop.db"
    EventLog.open(path).close()

    def kill() -> None:
        with writing(path, START, Random(1), apart=True):
            (child,) = active_children()
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(StoreError, match="ended before its time"):
        kill()


def test_a_seed_gives_the_same_log_byte_for_byte_and_another_seed_another(tmp_path: Path) -> None:
    first, again = simulated(tmp_path, name="a"), simulated(tmp_path, name="b")
    other = simulated(tmp_path, name="c", seed=2)
    assert first.head() == again.head()
    assert first.head().position > 100
    assert first.head().hash != other.head().hash


@pytest.mark.parametrize("name", ["fleet", "monitoring"])
def test_a_shipped_workload_leaves_a_store_that_verifies(name: str, tmp_path: Path) -> None:
    done = loop("simulate", "--workload", name, "--days", "0.5", "--into", str(tmp_path / "s"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    verified = loop("verify", "--json", "-C", str(tmp_path / "s"), cwd=tmp_path)
    assert (verified.returncode, json.loads(verified.stdout)["ok"]) == (0, True)
    status = json.loads(loop("status", "--json", "-C", str(tmp_path / "s"), cwd=tmp_path).stdout)
    assert status["as_of"]["at"].startswith("2030-01-01")
    assert sum(line["spawned"] for line in status["categories"]) > 10


READS = (
    "status", "plan --recorded", "plan --at 300", "why last", "why-not code", "sessions", "log -n 5", "report",
    "backends", "usage", "verify", "replay", "diff 10 300", "when live>1", "show 40", "export", "status --at -1h",
    "config show", "config check",
)  # fmt: skip


def test_every_read_command_opens_the_store_that_is_kept(tmp_path: Path) -> None:
    more = ("--policy", "fair", "--set", 'categories."a.b".gate=["never-run"]')
    made = loop("simulate", "--days", "0.5", *more, "--into", "s", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    for words in map(str.split, READS):
        done = loop(words[0], *words[1:], "-C", "s", cwd=tmp_path)
        assert (done.returncode, bool(done.stdout)) == (0, True), (words, done.stderr)
    shown = loop("config", "show", "-C", "s", cwd=tmp_path).stdout
    assert 'loop.policy = "fair"' in shown
    assert 'categories."a.b".gate = ["simulated"]' in shown, "nothing of it can be run"
    in_force = loop("log", "--type", "loop.configured", "--json", "-C", "s", cwd=tmp_path).stdout
    assert json.loads(in_force)["data"]["hash"] == json.loads(
        loop("config", "check", "--json", "-C", "s", cwd=tmp_path).stdout
    )["hash"], "it is the config that was simulated"


def test_nothing_is_simulated_into_a_store_that_is_there(tmp_path: Path) -> None:
    simulated(tmp_path)
    with pytest.raises(RefusedError, match="there already"):
        simulated(tmp_path)


def test_a_session_ends_at_its_deadline(tmp_path: Path) -> None:
    """The draws go up to ten minutes, the deadline is five."""
    ends = [event.data for event in simulated(tmp_path).events_of(("session.ended",))]
    late = [end for end in ends if end["outcome"] == "timed_out"]
    assert late
    assert {end["seconds"] for end in late} == {300.0}
    assert max(end["seconds"] for end in ends) == 300.0


def test_a_category_without_work_is_not_ranked(tmp_path: Path) -> None:
    log = simulated(tmp_path, "[categories.triage]\nwork = { share = 0.0 }")
    ranked = {entry["category"] for event in log.events_of(("selection.made",)) for entry in event.data["ranking"]}
    assert ranked == {"code"}


def test_an_outage_limits_the_backend_and_a_crash_loses_its_sessions(tmp_path: Path) -> None:
    trouble = '[outages]\nevery = "3h"\nlasts = "2h"\n[crashes]\nevery = "2h"\nlasts = "10m"'
    found = types(simulated(tmp_path, trouble, days=4))
    assert found["backend.limited"] > 3
    assert found["session.lost"] > 3
    assert found["controller.started"] > 10
    assert "violation.detected" not in found


def test_a_damaged_answer_is_rejected_as_a_real_one_is(tmp_path: Path) -> None:
    found = types(simulated(tmp_path, "[selector]\nrejected = 0.5"))
    assert found["selection.rejected"] > 5
    assert found["selection.made"] > 5


def test_the_selector_names_no_task_that_a_session_works_on_and_so_lanes_fill(tmp_path: Path) -> None:
    log = simulated(tmp_path, "", "categories.code.lanes=2", "loop.slots=3", "loop.every=2m")
    live: dict[str, str] = {}
    most = 0
    for event in log.events_of(("selection.made", "session.requested", "session.ended")):
        if event.type == "session.requested" and event.category == "code":
            live[event.session or ""] = event.data["task"]
            most = max(most, len(live))
        elif event.type == "session.ended":
            live.pop(event.session or "", None)
        elif event.type == "selection.made":
            assert not {entry["task"] for entry in event.data["ranking"]} & set(live.values())
    assert most == 2


def test_the_rankings_of_a_store_are_said_again(tmp_path: Path) -> None:
    first = simulated(tmp_path, name="first")
    again = simulated(
        tmp_path, '[selector]\nkind = "recorded"\nstore = "first/.loop/loop.db"', name="again", seed=9, days=2
    )
    said = [event.data["ranking"] for event in first.events_of(("selection.made",))]
    assert [event.data["ranking"] for event in again.events_of(("selection.made",))] == said * 2


def test_the_builtin_selector_answers_itself(tmp_path: Path) -> None:
    model = workload(tmp_path)
    assert model.config is not None
    model = replace(model, config={**model.config, "selector": {"builtin": True}})
    log = EventLog.read(simulate(settings(None, model, ()), model, tmp_path / "s", days=0.5, seed=1).db)
    assert {event.data["source"] for event in log.events_of(("selection.made",))} == {"builtin"}


def test_sessions_are_alike_under_two_policies(tmp_path: Path) -> None:
    """The n-th session of a category lasts as long under either: what differs is what the policies did."""

    def seconds(policy: str) -> list[float]:
        log = simulated(tmp_path, "", f"loop.policy={policy}", name=policy)
        return [event.data["seconds"] for event in log.events_of(("session.ended",)) if event.category == "code"]

    intent, fair = seconds("intent"), seconds("fair")
    count = min(len(intent), len(fair))
    assert count > 10
    assert intent[:count] == fair[:count]


# ── what-if ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_change_is_a_dotted_key_and_is_checked_like_the_file(tmp_path: Path) -> None:
    def changed(*changes: str) -> Config:
        return settings(None, workload(tmp_path), changes)

    found = changed("loop.slots=8", "allocation.max_ratio=1.5", "categories.code.target=0.3", "loop.every=1h")
    assert (found.loop.slots, found.allocation.max_ratio, found.loop.every) == (8, 1.5, 3600)
    assert found.categories["code"].target == 0.3
    assert changed('categories."a.b".command=["x"]').categories["a.b"].target is None
    for wrong, error, match in (
        ("slots=8", UsageError, "no table, key and value"),
        ("loop.slots.more=8", UsageError, "slots is no table"),
        ("loop.slotz=8", UsageError, "did you mean slots"),
        ("loop.policy=best", UsageError, "policy"),
        ("loop..slots=8", UsageError, "no table, key and value"),
        ("loop.slots", UsageError, "no table, key and value"),
    ):
        with pytest.raises(error, match=match):
            changed(wrong)


def test_a_project_is_read_and_nothing_of_it_is_run_or_written(tmp_path: Path) -> None:
    (tmp_path / "loop.toml").write_text(
        '[selector]\ncommand = ["touch", "ran"]\n[categories.own]\ncommand = ["touch", "ran"]\n'
        'gate = ["touch", "ran"]\nprompt_file = "missing.md"\n'
    )
    done = loop("simulate", "--json", "--days", "0.5", "--seed", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "loop.report/1"
    assert found["simulated"]["days"] == 0.5
    assert found["simulated"]["seed"] == 3
    assert found["simulated"]["sessions"] > 5
    assert 0 < found["simulated"]["mean_live"] <= 1
    assert [line["name"] for line in found["categories"]] == ["own"]
    assert [path.name for path in tmp_path.iterdir()] == ["loop.toml"]
    assert "figures for triage" in done.stderr


def test_no_command_and_no_prompt_of_a_project_gets_as_far_as_the_simulation(tmp_path: Path) -> None:
    file = tmp_path / "loop.toml"
    file.write_text(
        '[selector]\ncommand = ["rm"]\n[session]\nbefore = ["rm"]\n'
        '[backends.b]\ncommand = ["rm"]\nenv = { KEY = "x" }\n'
        '[categories.own]\ncommand = ["rm"]\ngate = ["rm"]\nprompt_file = "missing.md"\n'
    )
    found = settings(file, workload(tmp_path), ())
    own, backend = found.categories["own"], found.backends["b"]
    assert {found.selector.command, own.command, own.gate, backend.command} == {("simulated",)}
    assert (own.prompt_file, found.session.before, backend.env) == (None, None, {})


def test_more_slots_are_more_sessions_at_once(tmp_path: Path) -> None:
    one, two = (
        json.loads(loop("simulate", "--json", "--days", "1", "--slots", slots, cwd=tmp_path).stdout)["simulated"]
        for slots in ("1", "4")
    )
    assert one["mean_live"] <= 1 < one["sessions"] < two["sessions"]
    assert one["changes"] == ["loop.slots=1"]


def test_two_configs_are_compared_on_the_same_seeds(tmp_path: Path) -> None:
    text = SMALL[SMALL.index("[config.loop]") :].replace("config.", "")
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "b.toml").write_text(text.replace("slots = 2", "slots = 2\nmax_starts_per_hour = 1"))
    words = ("simulate", "--compare", "a.toml", "b.toml", "--days", "0.5", "--runs", "6")
    done = loop(*words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = {line["name"]: line for line in json.loads(done.stdout)["figures"]}
    assert set(lines) == set(FIGURES)
    assert lines["sessions"]["high"] < 0
    assert "95 % interval" in loop(*words, cwd=tmp_path).stdout
    same = json.loads(loop("simulate", "--compare", "a.toml", "a.toml", *words[4:], "--json", cwd=tmp_path).stdout)
    assert {line["difference"] for line in same["figures"]} <= {0, None}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--workload", "./gone.toml"), "no workload at"),
        (("--compare", "gone.toml", "gone.toml"), "no config file at gone.toml"),
        (("--runs", "3"), "--runs says how many pairs"),
    ],
)
def test_what_cannot_be_simulated_says_so_in_its_own_words(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = loop("simulate", *words, cwd=tmp_path)
    assert done.returncode in (2, 3)
    assert says in done.stderr
    assert "loop init" not in done.stderr


def test_the_interval_is_students(tmp_path: Path) -> None:
    """By hand: the differences 1, 2, 3 have the mean 2, the deviation 1, and t(2) = 4.303."""
    none: dict[str, float | None] = dict.fromkeys(FIGURES)
    first = [{**none, "sessions": value} for value in (10.0, 10.0, 10.0)]
    second = [{**none, "sessions": value} for value in (11.0, 12.0, 13.0)]
    found = difference("sessions", first, second)
    assert (found.a, found.b, found.difference, found.pairs) == (10, 12, 2, 3)
    assert found.low == pytest.approx(2 - 4.303 / 3**0.5)
    assert found.high == pytest.approx(2 + 4.303 / 3**0.5)
    assert difference("noop_rate", first, second).a is None
    assert difference("sessions", first[:1], second[:1]).low is None


def test_figures_count_starts_that_came_to_something(tmp_path: Path) -> None:
    tally = Tally(("code", "triage", "social"))
    for category, outcome in (("code", "productive"), ("code", "noop"), ("code", "limited"), ("triage", "failed")):
        tally.started(category)
        tally.ended(category, outcome)
    tally.live_for(2, 3_600_000_000)
    found = figures(tally, {"code": 0.5, "triage": 0.25, "social": 0.25})
    assert found["sessions"] == 4
    assert (found["mean_live"], found["productive_per_hour"]) == (2, 1)
    assert found["noop_rate"] == pytest.approx(1 / 3)
    assert found["worst_ratio"] == pytest.approx(4 / 3)
    assert (found["never_started"], found["deviation"]) == (1, 0.75)
    assert set(figures(Tally(("code",)), {}).values()) == {None, 0}


# ── workloads ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sesion]\nx = 1", r"\[sesion\]: unknown table"),
        ("[work]\nshare = 2.0", r"\[work\] share: 2.0 should be"),
        ('[selector]\nkind = "recorded"', "store goes with kind"),
        ('[selector]\nkind = "best"', r"\[selector\] kind"),
        ("[categories.code]\nseconds = { edges = [1, 2], counts = [1, 2] }", "n counts need n \\+ 1 edges"),
        ("[categories.code]\nseconds = { edges = [2, 1], counts = [1] }", "do not rise"),
        ("[categories.code]\ngrades = { edges = [0, 7], counts = [1] }", "a grade is 0..1"),
        ("[categories.code]\noutcomes = { noop = 0 }", "every weight is 0"),
        ("[categories.code]\nlikeing = 2.0", "did you mean liking"),
        ('[outages]\nevery = "soon"\nlasts = "1h"', r"\[outages\] every"),
    ],
)
def test_a_mistake_in_a_workload_names_the_key_and_the_mend(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        workload(tmp_path, text)


def test_an_unknown_workload_names_the_shipped_ones() -> None:
    with pytest.raises(UsageError, match="no workload is named 'flet'") as error:
        find("flet")
    assert "fleet, monitoring" in error.value.hint


def test_the_workload_of_the_docs_is_valid(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "simulate.md").read_text("utf-8")
    file = tmp_path / "docs.toml"
    file.write_text(page.split("```toml\n")[1].split("```")[0])
    assert load(file).categories["code"].liking == 2.0
