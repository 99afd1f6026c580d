"""Why an item: the history item that speaks most for it, and the parts of its satisfaction score."""

from __future__ import annotations

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.history import Behaviour, Profile


def evidence(snapshot: Snapshot, behaviour: Behaviour, item: np.ndarray) -> list[str | None]:
    """item_id of the history item with the largest share in the item's score, per row; None where none speaks for it.

    Item-item weights and transitions speak first; where they are silent, the nearest text (cosine above 0.3).
    """
    profile = Profile(snapshot, behaviour)
    out: list[str | None] = []
    first = np.searchsorted(profile.row, np.arange(behaviour.users + 1))
    for at, target in enumerate(item):
        own = np.arange(first[at], first[at + 1])
        own = own[(profile.interest[own] > 0) & (profile.item[own] != target)]
        if target < 0 or not len(own):
            out.append(None)
            continue
        items = profile.item[own]
        linked = snapshot.item_item[items, target] + snapshot.transitions[items, target]
        weight = np.asarray(linked.todense()).ravel() * profile.long_weight[own]
        if weight.max() <= 0:
            cosine = snapshot.text[items] @ snapshot.text[target]
            weight = np.where(cosine > 0.3, cosine * np.maximum(profile.long_weight[own], 1e-9), 0.0)
        best = int(np.argmax(np.round(weight, 9)))
        out.append(snapshot.item_ids[items[best]] if weight[best] > 0 else None)
    return out
