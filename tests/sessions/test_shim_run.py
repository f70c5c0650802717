"""A session from its launch to its end: files, order, environment, hooks, refusals."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loop.sessions import locks, proc, rundir, start

if TYPE_CHECKING:
    from conftest import House


def test_a_worker_that_ends_well(house: House) -> None:
    session = house.session("echo out; echo err >&2; sleep 0.1").run()
    assert session.exit["stage"] == "worker"
    assert (session.exit["code"], session.exit["signal"], session.exit["reason"]) == (0, None, None)
    assert 0.1 <= session.exit["seconds"] < 5
    assert (session.text("out.log"), session.text("err.log")) == ("out\n", "err\n")
    assert (session.exit["out_bytes"], session.exit["err_bytes"], session.exit["truncated"]) == (4, 4, False)
    assert session.exit["cpu_seconds"] is not None
    assert session.end["stragglers"] == 0
    assert session.notes == []
    assert session.text("shim.log") == ""


def test_an_exit_code(house: House) -> None:
    session = house.session("exit 3").run()
    assert (session.exit["code"], session.exit["signal"]) == (3, None)


def test_a_signal(house: House) -> None:
    session = house.session("kill -SEGV $$").run()
    assert (session.exit["code"], session.exit["signal"]) == (None, 11)


def test_cpu_and_memory_of_the_worker_and_its_children(house: House) -> None:
    burn = (
        "import time; data = bytearray(64 << 20); end = time.process_time() + .3\nwhile time.process_time() < end: pass"
    )
    session = house.session(f'"{sys.executable}" -c "{burn}"').run()
    assert 0.3 <= (session.exit["cpu_seconds"] or 0) < 5
    assert 64 << 10 <= (session.exit["max_rss_kb"] or 0) < 1 << 20


# --------------------------------------------------------------------------------------------------- order


def test_the_order_of_the_files(house: House) -> None:
    look = f"ls {{}} > {house.root}/$0"
    run_dir = "$LOOP_RUN_DIR"
    session = house.session(
        look.replace("$0", "worker").format(run_dir) + "; sleep 0.2; ls $LOOP_RUN_DIR > worker-later",
        before=["/bin/sh", "-c", look.format(run_dir), "before"],
        after=["/bin/sh", "-c", look.format(run_dir), "after"],
    ).run()
    seen = {name: (house.root / name).read_text().split() for name in ("before", "worker-later", "after")}
    assert not {"started.json", "exit.json", "end.json"} & set(seen["before"])
    assert {"claim", "spec.json"} <= set(seen["before"])
    assert "started.json" in seen["worker-later"]
    assert "exit.json" not in seen["worker-later"]
    assert "exit.json" in seen["after"]
    assert "end.json" not in seen["after"]
    assert "end.json" in session.seen_at_the_end()["files"]
    assert not [name for name in os.listdir(session.dir) if name.endswith(".tmp") or name.startswith("claim.")]


def test_the_exit_is_on_disk_before_the_worker_is_reaped(house: House) -> None:
    session = house.session("sleep 0.2").launch()
    worker = session.started()["pid"]
    while os.path.exists(f"/proc/{worker}"):
        pass
    assert (session.dir / "exit.json").exists()
    session.wait()


def test_the_key_is_free_when_the_end_command_runs(house: House) -> None:
    session = house.session("sleep 0.2", after=["/bin/sleep", "0.2"])
    session.launch()
    session.started()
    assert not house.is_free()
    session.wait_for("exit.json")
    assert not house.is_free(), "the after hook runs under the lock"
    session.wait()
    assert session.seen_at_the_end()["free"] is True
    assert house.is_free()


def test_the_witness_and_the_intervals_agree(house: House) -> None:
    house.key("repo")
    session = house.session("sleep 0.1", keys=["repo", "code"]).run()
    assert sorted(session.end["held"]) == ["code", "repo"]
    for key, span in session.end["held"].items():
        (found,) = locks.intervals(locks.path_of(str(house.locks), key))
        assert found == (session.spec["token"], session.name, span["boot"], span["from_ns"], span["to_ns"], "released")
        assert span["to_ns"] - span["from_ns"] >= 100_000_000
        assert found.boot == proc.boot_id()
    begun = rundir.read_started(str(session.dir))
    assert begun is not None
    assert session.end["held"]["code"]["from_ns"] < begun["boottime_ns"] < session.exit["boottime_ns"]
    assert session.exit["boottime_ns"] < session.end["held"]["code"]["to_ns"]


def test_every_file_is_for_its_owner_only(house: House) -> None:
    session = house.session("true", before=["/bin/true"], after=["/bin/true"]).run()
    assert stat.S_IMODE(session.dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(session.dir.parent.stat().st_mode) == 0o700
    for name in os.listdir(session.dir):
        if name != "ended":
            assert stat.S_IMODE((session.dir / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(house.key("fresh").stat().st_mode) == 0o600


# --------------------------------------------------------------------------------------------- environment


def test_the_environment_arrives_and_stays_off_the_disk(house: House) -> None:
    secret = "open-sesame-" + os.urandom(8).hex()
    knows = 'test "$PASSWORD" = "$(cat secret)"'
    session = house.session(
        f'{knows} && echo "$LOOP_SESSION $LOOP_TOKEN ${{LOOP_CONFIG-none}} ${{LOOP_X-none}} $HOME"',
        before=["/bin/sh", "-c", knows],
    )
    (house.root / "secret").write_text(secret)
    base = {
        "PATH": os.environ["PATH"],
        "HOME": "/somewhere",
        "LOOP_CONFIG": "/c",
        "LOOP_X": "1",
        "LOOP_SESSION": "outer",
    }
    session.run({"PASSWORD": secret}, base)
    assert session.text("out.log") == f"{session.name} {session.spec['token']} none none /somewhere\n"
    assert (session.exit["code"], session.exit["error"]) == (0, None)
    for folder, _, names in os.walk(house.state):
        for name in names:
            assert secret.encode() not in Path(folder, name).read_bytes(), name


def test_the_end_command_knows_nothing_of_the_session(house: House) -> None:
    session = house.session("true").run({"PASSWORD": "x"}, {"PATH": "/usr/bin:/bin", "LOOP_STORE": "/x", "KEPT": "1"})
    seen = session.seen_at_the_end()
    assert {name: value for name, value in seen["env"].items() if not name.startswith("LC_")} == {
        "PATH": "/usr/bin:/bin",
        "KEPT": "1",
    }
    assert seen["fds"] == ["0", "1", "2", "3"], "the fourth is the directory it lists"
    assert seen["sid"] == seen["pid"], "a session of its own"


def test_the_worker_gets_no_descriptor_but_its_locks(house: House) -> None:
    session = house.session("for fd in /proc/self/fd/*; do readlink $fd; done | sort | grep -v /fd").run()
    names = session.text("out.log").split()
    expected = {"/dev/null", str(session.dir / "err.log"), str(house.locks / "code.lock")}
    assert expected <= set(names)
    assert not [
        name for name in names if name not in expected and not name.startswith("pipe:") and "out.log" not in name
    ]


def test_the_worker_has_signals_as_at_login_and_its_own_process_group(house: House) -> None:
    session = house.session("grep -E '^Sig(Blk|Ign)' /proc/self/status; cut -d' ' -f5 /proc/$$/stat; echo $$").run()
    blocked, ignored, group, pid = session.text("out.log").split("\n")[:4]
    assert int(blocked.split()[1], 16) == 0
    libc_own = 1 << 31 | 1 << 32  # signals 32 and 33: libc keeps them, nobody can reset what was inherited for them
    assert int(ignored.split()[1], 16) & ~libc_own == 0
    assert group == pid


def test_loop_variables_are_stripped_by_the_starter_and_again_by_the_shim(house: House) -> None:
    session = house.session("sleep 60").launch(base={"PATH": "/usr/bin:/bin", "LOOP_X": "1"})
    session.started()
    assert b"LOOP_" not in Path(f"/proc/{session.shim}/environ").read_bytes()
    house.key("other")
    bare = house.session('echo "${LOOP_X-none}"', keys=["other"])
    bare.dir.mkdir(parents=True)
    rundir.write_json(str(bare.dir), "spec.json", bare.spec)
    argv = [sys.executable, "-I", "-S", start.SHIM, str(bare.dir)]
    subprocess.run(argv, input=b"{}", env={"PATH": "/usr/bin:/bin", "LOOP_X": "1"}, check=True)
    bare.wait()
    assert bare.text("out.log") == "none\n"
    assert not [name for name in bare.seen_at_the_end()["env"] if name.startswith("LOOP_")]


@pytest.mark.parametrize("text", [b"", b'{"A": "1"', b"[]", b'{"A": 1}'])
def test_a_cut_environment_claims_nothing(house: House, text: bytes) -> None:
    session = house.session("true")
    session.dir.mkdir(parents=True)
    rundir.write_json(str(session.dir), "spec.json", session.spec)
    done = subprocess.run([sys.executable, "-I", "-S", start.SHIM, str(session.dir)], input=text, capture_output=True)
    assert done.returncode == 70
    assert os.listdir(session.dir) == ["spec.json"]


def test_a_shim_without_a_spec_claims_nothing(house: House) -> None:
    done = subprocess.run([sys.executable, "-I", "-S", start.SHIM, str(house.root)], input=b"{}", capture_output=True)
    assert done.returncode == 70
    assert b"spec.json is missing" in done.stderr
    assert not (house.root / "claim").exists()


def test_variables_that_no_exec_takes_are_refused_without_their_values(house: House) -> None:
    for env in ({"A=B": "hush"}, {"": "hush"}, {"A": "hush\0"}, {"A": "hush\ud800"}):
        with pytest.raises(start.LaunchError) as caught:
            house.session().launch(env)
        assert "hush" not in str(caught.value)


# --------------------------------------------------------------------------------------------------- hooks


def test_a_before_hook_may_make_the_worker_s_directory(house: House) -> None:
    work = house.root / "work"
    session = house.session("pwd", cwd=str(work), before=["mkdir", str(work)]).run()
    assert session.text("out.log") == f"{work}\n"


def test_a_before_hook_that_fails(house: House) -> None:
    session = house.session("echo never", before=["/bin/sh", "-c", "echo told; exit 4"]).run()
    assert (session.exit["stage"], session.exit["code"], session.error()) == ("before", 4, "before_failed")
    assert session.text("before.log") == "told\n"
    assert not (session.dir / "out.log").exists()
    assert not (session.dir / "started.json").exists()
    assert list(session.end["held"]) == ["code"]
    assert [line[0] for line in house.witness()] == ["A", "R"]


def test_a_before_hook_that_hangs_is_bounded_by_the_session_s_timeout(house: House) -> None:
    session = house.session("true", before=["/bin/sleep", "60"], timeout=0.2).run()
    assert (session.exit["stage"], session.exit["reason"], session.error()) == ("before", "timeout", "before_failed")


def test_a_before_hook_that_is_not_there(house: House) -> None:
    session = house.session("true", before=["no-such-hook"]).run()
    assert (session.exit["stage"], session.error()) == ("before", "before_failed")


def test_an_after_hook_knows_the_exit_code(house: House) -> None:
    session = house.session("exit 3", after=["/bin/sh", "-c", 'echo "$LOOP_EXIT_CODE $LOOP_SESSION"']).run()
    assert session.text("after.log") == f"3 {session.name}\n"
    assert session.notes == []


@pytest.mark.parametrize("after", [["/bin/sh", "-c", "exit 1"], ["no-such-hook"], ["/bin/sh", "-c", "kill -9 $$"]])
def test_an_after_hook_that_fails_is_noted(house: House, after: list[str]) -> None:
    session = house.session("exit 0", after=after).run()
    assert session.exit["code"] == 0
    assert session.notes == [("warned", "after_failed")]
    assert house.is_free()


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"argv": ["no-such-program"]}, "command_not_found"),
        ({"argv": ["/no/such/program"]}, "command_not_found"),
        ({"argv": ["./plain"]}, "not_executable"),
        ({"argv": ["./no-magic"]}, "not_executable"),
        ({"argv": ["./lost-interpreter"]}, "command_not_found"),
        ({"argv": ["/bin/echo", "x" * 300_000]}, "argv_too_long"),
        ({"argv": []}, "command_not_found"),
        ({"argv": ["/bin/echo", "a\0b"]}, "os_error"),
        ({"cwd": "/no/such/directory"}, "bad_cwd"),
        ({"keys": ["absent"]}, "lock_missing"),
        ({"keys": ["../code"]}, "os_error"),
    ],
)
def test_what_cannot_start(house: House, over: dict[str, object], code: str) -> None:
    for name, content, mode in (
        ("plain", "", 0o600),
        ("no-magic", "\1\2", 0o700),
        ("lost-interpreter", "#!/no/such/thing\n", 0o700),
    ):
        (house.root / name).write_text(content)
        (house.root / name).chmod(mode)
    session = house.session("true", **over).run()
    assert (session.exit["stage"], session.exit["code"], session.error()) == ("spawn", None, code)
    assert session.end["stragglers"] == 0
    assert not (session.dir / "started.json").exists()
    assert house.is_free()
    assert {line[0] for line in house.witness()} == (set() if "keys" in over else {"A", "R"})


def test_a_key_held_by_another_process(house: House) -> None:
    first = house.session("sleep 60").launch()
    first.started()
    second = house.session("true").run()
    assert second.error() == "lock_held"
    assert second.end["held"] == {}
    assert second.seen_at_the_end()["free"] is False
    assert len(house.witness()) == 1
    rundir.request_stop(str(first.dir), kill=True, by="test")
    first.wait()
    assert [line.split()[:2] for line in house.witness()] == [["A", "101"], ["R", "101"]]


def test_of_two_keys_one_held_neither_is_kept(house: House) -> None:
    house.key("zebra")
    with open(house.locks / "zebra.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        session = house.session("true", keys=["code", "zebra"]).run()
        assert session.error() == "lock_held"
        assert house.is_free("code")
        assert house.witness("code") == []


def test_an_overtaken_token(house: House) -> None:
    early, late = house.session("true"), house.session("true")
    late.run()
    early.run()
    assert early.error() == "stale_token"
    assert early.end["held"] == {}
    assert len(house.witness()) == 2
    again = house.session("true", token=late.spec["token"]).run()
    assert again.error() == "stale_token"


def test_a_replaced_lock_file_is_noticed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    path = house.key("code")
    flock = fcntl.flock

    def replace(fd: int, how: int) -> None:
        path.rename(path.with_suffix(".old"))
        path.touch()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", replace)
    with pytest.raises(locks.LockRefused) as caught:
        locks.hold(str(house.locks), ["code"], inherit=False)
    assert caught.value.code == "lock_replaced"


# ---------------------------------------------------------------------------------------------- the starter


def test_await_started_tells_how_far_each_is(house: House) -> None:
    house.key("other")
    runs = house.session("sleep 60").launch()
    runs.started()
    refused = house.session("true").launch()
    slow = house.session("true", keys=["other"], before=["/bin/sleep", "60"]).launch()
    refused.wait()
    began = time.monotonic()
    found = start.await_started([str(each.dir) for each in (runs, refused, slow)], 0.3)
    assert list(found.values()) == ["started", "ended", "waiting"]
    assert 0.3 <= time.monotonic() - began < 2
    assert start.await_started([str(runs.dir)], 60) == {str(runs.dir): "started"}


def test_a_waiting_shim_is_small(house: House) -> None:
    session = house.session("sleep 60").launch()
    session.started()
    time.sleep(0.3)
    try:
        rollup = Path(f"/proc/{session.shim}/smaps_rollup").read_text()
    except OSError:
        pytest.skip("this kernel does not tell the proportional set size")
    (pss,) = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")]
    assert pss < 12 << 10
    print(f"PSS {pss} KiB")
