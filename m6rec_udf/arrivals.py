"""What other transactions write while a build runs: found when the build commits.

A row takes its number (``event_seq``, ``feedback_seq``) when it is inserted and is seen when it is committed. So a row
may appear below the highest number a build has read, its mark, that the build has not read. Such rows have numbers that
were missing when it read (``gaps``). A gap is either dead (rolled back, deleted) or still being written; which of the
two is known once every transaction that was writing has ended, which CHECKPOINT tells: it refuses while one is open.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import duckdb

from m6rec_udf.errors import M6Error
from m6rec_udf.query import one

SEQUENCES = {"events": "event_seq", "feedback": "feedback_seq"}
PATIENCE = 5.0  # seconds to wait for transactions that write
MOST_RANGES = 100  # of numbers in the condition on unread rows
Ranges = list[tuple[int, int]]


@dataclass
class Reading:
    """What a build saw beside the rows themselves; made inside the transaction that reads them."""

    gaps: dict[str, Ranges]
    edits: Counter[str]
    types_hash: int | None
    forgotten: int
    builds: int

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection) -> Reading:
        """The reading of the open transaction."""
        edits = con.execute("select user_id, count(*) from m6.history_edits group by user_id").fetchall()
        return cls(
            {table: gaps(con, table) for table in SEQUENCES},
            Counter(dict(edits)),
            one(con, "select bit_xor(hash(t)) from m6.event_types as t")[0],
            _forgotten(con),
            _builds(con),
        )

    def settle(self, con: duckdb.DuckDBPyConnection) -> bool:
        """Whether no gap can be filled any more. Call it before the transaction that commits the build."""
        return not any(self.gaps.values()) or is_settled(con, PATIENCE)

    def passed_over(self, con: duckdb.DuckDBPyConnection, *, is_settled: bool) -> dict[str, Ranges] | None:
        """Ranges of numbers below the mark to read beside the stored histories, inside the committing transaction.

        Where not settled these are all gaps, as any may be filled yet. None: more ranges than a query can bear.
        """
        found = {table: _filled(con, table, own) if is_settled else own for table, own in self.gaps.items()}
        return None if any(len(own) > MOST_RANGES for own in found.values()) else found

    def edited_since(self, con: duckdb.DuckDBPyConnection) -> list[str]:
        """Users whose events were updated or deleted since."""
        now = con.execute("select user_id, count(*) from m6.history_edits group by user_id").fetchall()
        return sorted(user for user, count in now if count > self.edits[user])

    def require_alone(self, con: duckdb.DuckDBPyConnection) -> None:
        """Raise M6Error where a person was forgotten since (the build has read them) or another build was committed."""
        if _builds(con) != self.builds:
            raise M6Error(
                "another build was committed while this one ran, expected one at a time",
                "run m6rec_udf.build(con) again where behaviour has come since",
            )
        if _forgotten(con) != self.forgotten:
            raise M6Error(
                "a person was forgotten while this build ran, expected none: it has read what they did",
                "run m6rec_udf.build(con) again",
            )


def gaps(con: duckdb.DuckDBPyConnection, table: str) -> Ranges:
    """(first, last) of the numbers up to the highest one that no row has."""
    sequence = SEQUENCES[table]
    count, highest = one(con, f"select count(*), coalesce(max({sequence}), 0) from m6.{table}")
    if count == highest:
        return []
    return con.execute(
        f"select before + 1, {sequence} - 1 from (select {sequence}, lag({sequence}, 1, 0) over (order by {sequence}) "
        f"as before from m6.{table}) where {sequence} > before + 1 order by {sequence}"
    ).fetchall()


def is_settled(con: duckdb.DuckDBPyConnection, patience: float) -> bool:
    """Whether everything that was being written when this was called has ended, within ``patience`` seconds.

    Always False for a database in memory, which does not say.
    """
    if one(con, "select path from duckdb_databases() where database_name = current_database()")[0] is None:
        return False
    until = time.monotonic() + patience
    while True:
        try:
            con.execute("checkpoint")
        except duckdb.TransactionException:
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        else:
            return True


def _filled(con: duckdb.DuckDBPyConnection, table: str, own: Ranges) -> Ranges:
    """The parts of ``own`` that rows have by now."""
    if not own:
        return []
    sequence = SEQUENCES[table]
    return con.execute(
        "with gaps as (select unnest($first) as first, unnest($last) as last), "
        f"late as (select {sequence} as number from m6.{table} "
        f"inner join gaps on {sequence} between first and last where {sequence} <= $highest), "
        "islands as (select number, number - row_number() over (order by number) as island from late) "
        "select min(number), max(number) from islands group by island order by 1",
        {"first": [first for first, _ in own], "last": [last for _, last in own], "highest": own[-1][1]},
    ).fetchall()


def _forgotten(con: duckdb.DuckDBPyConnection) -> int:
    return int(one(con, "select count(*) from m6.audit where action = 'forget_user'")[0])


def _builds(con: duckdb.DuckDBPyConnection) -> int:
    return int(one(con, "select coalesce(max(model_version), 0) from m6.models")[0])
