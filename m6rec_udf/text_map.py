"""A small trained map over a frozen encoder, as a file: learned where there is behaviour, used where there is none.

The embedded counterpart of M6-Rec's option tuning (arXiv 2205.08084: a frozen model, few parameters that
are trained per task): the encoder stays as it is, one matrix is learned.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf.embed import Encoder, EncoderLike, as_encoder, unit
from m6rec_udf.errors import CorruptError, NotBuiltError, ParameterError
from m6rec_udf.query import one

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

RIDGE = 3.0
SHARE = 0.5
LEAST_USERS = 3
LEAST_ITEMS = 50


class TextMap:
    """An encoder: a frozen one, and behind its vectors what a trained map makes of them.

    The vector of a text is (sqrt(1 - share) t, sqrt(share) unit(W (t - mean))), t the frozen encoder's: a cosine
    becomes (1 - share) cosine of text + share cosine of mapped text. Pass it to ``connect(encoder=...)``.

    Attributes:
        weights: float32 ``[d, r]``, W transposed.
        mean: float32 ``[d]``, mean of the vectors it was learned from.
        share: of the mapped part, in [0, 1].
        base: the frozen encoder.
        about: what it was learned from.
    """

    def __init__(
        self, weights: Floats, mean: Floats, *, base: EncoderLike | None = None, share: float = SHARE, about: Any = None
    ) -> None:
        self.weights, self.mean, self.share = weights, mean, float(share)
        self.base: Encoder = as_encoder(base)
        self.about: dict[str, Any] = dict(about or {})

    @property
    def name(self) -> str:
        """Name of the encoder: that of the frozen one and a hash of the map, so that vectors never mix."""
        digest = hashlib.sha256(self.weights.tobytes() + self.mean.tobytes() + repr(self.share).encode()).hexdigest()
        return f"{self.base.name}+map-{digest[:12]}"

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(sum(self.weights.shape))

    def encode(self, texts: list[str]) -> Floats:
        """Unit-length vectors, float32 ``[len(texts), dimension]``."""
        return self.mapped(self.base.encode(texts))

    def mapped(self, vectors: Floats) -> Floats:
        """The same of vectors of the frozen encoder.

        Raises ParameterError: vectors of another length.
        """
        if vectors.shape[1:] != self.mean.shape:
            raise ParameterError(
                f"the encoder {self.base.name!r} gives vectors of {vectors.shape[1]} dimensions, expected "
                f"{len(self.mean)}, those the map was learned from",
                f"use the map with {self.about.get('encoder', 'the encoder it was learned with')!r}",
            )
        mapped = unit(np.asarray((vectors - self.mean) @ self.weights, np.float32))
        parts = [np.sqrt(1 - self.share) * vectors, np.sqrt(self.share) * mapped]
        return unit(np.asarray(np.concatenate(parts, axis=1), np.float32))

    def save(self, path: str | Path) -> None:
        """Write the map as one .npz file; the encoder is named in it, not contained."""
        about = json.dumps(self.about, sort_keys=True)
        with Path(path).open("wb") as file:
            np.savez(file, weights=self.weights, mean=self.mean, share=self.share, about=np.array(about))

    @classmethod
    def load(cls, path: str | Path, *, base: EncoderLike | None = None) -> TextMap:
        """Read a map.

        Args:
            path: of ``save``.
            base: the frozen encoder it was learned with; default: the one of that name.

        Raises:
            CorruptError: not such a file.
            ParameterError: ``base`` is another encoder than the one it was learned with.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as parts:
                weights, mean = (np.asarray(parts[name], np.float32) for name in ("weights", "mean"))
                share, about = float(parts["share"]), json.loads(str(parts["about"]))
        except (ValueError, KeyError, OSError) as error:
            raise CorruptError(
                f"{path} is no text map ({str(error).splitlines()[0]})", "write it afresh: save"
            ) from error
        named = about.get("encoder")
        found = cls(weights, mean, base=named if base is None else base, share=share, about=about)
        if named is not None and found.base.name != named:
            raise ParameterError(f"the map was learned with the encoder {named!r}, got {found.base.name!r}")
        return found


def learn_text_map(
    con: duckdb.DuckDBPyConnection,
    *,
    in_domain: str | None = None,
    among: str | None = None,
    share: float = SHARE,
    ridge: float = RIDGE,
    base: EncoderLike | None = None,
) -> TextMap:
    """Learn from the build in force which differences between texts matter to behaviour.

    A ridge regression from text vectors t to the factors f that behaviour gave the same items,
    W = argmin sum_i |W (t_i - mean) - f_i|^2 + ridge |W|^2, over items with at least 3 users (Gantner and others,
    "Learning attribute-to-feature mappings for cold-start recommendations", ICDM 2010). The factors are of unit length:
    popularity is not learned.

    Args:
        con: a dressed connection with a build.
        in_domain: learn from one domain.
        among: learn from the items of a table or view with item_id.
        share: of the mapped part in the vectors of ``TextMap``.
        ridge: the larger, the smoother.
        base: the frozen encoder; default: the connection's.

    Raises:
        NotBuiltError: no build, or one whose vectors hold other columns than text.
        ParameterError: ``share`` outside [0, 1], or fewer than 50 items to learn from.
    """
    from m6rec_udf.arrays import of_version
    from m6rec_udf.registry import context_of

    if not 0 <= share <= 1 or not ridge > 0:
        raise ParameterError(f"got share={share} and ridge={ridge}, expected a share in [0, 1] and a ridge above 0")
    context = context_of(con)
    version = one(con, "select model_version from m6.active")[0]
    if version is None:
        raise NotBuiltError("there is no build to learn from", "run m6rec_udf.build(con)")
    snapshot = of_version(context, version)
    text = snapshot.text if not snapshot.blocks else unit(snapshot.text[:, : snapshot.blocks[0][1]])
    keep = (snapshot.learned_users >= LEAST_USERS) & text.any(axis=1) & (snapshot.factors != 0).any(axis=1)
    inside = snapshot.in_domain(in_domain)
    if inside is not None:
        keep &= inside
    if among is not None:
        rows = con.table(among).project("cast(item_id as varchar)").fetchall()
        allowed = {row[0] for row in rows}
        keep &= np.asarray([item in allowed for item in snapshot.item_ids], bool)
    n = int(keep.sum())
    if n < LEAST_ITEMS:
        raise ParameterError(
            f"{n} items have text and at least {LEAST_USERS} users, expected {LEAST_ITEMS} or more to learn from"
        )
    t = text[keep].astype(np.float64)
    mean = t.mean(0)
    centred = t - mean
    target = unit(snapshot.factors[keep]).astype(np.float64)
    weights = np.linalg.solve(centred.T @ centred + ridge * np.eye(t.shape[1]), centred.T @ target)
    encoder = context.encoder if base is None else as_encoder(base)
    about = {"encoder": encoder.name, "items": n, "domain": in_domain, "ridge": ridge}
    return TextMap(weights.astype(np.float32), mean.astype(np.float32), base=encoder, share=share, about=about)
