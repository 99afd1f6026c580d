"""Generated text: how often the small model's words are used, and that they name nothing but the evidence.

    python benchmarks/domains/generation.py                  (MovieLens, SmolLM2 135 M; needs the extra generate)
    python benchmarks/domains/generation.py --model FOLDER   (any causal model)

For ``--people`` people drawn by the seed: the explanation of their first item, its one-line description, and a turn of
conversation about a genre. ``heard``: the share where the model kept to what it was given; the others get the template.
``titles``: the share of texts as shown in which every title of the catalogue is one that was given (counted afresh).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import m6rec_udf as m6
from m6rec_udf import datasets
from m6rec_udf.generated import Written
from m6rec_udf.grounding import strays
from m6rec_udf.language_model import LanguageModel

WISHES = (
    "a funny film for children, no horror",
    "something scary",
    "a love story without musical",
    "films about the war",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--people", type=int, default=30)
    parser.add_argument("--encoder", default="static")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = LanguageModel(given.model)
    with tempfile.TemporaryDirectory() as folder:
        con = m6.connect(Path(folder) / "films.duckdb", encoder=given.encoder)
        m6.load(con, **datasets.movielens())
        m6.build(con)
        people = [row[0] for row in con.execute("select distinct user_id from m6.events order by user_id").fetchall()]
        people = sorted(np.random.default_rng(given.seed).choice(people, given.people, replace=False).tolist())
        texts: dict[str, list[Written]] = {"explanation": [], "description": [], "reply": []}
        seconds: dict[str, float] = Counter()
        for n, user in enumerate(people):
            item = con.execute("select item_id from m6.recommend($u, k := 1)", {"u": user}).fetchall()[0][0]
            begin = time.process_time()
            texts["explanation"].append(m6.explain_in_words(con, user, item, model=model))
            middle = time.process_time()
            texts["description"].append(m6.describe_item(con, item, for_user=user, model=model))
            end = time.process_time()
            seconds["explanation"] += middle - begin
            seconds["description"] += end - middle
            if n < len(WISHES):
                turn = m6.chat(con, WISHES[n], for_user=user, model=model, k=3)
                seconds["reply"] += time.process_time() - end
                texts["reply"].append(Written(turn.reply, turn.by, turn.items["title"].to_list(), turn.strayed))
        print("| text | n | heard | titles | seconds of processor time |\n|---|---|---|---|---|")
        for name, written in texts.items():
            heard = np.mean([one.by == "model" for one in written])
            kept = [not any(w.startswith("title") for w in strays(con, one.text, one.titles)) for one in written]
            print(
                f"| {name} | {len(written)} | {heard:.0%} | {np.mean(kept):.0%} | {seconds[name] / len(written):.1f} |"
            )
        why = Counter(reason.split(" ")[0] for own in texts.values() for one in own for reason in one.strayed)
        print("why not heard:", dict(why))
        for name, written in texts.items():
            for by in ("model", "template"):
                print(f"{name}, {by}:", next((one.text for one in written if one.by == by), None))
        con.close()


if __name__ == "__main__":
    main()
