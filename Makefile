# Two commands do everything: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_VENV := benchmarks/.venv
BENCH_STAMP := $(BENCH_VENV)/.installed
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
PACKAGES := core models export producer worker cli

.PHONY: demo demo-web browser test unit integration acceptance chaos soak bench bench-scale lint format env clean

demo: env
	$(BIN)/millrace demo

demo-web: env
	$(BIN)/millrace demo-web

# The tests of the dashboard drive a real browser. Where there is none and it cannot be installed
# they are skipped, and say so.
browser:
	@command -v chromedriver >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver >/dev/null; }; } \
		|| echo "no chromium: the tests of the dashboard are skipped (apt-get install chromium chromium-driver)"

test: env browser
	$(PYTEST)

unit: env
	$(PYTEST) tests/unit

integration: env
	$(PYTEST) tests/integration

acceptance: env browser
	$(PYTEST) tests/acceptance

chaos: env
	$(PYTEST) tests/chaos

# Ten minutes of random faults; SOAK="--minutes 1 --seed 7" for others.
soak: env
	$(BIN)/python -m tests.chaos.soak $(SOAK)

# millrace beside its peers, about 45 minutes; BENCH="--quick" to try, BENCH="--help" for more.
bench: env $(BENCH_STAMP)
	$(BIN)/python -m benchmarks.run $(BENCH)

bench-scale: env
	$(BIN)/python -m benchmarks.scale $(BENCH)

lint: env .types/millrace
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES:%=.types/millrace/%) tests benchmarks

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Made once, and again only when what is installed changes.
env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# The peers' packages, which never mix with ours.
$(BENCH_STAMP): benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# The folders under the name they are imported by, for type checkers and editors.
.types/millrace:
	mkdir -p .types
	ln -s .. $@

clean:
	rm -rf $(VENV) $(BENCH_VENV) benchmarks/.work .types build dist *.egg-info
