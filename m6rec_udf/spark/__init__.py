"""The same models on Spark, where one machine is not enough (extra ``[spark]``: pyspark, sqlglot; and Java 17).

Example:
    import m6rec_udf as m6

    m6.spark.build(session, events="lake.events", items="lake.items", target="shop.duckdb")
    m6.connect("shop.duckdb").sql("from m6.recommend('u42')").show()
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import TYPE_CHECKING, Any

from m6rec_udf.errors import MissingExtraError

if TYPE_CHECKING:
    from m6rec_udf.spark.job import build as build

__all__ = ["build", "require"]


def require() -> None:
    """Raise MissingExtraError where pyspark, sqlglot or Java is missing."""
    missing = [name for name in ("pyspark", "sqlglot") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{' and '.join(missing)} is not installed, expected it for m6rec_udf.spark", "pip install 'm6rec[spark]'"
        )
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java") is None and not (home and os.path.exists(os.path.join(home, "bin", "java"))):
        raise MissingExtraError(
            "found no java, expected Java 17 or newer for Spark", "apt-get install openjdk-17-jre-headless"
        )


def __getattr__(name: str) -> Any:
    if name == "build":
        require()
        from m6rec_udf.spark.job import build

        return build
    raise AttributeError(f"module 'm6rec_udf.spark' has no attribute {name!r}")
