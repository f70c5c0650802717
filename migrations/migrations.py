"""The migrations: one function per step, applied under the write lock, never edited after a release."""

from __future__ import annotations

from sqlite_utils import Migrations
from sqlite_utils.db import Database

from migrations.views import VIEWS

migrations = Migrations("loop")

# One end per session; the same list stands in events.lifecycle.SESSION_ENDS, a test compares them. A migration may not
# import it: it must do in ten years what it did on the day it was released.
_ENDS = "('session.ended', 'session.lost', 'session.spawn_failed')"


@migrations()
def m0001_events(db: Database) -> None:
    """The append-only log and its guards.

    Every unique key of `events` must appear in `events_no_replace`: INSERT OR REPLACE deletes without firing the
    delete trigger, and would otherwise rewrite history in silence.
    """
    for statement in (
        """
        CREATE TABLE events (
          position INTEGER PRIMARY KEY,
          id       TEXT    NOT NULL UNIQUE,
          type     TEXT    NOT NULL,
          version  INTEGER NOT NULL CHECK (version > 0),
          at       TEXT    NOT NULL CHECK (length(at) = 27),
          tick     TEXT,
          cause    INTEGER CHECK (cause < position),
          session  TEXT,
          category TEXT,
          actor    TEXT    NOT NULL,
          data     TEXT    NOT NULL CHECK (json_valid(data)),
          private  TEXT    CHECK (private IS NULL OR json_valid(private)),
          salt     BLOB,
          hash     BLOB    NOT NULL CHECK (length(hash) = 32)
        ) STRICT
        """,
        f"CREATE UNIQUE INDEX events_one_end ON events (session) WHERE type IN {_ENDS}",
        "CREATE INDEX events_by_session ON events (session, position) WHERE session IS NOT NULL",
        "CREATE INDEX events_by_tick ON events (tick, position) WHERE tick IS NOT NULL",
        "CREATE INDEX events_by_type ON events (type, position)",
        """
        CREATE TRIGGER events_no_update BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
        """,
        """
        CREATE TRIGGER events_no_delete BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
        """,
        f"""
        CREATE TRIGGER events_no_replace BEFORE INSERT ON events
        WHEN EXISTS (SELECT 1 FROM events WHERE position = NEW.position OR id = NEW.id)
          OR (NEW.type IN {_ENDS} AND EXISTS (
                SELECT 1 FROM events WHERE session = NEW.session AND type IN {_ENDS}))
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
        """,
        """
        CREATE TRIGGER events_no_gap BEFORE INSERT ON events
        WHEN NEW.position <> (SELECT coalesce(max(position), 0) + 1 FROM events)
        BEGIN SELECT RAISE(ABORT, 'the next position is head + 1'); END
        """,
        """
        CREATE TABLE snapshots (
          version  TEXT    NOT NULL,
          position INTEGER NOT NULL,
          hash     BLOB    NOT NULL CHECK (length(hash) = 32),
          state    BLOB    NOT NULL,
          PRIMARY KEY (version, position)
        ) STRICT, WITHOUT ROWID
        """,
    ):
        db.execute(statement)


@migrations()
def m0002_views(db: Database) -> None:
    """The log as rows, for people: sessions, lock_intervals, decisions, spawns_by_category."""
    for name, text in VIEWS.items():
        db.execute(f"CREATE VIEW {name} AS {text.strip()}")


@migrations()
def m0003_imports(db: Database) -> None:
    """What an imported store must hold beside its events: where it is from, and the digests of what was redacted.

    A store with a row in `origin` is a copy for reading. Its log may begin behind a position (`position`, `at` and
    `hash` are then the event's before its first, `state` what was folded up to there by the folds of that name), so
    that the first position is no longer always 1.
    """
    for statement in (
        """
        CREATE TABLE origin (
          one         INTEGER PRIMARY KEY CHECK (one = 1),
          kind        TEXT    NOT NULL CHECK (kind = 'export' OR kind = 'gptme-locks'),
          store       TEXT    NOT NULL,
          position    INTEGER NOT NULL CHECK (position >= 0),
          at          TEXT    CHECK ((at IS NULL) = (position = 0)),
          hash        BLOB    NOT NULL CHECK (length(hash) = 32),
          folds       TEXT,
          state       BLOB    CHECK ((state IS NULL) = (position = 0)),
          redacted    INTEGER NOT NULL CHECK (redacted BETWEEN 0 AND 1),
          release     TEXT    NOT NULL,
          imported_at TEXT    NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE redacted (
          position INTEGER PRIMARY KEY REFERENCES events,
          digest   BLOB    NOT NULL CHECK (length(digest) = 32)
        ) STRICT
        """,
        *(
            f"""
        CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}
        BEGIN SELECT RAISE(ABORT, 'what an import brought is not changed'); END
        """
            for table in ("origin", "redacted")
            for verb in ("UPDATE", "DELETE")
        ),
        "DROP TRIGGER events_no_gap",
        """
        CREATE TRIGGER events_no_gap BEFORE INSERT ON events
        WHEN NEW.position <> coalesce(
          (SELECT max(position) FROM events), (SELECT position FROM origin), 0) + 1
        BEGIN SELECT RAISE(ABORT, 'the next position is head + 1'); END
        """,
    ):
        db.execute(statement)
