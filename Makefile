# One word for each thing to do here; `make` alone lists them.
#
# On a fresh Debian 12 with rustup's toolchain, git and make, `make run` and `make test` work with nothing
# done before: what is missing is installed through apt when run as root, and named otherwise.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# cargo uses every core by itself, and the steps of a test run come in an order.
.NOTPARALLEL:

# rustup's default place, for shells that have not read its environment file.
export PATH := $(PATH):$(HOME)/.cargo/bin

TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO  := cargo
LOCKED := --locked

# Options for `make run`, for instance ARGS='--shards 1 --maxmemory 1gb'.
ARGS ?=
# The services that are simulated.
SIM_SERVICES := cache broker
# Seeds of the simulation of each, run twice: in `make sim` and `make test`, and under AddressSanitizer.
SIM_SEEDS ?= 2000
SIM_ASAN_SEEDS ?= 100
# Seconds of each fuzzer in `make fuzz`, and which, for instance FUZZ='rdb dump'; all when empty.
FUZZ_SECONDS ?= 60
FUZZ ?=
# Partitions and producers in `make scale`.
SCALE ?= 10000
# Options for `make bench`, for instance BENCH='--row 3,3c'; for `make bench-all` those of every run, for instance '--pairs 3'.
BENCH ?=
# Knobs of `make tune-measure`, all that it can measure when empty; blocks of each comparison (a test wants 10 at least of what is kept), and where results go.
KNOBS ?=
BLOCKS ?= 10
GAINS ?= tuning/gains.json
# Rows of `make bench-all`, for instance ROWS='cache-3 broker-4b'; all when empty.
ROWS ?=

STEP = @echo "== $(1)"
# A simulation counts only when it says how many seeds it ran: "2000 seeds, …".
RAN = grep -qE "(^|[^0-9])$(1) seeds" "$(TARGET)/$(2)" || { echo "the simulation did not report $(1) seeds" >&2; exit 1; }

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- build and run -------------------------------------------------------------------------------

.PHONY: tools
tools:
	@.ci/need required 'gcc libc6-dev|echo "int main(void){return 0;}" | cc -x c -o /dev/null -' 'git|git --version'
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install the Rust toolchain from https://rustup.rs" >&2; exit 1; }

# What `bpf` is built with, beside the rest. Without clang it builds with no programs.
.PHONY: bpf-deps
bpf-deps: tools
	@.ci/need required 'libelf-dev|test -e /usr/include/libelf.h' 'zlib1g-dev|test -e /usr/include/zlib.h'
	@.ci/need optional 'clang|$${CLANG:-clang} --version'

.PHONY: build
build: bpf-deps ## release build of everything: shardd, cache, broker, sim, bench, tune, chaos, netprobe in target/release
	$(CARGO) build $(LOCKED) --release --workspace

.PHONY: run
run: tools ## build and start shardd with every service on loopback, data in ./data
	$(CARGO) build $(LOCKED) --release -p node
	exec "$(TARGET)/release/shardd" $(ARGS)

# --- test ----------------------------------------------------------------------------------------

.PHONY: test
test: bpf-deps test-deps fmt lint-and-clients unit sim instructions asan ## everything that must hold before a change goes in
	$(call STEP,all green)

# The clients are downloaded while the compiler works.
.PHONY: lint-and-clients
lint-and-clients:
	@mkdir -p "$(TARGET)"
	$(MAKE) --no-print-directory clients >"$(TARGET)/clients.log" 2>&1 & clients=$$!; \
	    checked=0; $(MAKE) --no-print-directory clippy docs unit-build || checked=$$?; \
	    wait $$clients || checked=$$?; \
	    cat "$(TARGET)/clients.log"; \
	    exit $$checked

.PHONY: fmt
fmt: tools
	$(call STEP,format)
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path services/broker/tests/clients/rdkafka/Cargo.toml --check
	rustfmt --edition 2024 --check services/cache/fuzz/fuzz_targets/*.rs

.PHONY: clippy
clippy: bpf-deps
	$(call STEP,clippy)
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings

.PHONY: docs
docs: bpf-deps
	$(call STEP,documentation)
	# A module may point its reader at a private item: nothing here is published.
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc $(LOCKED) --workspace --no-deps

.PHONY: unit-build
unit-build:
	$(call STEP,build of the tests)
	$(CARGO) test $(LOCKED) --workspace --no-run

.PHONY: unit
unit: bpf-deps ## unit, rule, conformance, golden, differential and live-client tests
	$(call STEP,tests)
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
	    $(CARGO) nextest run $(LOCKED) --workspace --profile ci; \
	    $(CARGO) test $(LOCKED) --workspace --doc --quiet; \
	else \
	    $(CARGO) test $(LOCKED) --workspace --no-fail-fast; \
	fi

.PHONY: redis-py fakeredis
redis-py: test-deps ## all of redis-py's own tests that pass on redis-server 7.0.15, on one shard and on two; `make unit` runs the quick ones
fakeredis: test-deps ## fakeredis' own tests for real servers, likewise
redis-py fakeredis: tools
	$(call STEP,own tests of $@)
	OWN_TESTS=whole $(CARGO) test $(LOCKED) --release -p cache --test own_tests -- --nocapture --exact $(subst -,_,$@)

.PHONY: sim
sim: tools ## the seeded simulation, SIM_SEEDS seeds, each twice
	$(call STEP,simulation)
	$(CARGO) build $(LOCKED) --release -p sim -p instructions
	for service in $(SIM_SERVICES); do \
	    "$(TARGET)/release/sim" --service $$service --seeds $(SIM_SEEDS) 2>&1 | tee "$(TARGET)/sim.log"; \
	    $(call RAN,$(SIM_SEEDS),sim.log); \
	done

.PHONY: instructions
instructions: tools ## instructions of hot paths, counted by Callgrind, beside their budgets
	$(call STEP,instructions)
	@.ci/need optional 'valgrind|valgrind --version'
	# Together with the simulation: alone, what both use would be built again, with other features.
	$(CARGO) build $(LOCKED) --release -p sim -p instructions
	if valgrind --version >/dev/null 2>&1; then \
	    "$(TARGET)/release/instructions"; \
	else \
	    echo "skipped: instructions are counted by valgrind (Debian: apt install valgrind)"; \
	fi

.PHONY: scale
scale: tools ## the broker with SCALE partitions and producers on one shard; `make unit` runs a tenth
	$(call STEP,partitions and producers)
	BROKER_SCALE=$(SCALE) $(CARGO) test $(LOCKED) --release -p broker --test scale -- --nocapture

# Tests on a real ring are left out: memory that the kernel may still read when a ring is dropped is kept
# on purpose, and would be reported as a leak.
.PHONY: asan
asan: tools ## the simulation under AddressSanitizer, when a nightly toolchain is there
	$(call STEP,simulation under AddressSanitizer)
	if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then \
	    triple=$$(rustc -vV | sed -n 's/^host: //p'); \
	    export RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR="$(TARGET)/asan"; \
	    $(CARGO) +nightly test $(LOCKED) --target "$$triple" --quiet -p engine --lib --test conformance \
	        -- --skip on_the_ring; \
	    for service in $(SIM_SERVICES); do \
	        $(CARGO) +nightly run $(LOCKED) --target "$$triple" -p sim -- --service $$service \
	            --seeds $(SIM_ASAN_SEEDS) 2>&1 | tee "$(TARGET)/asan.log"; \
	        $(call RAN,$(SIM_ASAN_SEEDS),asan.log); \
	    done; \
	else \
	    echo "skipped: AddressSanitizer needs a nightly toolchain (rustup toolchain install nightly)"; \
	fi

.PHONY: fuzz
fuzz: tools ## the cache's inputs fuzzed, FUZZ_SECONDS each: dumps, logs, both protocols, scripts; `make unit` replays what was found
	@.ci/need required 'g++|g++ --version'
	services/cache/fuzz/run.sh $(FUZZ_SECONDS) $(FUZZ)

.PHONY: test-deps
test-deps:
	@.ci/need optional 'kcat|command -v kcat' 'redis-server|command -v redis-server' 'redis-tools|command -v redis-cli' \
	    'memcached|command -v memcached' 'python3 python3-venv|python3 -c "import ensurepip, venv"' \
	    'nginx-light|command -v nginx' 'haproxy|command -v haproxy' 'nats-server|command -v nats-server' \
	    'libmemcached-tools|command -v memccapable' 'nodejs npm|npm --version' 'g++|g++ --version' 'iproute2|ip -V && tc -V && ss -V'

.PHONY: clients
clients: test-deps ## install the clients the live tests run, below target/clients
	$(call STEP,live clients)
	for tests in $(SIM_SERVICES:%=services/%/tests) bench-harness/tests; do \
	    $$tests/clients/install.sh \
	        || echo "skipped: the live tests of the clients named above"; \
	done

# What a guest is made of. The kernels are downloaded, and nothing of them is installed.
.PHONY: guest-deps
guest-deps: bpf-deps
	@.ci/need required 'qemu-system-x86|command -v qemu-system-x86_64' 'busybox-static|busybox true' 'dash|command -v dash' \
	    'iproute2|ip -V && tc -V && ss -V' 'cpio|command -v cpio' 'xz-utils|command -v xz' 'binutils|strip --version'

.PHONY: kill-cache
kill-cache: test-deps ## the cache with an append-only log, killed 100 times under load
	LOG_KILL_ROUNDS=100 $(CARGO) test $(LOCKED) --release -p cache --test durable killed -- --nocapture

.PHONY: test-kernels
test-kernels: guest-deps ## chaos scenarios on Debian's Linux 6.1 and 6.12, in guests that qemu emulates: 5 to 15 minutes
	$(call STEP,other kernels)
	CARGO="$(CARGO)" bpf/tests/guest/run.sh "$(TARGET)/guests"

# --- measure -------------------------------------------------------------------------------------

.PHONY: bench
bench: bpf-deps test-deps ## the table of claims beside redis, memcached, monoio and glommio
	$(CARGO) build $(LOCKED) --release --workspace
	"$(TARGET)/release/bench" cache $(BENCH)

.PHONY: bench-broker
bench-broker: tools ## the broker's rows beside NATS JetStream and RabbitMQ streams
	@.ci/need optional 'nats-server|command -v nats-server' 'rabbitmq-server|test -x /usr/lib/rabbitmq/bin/rabbitmq-server'
	bench-harness/peers/install.sh || echo "skipped: the peers named above"
	$(CARGO) build $(LOCKED) --release -p bench-harness -p broker
	"$(TARGET)/release/bench" broker $(BENCH)

.PHONY: bench-all
bench-all: bpf-deps test-deps ## every row of cache, storage and broker, and BENCHMARKS.md anew: hours, on a quiet machine
	@.ci/need optional 'nats-server|command -v nats-server' 'rabbitmq-server|test -x /usr/lib/rabbitmq/bin/rabbitmq-server'
	bench-harness/peers/install.sh || echo "skipped: the peers named above"
	$(CARGO) build $(LOCKED) --release -p bench-harness -p node -p cache -p broker
	BENCH_OPTIONS="$(BENCH)" bench-harness/measure-all.sh "$(TARGET)/release/bench" "$(TARGET)/bench-reports" $(ROWS)

# Two network namespaces with a pair of devices between them, gone again at the end. The pair is made in one of them, so that its ends have
# different numbers. Knobs of the whole host are changed for a moment too: on a machine that does nothing else.
.PHONY: tune-measure
tune-measure: tools ## what knobs of `tune` gain on this machine, into tuning/gains.json and docs/tuning.md: as root, 20 minutes
	@.ci/need required 'iproute2|ip -V'
	$(CARGO) build $(LOCKED) --release -p tuning
	mkdir -p "$(TARGET)/tune-measure"
	server="tune-server-$$$$"; client="tune-client-$$$$"; \
	exec 9</proc/self/ns/net; \
	trap 'ip netns del "$$server" 2>/dev/null || true; ip netns del "$$client" 2>/dev/null || true' EXIT; \
	ip netns add "$$server"; ip netns add "$$client"; \
	ip -n "$$server" link add tune0 type veth peer name tune1; \
	ip -n "$$server" link set tune1 netns "$$client"; \
	ip -n "$$server" addr add 10.213.0.1/30 dev tune0; ip -n "$$client" addr add 10.213.0.2/30 dev tune1; \
	ip -n "$$server" link set lo up; ip -n "$$server" link set tune0 up; ip -n "$$client" link set tune1 up; \
	code=0; ip netns exec "$$server" "$(TARGET)/release/tune" gains $(KNOBS) --client-netns "/run/netns/$$client" \
	    --address 10.213.0.1 --host-netns /proc/self/fd/9 --blocks $(BLOCKS) \
	    --journal "$(TARGET)/tune-measure/journal.json" --out "$(GAINS)" || code=$$?; \
	[ "$$code" = 0 ] || [ "$$code" = 3 ] || exit "$$code"
	# What `tune explain` says is compiled in.
	if [ "$(GAINS)" = tuning/gains.json ]; then \
	    $(CARGO) build $(LOCKED) --release -p tuning; \
	    "$(TARGET)/release/tune" list --markdown > docs/tuning.md; \
	fi

.PHONY: clean
clean: ## remove what was built
	$(CARGO) clean
