"""loop.toml: what it may say, what each mistake is answered with, and what of it enters the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from events.errors import ConfigError
from loop.command import render
from loop.config import Config, facts
from loop.config_file import load, parse, prompt_of, read_env_file, session_env
from loop.config_report import Origin, origins, warnings
from loop.duration import format_bytes, format_seconds, parse_bytes, parse_seconds

SMALL = """
[selector]
builtin = true
[categories.code]
command = ["agent"]
"""

FULL = """
[loop]
slots = 6
every = "30m"
jitter = "2m"
policy = "intent"
cwd = "."
state = ".loop"
max_starts_per_hour = 12
max_starts_per_day = 200
stagger = "2s"

[selector]
command = ["./cascade-selector.py", "--json"]
timeout = "30s"
max_age = "15m"
on_reject = "fallback"
fallback_slots = 1
default_category = "code"
aliases = { infra = "infrastructure" }

[allocation]
window = "48h"
max_ratio = 1.75

[respawn]
limit = 1
min_grade = 0.65

[host]
max_load_per_cpu = 1.5
min_memory_available = 0.1
min_disk_free = "1GiB"

[session]
timeout = "50m"
silence = "15m"
grace = "20s"
env = { CI = "sesame-1" }
env_file = ".env"
before = ["./make-worktree", "{session}"]
after = ["./remove-worktree", "{session}"]

[categories.code]
target = 0.25
parallel = true
maintenance = false
note = "…"
command = ["my-agent", "--category", "{category}", "--task", "{task}"]
gate = ["./has-work", "code"]
cooldown = "0s"
backends = ["opus", "sonnet"]
lanes = 1
locks = ["repo-api"]
evidence = "outcome"
exit_codes = { 75 = "refused", 76 = "limited" }
prompt_file = "prompts/code.md"
cwd = "work/{session}"
timeout = "30m"
env = {}

[categories.infrastructure]
parallel = "alone"
prompt = "Mend {task} in {run_dir}"
env = { TOKEN = "sesame-2" }

[backends.opus]
pool = "max-subscription"
command = ["claude", "-p", "{prompt}", "--output-format", "stream-json"]
env = { CLAUDE_CONFIG_DIR = "~/.claude-2", KEY = "sesame-3" }
concurrency = 3
max_runs_per_day = 100

[backends.sonnet]
command = ["claude", "-p", "{prompt}", "--model", "sonnet"]
"""

PATH = Path("/project/loop.toml")


def small(extra: str = "", **sections: str) -> Config:
    """SMALL with `extra` at its end, under `[categories.code]`, and sections before it."""
    head = "\n".join(f"[{name}]\n{body}" for name, body in sections.items())
    return parse(f"{head}\n{SMALL}\n{extra}", PATH)


def problems(text: str) -> list[str]:
    """The lines of the one error that a config gives."""
    with pytest.raises(ConfigError) as caught:
        parse(text, PATH)
    first, *lines = caught.value.message.splitlines()
    assert first.startswith("/project/loop.toml: ")
    assert caught.value.code == "config_invalid"
    assert caught.value.hint
    return [line.strip() for line in lines]


def only_problem(text: str) -> str:
    lines = problems(text)
    assert len(lines) == 1, lines
    return lines[0]


# What it may say


def test_the_documented_defaults() -> None:
    config = small()
    loop, selector, session, code = config.loop, config.selector, config.session, config.categories["code"]
    assert (loop.slots, loop.every, loop.cron, loop.jitter, loop.policy, loop.stagger) == (
        6,
        1800,
        None,
        0,
        "intent",
        0,
    )
    assert (loop.max_starts_per_hour, loop.max_starts_per_day) == (12, None)
    assert (selector.timeout, selector.max_age, selector.on_reject, selector.fallback_slots) == (30, 900, "fallback", 1)
    assert (config.allocation.window, config.allocation.max_ratio) == (172_800, None)
    assert (config.respawn.limit, config.respawn.min_grade) == (1, 0.65)
    assert (session.timeout, session.silence, session.kill_on_silence, session.grace) == (3000, 900, False, 20)
    assert (code.parallel, code.evidence, code.lanes, code.target, code.cooldown) == (True, "outcome", 1, None, None)
    assert config.host.model_dump() == {
        "max_load_per_cpu": None, "min_memory_available": None, "min_disk_free": None,
    }  # fmt: skip
    assert list(config.backends) == ["default"]
    assert config.pool_of("default") == "default"
    assert config.state == Path("/project/.loop")


def test_the_full_example_is_read_and_its_facts_are_json() -> None:
    config = parse(FULL, PATH)
    data, private = facts(config)
    assert json.loads(json.dumps([data, private])) == [data, private]
    assert (data["every"], data["max_ratio"], data["stagger"]) == (1800, 1.75, 2)
    assert data["host"] == {"max_load_per_cpu": 1.5, "min_memory_available": 0.1, "min_disk_free": 1 << 30}
    categories: Any = data["categories"]
    assert categories["code"] == {
        "target": 0.25, "parallel": True, "maintenance": False, "cooldown": 0, "backends": ["opus", "sonnet"],
        "lanes": 1, "locks": ["repo-api"], "evidence": "outcome", "exit_codes": {"75": "refused", "76": "limited"},
        "timeout": 1800, "silence": 900, "kill_on_silence": False, "grace": 20, "gate": True, "own_command": True,
        "env": ["CI"], "max_runs_per_day": None, "max_tokens_per_day": None, "max_cost_per_day": None,
    }  # fmt: skip
    assert categories["infrastructure"]["parallel"] == "alone"
    assert categories["infrastructure"]["env"] == ["CI", "TOKEN"]
    backends: Any = data["backends"]
    assert backends["opus"] == {
        "pool": "max-subscription", "concurrency": 3, "max_runs_per_day": 100, "command": True,
        "env": ["CLAUDE_CONFIG_DIR", "KEY"], "max_tokens_per_day": None, "max_cost_per_day": None,
    }  # fmt: skip
    assert backends["sonnet"]["pool"] == "sonnet"


def test_max_starts_per_hour_is_twice_the_slots_unless_given() -> None:
    assert small(loop="slots = 2").loop.max_starts_per_hour == 4
    assert small(loop="slots = 2\nmax_starts_per_hour = 1").loop.max_starts_per_hour == 1


def test_a_cron_timer_has_a_timezone_and_no_every() -> None:
    loop = small(loop='cron = "*/30 * * * *"\ntimezone = "Europe/Stockholm"').loop
    assert (loop.cron, loop.timezone, loop.every) == ("*/30 * * * *", "Europe/Stockholm", None)
    assert small(loop='cron = "0 6 * * 1"').loop.timezone == "UTC"


def test_a_category_overrides_the_session_and_their_variables_are_merged() -> None:
    config = parse(FULL, PATH)
    code, infrastructure = config.session_of("code"), config.session_of("infrastructure")
    assert (code.timeout, infrastructure.timeout) == (1800, 3000)
    assert (code.cwd, infrastructure.cwd) == ("/project/work/{session}", "/project")
    assert infrastructure.env == {"CI": "sesame-1", "TOKEN": "sesame-2"}
    assert code.before == ("./make-worktree", "{session}")
    assert code.env_file == Path("/project/.env")
    silent = small('silence = "1m"\nkill_on_silence = true\ngrace = 0').session_of("code")
    assert (silent.silence, silent.kill_on_silence, silent.grace) == (60, True, 0)


def test_braces_in_the_projects_own_path_are_no_placeholders() -> None:
    config = parse(SMALL + 'cwd = "work/{session}"', Path("/odd{name}/loop.toml"))
    assert render(config.session_of("code").cwd, {"session": "s1"}) == "/odd{name}/work/s1"


def test_a_command_is_the_categorys_own_or_else_its_backends() -> None:
    config = parse(FULL, PATH)
    assert config.command_of("code", "opus")[0] == "my-agent"
    assert config.command_of("infrastructure", "sonnet")[-1] == "sonnet"
    assert config.backends_of("infrastructure") == ("opus", "sonnet")


def test_a_selector_command_may_hold_any_braces() -> None:
    text = SMALL.replace("builtin = true", """command = ["sh", "-c", 'echo {"all_scores": {}}']""")
    assert parse(text, PATH).selector.command == ("sh", "-c", 'echo {"all_scores": {}}')


# Mistakes


def test_an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() -> None:
    assert only_problem(SMALL + 'tiemout = "5m"') == "[categories.code] tiemout: unknown key; did you mean timeout?"
    assert only_problem(SMALL + "[sesion]\n") == "[sesion]: unknown table; did you mean [session]?"
    assert only_problem(SMALL + "[session]\nslots = 3") == "[session] slots: unknown key; it belongs in [loop]"
    assert "known: window, max_ratio" in only_problem(SMALL + "[allocation]\nqqq = 3")


def test_all_problems_of_a_file_come_at_once() -> None:
    lines = problems(
        """
        [loop]
        slots = 0
        evry = "5m"
        [session]
        timeout = "0s"
        [categories.code]
        target = 2
        [categories."../x"]
        command = "agent --fast"
        """
    )
    assert [line.partition(":")[0] for line in lines] == [
        "[loop] slots", "[loop] evry", "[selector]", "[session] timeout", "[categories.code] target", "[categories]",
        "[categories.'../x'] command",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["../x", "a b", "", "c" * 65, "code#1", "Code", "-x", ".x", "ä", "x\\n"])
def test_names_of_categories_backends_and_locks_are_plain(name: str) -> None:
    for text in (
        f'{SMALL}\n[categories."{name}"]\ncommand = ["a"]',
        f'{SMALL}\n[backends.default]\n[backends."{name}"]',
        f'{SMALL}\nlocks = ["{name}"]',
    ):
        assert "is no usable name; use 1 to 64 of a-z 0-9 _ . -" in only_problem(text)


@pytest.mark.parametrize("name", ["0", "a.b-c_d", "c" * 64])
def test_plain_names_are_taken(name: str) -> None:
    assert name in parse(f'{SMALL}\n[categories."{name}"]\ncommand = ["a"]', PATH).categories


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('command = "agent --fast"', 'write ["agent", "--fast"]'),
        ("command = []", "is no command"),
        ('command = ["a", 5]', "is no command"),
        ('command = [""]', "its first word is the program"),
        ('command = ["a", "{taks}"]', "unknown placeholder {taks}"),
        ('command = ["a", "{"]', "stray {"),
        ('cwd = "{where}"', "unknown placeholder {where}"),
        ('prompt = "{prompt}"', "unknown placeholder {prompt}"),
        ('prompt = "x"\nprompt_file = "y"', "exclude each other"),
        ('gate = ["a", "{session}"]', "unknown placeholder {session}"),
        ("target = 1.5", "1.5 should be less than or equal to 1"),
        ("target = nan", "finite"),
        ("target = true", "number"),
        ("target = 0", "every target is 0"),
        ("parallel = 1", 'neither true, false nor "alone"'),
        ('parallel = "solo"', 'neither true, false nor "alone"'),
        ("lanes = 0", "0 should be greater than or equal to 1"),
        ('timeout = "0s"', "longer than 0s"),
        ("timeout = -1", "no usable duration"),
        ("timeout = inf", "no usable duration"),
        ('timeout = "50"', 'write "50s" or "50m"'),
        ('timeout = "5 parsecs"', "is no duration"),
        ("timeout = true", "is no duration"),
        ("exit_codes = { 256 = 'noop' }", "'256' is no exit code"),
        ("exit_codes = { -1 = 'noop' }", "'-1' is no exit code"),
        ("exit_codes = { 5 = 'fine' }", "'fine' is no outcome"),
        ('evidence = "hearsay"', "'outcome', 'git' or 'exit'"),
        ('locks = "repo"', 'write ["repo"]'),
        ('locks = ["a", "a"]', "names one twice"),
        ('locks = ["code"]', "its own key already"),
        ('backends = ["opsu"]', "no backend 'opsu'"),
        ("backends = []", "allows none"),
        ("env = { A = 5 }", "A: the value must be a string"),
        ('env = { "A B" = "5" }', "no name of an environment variable"),
        ('env = { LOOP_TOKEN = "5" }', "loop's own"),
        ('cwd = ""', "is no path"),
        ("note = 5", "a string is wanted"),
    ],
)
def test_mistakes_in_a_category(body: str, message: str) -> None:
    text = SMALL.replace('command = ["agent"]\n', "") if body.startswith("command") else SMALL
    line = only_problem(text + body)
    assert line.startswith("[categories")
    assert message in line


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('every = "5m"\ncron = "* * * * *"', "[loop] every: every and cron exclude each other"),
        ('cron = "61 * * * *"', "[loop] cron: '61 * * * *' is no cron expression"),
        ('cron = "* * * * * *"', "five fields"),
        ('cron = "0 0 30 2 *"', "[loop] cron"),
        ('cron = "* * * * *"\ntimezone = "Europe/Stokholm"', "no known timezone"),
        ('cron = "* * * * *"\ntimezone = "../../etc/passwd"', "no known timezone"),
        ('timezone = "UTC"', "[loop] timezone: goes with cron"),
        ('slots = "6"', "[loop] slots: '6' should be a valid integer"),
        ("slots = 1.5", "[loop] slots"),
        ('policy = "greedy"', "'greedy' should be 'intent' or 'fair'"),
        ('jitter = "-1s"', "is no duration"),
    ],
)
def test_mistakes_in_the_loop_section(body: str, message: str) -> None:
    assert message in only_problem(f"[loop]\n{body}\n{SMALL}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "a source is missing"),
        ("builtin = false", "a source is missing"),
        ('builtin = true\ncommand = ["a"]', "exclude each other"),
        ('command = "./select --json"', 'write ["./select", "--json"]'),
        ('builtin = true\ndefault_category = "cod"', "no category 'cod'; did you mean code?"),
        ('builtin = true\naliases = { x = "news" }', "no category 'news'; configured: code"),
        ("builtin = true\nfallback_slots = 0", "greater than or equal to 1"),
        ('builtin = true\non_reject = "panic"', "'fallback' or 'hold'"),
    ],
)
def test_mistakes_in_the_selector_section(body: str, message: str) -> None:
    line = only_problem(SMALL.replace("builtin = true", body))
    assert line.startswith("[selector]")
    assert message in line


def test_a_config_without_selector_says_so_with_the_mend() -> None:
    line = only_problem('[categories.code]\ncommand = ["a"]')
    assert line == '[selector]: missing; write command = ["./selector"] or builtin = true under it'


def test_a_category_needs_a_command_on_every_backend_it_may_use() -> None:
    bare = "[selector]\nbuiltin = true\n[categories.code]\n"
    assert only_problem(bare).startswith("[categories.code]: no command; write command = ")
    text = f'{bare}[backends.a]\ncommand = ["a"]\n[backends.b]'
    assert "[backends.b]" in only_problem(text)
    assert parse(text.replace("[backends.a]", 'backends = ["a"]\n[backends.a]', 1), PATH)


@pytest.mark.parametrize("text", ["categories = 5", "backends = []", "session = 1", "[categories]\ncode = 5"])
def test_what_must_be_a_table_is_told(text: str) -> None:
    assert any("wanted" in line for line in problems(text))


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "loop.toml").write_text("[loop]\nslots 6\n")
    with pytest.raises(ConfigError, match=r"loop\.toml is not valid TOML: .*line 2"):
        load(tmp_path / "loop.toml")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "loop.toml")
    assert (caught.value.code, caught.value.hint) == ("config_missing", "run: loop init")


# What enters the log


def test_no_value_of_a_variable_enters_the_facts_the_origins_or_an_error() -> None:
    config = parse(FULL, PATH)
    for told in (json.dumps(facts(config)), str(origins(config)), str(warnings(config))):
        assert "sesame" not in told
    assert "KEY" in json.dumps(facts(config))
    assert "backends.opus.env.KEY" in str(origins(config))
    wrong = FULL.replace('TOKEN = "sesame-2"', 'TOKEN = ["sesame-2"]').replace('{ CI = "sesame-1" }', '"sesame-1"')
    assert len(problems(wrong)) == 2
    assert "sesame" not in str(problems(wrong))


def test_the_hash_changes_with_the_config_and_not_with_a_secret() -> None:
    def hash_of(text: str) -> object:
        return facts(parse(text, PATH))[0]["hash"]

    assert hash_of(FULL) == hash_of(FULL.replace("sesame-1", "other"))
    assert hash_of(FULL) == hash_of(FULL.replace('"50m"', "3000"))
    for old, new in (('"50m"', '"51m"'), ("has-work", "had-work"), ("CI =", "CJ ="), ('note = "…"', "")):
        assert hash_of(FULL) != hash_of(FULL.replace(old, new))


def test_private_facts_hold_what_no_fold_may_read() -> None:
    data, private = facts(parse(FULL, PATH))
    for word in (
        "cascade-selector",
        "my-agent",
        "has-work",
        "make-worktree",
        "prompts/code.md",
        "Mend {task}",
        "claude",
    ):
        assert word in json.dumps(private)
        assert word not in json.dumps(data)


# Files it names


def test_an_env_file_is_read_without_interpolation(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("\ufeff# comment\n\nA=1\nexport B = two words \nC=\"quo ted\"\nD='$A #x'\nE=\nF=a=b\n")
    assert read_env_file(path) == {"A": "1", "B": "two words", "C": "quo ted", "D": "$A #x", "E": "", "F": "a=b"}


@pytest.mark.parametrize("line", ["sesame", "=x", "A B=x", "LOOP_TOKEN=1", "ä=1"])
def test_a_wrong_line_of_an_env_file_is_named_by_its_number_only(tmp_path: Path, line: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f"# first\n{line}\n")
    with pytest.raises(ConfigError, match="line 2") as caught:
        read_env_file(path)
    assert "sesame" not in caught.value.message


def test_a_missing_env_file_stops_the_session_and_not_the_config(tmp_path: Path) -> None:
    config = parse(FULL, tmp_path / "loop.toml")
    assert any(line.startswith("session.env_file: no file") for line in warnings(config))
    with pytest.raises(ConfigError, match=r"no file .*\.env \(env_file\)"):
        session_env(config, "code", "opus")


def test_the_variables_of_a_session_come_in_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / ".env").write_text("CI=file\nTOKEN=file\nKEY=file\nOWN=file\n")
    env = session_env(parse(FULL, tmp_path / "loop.toml"), "infrastructure", "opus")
    assert env == {
        "CI": "sesame-1", "TOKEN": "sesame-2", "KEY": "sesame-3", "OWN": "file",
        "CLAUDE_CONFIG_DIR": "/home/somebody/.claude-2",
    }  # fmt: skip


def test_a_prompt_comes_from_the_config_or_a_file_whose_other_braces_stay(tmp_path: Path) -> None:
    config = parse(FULL, tmp_path / "loop.toml")
    values = {"task": "t-1 {session}", "run_dir": "/r"}
    assert prompt_of(config, "infrastructure", values) == "Mend t-1 {session} in /r"
    with pytest.raises(ConfigError, match=r"categories\.code\.prompt_file"):
        prompt_of(config, "code", values)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "code.md").write_text('Do {task}{session}: {"a": {}} {prompt}')
    assert prompt_of(config, "code", values) == 'Do t-1 {session}: {"a": {}} {prompt}'
    assert prompt_of(small(), "code", values) == ""


# Warnings


def test_a_small_config_is_warned_of_nothing() -> None:
    assert warnings(small()) == []


def test_limits_have_an_effect_and_are_shown() -> None:
    limits = "max_runs_per_day = 1\nmax_cost_per_day = 2.0\nmax_tokens_per_day = 3\n"
    found = parse(f"{SMALL}[backends.b]\npool = 'p'\n{limits}[pools.p]\nconcurrency = 1\n{limits}", PATH)
    assert warnings(found) == []
    shown = {row.key: row.value for row in origins(found) if row.origin == PATH.name}
    assert shown["backends.b.max_runs_per_day"] == shown["pools.p.max_runs_per_day"] == 1
    assert shown["pools.p.concurrency"] == 1


def test_state_inside_a_sessions_work_tree_is_told(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    path = tmp_path / "loop.toml"
    assert "git work tree" in warnings(parse(SMALL, path))[0]
    assert warnings(parse(f"[loop]\nstate = '{tmp_path.parent / 'elsewhere'}'\n{SMALL}", path)) == []
    assert warnings(parse(f"{SMALL}cwd = 'work/{{session}}'", path)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "target = 0.5", "the targets sum to 0.50"),
        (SMALL + "parallel = false", "only `loop start`"),
        ("[selector]\nbuiltin = true", "there are none"),
        (SMALL.replace('"agent"', '"agent", "{prompt}"'), "neither prompt nor prompt_file"),
        (SMALL + "cwd = '{task}'", "{session} is safe"),
        (f'[loop]\njitter = "1h"\n{SMALL}', "as long as the time between two fires"),
        (SMALL.replace("builtin = true", 'builtin = true\naliases = { code = "code" }'), "hides it"),
    ],
)
def test_what_is_valid_and_odd_is_told(text: str, message: str) -> None:
    assert message in "\n".join(warnings(parse(text, PATH)))


# Origins


def test_every_effective_key_says_where_it_comes_from() -> None:
    rows = {row.key: row for row in origins(parse(FULL, PATH))}
    assert rows["loop.slots"] == Origin("loop.slots", 6, "loop.toml")
    assert rows["loop.timezone"] == Origin("loop.timezone", None, "default")
    assert rows["respawn.limit"].origin == "loop.toml"
    assert rows["host.min_disk_free"].value == "1GiB"
    assert rows["session.env.CI"] == Origin("session.env.CI", "***", "loop.toml")
    assert rows["categories.code.timeout"] == Origin("categories.code.timeout", "30m", "loop.toml")
    assert rows["categories.infrastructure.timeout"] == Origin("categories.infrastructure.timeout", "50m", "loop.toml")
    assert rows["categories.infrastructure.kill_on_silence"].origin == "default"
    assert rows["backends.sonnet.pool"] == Origin("backends.sonnet.pool", "sonnet", "default")
    json.dumps([row.value for row in rows.values()])
    assert {row.key: row.origin for row in origins(small())}["loop.every"] == "default"


# Amounts


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("50m", 3000), ("2h", 7200), ("1h30m", 5400), ("1d", 86_400), ("1w", 604_800), ("0s", 0), ("500ms", 0.5),
        ("1.5h", 5400), (" 90 s ", 90), (90, 90), (0.25, 0.25),
    ],
)  # fmt: skip
def test_durations(text: object, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "50", "1h 30", "1e3s", "-5m", "5M", None, [5], float("nan"), 10**400, "9" * 400 + "s"]
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["50m", "2h", "1h30m", "1d", "0s", "1m1s", "500ms", "1.5s"])
def test_durations_are_written_as_they_are_read(text: str) -> None:
    assert format_seconds(parse_seconds(text)) == text


@pytest.mark.parametrize(
    ("text", "size"), [("1GiB", 2**30), ("500MB", 5 * 10**8), ("1kB", 1000), ("1.5KiB", 1536), (7, 7)]
)
def test_sizes(text: object, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["1G", "1", "GiB", "-1GiB", -1, 1.5, True, "9999TiB9"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError):
        parse_bytes(text)


def test_sizes_are_written_as_they_are_read() -> None:
    assert [format_bytes(size) for size in (0, 1500, 2048, 2**30, 3 * 2**40)] == ["0B", "1500B", "2KiB", "1GiB", "3TiB"]
