# `make` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help setup build test scenarios bench demo demo-import demo-approvals lint fmt

# Started by itself, not by `cargo run`: what that sets for its child would have cargo build half of the dependencies again.
WITH_SERVICES = "$(or $(CARGO_TARGET_DIR),target)/debug/with-services"

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing, and nothing else
	@scripts/setup.sh

build: setup ## Build everything
	cargo build --workspace --all-targets

test: build ## Run every test, on one throw-away PostgreSQL
	$(WITH_SERVICES) scripts/test.sh

scenarios: setup ## Run the workflows of tests/scenarios and compare how they end; ONLY=part of a name
	cargo build --package tasker-testkit --bins
	SCENARIO="$(ONLY)" $(WITH_SERVICES) cargo test --quiet --package tasker-scenarios -- --nocapture

bench: setup ## Measure: all, or ONLY=name; GROWTH=full, IDLE_SECONDS, BENCH_QUICK (see benches/RESULTS.md)
	cargo run --release --package tasker-bench -- $(ONLY)

test-faults: setup ## Kill workers, connections, servers and disks, FAULT_ROUNDS times (5)
	FAULT_ROUNDS=$${FAULT_ROUNDS:-5} $(WITH_SERVICES) cargo test --package tasker-faults --test faults -- --nocapture

test-servers: setup ## Run the suites on every kind of server; ONLY=postgres18, plain, tls, socket or pgbouncer
	@scripts/servers.sh $(ONLY)

test-containers: setup ## Run the suites on a PostgreSQL in a container, where Docker answers (compiles for minutes)
	cargo build --package tasker-testkit --bins --features containers
	$(WITH_SERVICES) scripts/test.sh

demo: setup ## Run 200 orders through a workflow and show what happened
	@scripts/demo.sh

demo-import: setup ## Import 50,000 rows, kill the worker half-way, go on, and count every row once
	@scripts/demo-import.sh

demo-approvals: setup ## Refunds that wait for a person: approved, refused, forgotten, and one that is undone
	@scripts/demo-approvals.sh

lint: setup ## Check format and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings

fmt: setup ## Format the code
	cargo fmt --all
