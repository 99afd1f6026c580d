"""The page of ``m6rec app``: a marimo notebook served as an app. Every query is a function of `m6rec_udf.app.desk`."""

import marimo

app = marimo.App(width="full", app_title="m6rec")


@app.cell
def _():
    import html

    import marimo as mo

    from m6rec_udf.app import desk, server
    from m6rec_udf.policy_versions import adopt, rollback
    from m6rec_udf.reweight import reweight

    con = server.shared()

    def attempt(work, *given):
        """(answer, None), or (None, what went wrong in words)."""
        try:
            return work(con, *given), None
        except Exception as error:  # whatever it is, the person at the page reads it
            return None, str(error)

    def text(value):
        return html.escape(str(value))

    def warning(words):
        return mo.callout(mo.Html(f"<pre class='m6-error'>{text(words)}</pre>"), kind="danger")

    return adopt, attempt, con, desk, mo, reweight, rollback, text, warning


@app.cell
def _(mo):
    style = mo.Html(
        """<style>
        .m6-grid { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 3fr) minmax(0, 2.4fr); gap: 1.5rem; }
        .m6-controls { display: flex; flex-wrap: wrap; gap: 0.75rem 1.25rem; align-items: end; }
        .m6-controls > * { max-width: 100%; }
        .m6-head { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; align-items: baseline; }
        .m6-head h1 { font-size: 1.4rem; margin: 0; }
        .m6-quiet { color: #666; font-size: 0.85rem; }
        .m6-heading { font-size: 1.05rem; margin: 0 0 0.15rem 0; }
        .m6-row { display: grid; grid-template-columns: 1.6rem minmax(0, 1fr) auto; gap: 0.5rem; padding: 0.4rem 0;
            border-top: 1px solid #e3e3e3; align-items: start; }
        .m6-title { font-weight: 600; overflow-wrap: anywhere; }
        .m6-moved { background: #e2f0e4; border-radius: 4px; padding: 0 0.35rem; font-size: 0.8rem; font-weight: 400; }
        .m6-number { font-variant-numeric: tabular-nums; }
        .m6-table { width: 100%; border-collapse: collapse; font-size: 0.85rem; }
        .m6-table td, .m6-table th { text-align: left; padding: 0.2rem 0.4rem 0.2rem 0; border-top: 1px solid #e3e3e3;
            overflow-wrap: anywhere; vertical-align: top; }
        .m6-table .m6-day { white-space: nowrap; }
        .m6-buttons { display: flex; gap: 0.35rem; }
        .m6-bar { background: #7aa6d8; height: 0.5rem; display: block; }
        .m6-error { white-space: pre-wrap; margin: 0; font-size: 0.85rem; }
        @media (max-width: 1100px) { .m6-grid { grid-template-columns: minmax(0, 1fr); } }
        </style>"""
    )
    get_turn, set_turn = mo.state(0)  # goes up with everything written to the file
    get_request, set_request = mo.state(None)  # the logged list on the page
    get_problem, set_problem = mo.state("")
    earlier = {}  # question -> the list before, for the marks of what moved
    return earlier, get_problem, get_request, get_turn, set_problem, set_request, set_turn, style


@app.cell
def _(con, desk, get_turn, mo, style, text):
    get_turn()
    _about = desk.summary(con)
    mo.Html(
        f"""{style}<div class="m6-head"><h1>m6rec</h1><span class="m6-quiet">{_about["items"]:,} items,
        {_about["users"]:,} people; build {_about["model_version"]} as of {_about["as_of"]:%Y-%m-%d};
        <span id="m6-policy">weights {_about["policy_version"]} in force</span>; clock {desk.moment(con):%Y-%m-%d};
        {text(_about["encoder"])}</span></div>"""
    )


@app.cell
def _(con, desk, mo):
    _people = desk.people(con)
    _anything, _none = "everything available", "none"
    person = mo.ui.dropdown(_people, value=_people[0] if _people else None, searchable=True, label="Person")
    other = mo.ui.text(label="or another id", placeholder="any id", debounce=True)
    words = mo.ui.text(label="or in words", placeholder="what somebody likes", debounce=True, full_width=False)
    k = mo.ui.number(1, 50, value=10, label="Length")
    domain = mo.ui.dropdown({"all": None, **{name: name for name in desk.domains(con)}}, value="all", label="Domain")
    among = mo.ui.dropdown(
        {_anything: "m6.available_items", **{name: name for name in desk.rules(con)}}, value=_anything, label="Among"
    )
    boosts = mo.ui.dropdown(
        {_none: "m6.no_boosts", **{name: name for name in desk.rules(con, boosts=True)}}, value=_none, label="Boosts"
    )
    diversity = mo.ui.slider(0, 1, 0.1, value=0, show_value=True, label="Diversity")
    calibrated = mo.ui.slider(0, 1, 0.1, value=0, show_value=True, label="Own mix")
    trying = mo.ui.checkbox(label="Try the candidate weights")
    _all = (person, other, words, k, domain, among, boosts, diversity, calibrated, trying)
    mo.Html(f'<div class="m6-controls">{"".join(f"<div>{control}</div>" for control in _all)}</div>')
    return among, boosts, calibrated, diversity, domain, k, other, person, trying, words


@app.cell
def _(among, attempt, boosts, calibrated, con, desk, diversity, domain, get_turn, k, other, person, trying, words):
    get_turn()
    user = (other.value or "").strip() or person.value or ""
    question = desk.Question(
        user=user,
        k=int(k.value or 10),
        domain=domain.value,
        among=among.value,
        boosts=boosts.value,
        diversity=diversity.value,
        calibrated=calibrated.value,
        policy=desk.candidate(con) if trying.value else None,
    )
    has_words = bool((words.value or "").strip())
    if has_words:
        listed, failed = attempt(desk.list_for_text, words.value, question)
    else:
        listed, failed = attempt(desk.best_list, question)
    return failed, has_words, listed, question, user


@app.cell
def _(con, desk, earlier, failed, has_words, listed, mo, text, user, warning):
    _key = "words" if has_words else user
    _before = earlier.get("list", []) if earlier.get("key") == _key else []
    if listed is not None:
        earlier.update(key=_key, list=listed)
    _lines = [
        f"""<div class="m6-row" data-item="{text(row["item_id"])}"><span class="m6-quiet">{row["rank"]}</span>
        <div><div class="m6-title">{text(row["title"])}
        {f'<span class="m6-moved">{move}</span>' if move else ""}</div>
        <div class="m6-quiet">{text(row["category"] or "")}</div>
        <div class="m6-quiet">{text(row["reason"] or "")} ({text(row["strategy"])})</div></div>
        <span class="m6-number">{row["satisfaction"]:.2f}</span></div>"""
        for row, move in zip(listed or [], desk.moves(_before, listed or []), strict=True)
    ]
    _who = "your words" if has_words else user
    _note = ""
    if not has_words and not desk.is_known(con, user):
        _note = f"{user or 'nobody'} is unknown here; this is the list for unknown people."
    best = mo.Html(
        f"""<section id="m6-best"><div class="m6-heading" role="heading" aria-level="2">Best list for {text(_who)}</div>
        <p class="m6-quiet">{text(_note) or "Satisfaction expected; marks say what moved. Nothing is logged."}</p>
        {warning(failed) if failed else "".join(_lines)}</section>"""
    )
    return (best,)


@app.cell
def _(attempt, desk, has_words, mo, question, set_problem, set_request, set_turn):
    def _show(_):
        request, problem = attempt(desk.show, question)
        set_problem(problem or "")
        if request:
            set_request((question.user, request))
            set_turn(lambda turn: turn + 1)

    showing = mo.ui.button(label="Draw and log a list", on_click=_show, disabled=has_words or not question.user)
    return (showing,)


@app.cell
def _(attempt, con, desk, get_request, get_turn, mo, set_problem, set_turn, user):
    get_turn()
    _request = get_request()
    rows = desk.shown(con, _request[1]) if _request and _request[0] == user else []

    def _reacting(impression, kind):
        def done(_):
            _answer, problem = attempt(desk.react, impression, kind)
            set_problem(problem or "")
            set_turn(lambda turn: turn + 1)

        return done

    clicks = mo.ui.array([mo.ui.button(label="Click", on_click=_reacting(r["impression_id"], "click")) for r in rows])
    dismissals = mo.ui.array(
        [mo.ui.button(label="Dismiss", on_click=_reacting(r["impression_id"], "dismiss")) for r in rows]
    )
    return clicks, dismissals, rows


@app.cell
def _(clicks, dismissals, get_problem, mo, rows, showing, text, warning):
    _lines = [
        f"""<div class="m6-row"><span class="m6-quiet">{row["rank"]}</span><div>
        <div class="m6-title">{text(row["title"])}
        {f'<span class="m6-moved">{text(row["reaction"])}</span>' if row["reaction"] else ""}</div>
        <div class="m6-quiet">{text(row["strategy"])}, propensity {row["propensity"]:.3f}</div></div>
        <span class="m6-buttons">{click}{dismiss}</span></div>"""
        for row, click, dismiss in zip(rows, clicks.elements, dismissals.elements, strict=True)
    ]
    _problem = warning(get_problem()) if get_problem() else ""
    logged = mo.Html(
        f"""<section id="m6-logged"><div class="m6-heading" role="heading" aria-level="2">Shown and logged</div>
        <p class="m6-quiet">Each slot draws a strategy by the weights in force; what you do counts in the next list.</p>
        {showing}{_problem}{"".join(_lines)}</section>"""
    )
    return (logged,)


@app.cell
def _(best, con, desk, get_turn, logged, mo, text, user):
    get_turn()
    _past = "".join(
        f"""<tr><td class="m6-quiet m6-day">{row["happened_at"]:%Y-%m-%d}</td><td>{text(row["event_type"])}
        {"" if row["value"] is None else f"{row['value']:g}"}</td><td>{text(row["title"])}</td></tr>"""
        for row in desk.history(con, user)
    )
    past = f"""<section id="m6-history">
        <div class="m6-heading" role="heading" aria-level="2">History of {text(user)}</div>
        <p class="m6-quiet">Latest first, feedback included.</p><table class="m6-table">
        {_past or "<tr><td>nothing yet</td></tr>"}</table></section>"""
    mo.Html(f'<div class="m6-grid">{best}{logged}{past}</div>')


@app.cell
def _(listed, mo):
    why = mo.ui.dropdown(
        {f"{row['rank']}. {row['title']}": row["item_id"] for row in listed or []}, label="Why this item?"
    )
    return (why,)


@app.cell
def _(mo):
    missing = mo.ui.text(label="or why not another?", placeholder="an item id or a title", debounce=True)
    return (missing,)


@app.cell
def _(attempt, desk, get_turn, has_words, missing, mo, question, text, warning, why):
    get_turn()
    _told = []
    _asked = (missing.value or "").strip()
    if has_words:
        _told = [mo.md("The list for words is near the words and nothing else: there is no more to explain.")]
    elif _asked or why.value:
        _work, _item = (desk.left_out, _asked) if _asked else (desk.explanation, why.value)
        _answer, _failed = attempt(_work, question, _item)
        if _failed:
            _told = [warning(_failed)]
        else:
            _words = [] if _asked else [mo.Html(f"<p id='m6-why'>{text(_answer['name'][0])}</p>")]
            _told = [*_words, mo.ui.table(_answer, selection=None, page_size=12)]
    explained = mo.vstack([mo.hstack([why, missing], justify="start", wrap=True), *_told])
    return (explained,)


@app.cell
def _(desk, mo):
    drawn = mo.ui.dropdown(list(desk.CHARTS), label="Chart")
    return (drawn,)


@app.cell
def _(attempt, desk, drawn, get_turn, mo, warning):
    get_turn()
    _picture = []
    if drawn.value:
        _chart, _failed = attempt(desk.chart, drawn.value)
        _shown = "" if _failed else f'<div class="m6-chart" title="{drawn.value}">{mo.as_html(_chart)}</div>'
        _picture = [warning(_failed) if _failed else mo.Html(_shown)]
    charts = mo.vstack([drawn, *_picture])
    return (charts,)


@app.cell
def _(con, desk, get_turn, mo):
    get_turn()
    state = desk.weights(con)
    wanted = mo.ui.dictionary(
        {
            row["strategy"]: mo.ui.number(0, 1, 0.01, value=round(row["candidate"] or row["weight"], 3), label="")
            for row in state
        }
    )
    return state, wanted


@app.cell
def _(adopt, attempt, con, desk, get_turn, mo, reweight, rollback, set_problem, set_turn, wanted):
    get_turn()

    def _doing(work):
        def done(_):
            _answer, problem = attempt(work)
            set_problem(problem or "")
            set_turn(lambda turn: turn + 1)

        return done

    _candidate = desk.candidate(con)
    changes = mo.ui.array(
        [
            mo.ui.button(label="Make these a candidate", on_click=_doing(lambda c: desk.propose(c, wanted.value))),
            mo.ui.button(
                label=f"Adopt {_candidate}" if _candidate else "Adopt",
                disabled=_candidate is None,
                on_click=_doing(lambda c: adopt(c, desk.candidate(c))),
            ),
            mo.ui.button(label="Learn from the log", on_click=_doing(lambda c: reweight(c))),
            mo.ui.button(label="Roll back", on_click=_doing(lambda c: rollback(c))),
        ]
    )
    return (changes,)


@app.cell
def _(attempt, changes, desk, get_problem, get_turn, mo, state, style, text, wanted, warning):
    get_turn()
    _rows = "".join(
        f"""<tr><td>{text(row["strategy"])}<span class="m6-bar" style="width: {100 * row["weight"]:.1f}%"></span></td>
        <td class="m6-number">{row["weight"]:.3f}</td>
        <td class="m6-number">{"" if row["candidate"] is None else f"{row['candidate']:.3f}"}</td>
        <td>{row["impressions"]}</td><td>{"" if row["mean_reward"] is None else f"{row['mean_reward']:.3f}"}</td>
        <td>{wanted[row["strategy"]]}</td></tr>"""
        for row in state
    )
    _judged, _failed = attempt(desk.judgement)
    _values = "".join(
        f"""<tr><td>{text(row["policy"])}</td><td>{text(row["estimator"])}</td><td class="m6-number">
        {"" if row["value"] is None else f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"}</td>
        <td>{text(row["status"])}: {text(row["reason"])}</td></tr>"""
        for row in _judged or []
    )
    loop = mo.Html(
        f"""{style}<div id="m6-weights"><table class="m6-table"><tr><th>strategy</th><th>in force</th><th>candidate</th>
        <th>shown</th><th>reward</th><th>set</th></tr>{_rows}</table>
        <div class="m6-controls">{"".join(f"<div>{button}</div>" for button in changes.elements)}</div>
        {warning(get_problem()) if get_problem() else ""}
        <p class="m6-quiet">Value of an impression, from the log alone
        (m6.policy_value{"" if _judged else "; nothing is logged yet"}):</p>
        {warning(_failed) if _failed else f'<table class="m6-table">{_values}</table>'}</div>"""
    )
    return (loop,)


@app.cell
def _(con, desk, mo):
    table = mo.ui.dropdown(desk.tables(con), value="m6.metrics", searchable=True, label="Table")
    query = mo.ui.text_area(label="or one query (read only)", placeholder="from m6.trending(k := 5)", debounce=True)
    return query, table


@app.cell
def _(attempt, desk, get_turn, mo, query, table, warning):
    get_turn()
    _text = (query.value or "").strip() or f"from {table.value}"
    _found, _failed = attempt(desk.look, _text)
    behind = mo.vstack(
        [table, query, warning(_failed) if _failed else mo.ui.table(_found, selection=None, page_size=10)]
    )
    return (behind,)


@app.cell
def _(behind, charts, explained, loop, mo):
    mo.ui.tabs({"Weights": loop, "Why": explained, "Charts": charts, "Tables": behind})


if __name__ == "__main__":
    app.run()
