"""`EventLog`: the only code that opens or writes the store.

A store is one SQLite file with one append-only table. Positions are gapless because the next one is taken inside
`BEGIN IMMEDIATE`; commit order is position order. Readers open read-only, fetch in pages and hold no transaction
between them, so that nobody's rendering pins the write-ahead log.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from orjson import loads

from events import place
from events.chain import GENESIS, link
from events.clock import Clock, SystemClock
from events.envelope import COLUMNS, Event, Json, Record, Unread, short_id, to_json, to_micros, to_text
from events.errors import DAMAGED, LoopError, StoreBusy, StoreError, StoreGone, StoreImported
from events.origin import SINCE_SCHEMA, Origin
from events.sqlite import (
    BUSY,
    as_ours,
    code_of,
    connect_read_only,
    copy,
    migrate,
    schema_of,
    sqlite3,
    sqlite_version,
    translated,
    wal_is_safe,
)
from events.upcast import LATEST, upcast
from migrations import SCHEMA as SCHEMA

if TYPE_CHECKING:
    from events.catalog import Payload

PAGE = 500  # rows a reader fetches at once
LONG = 1_000  # letters; what is longer, decisions above all, is decoded only for whoever asks: not every fold does
BUSY_SECONDS = 15.0  # how long a writer waits for the write lock
RETRY_SECONDS = 0.001  # constant: SQLite's own back-off lets old waiters starve
CLOCK_TOLERANCE = 2_000_000  # microseconds that the wall clock may lag behind the log without being called stepped

COPY_PAGES = 1024  # pages of a backup between two words of progress

WAL_LIMIT = 64 << 20  # bytes; a longer write-ahead log is cut back to this once it has been written into the store

BULK_CACHE = 65_536  # KiB; ids come in no order, so that their index is written all over

_INSERT = f"INSERT INTO events ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_HEAD = "SELECT position, at, hash FROM events ORDER BY position DESC LIMIT 1"
_FOLD_COLUMNS = "position, type, version, at, tick, cause, session, category, data"

Entropy = Callable[[int], bytes]


class Head(NamedTuple):
    """The newest event: its position, its stored time, its hash. An empty log has position 0 and no time."""

    position: int
    at: str | None
    hash: bytes


BEGINNING = Head(0, None, GENESIS)


class Draft(NamedTuple):
    """An event that has no place in a chain yet; `data` and `private` are the texts to be stored."""

    type: str
    version: int
    at: str
    tick: str | None
    cause: int | None
    session: str | None
    category: str | None
    actor: str
    data: str
    private: str | None

    @classmethod
    def of(
        cls,
        at: str,
        payload: Payload,
        actor: str,
        tick: str | None = None,
        cause: int | None = None,
        session: str | None = None,
        category: str | None = None,
    ) -> tuple[Draft, Json]:
        """The draft of a payload, and its data as folds see it. Raises ValueError for text that UTF-8 cannot carry."""
        data, private = payload.split()
        private_text = None if private is None else to_json(private)
        return cls(
            payload.type, payload.version, at, tick, cause, session, category, actor, to_json(data), private_text
        ), data


class Filter(NamedTuple):
    """What `EventLog.select` looks for; every field left out matches everything. `types` are globs (`lock.*`)."""

    types: tuple[str, ...] = ()
    session: str | None = None
    category: str | None = None
    tick: str | None = None
    cause: int | None = None
    since: str | None = None
    until: str | None = None
    after: int = 0
    upto: int | None = None


class Transaction:
    """One `BEGIN IMMEDIATE` with one clock reading: read the tail, decide, append. Made by `EventLog.transaction`."""

    def __init__(self, log: EventLog, head: Head, now: int) -> None:
        self._log = log
        self._head = head
        self.now = now
        """Microseconds since the epoch; the `at` of everything appended here."""
        self.at = to_text(now)

    @property
    def head(self) -> int:
        """The position of the newest event, appended ones included."""
        return self._head.position

    def session_id(self, token: int) -> str:
        """The id of the session that a `session.requested` at position `token` grants."""
        return short_id("s", self._log.store_id, token)

    def tick_id(self, position: int) -> str:
        """The id of the pass whose `tick.started` is at `position`."""
        return short_id("t", self._log.store_id, position)

    def events(self, after: int) -> list[Event]:
        """Every event behind `after`, for folding the tail under the write lock."""
        return list(self._log.events(after))

    def append(
        self,
        payload: Payload,
        *,
        actor: str,
        tick: str | None = None,
        cause: int | None = None,
        session: str | None = None,
        category: str | None = None,
        at: str | None = None,
    ) -> Event:
        """Append one event at head + 1 and return it as folds will see it.

        `at`, not before head's, is the time of an observation made elsewhere: for imports. Raises StoreError where the
        row is refused (disk full, a second end of one session), ValueError where the payload holds text that UTF-8
        cannot carry.
        """
        if at is None:
            at = self.at
        draft, data = Draft.of(at, payload, actor, tick, cause, session, category)
        position = self.add(draft)
        return Event(position, draft.type, at, tick, cause, session, category, data)

    def add(self, draft: Draft) -> int:
        """Give an event its place in the chain, at head + 1, and write it; returns the position."""
        log, position = self._log, self._head.position + 1
        salt = None if draft.private is None else log.entropy(16)
        row = (position, short_id("e", log.store_id, position), *draft, salt)
        hash = link(self._head.hash, Record(*row, b""))
        log.insert((*row, hash))
        self._head = Head(position, draft.at, hash)
        return position


class EventLog:
    """The log. `open` for writers, `read` for readers, `empty` for a store that does not exist yet."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None, clock: Clock, entropy: Entropy) -> None:
        self._connection = connection
        self._path = path
        self._clock = clock
        self.entropy = entropy
        self._pid = os.getpid()
        self._place = None if path is None else str(path)  # looked at in every transaction, where a Path would cost
        self._found = place.look(self._place)
        self._seen = BEGINNING  # the newest event that this process has seen in a transaction
        self._store_id: str | None = None
        self._ours = -1, 0  # where the log ended after our last transaction: position, microseconds
        self._origin: Origin | Literal["unread"] | None = "unread"

    # ── opening ───────────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        clock: Clock | None = None,
        entropy: Entropy = os.urandom,
        release: str = "",
        bulk: bool = False,
    ) -> EventLog:
        """The store at `path` for writing, created or migrated where needed.

        With `bulk` nothing is durable before the system writes it back, for logs that can be made again: faster.

        Raises StoreError (no database, missing though its directory holds the traces of one, unwritable), StoreTooNew,
        StoreBusy, StoreImported (a copy for reading). Any number of processes may open a new store at once.
        """
        with translated(path):
            place.refuse_loss(path)
            place.create_file(path)
            connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
            log = cls(connection, path, clock or SystemClock(), entropy)
            try:
                log._prepare(release)
                for pragma in ("synchronous = OFF", f"cache_size = -{BULK_CACHE}") if bulk else ():
                    connection.execute(f"PRAGMA {pragma}")
                expected = place.marked(path)
                place.check_mark(path, expected, log.store_id)
                if expected is None:
                    place.mark(path, log.store_id)
            except BaseException:
                connection.close()
                raise
        return log

    @classmethod
    def read(cls, path: Path) -> EventLog:
        """The store at `path` read-only, whatever older schema it has; a missing one reads as an empty log."""
        with translated(path):
            place.refuse_loss(path)
            if not path.exists():
                return cls.empty()
            expected = place.marked(path)  # before the file: a store born meanwhile is marked only then
            connection = connect_read_only(path)
            try:
                connection.execute("PRAGMA query_only = ON")
                version = schema_of(connection, path)
                if version == 0:  # created this instant by somebody who has not migrated it yet
                    place.check_mark(path, expected, "")
                    connection.close()
                    return cls.empty()
                log = cls(connection, path, SystemClock(), os.urandom)
                with suppress(StoreError):  # a log so damaged that it has no id is for `verify` to look at
                    log._store_id = log._read_store_id()
                if log._store_id is not None:
                    place.check_mark(path, expected, log._store_id)
            except BaseException:
                connection.close()
                raise
        return log

    @classmethod
    def empty(cls, schema: int = SCHEMA) -> EventLog:
        """A log in memory with no events, in this schema: what a store that does not exist yet reads as."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        log = cls(connection, None, SystemClock(), os.urandom)
        migrate(connection, schema)
        return log

    @classmethod
    def in_memory(cls, *, clock: Clock, entropy: Entropy = os.urandom, release: str = "") -> EventLog:
        """A writable store in memory, otherwise like `open`: for the simulator and for tests of pure logic."""
        log = cls(sqlite3.connect(":memory:", isolation_level=None), None, clock, entropy)
        log._prepare(release)
        return log

    @classmethod
    def blank(cls, path: Path, *, clock: Clock | None = None, entropy: Entropy = os.urandom) -> EventLog:
        """A new store at `path` with no event at all, for `events.imported` to fill while nobody else can find it.

        Nothing of it is durable before it is synced as a whole.
        """
        with translated(path):
            place.create_file(path)
            connection = sqlite3.connect(path, isolation_level=None)
            try:
                # A rollback journal: the finished store is one file, also readable where nothing can be written.
                for pragma in ("journal_mode = DELETE", "synchronous = OFF", "recursive_triggers = ON"):
                    connection.execute(f"PRAGMA {pragma}")
                connection.execute("BEGIN")
                migrate(connection)
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
        return cls(connection, path, clock or SystemClock(), entropy)

    def refuse_imported(self) -> None:
        """Raises StoreImported for a copy for reading; `open` does, and whoever would act before it opens a store."""
        if self.origin is not None:
            raise StoreImported(
                f"{self._path} was imported: it is a copy for reading, and nothing is started or written there",
                "to act, name your own project: loop -C DIR; to read it: loop status, verify, why, step",
            )

    def close(self) -> None:
        """Close the connection; the log must not be used after."""
        self._connection.close()

    def _prepare(self, release: str) -> None:
        connection = self._connection
        before = schema_of(connection, self._path)
        if before >= SINCE_SCHEMA:
            self.refuse_imported()
        mode = "wal" if wal_is_safe() else "delete"
        self._patiently(f"PRAGMA journal_mode = {mode}")
        for pragma in ("synchronous = FULL", "foreign_keys = ON", "recursive_triggers = ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        connection.execute("PRAGMA busy_timeout = 0")  # from here on the patience is ours: SQLite's starves old waiters
        if before == SCHEMA:
            return
        with self.transaction() as transaction:
            before = schema_of(connection, self._path)  # again: somebody may have migrated while we waited
            if before == SCHEMA:
                return
            if before == 0 and self._path is not None:
                place.check_mark(self._path, place.marked(self._path), "")
            migrate(connection)
            from events.catalog import StoreMigrated

            store = self._store_id = short_id("l", self.entropy(32).hex()) if before == 0 else self.store_id
            transaction.append(
                StoreMigrated(
                    store=store,
                    schema_from=before,
                    schema_to=SCHEMA,
                    sqlite=sqlite_version(),
                    release=release,
                ),
                actor="store",
            )

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One write transaction with one clock reading; commits at the end, rolls back on any exception.

        Time never runs backwards in the log: a reading up to CLOCK_TOLERANCE behind the head takes the head's time,
        one further behind is recorded as `clock.stepped` first.
        """
        if os.getpid() != self._pid:
            raise RuntimeError("a store opened before a fork is used after it; open it again in the child")
        if self._connection.in_transaction:
            raise RuntimeError("a transaction is begun within another")
        try:
            with translated(self._path):
                self._patiently("BEGIN IMMEDIATE")
                self._check_in_place()
                transaction = self._begin()
            yield transaction
            with translated(self._path):
                self._patiently("COMMIT")
            self._ours = transaction.head, transaction.now
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, StoreGone):
                raise self._rescued(error) from None
            raise

    def check_in_place(self) -> None:
        """See that the file is still the one that was opened.

        Raises StoreGone where it was removed, replaced or overwritten. Of a file that is only gone by its name, what it
        held is first copied beside where it was.
        """
        try:
            with translated(self._path):
                self._check_in_place()
        except StoreGone as gone:
            raise self._rescued(gone) from None

    def _check_in_place(self) -> None:
        """What is written into a file that nobody will find again is lost."""
        found = place.look(self._place)
        if found == self._found:
            return
        if found is None or self._found is None or found[0] != self._found[0]:
            raise StoreGone(f"{self._path} was removed or replaced while it was open")
        if self._path is not None:  # written to, by a checkpoint as a rule: every some hundred commits
            self._check_contents(self._path)
            self._found = found

    def _check_contents(self, path: Path) -> None:
        """That our newest event is in the file for others, too: our own connection may only remember it."""
        position, _, hash = self._seen
        if position == 0:
            return
        fresh = connect_read_only(path)
        try:
            row = fresh.execute("SELECT hash FROM events WHERE position = ?", (position,)).fetchone()
        except sqlite3.OperationalError as error:
            if code_of(error) in BUSY:
                return  # somebody has it to himself for a moment: look again next time
            row = None
        except sqlite3.DatabaseError:
            row = None
        finally:
            fresh.close()
        if row is None or row[0] != hash:
            hint = "nothing more is written; end what runs, restore the file from a backup, then start again"
            raise StoreGone(f"{path} was overwritten while it was open: position {position} is not in it", hint)

    def _rescued(self, gone: StoreGone) -> StoreGone:
        """The error with what was done about it: the log, still held open, copied to where `read` and `open` see it."""
        if gone.hint or self._path is None:  # overwritten: there is nothing left to copy
            return gone
        try:
            head = self.head()
            target = place.rescue_of(self._path, head.position, head.hash)
            copy(self._connection, target)
        except (sqlite3.Error, OSError, LoopError) as error:
            hint = f"its log could not be copied ({error}); while process {os.getpid()} lives, it is in /proc/*/fd"
            return StoreGone(gone.message, hint)
        return StoreGone(
            f"{gone.message}; its log up to position {head.position} is saved in {target}",
            f"end what runs, see what is at {self._path}, then: mv {target} {self._path}",
        )

    def _begin(self) -> Transaction:
        """The transaction just begun, with its clock reading."""
        reading = self._clock.now()
        head = self._seen = self._head_to_append_to()
        if head.position == self._ours[0]:
            last = self._ours[1]
        else:
            last = to_micros(head.at) if head.at is not None else reading
        if last - reading <= CLOCK_TOLERANCE:
            return Transaction(self, head, max(reading, last))
        from events.catalog import ClockStepped

        transaction = Transaction(self, head, reading)
        stepped = ClockStepped(expected=to_text(last), observed=to_text(reading), seconds=(reading - last) / 1e6)
        transaction.append(stepped, actor="store")
        return transaction

    def _head_to_append_to(self) -> Head:
        """The newest event; raises where somebody has migrated the store beyond us meanwhile.

        A migration appends, so that a head which is still ours needs no further look.
        """
        try:
            rows = self._patiently(_HEAD)
        except sqlite3.OperationalError:  # no table yet
            rows = []
        if not rows:
            return self.head() if schema_of(self._connection, self._path) else BEGINNING
        head = Head(*rows[0])
        if head.position != self._ours[0]:
            schema_of(self._connection, self._path)
        return head

    def _patiently(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of a statement that may find the store busy; tried again each millisecond for BUSY_SECONDS."""
        deadline = None
        while True:
            try:
                rows: list[Any] = self._connection.execute(statement, values).fetchall()
                return rows
            except sqlite3.OperationalError as error:
                if code_of(error) not in BUSY:
                    raise
                now = self._clock.monotonic()
                deadline = now + BUSY_SECONDS if deadline is None else deadline
                if now >= deadline:
                    raise StoreBusy(
                        f"{self._path}: another process held the lock for {BUSY_SECONDS:.0f} s",
                        "nothing was written; run the command again, or see who holds it with `fuser`",
                    ) from None
                self._clock.sleep(RETRY_SECONDS)

    def insert(self, row: Sequence[Any]) -> None:
        """Write one whole row, in the order of COLUMNS, inside a transaction; for `Transaction.append` and imports."""
        try:
            self._connection.execute(_INSERT, row)
        except sqlite3.Error as error:
            raise as_ours(self._path, error) from error

    # ── looking after it ──────────────────────────────────────────────────────────────────────────────────────────────

    def size(self) -> int:
        """Bytes that the store takes, its write-ahead log aside."""
        return int(self._pragma("page_count")[0]) * int(self._pragma("page_size")[0])

    def write_back(self) -> bool:
        """Write the write-ahead log into the store and cut its file; False where a reader or writer is in the way."""
        return self._pragma("wal_checkpoint(TRUNCATE)")[0] == "0"

    def quick_check(self) -> list[str]:
        """What SQLite finds damaged, a line each; empty for a sound store."""
        return [line for line in self._pragma("quick_check") if line != "ok"]

    def journal_mode(self) -> str:
        """`wal`, or `delete` where the SQLite library is not safe with it."""
        return self._pragma("journal_mode")[0]

    def schema(self) -> int:
        """The store's schema number; SCHEMA is today's."""
        return int(self._pragma("user_version")[0])

    def _pragma(self, name: str) -> list[str]:
        with translated(self._path):
            return [str(row[0]) for row in self._patiently(f"PRAGMA {name}")]

    def copy_to(self, draft: Path, progress: Callable[[int, int], None] | None = None) -> None:
        """Write the whole store into the new file `draft` (0600); `progress` hears (pages done, pages in all).

        One file with a rollback journal, so that it can be read where nothing can be written; nothing of it is durable
        before it is synced. Writers may go on meanwhile: hold `events.audit.still` to know which head the copy has.
        Raises StoreError.
        """
        with translated(draft):
            place.create_file(draft)
            copy = sqlite3.connect(draft, isolation_level=None)
            try:
                copy.execute("PRAGMA synchronous = OFF")

                def step(status: int, remaining: int, total: int) -> None:
                    if progress is not None:
                        progress(total - remaining, total)

                self._connection.backup(copy, pages=COPY_PAGES, progress=step, sleep=0)
                copy.execute("PRAGMA journal_mode = DELETE").fetchall()
            except sqlite3.Error as error:  # a backup's has no code
                hint = "look at the disk and its free space; nothing was replaced"
                raise StoreError(f"cannot copy {self._path} to {draft}: {error}", hint) from error
            finally:
                copy.close()

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with translated(self._path):
            return self._patiently(query, values)

    def _row(self, query: str, values: Sequence[Any] = ()) -> Any:
        return next(iter(self._rows(query, values)), None)

    @property
    def store_id(self) -> str:
        """The store's name for good, from `store.migrated` at position 1; empty for an empty log."""
        if self._store_id is None:
            self._store_id = self._read_store_id()
        return self._store_id

    def _read_store_id(self) -> str:
        row = self._row("SELECT data FROM events WHERE position = 1")
        if row is None:
            return "" if self.origin is None else self.origin.store
        try:
            return str(loads(row[0])["store"])
        except (ValueError, LookupError, TypeError):
            raise StoreError(f"{self._path}: event 1 does not say which store this is", DAMAGED) from None

    @property
    def origin(self) -> Origin | None:
        """Where an imported store comes from; None for a store of our own."""
        if self._origin == "unread":
            known = self.schema() >= SINCE_SCHEMA
            row = self._row(f"SELECT {', '.join(Origin._fields)} FROM origin") if known else None
            found = None if row is None else Origin(*row)
            self._origin = None if found is None else found._replace(redacted=bool(found.redacted))
        return self._origin

    def base(self) -> Head:
        """The event before the log's first: the empty log's, but where an import holds only a range."""
        origin = self.origin
        return BEGINNING if origin is None else Head(origin.position, origin.at, origin.hash)

    def head(self) -> Head:
        """The newest event."""
        row = self._row("SELECT position, at, hash FROM events ORDER BY position DESC LIMIT 1")
        return self.base() if row is None else Head(*row)

    def at(self, position: int) -> Head:
        """The event at `position` as if it were the newest; position 0 is the empty log.

        Raises StoreError where there is none.
        """
        row = self._row("SELECT position, at, hash FROM events WHERE position = ?", (position,))
        if row is not None:
            return Head(*row)
        base = self.base()
        if position == base.position:
            return base
        raise StoreError(
            f"the log has no position {position}",
            f"it begins at {base.position + 1} and ends at {self.head().position}",
        )

    def position_at(self, at: str) -> int:
        """The last position whose time is not after `at` (stored text); the base's, or 0, where the log begins later.

        Where the clock was stepped back the log's order rules: the answer is the newest such event.
        """
        # Time rises from one step of the clock to the next, so that the newest stretch that begins early enough has it.
        row = self._row("SELECT coalesce(max(position), 1) FROM events WHERE type = 'clock.stepped' AND at <= ?", (at,))
        low, high = max(self.base().position, int(row[0]) - 1), self._end_of_stretch(int(row[0]))
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if str(self.at(middle).at) <= at else (low, middle - 1)
        return low

    def _end_of_stretch(self, position: int) -> int:
        """The last position before the clock was next stepped; head where it was not."""
        after = self._row("SELECT min(position) FROM events WHERE type = 'clock.stepped' AND position > ?", (position,))
        return self.head().position if after[0] is None else int(after[0]) - 1

    def events(self, after: int = 0, upto: int | None = None) -> Iterator[Event]:
        """Events after a position in order, decoded and upcast, fetched in pages."""
        end = 2**62 if upto is None else upto
        query = f"SELECT {_FOLD_COLUMNS} FROM events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?"
        while True:
            rows = self._rows(query, (after, end, PAGE))
            yield from self._decoded(rows)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def events_of(self, types: Collection[str], after: int = 0, upto: int | None = None) -> Iterator[Event]:
        """Like `events`, but only those of `types`: the others are not even read, for each type has its index."""
        end = 2**62 if upto is None else upto
        one = f"SELECT {_FOLD_COLUMNS} FROM events WHERE type = ? AND position > ? AND position <= ?"
        query = f"{' UNION ALL '.join([one] * len(types))} ORDER BY position LIMIT ?"  # merged, not sorted
        while types:
            rows = self._rows(query, [value for type in types for value in (type, after, end)] + [PAGE])
            yield from self._decoded(rows)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def _decoded(self, rows: Sequence[Any]) -> Iterator[Event]:
        """Rows as folds see them. Raises StoreError for one that a fault has made unreadable."""
        position, latest = 0, LATEST.get
        try:
            for position, type, version, at, tick, cause, session, category, data in rows:
                current = version == latest(type, 1)
                if current and len(data) > LONG:
                    yield Unread(position, type, at, tick, cause, session, category, data)
                    continue
                found = loads(data)
                yield Event(
                    position, type, at, tick, cause, session, category,
                    found if current else upcast(type, version, found),
                )  # fmt: skip
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self._path}: event {position} cannot be read: {error}", DAMAGED) from error

    def select(self, wanted: Filter, *, limit: int | None = None, newest: bool = False) -> list[Record]:
        """Whole rows that match, in order of position; with `newest` the last `limit` of them."""
        clauses, values = ["position > ?"], [wanted.after]  # type: list[str], list[Any]
        if wanted.types:
            clauses.append("(" + " OR ".join("type GLOB ?" for _ in wanted.types) + ")")
            values += wanted.types
        for column, operator, value in (
            ("position", "<=", wanted.upto),
            ("session", "=", wanted.session),
            ("category", "=", wanted.category),
            ("tick", "=", wanted.tick),
            ("cause", "=", wanted.cause),
            ("at", ">=", wanted.since),
            ("at", "<=", wanted.until),
        ):
            if value is not None:
                clauses.append(f"{column} {operator} ?")
                values.append(value)
        order = "DESC" if newest else "ASC"
        query = f"SELECT {', '.join(COLUMNS)} FROM events WHERE {' AND '.join(clauses)} ORDER BY position {order}"
        if limit is not None:
            query += " LIMIT ?"
            values.append(limit)
        rows = [Record(*row) for row in self._rows(query, values)]
        return rows[::-1] if newest else rows

    def ids(self, prefix: str, limit: int = 10) -> list[tuple[str, str]]:
        """(kind, id) of sessions, passes and events whose id begins with `prefix`; kind is a column's name."""
        found: list[tuple[str, str]] = []
        upper = prefix + "\x7f"
        for column in ("session", "tick", "id"):
            rows = self._rows(
                f"SELECT DISTINCT {column} FROM events WHERE {column} >= ? AND {column} < ? LIMIT ?",
                (prefix, upper, limit),
            )
            found += [(column, str(row[0])) for row in rows]
        return found

    def position_of_id(self, id: str) -> int:
        """The position of the event with this id. Raises StoreError where there is none."""
        row = self._row("SELECT position FROM events WHERE id = ?", (id,))
        if row is None:
            raise StoreError(f"no event has the id {id!r}")
        return int(row[0])

    def worker_pids(self, sessions: Sequence[str]) -> dict[str, int]:
        """Session -> its worker's pid, of those given that ever started."""
        marks = ", ".join("?" * len(sessions))
        rows = self._rows(
            f"SELECT session, data FROM events WHERE type = 'session.started' AND session IN ({marks})", sessions
        )
        return {str(session): int(loads(data)["pid"]) for session, data in rows}

    # ── snapshots ─────────────────────────────────────────────────────────────────────────────────────────────────

    def load_snapshot(self, version: str, upto: int) -> tuple[int, bytes] | None:
        """(position, state) of the newest snapshot of this version at or before `upto`, its hash still the chain's."""
        row = self._row(
            "SELECT s.position, s.state FROM snapshots s JOIN events e USING (position)"
            " WHERE s.version = ? AND s.position <= ? AND s.hash = e.hash ORDER BY s.position DESC LIMIT 1",
            (version, upto),
        )
        return None if row is None else (int(row[0]), bytes(row[1]))

    def snapshot_bytes(self, version: str) -> int:
        """What the states of all snapshots of this version take, in bytes."""
        return int(self._row("SELECT coalesce(sum(length(state)), 0) FROM snapshots WHERE version = ?", (version,))[0])

    def save_snapshot(self, version: str, position: int, state: bytes) -> None:
        """Keep `state` for `position`; snapshots of other versions of the folds are dropped, they cannot be read."""
        with self.transaction():
            self._connection.execute("DELETE FROM snapshots WHERE version <> ?", (version,))
            self._connection.execute(
                "INSERT OR IGNORE INTO snapshots (version, position, hash, state)"
                " SELECT ?, position, hash, ? FROM events WHERE position = ?",
                (version, state, position),
            )
