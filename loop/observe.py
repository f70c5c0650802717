"""Observation: the selector asked, its answer as a fact. Runs outside any transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from events.catalog import RankingEntry, SelectionMade, SelectionRejected
from events.envelope import to_json
from loop.cascade.payload import Payload, kept, payload
from loop.cascade.tasks import Files, read
from loop.command import run_bounded
from loop.config import Config
from loop.home import resolved
from loop.selector import Ranking, Rejection, parse, rejected_by_run
from projections.view import View

PAYLOAD_LIMIT = 1 << 20  # bytes of an answer that are read
PAYLOAD_KEPT = 32_768  # characters of it that the log keeps

Selection = SelectionMade | SelectionRejected


def ask_selector(
    config: Config, view: View, environ: Mapping[str, str], *, dry_run: bool, files: Files | None = None
) -> Selection:
    """The selector's answer as an event: run the command, or answer from the view where `builtin = true`.

    Never raises for what a selector does; `dry_run` tells it so with LOOP_DRY_RUN=1. `files` stand in for the task
    files that the built-in one reads.
    """
    if config.selector.command is None:
        answer = builtin_payload(config, view, files)
        made = interpret(to_json(answer).encode(), config, source="builtin")
        if isinstance(made, SelectionMade):
            text = to_json(kept(answer, PAYLOAD_KEPT))
            found = {"plateau": answer["plateau"], "empty": list(answer["needs_supply"]), "payload": _bounded(text)}
            return made.model_copy(update=found)
        return made
    result = run_bounded(
        config.selector.command,
        cwd=config.directory,
        env=environ,
        timeout=config.selector.timeout,
        limit_bytes=PAYLOAD_LIMIT,
        extra_env={"LOOP_DRY_RUN": "1"} if dry_run else None,
    )
    refused = rejected_by_run(result)
    if refused is not None:
        stderr = result.stderr.decode("utf-8", "replace")
        return SelectionRejected(
            source="command",
            reason=refused.reason,
            keys=list(refused.keys),
            exit_code=result.code,
            seconds=round(result.seconds, 3),
            digest=_digest(result.stdout),
            text=_bounded(f"{refused.text}\n{stderr}".strip()),
            payload=_text(result.stdout),
        )
    return interpret(result.stdout, config, source="command", exit_code=result.code, seconds=round(result.seconds, 3))


def builtin_payload(config: Config, view: View, files: Files | None = None) -> Payload:
    """What the built-in selector prints: from the view, and `files` or the task files of the project."""
    selector = config.selector
    return payload(
        view,
        read(resolved(config.directory, selector.tasks)) if files is None else files,
        aliases=selector.aliases,
        weights=selector.weights,
        learn=selector.learn,
        default=selector.default_category,
    )


def interpret(
    raw: bytes, config: Config, *, source: str, exit_code: int | None = None, seconds: float | None = None
) -> Selection:
    """A payload as an event, whoever brought it (`command`, `builtin`, `payload`)."""
    answer = parse(raw, aliases=config.selector.aliases, default_category=config.selector.default_category)
    common = {
        "source": source,
        "exit_code": exit_code,
        "seconds": seconds,
        "digest": _digest(raw),
        "payload": _text(raw),
    }
    if isinstance(answer, Rejection):
        return SelectionRejected.model_validate(
            {**common, "reason": answer.reason, "keys": list(answer.keys), "text": _bounded(answer.text)}
        )
    return SelectionMade.model_validate(
        {**common, "tier": answer.tier, "ranking": _entries(answer), "warnings": list(answer.warnings) or None}
    )


def _entries(ranking: Ranking) -> list[RankingEntry]:
    return [
        RankingEntry(
            category=entry.category,
            rule=entry.rule,
            task=entry.task,
            score=None if entry.score is None else float(entry.score),
        )
        for entry in ranking.entries
    ]


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _text(raw: bytes) -> str:
    return _bounded(raw.decode("utf-8", "replace"))


def _bounded(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= PAYLOAD_KEPT else text[:PAYLOAD_KEPT] + "…"
