"""Record what this release leaves on disk in mid-flight: `python tests/upgrade/record.py`, once for each release.

Real sessions are started under real locks and come to every kind of end, but nobody delivers any: the log knows that
they were granted, and the rest is in their run directories. That is what an upgrade finds. The result goes to
`tests/fixtures/rundirs/<release>/`, is never edited after, and `tests/upgrade/test_upgrade.py` ingests it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3  # the interpreter's own: it can dump
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import loop  # noqa: E402
from events.store import EventLog  # noqa: E402
from loop import controller  # noqa: E402
from loop.home import at  # noqa: E402
from loop.passes import Fire  # noqa: E402
from loop.sessions import proc, rundir  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures" / "rundirs"
BOOT = "00000000-0000-4000-8000-000000000000"  # of a machine that has been started again since
PROJECT = Path("/srv/fleet") if os.access("/srv", os.W_OK) else Path(tempfile.gettempdir()) / "fleet"
MARK = "@PROJECT@"  # stands for PROJECT in every file

OUTCOME = """command = ["sh", "-c", '''echo at work; printf '{}' > "$LOOP_OUTCOME"; exit {}''']"""
KINDS = {
    "productive": OUTCOME.format('{{"outcome": "productive", "grade": 0.8, "summary": "did it"}}', 0),
    "noop": OUTCOME.format('{{"outcome": "noop"}}', 0),
    "blocked": OUTCOME.format('{{"outcome": "blocked"}}', 0),
    "limited": OUTCOME.format('{{"outcome": "limited", "resets_at": "2027-01-01T00:00:00Z"}}', 1),
    "malformed": OUTCOME.format('{{"outcome": 7', 0),
    "unproven": 'command = ["true"]',
    "proved-by-exit": 'command = ["true"]\nevidence = "exit"',
    "failed": 'command = ["sh", "-c", "echo no >&2; exit 3"]',
    "exit-code": 'command = ["sh", "-c", "exit 75"]\nexit_codes = { 75 = "refused" }',
    "killed": 'command = ["sh", "-c", "kill -9 $$"]',
    "timed-out": 'command = ["sleep", "60"]\ntimeout = "1s"',
    "stalled": 'command = ["sleep", "60"]\nsilence = "1s"\nkill_on_silence = true',
    "silent": 'command = ["sleep", "3"]\nsilence = "1s"',
    "stopped": 'command = ["sleep", "60"]',
    "no-program": 'command = ["/nowhere/agent"]',
    "before-failed": 'command = ["true"]\nbefore = ["false"]',
    "after-failed": 'command = ["true"]\nafter = ["false"]',
    "two-keys": 'command = ["true"]\nlocks = ["shared"]',
    "lock-held": 'command = ["true"]',
    "shim-died": 'command = ["sleep", "60"]',
    "shim-died-late": 'command = ["sh", "-c", "exit 4"]',
    "unclaimed": 'command = ["true"]',
    "voided": 'command = ["true"]',
}


def main() -> None:
    target = FIXTURES / loop.__version__
    if target.exists():
        raise SystemExit(f"{target} is there: what a release wrote is recorded once (until it is out: remove that)")
    PROJECT.mkdir(mode=0o700)
    try:
        record(target)
    finally:
        shutil.rmtree(PROJECT)


def record(target: Path) -> None:
    sections = ['[loop]\nslots = 100\nmax_starts_per_hour = 1000\n[selector]\nbuiltin = true\n[session]\ngrace = "1s"']
    sections += [f"[categories.{kind}]\n{keys}" for kind, keys in KINDS.items()]
    (PROJECT / "loop.toml").write_text("\n".join(sections) + "\n")
    home = at(PROJECT / "loop.toml")
    controller.END = "/nowhere/end.py"  # no end delivers itself
    controller.ingest.ingest = lambda journal, run_dir: False  # nor does the pass
    EventLog.open(home.db).close()
    home.lock_dir.mkdir(mode=0o700)
    with (home.lock_dir / "lock-held.lock").open("w") as file:
        os.chmod(file.name, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        with controller.Loop(home, {"PATH": os.environ["PATH"]}) as held:
            result = held.fire(Fire("manual"))
        assert result.decided is not None
        run_dirs = {grant.choice.category: home.runs_dir / grant.session for grant in result.decided.grants}
        assert run_dirs.keys() == KINDS.keys()
        end_all(run_dirs)
    store(home.db, run_dirs, target)


def end_all(run_dirs: dict[str, Path]) -> None:
    """Let every session come to its end, by force where that is its kind, and cut away what a crash keeps away."""
    rundir.request_stop(str(run_dirs["stopped"]), kill=False, by="operator")
    shim = rundir.read_claim(str(run_dirs["shim-died"]))
    assert shim is not None
    os.kill(shim["pid"], signal.SIGKILL)
    for pid in proc.marked(str(run_dirs["shim-died"])):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not all((path / "end.json").exists() for kind, path in run_dirs.items() if kind != "shim-died"):
        assert time.monotonic() < deadline, "a session did not come to its end"
        time.sleep(0.1)
    time.sleep(1)  # for the last lines of shim.log and end.log
    (run_dirs["shim-died-late"] / "end.json").unlink()
    for kind in ("unclaimed", "voided"):
        for path in run_dirs[kind].iterdir():
            if path.name not in ("spec.json", "launched.json"):
                path.unlink()
    assert rundir.claim(str(run_dirs["voided"]), by="reconciler")


def store(db: Path, run_dirs: dict[str, Path], target: Path) -> None:
    """Write all of it to `target` as text, the paths and the boot of this machine replaced."""
    target.mkdir(parents=True)
    own = {str(PROJECT): MARK, proc.boot_id(): BOOT, sys.executable: "/opt/loop/bin/python", str(ROOT): "/opt/loop"}

    def text_of(path: Path) -> str:
        text = path.read_text()
        for here, there in own.items():
            text = text.replace(here, there)
        return text

    files: dict[str, str] = {"loop.toml": text_of(PROJECT / "loop.toml")}
    for run_dir in run_dirs.values():
        for path in sorted(run_dir.iterdir()):
            files[f".loop/runs/{run_dir.name}/{path.name}"] = text_of(path)
    for path in sorted(db.parent.joinpath("locks").iterdir()):
        lines = [line for line in text_of(path).splitlines(True) if not dropped(line, run_dirs)]
        files[f".loop/locks/{path.name}"] = "".join(lines)
    kinds = {kind: path.name for kind, path in run_dirs.items()}
    (target / "files.json").write_text(json.dumps({"kinds": kinds, "files": files}, indent=1) + "\n")
    connection = sqlite3.connect(db)
    pragmas = [
        f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};"
        for name in ("application_id", "user_version")
    ]
    (target / "loop.sql").write_text("\n".join([*pragmas, *connection.iterdump()]) + "\n")
    connection.close()


def dropped(line: str, run_dirs: dict[str, Path]) -> bool:
    """Whether a line of a witness was written after the crash that is staged."""
    early = any(run_dirs[kind].name in line for kind in ("unclaimed", "voided"))
    return early or (line.startswith("R ") and run_dirs["shim-died-late"].name in line)


if __name__ == "__main__":
    main()
