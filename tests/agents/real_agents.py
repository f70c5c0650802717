"""The three real agents as sessions of loop, each way a session can go. Run by `make agents`.

Nothing leaves loopback: the model is `model_server`, and every proxy variable leads to a port where nobody listens.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e"), str(HERE.parent / "presets"), str(HERE.parents[1])]

import install  # noqa: E402
from e2e_project import Project, kill  # noqa: E402
from five_minutes import Reader, blocks  # noqa: E402
from model_server import CACHED, CUT, HANG, INPUT, OUTPUT, ModelServer, Turn, refuse, run, say  # noqa: E402

from loop.sessions import proc  # noqa: E402

AGENTS = ("claude", "codex", "gptme")
NOWHERE = "http://127.0.0.1:9"
RESET_IN = 7200  # seconds
KEPT_ERR = 4000  # characters of a recorded stderr: its end


class Bench:
    """A project whose one category runs one agent by its preset, on a scripted model."""

    def __init__(self, directory: Path, agent: str, scenario: str) -> None:
        self.agent, self.scenario = agent, scenario
        self.home = directory / "home"
        self.home.mkdir(parents=True)
        (directory / "project").mkdir()
        self.project = Project(directory / "project")
        self.server: ModelServer | None = None

    def session(
        self, *script: Turn, timeout: str = "90s", subscription: bool = False, category: str = "", **env: str
    ) -> dict[str, Any]:
        """The end of one more session of this agent on this script, as the log has it; `env` are further variables."""
        before = len(self.project.events("session.ended")) if self.project.db.exists() else 0
        with ModelServer(*script) as self.server:
            env = {**self.env(self.server.url), **env}
            if subscription:
                del env["ANTHROPIC_API_KEY"]
                env["CLAUDE_CODE_OAUTH_TOKEN"] = "sk-ant-oat01-none"
            lines = f'prompt = "Do what there is to do."\ntimeout = "{timeout}"\ngrace = "3s"\n{category}'
            extra = f'[respawn]\nlimit = 0\n[backends.agent]\npreset = "{self.agent}"'
            self.project.configure("code", category=lines, env=env, extra=extra)
            self.project.loop("start", "code")
            self.project.settle(120)
        ended = self.project.events("session.ended")
        assert len(ended) == before + 1, self.project.events("session.*")
        self._record(ended[-1]["session"])
        data: dict[str, Any] = ended[-1]["data"]
        return data

    def env(self, url: str) -> dict[str, str]:
        """What leads the agent to the model at `url`, and to nothing else."""
        return {**self._common(), **getattr(self, f"_{self.agent}")(url)}

    def forget(self) -> None:
        """Take the agent's memory of its conversations away."""
        for name in (".claude/projects", "codex/sessions", "codex/archived_sessions", ".local/share/gptme"):
            shutil.rmtree(self.home / name, ignore_errors=True)
        for path in (self.home / "codex").glob("*.sqlite*"):
            path.unlink()

    def limit(self) -> dict[str, Any] | None:
        """The refusal that the log has of its pool, or None."""
        events = self.project.events("backend.limited")
        return events[0]["data"] if events else None

    def output(self) -> str:
        return "".join((run_dir / "out.log").read_text() for run_dir in self.project.run_dirs())

    def _common(self) -> dict[str, str]:
        return {
            "HOME": str(self.home), "PATH": os.pathsep.join([*install.PATH, os.environ["PATH"]]), "LANG": "C.UTF-8",
            "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "ALL_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1",
            "http_proxy": NOWHERE, "https_proxy": NOWHERE, "all_proxy": NOWHERE, "no_proxy": "127.0.0.1",
        }  # fmt: skip

    def _claude(self, url: str) -> dict[str, str]:
        return {
            "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "sk-ant-none", "CLAUDE_CODE_MAX_RETRIES": "1",
            "DISABLE_TELEMETRY": "1", "DISABLE_ERROR_REPORTING": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }  # fmt: skip

    def _codex(self, url: str) -> dict[str, str]:
        config = self.home / "codex" / "config.toml"
        config.parent.mkdir(exist_ok=True)
        config.write_text(
            'model = "a-model"\nmodel_provider = "local"\ncheck_for_update_on_startup = false\n'
            "[analytics]\nenabled = false\n"
            f'[model_providers.local]\nname = "local"\nbase_url = "{url}/v1"\nenv_key = "LOCAL_KEY"\n'
            'wire_api = "responses"\nrequest_max_retries = 1\nstream_max_retries = 1\n'
        )
        return {"CODEX_HOME": str(config.parent), "LOCAL_KEY": "none"}

    def _gptme(self, url: str) -> dict[str, str]:
        return {
            "OPENAI_API_KEY": "none", "OPENAI_BASE_URL": f"{url}/v1", "MODEL": "openai/gpt-4o",
            "GPTME_LLM_MAX_RETRIES": "1",
        }  # fmt: skip

    def _record(self, session: str) -> None:
        """Keep what the agent printed, without what tells this machine or this run from another."""
        if not (directory := os.environ.get("RECORD")):
            return
        Path(directory).mkdir(parents=True, exist_ok=True)
        for name in ("out", "err"):
            text = (self.project.directory / ".loop" / "runs" / session / f"{name}.log").read_text()
            text = text.replace(str(self.project.directory), "/project").replace(str(self.home), "/home/agent")
            text = text.replace(str(install.CACHE), "/opt/agents").replace(session, "SESSION")
            text = re.sub(r"[\w-]*pytest-of-[\w-]*", "-project", text)  # how an agent names a directory's own
            text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8080", text)
            kept = Path(directory) / f"{self.agent}-{self.scenario}.{name}"
            kept.write_text(text if name == "out" else text[-KEPT_ERR:])


@pytest.fixture(params=AGENTS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    agent = request.param
    if why := os.environ.get(f"MISSING_{agent.upper()}"):
        pytest.skip(why)
    made = Bench(tmp_path, agent, re.split("_is_|_says_", request.function.__name__.removeprefix("test_"))[0])
    yield made
    for run_dir in made.project.run_dirs():
        for pid in proc.marked(run_dir.name):
            kill(pid)


def outcome(word: str) -> Turn:
    """Have the agent write the outcome file."""
    return run(f"printf '{{\"outcome\": \"{word}\"}}' > \"$LOOP_OUTCOME\"")


def done(agent: str) -> Turn:
    """The agent's last answer; gptme goes on asking until it is told that this was it."""
    return say("All is well.\n\n```complete\n```" if agent == "gptme" else "All is well.")


def rate_limited(agent: str) -> Turn:
    """A refusal as each agent's provider words it, with the time of its reset where there is one."""
    reset = int(time.time()) + RESET_IN
    if agent == "claude":
        unified = {"status": "rejected", "reset": str(reset), "representative-claim": "five_hour"}
        headers = {f"anthropic-ratelimit-unified-{name}": value for name, value in unified.items()}
        return refuse(429, "rate_limit_error", "This request would exceed your account's rate limit.", headers)
    if agent == "codex":
        return refuse(429, "usage_limit_reached", "The usage limit has been reached", plan_type="plus", resets_at=reset)
    return refuse(429, "rate_limit_exceeded", "Rate limit reached for requests", {"retry-after": str(RESET_IN)})


def seconds_until(time_text: str) -> float:
    return datetime.fromisoformat(time_text).replace(tzinfo=UTC).timestamp() - time.time()


def test_productive_is_what_the_outcome_file_says(bench: Bench) -> None:
    ended = bench.session(outcome("productive"), done(bench.agent))
    assert (ended["outcome"], ended["reason"], ended["exit_code"]) == ("productive", "outcome_file", 0)
    assert ended["proved"]
    assert ended["usage"]["input_tokens"] == 2 * INPUT
    assert ended["usage"]["output_tokens"] == 2 * OUTPUT
    assert ended["usage"]["cache_read_tokens"] == 2 * CACHED
    # Codex tells no cost: null, and not nothing.
    assert (ended["usage"]["cost_micros"] is None) == (bench.agent == "codex")
    assert ended["resume_token"]
    assert bench.limit() is None


def test_noop_is_what_the_outcome_file_says(bench: Bench) -> None:
    ended = bench.session(outcome("noop"), done(bench.agent))
    assert (ended["outcome"], ended["reason"]) == ("noop", "outcome_file")


def test_an_answer_is_unproven_and_counted(bench: Bench) -> None:
    ended = bench.session(done(bench.agent))
    assert (ended["outcome"], ended["reason"], ended["exit_code"]) == ("unproven", "no_evidence", 0)
    used = {name: ended["usage"][name] for name in ("input_tokens", "output_tokens", "cache_read_tokens")}
    assert used == {"input_tokens": INPUT, "output_tokens": OUTPUT, "cache_read_tokens": CACHED}
    assert ended["usage"]["cost_micros"] is None or ended["usage"]["cost_micros"] > 0


def test_a_bad_key_says_nothing_of_the_work(bench: Bench) -> None:
    ended = bench.session(refuse(401, "authentication_error", "invalid x-api-key"))
    told = {
        "claude": ("refused", "unauthorised", 1),
        "codex": ("refused", "unauthorised", 1),
        "gptme": ("refused", "unauthorised", 76),
    }
    assert (ended["outcome"], ended["reason"], ended["exit_code"]) == told[bench.agent]
    assert bench.limit() is None


def test_a_rate_limit_is_limited_until_its_reset(bench: Bench) -> None:
    ended = bench.session(rate_limited(bench.agent), subscription=bench.agent == "claude")
    limit = bench.limit()
    assert ended["outcome"] == "limited"
    assert limit is not None
    assert limit["pool"] == "agent"
    backend = bench.project.status()["backends"]["items"][0]
    if bench.agent == "gptme":  # it keeps the provider's reset to itself
        assert (ended["reason"], limit["until"], backend["state"]) == ("exit_codes", None, "unknown")
    else:
        assert backend["state"] == "limited"
        assert limit["until"] == ended["resets_at"] == backend["until"]
        assert RESET_IN - 120 < seconds_until(limit["until"]) <= RESET_IN + 60


def test_a_rate_limit_without_reset_is_limited(bench: Bench) -> None:
    code = "insufficient_quota" if bench.agent == "codex" else "rate_limit_error"
    ended = bench.session(refuse(429, code, "You exceeded your current quota."))
    assert (ended["outcome"], ended["resets_at"]) == ("limited", None)
    assert bench.project.status()["backends"]["items"][0]["state"] == "unknown"


def test_an_overload_is_limited(bench: Bench) -> None:
    ended = bench.session(refuse(529, "overloaded_error", "Overloaded"))
    reasons = {"claude": "overloaded", "codex": "rate_limit", "gptme": "limit_pattern"}
    assert (ended["outcome"], ended["reason"]) == ("limited", reasons[bench.agent])


def test_a_rejected_request_is_a_failure(bench: Bench) -> None:
    ended = bench.session(refuse(400, "invalid_request_error", "the request makes no sense"))
    told = {"claude": ("failed", "api_error"), "codex": ("failed", "turn_failed"), "gptme": ("failed", "exit_code")}
    assert (ended["outcome"], ended["reason"]) == told[bench.agent]
    assert ended["exit_code"] != 0
    assert bench.limit() is None


def test_a_failed_session_is_what_the_outcome_file_says(bench: Bench) -> None:
    ended = bench.session(outcome("failed"), done(bench.agent))
    assert (ended["outcome"], ended["reason"]) == ("failed", "outcome_file")


def test_a_refused_conversation_is_gone_on_with_by_its_own_name(bench: Bench) -> None:
    refused = bench.session(rate_limited(bench.agent), subscription=bench.agent == "claude")
    assert (refused["outcome"], bool(refused["resume_token"])) == ("limited", True)
    bench.project.loop("backends", "probe", "agent")
    ended = bench.session(outcome("productive"), done(bench.agent))
    assert (ended["outcome"], ended["resume_token"]) == ("productive", refused["resume_token"])
    assert ended["usage"]["output_tokens"] == 2 * OUTPUT, "what came before is not counted twice"
    first, second = bench.project.events("session.requested")
    assert second["data"]["resumes"] == first["session"]
    assert bench.server is not None
    assert "Go on where you stopped" in bench.server.last


def test_a_conversation_that_is_gone_is_no_failure_of_the_work(bench: Bench) -> None:
    bench.session(rate_limited(bench.agent), subscription=bench.agent == "claude")
    bench.forget()
    bench.project.loop("backends", "probe", "agent")
    ended = bench.session(outcome("productive"), done(bench.agent))
    # gptme begins one of that name anew.
    expected = ("productive", "outcome_file") if bench.agent == "gptme" else ("refused", "no_conversation")
    assert (ended["outcome"], ended["reason"]) == expected


def test_a_commit_of_a_session_is_evidence(bench: Bench) -> None:
    repository = bench.project.directory
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    bench.project.loop("hook", "install")
    names = (f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL"))
    identity = dict.fromkeys(names, "t@example.invalid")
    commit = run("git commit -q --allow-empty -m 'a piece of work'")
    ended = bench.session(commit, done(bench.agent), category='evidence = "git"', **identity)
    # codex keeps .git from being written, unless its user allows more.
    expected = ("unproven", "no_evidence") if bench.agent == "codex" else ("productive", "commits")
    assert (ended["outcome"], ended["reason"]) == expected


def test_doctor_asks_the_agent_and_spends_nothing(bench: Bench) -> None:
    with ModelServer(say("hello")) as server:
        extra = f'[backends.agent]\npreset = "{bench.agent}"'
        bench.project.configure("code", category='prompt = "x"', env=bench.env(server.url), extra=extra)
        checks = {each["name"]: each for each in bench.project.json("doctor", code=None)["checks"]}
        assert [path for path in server.requests if path.startswith("POST")] == []
    found = checks["backend_agent"]
    version = next(package for package in (*install.NPM.values(), *install.PIP.values()) if bench.agent in package)
    assert version.replace("==", "@").rpartition("@")[2] in found["detail"]
    assert found["level"] == ("warn" if bench.agent == "codex" else "ok"), found


def test_the_five_minutes_of_the_readme(bench: Bench, tmp_path: Path) -> None:
    """With this agent alone on PATH beside what the system has."""
    agents = tmp_path / "agents"
    agents.mkdir()
    program = shutil.which(bench.agent, path=os.pathsep.join(install.PATH))
    assert program is not None
    (agents / bench.agent).symlink_to(program)
    with ModelServer(outcome("productive"), done(bench.agent), outcome("productive"), done(bench.agent)) as server:
        env = {**bench.env(server.url), "PATH": f"{agents}:{os.environ['PATH']}"}
        (tmp_path / "reader").mkdir()
        reader = Reader(tmp_path / "reader", env)
        said = reader.sh(blocks("sh")[0])
        assert f"found  {bench.agent}" in said
        ends = reader.ends(120)
    assert ends
    assert all(end["data"]["usage"]["input_tokens"] for end in ends), ends
    assert "productive" in {end["data"]["outcome"] for end in ends}, ends


def test_a_cut_connection_is_a_failure(bench: Bench) -> None:
    ended = bench.session(CUT)
    # gptme takes what came for the whole answer, and says so with exit code 0.
    told = {"claude": ("failed", "api_error"), "codex": ("failed", "turn_failed"), "gptme": ("unproven", "no_evidence")}
    assert (ended["outcome"], ended["reason"]) == told[bench.agent]
    assert bench.limit() is None


def test_a_connection_cut_once_is_made_again(bench: Bench) -> None:
    ended = bench.session(CUT, outcome("productive"), done(bench.agent))
    assert ended["outcome"] == "productive"


def test_a_hang_is_timed_out_and_can_be_resumed(bench: Bench) -> None:
    ended = bench.session(HANG, timeout="30s")
    assert (ended["outcome"], ended["reason"]) == ("timed_out", "timeout")
    assert ended["resume_token"]
    assert bench.server is not None
    assert any(path.startswith("POST") for path in bench.server.requests)


@pytest.mark.parametrize("bench", ["codex"], indirect=True)  # which waits out a retry-after of hours
def test_a_wait_for_quota_is_timed_out_and_closes_the_pool(bench: Bench) -> None:
    refusal = refuse(429, "rate_limit_error", "Too many requests", {"retry-after": str(RESET_IN)})
    ended = bench.session(refusal, timeout="6s")
    assert ended["outcome"] == "timed_out"
    limit = bench.limit()
    assert limit is not None
    assert limit["until"] is None


def test_the_words_of_the_preset_are_what_runs(bench: Bench) -> None:
    bench.session(done(bench.agent))
    argv = json.loads(next(iter(bench.project.run_dirs())).joinpath("spec.json").read_text())["argv"]
    assert argv[0] == bench.agent
    assert argv[-2:] == ["--", "Do what there is to do."]
