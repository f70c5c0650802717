"""Gates asked: one command per category, all at once, each answer an event. Outside any transaction."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from events.catalog import GateAnswered
from loop.command import CommandResult, render_argv, run_bounded
from loop.config import Config

OUTPUT_LIMIT = 1 << 16  # bytes that a gate may print
TEXT_KEPT = 2_000  # characters of what it printed that the log keeps
AT_ONCE = 64  # gates that run at the same time; further ones wait their turn

Answers = Mapping[str, GateAnswered]
"""Category -> what its gate said."""


def asked(config: Config) -> dict[str, tuple[str, ...]]:
    """The gates that a pass asks: of every category that it may start. By hand none is asked, nor does any bind."""
    return {
        name: category.gate
        for name, category in config.categories.items()
        if category.gate is not None and category.parallel is not False
    }


@contextlib.contextmanager
def asking(config: Config, environ: Mapping[str, str], *, dry_run: bool) -> Iterator[Answers]:
    """Ask all gates while the block runs; at its end the answers are there, each had within `selector.timeout`.

    Never raises for what a gate does. Where the block raises (Ctrl-C), the gates are killed.
    """
    gates, over = asked(config), threading.Event()
    answers: dict[str, GateAnswered] = {}
    if not gates:
        yield answers
        return
    with ThreadPoolExecutor(min(len(gates), AT_ONCE), thread_name_prefix="gate") as pool:
        try:
            running = {
                name: pool.submit(_ask, config, name, gate, environ, dry_run, over) for name, gate in gates.items()
            }
            yield answers
            answers.update({name: future.result() for name, future in running.items()})
        except BaseException:
            over.set()
            pool.shutdown(cancel_futures=True)
            raise


def _ask(
    config: Config, name: str, gate: tuple[str, ...], environ: Mapping[str, str], dry_run: bool, over: threading.Event
) -> GateAnswered:
    result = run_bounded(
        render_argv(gate, {"category": name}),
        cwd=config.directory,
        env=environ,
        timeout=config.selector.timeout,
        limit_bytes=OUTPUT_LIMIT,
        extra_env={"LOOP_DRY_RUN": "1"} if dry_run else None,
        over=over,
    )
    return answer(result)


def answer(result: CommandResult) -> GateAnswered:
    """A gate's end as an event: exit code 0 is work, 1 no work, and everything else an error."""
    said = {0: "work", 1: "no_work"}.get(-1 if result.failure or result.code is None else result.code, "error")
    text = result.text if said == "error" else result.stdout.decode("utf-8", "replace").strip()
    return GateAnswered.model_validate(
        {
            "answer": said,
            "exit_code": result.code if result.failure is None else None,
            "seconds": round(result.seconds, 3),
            "text": text.encode("utf-8", "replace").decode()[:TEXT_KEPT] or None,
        }
    )
