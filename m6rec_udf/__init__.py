"""m6rec: an embedded, SQL-centric recommender with a Python UDF core.

Example:
    import m6rec_udf as m6

    con = m6.connect("shop.duckdb")
    m6.load(con, events=frame, items=frame)
    m6.build(con)
    con.sql("from m6.recommend('u42')").show()
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m6rec_udf.builder import build as build
    from m6rec_udf.calibration import calibration as calibration
    from m6rec_udf.chat import chat as chat
    from m6rec_udf.connection import connect as connect
    from m6rec_udf.connection import install as install
    from m6rec_udf.connection import uninstall as uninstall
    from m6rec_udf.doctor import doctor as doctor
    from m6rec_udf.errors import M6Error as M6Error
    from m6rec_udf.evaluate import evaluate as evaluate
    from m6rec_udf.external import use_tables as use_tables
    from m6rec_udf.fine_tuning import fine_tune as fine_tune
    from m6rec_udf.frames import features as features
    from m6rec_udf.generated import describe_item as describe_item
    from m6rec_udf.generated import explain_in_words as explain_in_words
    from m6rec_udf.load import load as load
    from m6rec_udf.logs import log_to as log_to
    from m6rec_udf.monitoring import prometheus as prometheus
    from m6rec_udf.policy import policy_value as policy_value
    from m6rec_udf.policy_versions import adopt as adopt
    from m6rec_udf.privacy import forget_user as forget_user
    from m6rec_udf.probability import probabilities as probabilities
    from m6rec_udf.project import init as init
    from m6rec_udf.publish import compact as compact
    from m6rec_udf.publish import publish as publish
    from m6rec_udf.publish import snapshot as snapshot
    from m6rec_udf.reweight import reweight as reweight
    from m6rec_udf.reweight import rollback as rollback
    from m6rec_udf.serving import Serving as Serving
    from m6rec_udf.side_by_side import compare_satisfaction as compare_satisfaction
    from m6rec_udf.side_by_side import use_satisfaction as use_satisfaction
    from m6rec_udf.text_map import TextMap as TextMap
    from m6rec_udf.text_map import learn_text_map as learn_text_map
    from m6rec_udf.tracking import track as track
    from m6rec_udf.trials import tune as tune
    from m6rec_udf.vector_columns import add_vectors as add_vectors
    from m6rec_udf.vector_columns import drop_vectors as drop_vectors
    from m6rec_udf.zero_shot import rank_by_likelihood as rank_by_likelihood

    from . import spark as spark

__version__ = "0.1.0"

_HOME = {
    "connect": "connection",
    "install": "connection",
    "uninstall": "connection",
    "load": "load",
    "use_tables": "external",
    "features": "frames",
    "build": "builder",
    "evaluate": "evaluate",
    "calibration": "calibration",
    "compare_satisfaction": "side_by_side",
    "use_satisfaction": "side_by_side",
    "tune": "trials",
    "track": "tracking",
    "reweight": "reweight",
    "rollback": "reweight",
    "adopt": "policy_versions",
    "policy_value": "policy",
    "probabilities": "probability",
    "publish": "publish",
    "snapshot": "publish",
    "compact": "publish",
    "Serving": "serving",
    "forget_user": "privacy",
    "doctor": "doctor",
    "prometheus": "monitoring",
    "log_to": "logs",
    "init": "project",
    "rank_by_likelihood": "zero_shot",
    "explain_in_words": "generated",
    "describe_item": "generated",
    "chat": "chat",
    "TextMap": "text_map",
    "fine_tune": "fine_tuning",
    "learn_text_map": "text_map",
    "add_vectors": "vector_columns",
    "drop_vectors": "vector_columns",
    "M6Error": "errors",
}
__all__ = ["__version__", "spark", *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "spark":  # a package of its own, whose extra is asked for at first use
        return import_module("m6rec_udf.spark")
    if name in _HOME:
        value = getattr(import_module(f"m6rec_udf.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'm6rec_udf' has no attribute {name!r}")


class _Package(ModuleType):
    """Keeps ``m6.load`` the verb when the submodule ``m6rec_udf.load`` is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
