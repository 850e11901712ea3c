# SPDX-License-Identifier: Apache-2.0
# The only command surface: `make help` lists it. Set-up is inside the targets: each makes the virtual
# environment, compiles and installs the package, and gets the Debian packages that it needs. Stamp files
# in .venv say what is done already, so that a second run starts at once.

PYTHON ?= python3
RUNS ?= 1
NODE ?= a
MODES ?= async bounded strict
BOUNDARIES ?=
SEED ?=
DRIVER ?=
ONLY ?=
SHORT ?=
TOPOLOGY ?=
J ?= 1
FUZZ_TIME ?= 60
PYTEST ?=

VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/stamps
SETUP  := PYTHON=$(PYTHON) netns-lab/setup.sh
LAB    := $(BIN)/python netns-lab/lab.py

# What the targets run besides Python and C; one list each, so that nobody installs more than needed.
PACKAGES_LAB   := iproute2 iputils-ping nftables nginx curl
PACKAGES_ROUTED := $(PACKAGES_LAB) frr keepalived
PACKAGES_TEST  := $(PACKAGES_ROUTED) procps libpcap0.8 tshark bird2 systemd-container mmdebstrap eatmydata spin
PACKAGES_BENCH := iproute2 iputils-ping nftables iperf3 conntrackd
PACKAGES_FUZZ  := clang-14 libclang-rt-14-dev

C_SOURCES := $(wildcard csrc/*.c csrc/*.h)
C_ALL     := $(C_SOURCES) $(wildcard csrc/test/*.[ch] tests/bench/*.[ch] netns-lab/*.[ch])
PY_ALL    := flexha netns-lab tests csrc

.DEFAULT_GOAL := help
.PHONY: help dev build check fmt test test-netns test-packet sim model fuzz asan tsan bench bench-fastpath bench-policy bench-capture \
	bench-forwarding bench-sync lab-up lab-down lab-shell lab-status lab-failover lab-embryonic lab-scenarios lab-soak docs ci clean FORCE

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- set-up ------------------------------------------------------------------------------------------

$(STAMPS)/venv-%: pyproject.toml netns-lab/setup.sh
	@$(SETUP) venv $*
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/install: pyproject.toml csrc/ffi_build.py $(C_SOURCES) $(STAMPS)/venv-test
	@$(SETUP) install
	@mkdir -p $(STAMPS) && touch $@

.PHONY: packages-lab packages-routed packages-test packages-bench packages-fuzz
packages-lab:
	@$(SETUP) packages $(PACKAGES_LAB)
packages-routed:
	@$(SETUP) packages $(PACKAGES_ROUTED)
packages-test:
	@$(SETUP) packages $(PACKAGES_TEST)
packages-bench:
	@$(SETUP) packages $(PACKAGES_BENCH)
packages-fuzz:
	@$(SETUP) packages $(PACKAGES_FUZZ)

build: $(STAMPS)/install ## .venv with the package, the extension compiled

dev: build $(STAMPS)/venv-check packages-test ## everything that a developer needs

# ---- quality -----------------------------------------------------------------------------------------

check: build $(STAMPS)/venv-check ## lint, types, imports, formats, tidy
	$(BIN)/ruff check $(PY_ALL)
	$(BIN)/ruff format --check $(PY_ALL)
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir build/import-linter
	$(BIN)/clang-format --dry-run -Werror $(C_ALL)
	@$(MAKE) --no-print-directory --jobs=$(shell nproc) --output-sync $(CLANG_TIDY)
	$(BIN)/pytest -q tests/unit/test_tidy.py

# clang-tidy takes seconds per file: it looks only at what has changed, with the flags of pyproject.toml.
CLANG_TIDY := $(patsubst %.c,build/clang-tidy/%.ok,$(filter %.c,$(C_ALL)))
TIDY_FLAGS := -std=gnu11 -Icsrc -Wall -Wextra

build/clang-tidy/csrc/%.ok: TIDY_FLAGS += -D_GNU_SOURCE
build/clang-tidy/tests/bench/bench_fastpath.ok: TIDY_FLAGS += -D_GNU_SOURCE -Icsrc/test
build/clang-tidy/%.ok: %.c $(filter %.h,$(C_ALL)) .clang-tidy
	$(BIN)/clang-tidy --quiet $< -- $(TIDY_FLAGS)
	@mkdir -p $(@D) && touch $@

fmt: $(STAMPS)/venv-check ## format Python and C
	$(BIN)/ruff check --fix --exit-zero --quiet $(PY_ALL)
	$(BIN)/ruff format $(PY_ALL)
	$(BIN)/clang-format -i $(C_ALL)

# ---- tests -------------------------------------------------------------------------------------------

# Daemons in namespaces wait for conditions most of the time. Tests that need none, or have a machine of their own,
# run meanwhile, one step behind them; what they print comes last.
MACHINE := netns/test_systemd.py
TIERS := unit spec transcript sim model c $(MACHINE)

test: build packages-test ## all tiers: unit, spec, model, transcript, sim, c, and meanwhile netns
ifeq ($(PYTEST),)
	@mkdir -p build
	@nice -n 10 $(BIN)/pytest -o cache_dir=build/pytest-tiers $(TIERS:%=tests/%) >build/test-tiers.log 2>&1 & \
	tiers=$$!; trap "kill $$tiers" INT TERM; \
	$(BIN)/pytest tests/netns --ignore=tests/$(MACHINE); netns=$$?; \
	wait $$tiers; others=$$?; cat build/test-tiers.log; \
	test $$netns$$others = 00
else
	$(BIN)/pytest $(PYTEST)
endif

test-netns: build packages-test ## only the tier with real daemons in namespaces; DRIVER=tap|packet
	FLEXHA_LAB_DRIVER=$(DRIVER) $(BIN)/pytest tests/netns $(PYTEST)

# What depends on how frames come and go; the driver itself is tested in either pass.
PACKET_TESTS := nat fragments icmp failover tcp_windows bad_input capture workers

test-packet: build packages-test ## what of the tier can differ by driver, once more with driver packet
	FLEXHA_LAB_DRIVER=packet $(BIN)/pytest $(PACKET_TESTS:%=tests/netns/test_%.py) $(PYTEST)

# RUNS has a default for the lab, which is no number of schedules: only who gives it gets so many.
SIM_RUNS := $(if $(filter command environment,$(firstword $(origin RUNS))),$(RUNS),$(if $(SEED),1,100))

sim: build ## two cores, virtual clock, faulty network: RUNS=m schedules from SEED=n, by J=2 processes; SEED=n alone repeats one
	$(BIN)/python -m tests.sim $(SEED:%=--seed %) --runs $(SIM_RUNS) --jobs $(J)

model: build packages-test ## the role machine's table in small worlds with bounded faults, checked with spin; ONLY="crash cut"
	PYTHONPATH=tests $(BIN)/python -m model.promela $(ONLY)

asan: ## the C checks and the fuzz corpus under AddressSanitizer and UBSan
	$(MAKE) --no-print-directory -C csrc/test asan

tsan: ## the C checks under ThreadSanitizer
	$(MAKE) --no-print-directory -C csrc/test tsan

fuzz: packages-fuzz ## libFuzzer on frames, imports, filters and the sync connection, FUZZ_TIME=seconds each
	$(MAKE) --no-print-directory -C csrc/test fuzz FUZZ_TIME=$(FUZZ_TIME)

# Lint and tidy take what CPU time the tests leave, most of which wait for conditions most of the time.
ci: dev ## what .ci/run runs: check, test, test-packet
	@mkdir -p build
	@chrt --idle 0 $(MAKE) --no-print-directory check >build/check.log 2>&1 & check=$$!; \
	$(MAKE) --no-print-directory test; tested=$$?; \
	wait $$check; checked=$$?; cat build/check.log; \
	test $$tested$$checked = 00
	@$(MAKE) --no-print-directory test-packet

# ---- benchmarks --------------------------------------------------------------------------------------

bench: bench-fastpath bench-policy bench-capture bench-forwarding bench-sync ## every benchmark; results in build/bench

bench-fastpath: build ## ns per packet, sessions per second and bytes per session of the fast path, without I/O
	$(BIN)/python tests/bench/bench_fastpath.py

bench-policy: build/bench/bench_policy ## ns of a rule lookup, in the cache and out of it
	build/bench/bench_policy

build/bench/bench_policy: csrc/test/bench_policy.c csrc/policy.c csrc/hash.c $(filter %.h,$(C_ALL))
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -D_GNU_SOURCE -O3 -Wall -Wextra -Werror -Icsrc $(CFLAGS) -o $@ $(filter %.c,$^)

bench-capture: build/bench/bench_capture ## ns that a packet pays for capture, off and on
	build/bench/bench_capture

build/bench/bench_capture: csrc/test/bench_capture.c $(filter %.c,$(C_SOURCES)) $(filter %.h,$(C_ALL))
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -D_GNU_SOURCE -O3 -Wall -Wextra -Werror -Icsrc -Icsrc/test -pthread $(CFLAGS) -o $@ $(filter %.c,$^)

bench-forwarding: build packages-bench ## the pair beside a bare TAP copy, kernel nft, and nft with conntrackd
	$(BIN)/python tests/bench/bench_forwarding.py

bench-sync: build packages-bench ## two daemons: a million sessions at once, 50,000 a second, bytes and CPU; beside conntrackd
	$(BIN)/python tests/bench/bench_sync.py

# ---- the lab -----------------------------------------------------------------------------------------

lab-failover: build packages-lab ## the main job: kill the ACTIVE node under traffic; RUNS=n, DRIVER=tap|packet
	@FLEXHA_LAB_DRIVER=$(DRIVER) $(LAB) failover --runs $(RUNS)

lab-embryonic: build packages-lab ## kill ACTIVE at each packet of new connections; MODES= BOUNDARIES= RUNS=n
	@FLEXHA_LAB_DRIVER=$(DRIVER) $(LAB) embryonic --runs $(RUNS) --modes "$(MODES)" --boundaries "$(BOUNDARIES)"

# Each scenario knows how often it has to be played; RUNS= on the command line overrules all of them.
lab-scenarios: build packages-routed ## every failure against its bar; ONLY=a,b RUNS=n SHORT=1 TOPOLOGY=plain|bridges
	@FLEXHA_LAB_DRIVER=$(DRIVER) FLEXHA_LAB_TOPOLOGY=$(TOPOLOGY) $(LAB) scenarios --only "$(ONLY)" \
		$(if $(filter file,$(origin RUNS)),,--runs $(RUNS)) $(if $(SHORT),--short)

lab-soak: build packages-lab ## ten minutes of full load with aggressive timers: no takeover
	@FLEXHA_LAB_DRIVER=$(DRIVER) $(LAB) scenarios --only soak

lab-up: build packages-lab ## build the lab and leave it running; DRIVER=tap|packet
	@FLEXHA_LAB_DRIVER=$(DRIVER) $(LAB) up

lab-down: ## take it down
	@$(LAB) down

lab-shell: ## a shell in one of its hosts: NODE=a|b|client|server|isp|lansw|wansw
	@$(LAB) shell $(NODE)

lab-status: ## what both nodes say
	@$(LAB) status

# ---- the rest ----------------------------------------------------------------------------------------

docs: build ## the configuration's keys as text, beside the manual pages of systemd/man
	@mkdir -p build/docs
	@$(BIN)/flexhad --print-schema >build/docs/flexha.toml.txt
	@echo build/docs/flexha.toml.txt systemd/man/*

clean: ## remove everything that was made
	rm -rf build $(VENV) dist *.egg-info .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find flexha -name '*.so' -delete
