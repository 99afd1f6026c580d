"""The data app of ``m6rec app``: `desk` asks the database, `page` is the marimo file people see, `server` shows it."""
