# The commands of the project; `make help` lists them. Everything they need that is not part of a
# plain Debian with cargo, Go and Python is installed by dev/run; what takes long to build is kept
# in the user's cache folder.
SHELL := /bin/bash
.DEFAULT_GOAL := help

export EMS_BOTS_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ems-bots
export CARGO_TARGET_DIR ?= $(EMS_BOTS_CACHE)/target

.PHONY: help demo down check test test-failpoints test-outage fmt build generate generated-check bench bench-capture bench-coverage

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Bring up a cluster, a homeserver and both bots, and show what they do
	@dev/run demo

down: ## Remove everything that the demo and the tests started
	@dev/run down

check: ## The fast loop: format, lints, docs, unit and integration tests, generated files, import rules
	@dev/run check

test: ## Everything: the fast loop and the end-to-end tests on a real cluster
	@dev/run test

test-failpoints: ## A worker that dies at every place of its way to a commit, one after the other
	@dev/run test-failpoints

test-outage: ## Capture without its database for an hour, and what the trail has afterwards
	@dev/run test-outage

fmt: ## Format the code
	cargo fmt

build: ## The binary, linted
	@dev/run binary

generate: ## Write the generated files: crds/ and the chart's copies
	@dev/run generate

generated-check: ## Fail if a generated file is not up to date
	@dev/run generate --check

bench: ## The figures of docs/performance.md
	@dev/run bench

bench-capture: ## Its figures of capture: how much, how fast, and what it costs
	@dev/run bench-capture

bench-coverage: ## Its figures of coverage: how fast the bot is in all rooms, and what it costs to stay there
	@dev/run bench-coverage
