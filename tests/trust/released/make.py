"""Make the small file of a release: python tests/trust/released/make.py; commit it with the release, never again.

tests/trust/test_migrations.py opens a copy of every file in this folder with the present code.
"""

from __future__ import annotations

import json
import lzma
import sys
from datetime import timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
USERS = ("u00", "u05", "u11", "nobody")


def main() -> None:
    import polars as pl
    import shop_world as world

    import m6rec_udf as m6

    path = HERE / f"v{m6.__version__}.duckdb"
    data = world.frames()
    kept = pl.col("user_id").is_in(world.USERS[:12])
    data |= {name: data[name].filter(kept) for name in ("users", "events", "feedback")}
    work = path.with_name("work.duckdb")
    with world.connect(work) as con:
        m6.load(con, **data)
        world.rules(con)
        m6.build(con)
        moment = world.START + timedelta(days=world.DAYS + 1)
        con.execute(
            "insert into m6.impressions by name from m6.serve_many('audience', k := 5, seed := 1, request := 'r', "
            "moment := $1)",
            [moment],
        )
        con.execute(
            "insert into m6.feedback (feedback_id, impression_id, event_type, happened_at, ingested_at) "
            "select impression_id, impression_id, 'purchase', shown_at, shown_at from m6.impressions "
            "where supporters > 1"
        )
        m6.reweight(con, parameters={"gate": False})
        con.execute(  # newer than the build
            "insert into m6.events (event_id, user_id, item_id, event_type, happened_at) "
            "values ('late', 'u05', 'i41', 'purchase', $1)",
            [moment],
        )
        m6.publish(con, k=3)
        expected = {
            "active": world.rows(con, "select model_version, policy_version from m6.active")[0],
            "counts": dict(
                world.rows(
                    con,
                    "select table_name, estimated_size from duckdb_tables() where schema_name = 'm6' and "
                    "table_name in ('items', 'events', 'users', 'feedback', 'impressions') order by 1",
                )
            ),
            "lists": {
                user: [[r["item_id"], r["strategy"], round(r["satisfaction"], 6)] for r in world.recommend(con, user)]
                for user in USERS
            },
            "weights": [list(r) for r in world.rows(con, "from m6.strategy_weights_active order by all")],
        }
        m6.snapshot(con, path)
    work.unlink()
    packed = path.with_name(f"{path.name}.xz")
    packed.write_bytes(lzma.compress(path.read_bytes(), preset=9))
    path.unlink()
    path.with_suffix(".json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    print(f"{packed}: {packed.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
