# The commands of this repository. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench servers

# Rows of the demo's table.
ROWS ?= 200000

stack := loadtest/stack/stack
release := $(or $(CARGO_TARGET_DIR),target)/release

## help: this list
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST) | awk -F': ' '{ printf "make %-16s %s\n", $$1, $$2 }'

## demo: split a column of ROWS rows under traffic, kill the worker half way, compare every row
demo: servers
	cargo build --release --workspace
	$(release)/loadtest demo --rows $(ROWS)

## test: all tests, on PostgreSQL, Kafka and Debezium
test: servers
	cargo test --workspace --features failpoints --no-run
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; status=0; \
	$(stack) exec -- cargo test --workspace --features failpoints --no-fail-fast 2>&1 | tee "$$log" || status=$$?; \
	echo; grep -E '^(     Running|   Doc-tests|test result:|test .* \.\.\. FAILED)' "$$log" || true; \
	exit $$status

## lint: formatting, clippy and documentation, warnings are errors
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features failpoints -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps

## bench: benchmarks without servers
bench:
	cargo bench --bench '*'

# PostgreSQL, Java, Maven, Kafka and Debezium: what is missing is installed (Debian or Ubuntu, as root),
# or named.
servers:
	@$(stack) install
