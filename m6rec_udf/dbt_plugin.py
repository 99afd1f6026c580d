"""dbt-duckdb plugin: models of a dbt project may select from ``m6.recommend`` and every other macro.

In profiles.yml, under the output of type duckdb (``encoder`` and ``project`` as for `connect`, both optional)::

    plugins:
      - module: m6rec_udf.dbt_plugin
        config: {encoder: static}
"""

from __future__ import annotations

from typing import Any

from dbt.adapters.duckdb.plugins import BasePlugin


class Plugin(BasePlugin):  # type: ignore[misc]  # dbt-duckdb has no types
    """Dresses dbt's connection once; its cursors see what it has."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Take over the options of profiles.yml; raises ParameterError for one that does not exist."""
        from m6rec_udf.errors import ParameterError

        unknown = sorted(set(plugin_config) - {"encoder", "project"})
        if unknown:
            raise ParameterError(f"the dbt plugin has no option {unknown[0]!r}, expected encoder or project")
        self.options = dict(plugin_config)

    def configure_connection(self, conn: Any) -> None:
        """Called by dbt-duckdb for the connection to the file."""
        from m6rec_udf.connection import install

        install(conn, **self.options)
