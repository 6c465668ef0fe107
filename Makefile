# make demo   watch Postern do its main job (needs Python 3.11+, make and an OpenSSH client)
# make test   everything that CI runs: lint, types, import contracts, tests
# make soak   the long runs: full fuzz counts, a kill at every step, kill storms
# make docs-clients   write docs/clients.md from a full run of all SFTP clients
# make bench  figures side by side with other ways; prints, never fails
# make coverage  the same, and which lines the tests do not reach
# make check  lint, types and import contracts only

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FUZZ ?= 7000
KILLS ?= 40
CLIENT_KILLS ?= 200

.PHONY: demo test coverage check soak docs-clients bench clean packages

demo: $(VENV)/.installed
	$(BIN)/postern demo

test: check packages $(VENV)-clients/.installed
	$(BIN)/pytest --numprocesses=3 --dist=worksteal

# Apart, as it takes a minute or two more than what everybody waits for.
coverage: check packages $(VENV)-clients/.installed
	$(BIN)/pytest --numprocesses=3 --dist=worksteal --cov --cov-report=term:skip-covered

check: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.installed-test packages $(VENV)-clients/.installed
	POSTERN_FUZZ_EXAMPLES=$(FUZZ) POSTERN_KILLS=$(KILLS) POSTERN_ZOO=full $(BIN)/pytest --timeout=0 \
	  tests/unit/test_pipeline_differential.py tests/integration/test_zoo.py tests/acceptance/test_crashes.py
	POSTERN_ATTACKS=full POSTERN_LOGIN_TRIES=500 $(BIN)/pytest --timeout=0 \
	  tests/integration/test_gate_attacks.py tests/integration/test_gate_guests.py
	POSTERN_RATES=full POSTERN_KILLED_MESSAGES=20000 $(BIN)/pytest --timeout=0 -s \
	  tests/integration/test_dispatch_rates.py tests/integration/test_dispatch_kills.py
	POSTERN_KILL_STEPS=0 POSTERN_STORM=full $(BIN)/pytest --timeout=0 -s \
	  tests/integration/test_kill_matrix.py tests/integration/test_kill_storm.py
	POSTERN_CLIENT_KILLS=$(CLIENT_KILLS) POSTERN_CLIENTS_SIZE=full $(BIN)/pytest --timeout=0 tests/clients

docs-clients: $(VENV)/.installed-test packages $(VENV)-clients/.installed
	POSTERN_CLIENTS_SIZE=full PYTHONPATH=tests $(BIN)/python -m clients.document

bench: $(VENV)-bench/.installed
	$(VENV)-bench/bin/python -P bench/validate.py $(BENCH)
	$(VENV)-bench/bin/python -P bench/upload.py
	$(VENV)-bench/bin/python -P bench/loop.py
	$(VENV)-bench/bin/python -P bench/gate.py
	$(VENV)-bench/bin/python -P bench/dispatch.py
	$(VENV)-bench/bin/python -P bench/hosts.py

# What the tests use besides Python packages; installed where we may, named where we may not.
packages:
	@sh tests/packages.sh

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Postern needs Python 3.11 or newer; name one: make PYTHON=python3.12 …" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

# SFTP clients that are no Debian packages. Without npm there is one less, and its tests say so.
$(VENV)-clients/.installed: tests/clients/requirements.txt tests/clients/package.json | packages
	test -x $(VENV)-clients/bin/python || $(PYTHON) -m venv $(VENV)-clients
	$(VENV)-clients/bin/python -m pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
	cp tests/clients/package.json $(VENV)-clients/
	! command -v npm >/dev/null || npm install --prefix $(VENV)-clients --silent --ignore-scripts --no-package-lock \
	  --no-audit --no-fund
	touch $@

$(VENV)-bench/.installed: pyproject.toml constraints.txt
	test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench,postgresql]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-bench $(VENV)-clients build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
