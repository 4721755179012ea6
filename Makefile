# `make run` measures this host and says where the report is; `make test` runs the whole test suite.
# Both install what is missing first, and skip what is done.

PYTHON_ENV := .venv/bin/python
RUN :=
HOSTS :=

.PHONY: help run test hosts lint setup setup-test asv site

help:
	@echo "make run    measure this host with the defaults (RUN='--quick' adds options)"
	@echo "make test   lint, types and the whole test suite"
	@echo "make hosts  the project on hosts it has never seen, from Debian's packages (root, some hours)"
	@echo "make asv    the benchmarks of the harness itself"
	@echo "make site   a static site of the runs in results/, with the history that make asv made"

run: setup
	@$(PYTHON_ENV) -m harness run $(if $(findstring --resume,$(RUN)),,--start-engines) $(RUN)

# Unit tests run on two CPUs; what starts instances runs alone, or it would disturb itself.
test: setup-test lint
	$(PYTHON_ENV) -m pytest tests/unit --numprocesses 2 --dist loadfile
	$(PYTHON_ENV) -m pytest tests/integration
	$(PYTHON_ENV) -m pytest tests/hosts

# HOSTS chooses some: bare, machine, bookworm, trixie.
hosts: setup-test
	$(PYTHON_ENV) -m tests.hosts $(HOSTS) --write

lint: setup-test
	$(PYTHON_ENV) -m ruff check harness tests benches
	$(PYTHON_ENV) -m ruff format --check harness tests benches
	$(PYTHON_ENV) -m mypy

asv: setup-test
	@$(PYTHON_ENV) -m benches.history

site: setup
	@$(PYTHON_ENV) -m harness publish results --site site

setup:
	@sh harness/setup.sh run

setup-test:
	@sh harness/setup.sh test
