"""Pictures to vectors, and questions in words beside them: a model of the CLIP type through sentence-transformers."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf.errors import EncoderError, MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

BATCH_PICTURES = 32


class PictureEncoder:
    """A sentence-transformers model that puts pictures and words into one space, loaded at the first of them.

    Radford and others, "Learning Transferable Visual Models From Natural Language Supervision" (CLIP), ICML 2021.

    Raises:
        MissingExtraError: pillow is not installed.
        EncoderError: sentence-transformers cannot load the model.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.name = f"pictures:{model}"
        self._loaded: Any = None

    @property
    def dimension(self) -> int:
        """Dimensions of the shared space."""
        return int(self.encode_text([""]).shape[1])

    def encode(self, paths: list[str]) -> Floats:
        """Unit vectors of the pictures, float32 ``[len(paths), d]``; zeros for what is no picture."""
        if find_spec("PIL") is None:
            raise MissingExtraError("the package pillow is not installed, expected it to read pictures", _EXTRA)
        from PIL import Image, UnidentifiedImageError

        out = np.zeros((len(paths), self.dimension), np.float32)
        for start in range(0, len(paths), BATCH_PICTURES):
            rows, pictures = [], []
            for row, path in enumerate(paths[start : start + BATCH_PICTURES], start):
                try:
                    with Image.open(path) as picture:
                        pictures.append(picture.convert("RGB"))
                    rows.append(row)
                except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
                    continue
            if rows:
                out[rows] = self._encode(pictures)
        return out

    def encode_text(self, texts: list[str]) -> Floats:
        """Unit vectors of words in the same space, float32 ``[len(texts), d]``."""
        return self._encode(texts)

    def _encode(self, entries: list[Any]) -> Floats:
        if self._loaded is None:
            from sentence_transformers import SentenceTransformer

            import_module("transformers.utils.logging").disable_progress_bar()
            try:
                self._loaded = SentenceTransformer(self.model, device="cpu")
            except (OSError, ValueError, ImportError) as error:
                raise EncoderError(
                    f"the picture model {self.model!r} could not be loaded ({str(error).splitlines()[0]}), expected a "
                    "sentence-transformers model of the CLIP type, by name or path",
                    "clip-ViT-B-32 is one; give a path where nothing may be downloaded",
                ) from error
        found = self._loaded.encode(
            entries, batch_size=BATCH_PICTURES, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(found, np.float32)


_EXTRA = "pip install 'm6rec[pictures]'"
