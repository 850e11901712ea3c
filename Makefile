# SPDX-License-Identifier: Apache-2.0
# The only command surface: `make help` lists it. Set-up is inside the targets: each makes the virtual
# environment, compiles and installs the package, and gets the Debian packages that it needs. Stamp files
# in .venv say what is done already, so that a second run starts at once.

PYTHON ?= python3
RUNS ?= 1
NODE ?= a
SEED ?=
FUZZ_TIME ?= 60
PYTEST ?=

VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/stamps
SETUP  := PYTHON=$(PYTHON) netns-lab/setup.sh
LAB    := $(BIN)/python netns-lab/lab.py

# What the targets run besides Python and C; one list each, so that nobody installs more than needed.
PACKAGES_LAB   := iproute2 nftables tshark iperf3 nginx curl ethtool
PACKAGES_TEST  := $(PACKAGES_LAB) keepalived systemd-container debootstrap
PACKAGES_BENCH := iproute2 iputils-ping nftables iperf3
PACKAGES_FUZZ  := clang-14 libclang-rt-14-dev

C_SOURCES := $(wildcard csrc/*.c csrc/*.h)
C_ALL     := $(C_SOURCES) $(wildcard csrc/test/*.[ch] tests/bench/*.[ch] netns-lab/*.[ch])
PY_ALL    := flexha netns-lab tests csrc

.DEFAULT_GOAL := help
.PHONY: help dev build check fmt test test-netns sim fuzz asan tsan bench bench-forwarding \
	lab-up lab-down lab-shell lab-status lab-failover docs ci clean FORCE

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- set-up ------------------------------------------------------------------------------------------

$(STAMPS)/venv-%: pyproject.toml netns-lab/setup.sh
	@$(SETUP) venv $*
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/install: pyproject.toml csrc/ffi_build.py $(C_SOURCES) $(STAMPS)/venv-test
	@$(SETUP) install
	@mkdir -p $(STAMPS) && touch $@

.PHONY: packages-lab packages-test packages-bench packages-fuzz
packages-lab:
	@$(SETUP) packages $(PACKAGES_LAB)
packages-test:
	@$(SETUP) packages $(PACKAGES_TEST)
packages-bench:
	@$(SETUP) packages $(PACKAGES_BENCH)
packages-fuzz:
	@$(SETUP) packages $(PACKAGES_FUZZ)

build: $(STAMPS)/install ## .venv with the package, the extension compiled

dev: build $(STAMPS)/venv-check packages-test ## everything that a developer needs

# ---- quality -----------------------------------------------------------------------------------------

# As pyproject.toml has them, so that clang-tidy sees what the build sees.
TIDY_FLAGS := -std=gnu11 -Icsrc -Wall -Wextra

check: build $(STAMPS)/venv-check ## lint, types, imports, formats, tidy
	$(BIN)/ruff check $(PY_ALL)
	$(BIN)/ruff format --check $(PY_ALL)
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir build/import-linter
	$(BIN)/clang-format --dry-run -Werror $(C_ALL)
	$(BIN)/clang-tidy --quiet $(filter csrc/%.c,$(C_ALL)) -- $(TIDY_FLAGS) -D_GNU_SOURCE
	$(BIN)/clang-tidy --quiet $(filter-out csrc/%,$(filter %.c,$(C_ALL))) -- $(TIDY_FLAGS)
	$(BIN)/pytest -q tests/unit/test_tidy.py

fmt: $(STAMPS)/venv-check ## format Python and C
	$(BIN)/ruff check --fix --exit-zero --quiet $(PY_ALL)
	$(BIN)/ruff format $(PY_ALL)
	$(BIN)/clang-format -i $(C_ALL)

# ---- tests -------------------------------------------------------------------------------------------

test: build packages-test ## all tiers: unit, spec, model, transcript, sim, c, netns
	$(BIN)/pytest $(PYTEST)

test-netns: build packages-test ## only the tier with real daemons in namespaces
	$(BIN)/pytest tests/netns $(PYTEST)

sim: build ## two cores under a virtual clock; SEED=n repeats a run
	FLEXHA_SIM_SEED=$(SEED) $(BIN)/pytest tests/sim $(PYTEST)

asan: build ## the C checks and the fuzz corpus under AddressSanitizer and UBSan
	$(BIN)/pytest tests/c -k "asan" $(PYTEST)

tsan: build ## the C thread checks under ThreadSanitizer
	$(BIN)/pytest tests/c -k "tsan" $(PYTEST)

fuzz: packages-fuzz ## libFuzzer on frames and imports, FUZZ_TIME=seconds each
	$(MAKE) --no-print-directory -C csrc/test fuzz FUZZ_TIME=$(FUZZ_TIME)

ci: check test ## what .ci/run runs

# ---- benchmarks --------------------------------------------------------------------------------------

bench: bench-forwarding ## every benchmark; results in build/bench

bench-forwarding: build packages-bench ## packets/s and TCP: the pair, a bare TAP copy, kernel nft
	$(BIN)/python tests/bench/bench_forwarding.py

# ---- the lab -----------------------------------------------------------------------------------------

lab-failover: build packages-lab ## the main job: kill the ACTIVE node under traffic; RUNS=n
	@$(LAB) failover --runs $(RUNS)

lab-up: build packages-lab ## build the lab and leave it running
	@$(LAB) up

lab-down: ## take it down
	@$(LAB) down

lab-shell: ## a shell in one of its hosts: NODE=a|b|client|server|isp|lansw|wansw
	@$(LAB) shell $(NODE)

lab-status: ## what both nodes say
	@$(LAB) status

# ---- the rest ----------------------------------------------------------------------------------------

docs: build ## print the configuration's schema (also: systemd/man)
	@mkdir -p build/docs
	$(BIN)/flexhad --print-schema >build/docs/pair.schema.json
	@echo "build/docs/pair.schema.json; man pages: man -l systemd/man/flexha.8"

clean: ## remove everything that was made
	rm -rf build $(VENV) dist *.egg-info .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find flexha -name '*.so' -delete
