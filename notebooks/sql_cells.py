"""SQL cells in marimo on an m6rec connection: `marimo edit notebooks/sql_cells.py`, or `python notebooks/sql_cells.py`."""

import marimo

app = marimo.App()


@app.cell
def _():
    import tempfile
    from pathlib import Path

    import marimo as mo
    import polars as pl

    import m6rec_udf as m6
    from m6rec_udf import datasets

    data = datasets.movielens()  # GroupLens terms: non-commercial use
    events = data["events"].filter(pl.len().over("item_id") >= 60)
    items = data["items"].join(events.select("item_id").unique(), on="item_id", how="semi")
    con = m6.connect(Path(tempfile.mkdtemp()) / "films.duckdb", encoder="static")
    m6.load(con, events=events, items=items)
    m6.build(con)
    return con, mo


@app.cell
def _(mo):
    person = mo.ui.dropdown(["15", "73", "564"], value="15", label="Person")
    mo.md(f"{person}")
    return (person,)


@app.cell
def _(con, mo, person):
    best = mo.sql(
        f"""
        select r.rank, i.title, r.satisfaction, r.reason
        from m6.recommend('{person.value}', k := 5) as r
        inner join m6.items as i using (item_id)
        order by r.rank
        """,
        engine=con,
    )
    return (best,)


@app.cell
def _(con, mo):
    strategies = mo.sql("from m6.strategy_report()", engine=con)
    return (strategies,)


if __name__ == "__main__":
    app.run()
