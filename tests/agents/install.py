"""The real agents, from their public packages, at pinned versions, into .cache/agents of the project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "agents"
NPM = {"claude": "@anthropic-ai/claude-code@2.1.330", "codex": "@openai/codex@0.169.0"}
PIP = {"gptme": "gptme==0.35.1"}
PATH = [str(CACHE / "node" / "node_modules" / ".bin"), str(CACHE / "gptme" / "bin")]
SECONDS = 600  # for one installation


def install() -> dict[str, str]:
    """Install what is missing; returns why, for each agent that cannot be had or does not start."""
    missing: dict[str, str] = {}
    for agent, package in NPM.items():
        step = ["npm", "install", "--prefix", str(CACHE / "node"), "--no-audit", "--no-fund", "--loglevel=error"]
        if why := _have(agent, package, [[*step, package]]):
            missing[agent] = why
    for agent, package in PIP.items():
        python = str(CACHE / agent / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
        if why := _have(agent, package, [[sys.executable, "-m", "venv", str(CACHE / agent)], pip]):
            missing[agent] = why
    return missing


def _have(agent: str, package: str, steps: list[list[str]]) -> str | None:
    """Make sure of one agent; returns why it is not to be had, if it is not."""
    if not _answers(agent, package):
        CACHE.mkdir(parents=True, exist_ok=True)
        for step in steps:
            if why := _fails(step):
                return f"{package} cannot be installed: {why}"
    return None if _answers(agent, package) else f"{package} is installed, but {agent} --version does not name it"


def _answers(agent: str, package: str) -> bool:
    """Whether the pinned version is there and starts."""
    program = shutil.which(agent, path=os.pathsep.join(PATH))
    if program is None:
        return False
    home = CACHE / "home"
    home.mkdir(exist_ok=True)
    environ = {**os.environ, "HOME": str(home), "DISABLE_AUTOUPDATER": "1"}
    try:
        done = subprocess.run(
            [program, "--version"], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return package.replace("==", "@").rpartition("@")[2] in done.stdout


def _fails(command: list[str]) -> str | None:
    """Run a step; returns why it failed, in one line, if it did."""
    if shutil.which(command[0]) is None:
        return f"there is no {command[0]} here"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    telling = [line for line in lines if "error" in line.lower()] or lines
    return f"{Path(command[0]).name}: {' '.join(telling[:2]) or f'exit code {done.returncode}'}"[:300]
