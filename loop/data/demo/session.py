"""A session of the demo: reads some of the files in `material/` with its category's question and notes what it finds.

    session.py CATEGORY TASK BACKEND

It stands where an agent would stand, and shows what one owes the loop: one file, $LOOP_OUTCOME, that says how it went.
A file that it has not noted yet is work; the grade is the share of the files it read that answered its question.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

FILES_PER_SESSION = 5
SECONDS_PER_FILE = (0.15, 0.6)  # at least, at most: an agent reads, and waits for its model
LETTERS_PER_SECOND = 20_000


def code(name: str, text: str) -> str | None:
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    longest = max(found, key=lambda node: (node.end_lineno or 0) - node.lineno, default=None)
    return f"{len(found)} functions; the longest is {longest.name}, line {longest.lineno}" if longest else None


def triage(name: str, text: str) -> str | None:
    places = sum(isinstance(node, ast.Raise | ast.ExceptHandler) for node in ast.walk(ast.parse(text)))
    return f"{places} places where an error is raised or caught" if places else None


def research(name: str, text: str) -> str | None:
    found = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.module}
    return f"rests on {', '.join(sorted(found - {'__future__'}))}" if found - {"__future__"} else None


def news(name: str, text: str) -> str | None:
    return time.strftime("last changed on %Y-%m-%d", time.localtime(Path("material", name).stat().st_mtime))


def strategic(name: str, text: str) -> str | None:
    lines = text.splitlines()
    return f"{len(lines)} lines: is it one idea, or two?" if len(lines) > 40 else None


def content(name: str, text: str) -> str | None:
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0] or None


def monitoring(name: str, text: str) -> str | None:
    """Whether the file is what it was when the demo began."""
    wanted = json.loads(Path("checksums.json").read_text("utf-8")).get(name)
    return "unchanged" if hashlib.sha256(text.encode()).hexdigest() == wanted else "CHANGED since the demo began"


def novelty(name: str, text: str) -> str | None:
    word: str = max(re.findall(r"[a-z]+", text.lower()), key=len, default="")
    return f"the longest word is {word}" if word else None


def infrastructure(name: str, text: str) -> str | None:
    return f"compiles to {len(compile(text, name, 'exec').co_code)} bytes at its top level"


def cleanup(name: str, text: str) -> str | None:
    trailing = sum(line != line.rstrip() for line in text.splitlines())
    return f"{trailing} lines end in blanks" if trailing else None


QUESTIONS: dict[str, Callable[[str, str], str | None]] = {
    "code": code,
    "triage": triage,
    "research": research,
    "news": news,
    "strategic": strategic,
    "content": content,
    "monitoring": monitoring,
    "novelty": novelty,
    "infrastructure": infrastructure,
    "cleanup": cleanup,
}


def work(category: str, task: str) -> dict[str, object]:
    """Read and note the next files, the task's own first; returns the outcome."""
    notes = Path("notes", category)
    notes.mkdir(parents=True, exist_ok=True)
    order = Path("tasks", f"{task}.json")
    asked = [json.loads(order.read_text("utf-8"))["file"]] if task and order.exists() else []
    unread = sorted(path.name for path in Path("material").iterdir() if not (notes / f"{path.name}.txt").exists())
    batch = [*asked, *(name for name in unread if name not in asked)][:FILES_PER_SESSION]
    answers = 0
    for name in batch:
        text = Path("material", name).read_text("utf-8")
        answer = QUESTIONS[category](name, text)
        least, most = SECONDS_PER_FILE
        time.sleep(min(most, least + len(text) / LETTERS_PER_SECOND))
        (notes / f"{name}.txt").write_text(f"{answer or 'nothing'}\n", "utf-8")
        print(f"{name}: {answer or 'nothing'}", flush=True)
        answers += answer is not None
    if asked:
        order.unlink(missing_ok=True)
    summary = f"read {len(batch)} files, {answers} answered"
    if not answers:
        return {"outcome": "noop", "summary": summary}
    return {"outcome": "productive", "grade": round(answers / len(batch), 2), "summary": summary}


def main(category: str, task: str, backend: str) -> int:
    """Do the work, unless the account is used up, or another session of this category is found at work."""
    resets_at = json.loads(Path("used-up.json").read_text("utf-8")).get(backend)
    with open(f".at-work-{category}", "w") as witness:
        try:
            fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            outcome: dict[str, object] = {"outcome": "failed", "summary": f"another session of {category} is at work"}
        else:
            if resets_at is not None:
                outcome = {"outcome": "limited", "resets_at": resets_at, "summary": f"{backend} is used up"}
            else:
                outcome = work(category, task)
    Path(os.environ["LOOP_OUTCOME"]).write_text(json.dumps(outcome), "utf-8")
    print(outcome["summary"])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
