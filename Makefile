PYTHON ?= python3
BIN := .venv/bin
# Small models on two threads wait for each other: one thread a process, and a process a chain.
export OMP_NUM_THREADS ?= 1
# Files side by side, on two cores unless told otherwise: make test PARALLEL="-n 8 --dist loadfile"
PARALLEL ?= -n 2 --dist loadfile

.PHONY: demo tables calibrate test quick lint reliability compat docs bench clean

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[xla]'
	touch $@

.venv/test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

.venv/docs: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

.venv/bench: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

demo: .venv/demo
	$(BIN)/guidebook fit logistic
	$(BIN)/guidebook compare logistic --out reports/logistic
	$(BIN)/guidebook compare gmm --out reports/gmm
	$(BIN)/guidebook index reports/logistic reports/gmm --out reports/index.html
	$(BIN)/guidebook explore reports --out reports/explorer.html

test: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest $(PARALLEL)
	$(BIN)/pytest $(PARALLEL) --nbval-lax --nbval-current-env tutorials

# What a change should pass before it is looked at, in a few minutes.
quick: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest $(PARALLEL) -m "not slow"

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Hours: fits by every method killed at random moments, signals, every input of the table, damaged files for every reader.
# Less of it: make reliability KILLS=5 SIGNALS=2 MINUTES=1
reliability: .venv/test
	$(BIN)/python -m reliability.kills --kills $(or $(KILLS),50)
	$(BIN)/python -m reliability.orphans --times $(or $(SIGNALS),20) --signals SIGTERM SIGINT SIGHUP SIGKILL
	$(BIN)/python -m reliability.inputs --check
	$(BIN)/python -m reliability.faults --check
	$(BIN)/python -m reliability.fuzz --minutes $(or $(MINUTES),10)

# The tables that README.md and docs/grid.md draw from the catalogue.
tables: .venv/test
	$(BIN)/python docs/tables.py

# Hours, for all of them: make calibrate CELLS="gmm:gibbs linear:closed_form"
calibrate: .venv/test
	$(BIN)/python docs/calibrate.py $(CELLS)

compat:
	PYTHON=$(PYTHON) sh tests/compat.sh

docs: .venv/docs
	$(BIN)/sphinx-build -W --keep-going -q docs docs/build/html
	$(BIN)/python docs/links.py docs/build/html

bench: .venv/bench
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

clean:
	rm -rf .venv .venv-compat build dist docs/build reports *.egg-info .pytest_cache .ruff_cache .hypothesis
