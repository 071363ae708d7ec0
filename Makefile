# Everything one does with this checkout. `make` prints what there is.
# `make demo` and `make test` set themselves up: a virtual environment in .venv from the
# locked, hashed requirements; for the tests also the system's own tools they measure with.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Arguments for pytest, for example: make test ARGS="tests/core -x"
ARGS ?=
# Arguments for pip-compile, for example: make lock LOCK_ARGS=--upgrade
LOCK_ARGS ?=
LOCK := $(BIN)/pip-compile --quiet --no-config --generate-hashes --strip-extras --allow-unsafe \
	--no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	--build-deps-for editable $(LOCK_ARGS)

# command:package pairs, as Debian packages them: those that the tests must have, and those that
# only root can use; without the latter the tests that need them are skipped
TOOLS := strace:strace busybox:busybox-static unshare:util-linux ip:iproute2 git:git
COMPONENTS := dockerd:docker.io docker:docker.io containerd:containerd systemctl:systemd \
	dbus-daemon:dbus openssl:openssl docker-compose:docker-compose \
	prometheus:prometheus nginx:nginx-light caddy:caddy haproxy:haproxy \
	/usr/lib/cni/bridge:containernetworking-plugins

.PHONY: help demo test check lint types imports format bench lock clean system

help:  ## print this list
	@grep -hE '^[a-z]+:.*  ## ' $(firstword $(MAKEFILE_LIST)) \
	| sed -E 's/^([a-z]+):.*  ## (.*)/\1\t\2/' \
	| while IFS=$$'\t' read -r target purpose; do printf 'make %-8s %s\n' "$$target" "$$purpose"; done

demo: $(RUN)  ## see services break and be healed, here and now
	@$(BIN)/prunella demo

test: $(DEV) system  ## run all tests (ARGS="tests/core -x" runs some of them)
	$(BIN)/python -m pytest $(ARGS)

check: lint types imports test  ## format, lint, types, layers, then all tests

lint: $(DEV)  ## format and lint, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(DEV)  ## mypy and pyright, both strict
	$(BIN)/mypy
	$(BIN)/pyright

imports: $(DEV)  ## the layers of docs/architecture.md
	$(BIN)/lint-imports

format: $(DEV)  ## format the code and repair what lint can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV)  ## measure, and print the figures
	$(BIN)/python -m bench

lock: $(DEV)  ## pin requirements/*.txt to hashes (LOCK_ARGS=--upgrade takes newer versions)
	@export PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS=; \
	$(LOCK) --extra envoy --output-file requirements/run.txt pyproject.toml; \
	$(LOCK) --extra dev --extra envoy --constraint requirements/run.txt \
		--output-file requirements/dev.txt pyproject.toml; \
	if grep -nE '://|^ *--(index|extra|find|trusted)' requirements/*.txt; then \
		echo 'the lines above tie the lock to one registry or one machine' >&2; exit 1; \
	fi

clean:  ## remove what was built or cached, and the virtual environment
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache \
		.hypothesis .import_linter_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "$(PYTHON) is not on the PATH: Prunella needs Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$($(PYTHON) --version) is too old: Prunella needs Python 3.11 or newer;" \
			"name another one with make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu run" \
			"'apt-get install python3-venv' as root" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUN): $(BIN)/python requirements/run.txt pyproject.toml
	$(PIP) install --require-hashes -r requirements/run.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): $(BIN)/python requirements/dev.txt requirements/charts.txt pyproject.toml
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(PIP) install --require-hashes --no-deps -r requirements/charts.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

system:
	@export PATH="$$PATH:/usr/sbin:/sbin"; missing=(); tools="$(TOOLS)"; able=; \
	if [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
		able=yes; tools+=" $(COMPONENTS)"; \
	fi; \
	for tool in $$tools; do \
		command -v "$${tool%%:*}" >/dev/null || missing+=("$${tool##*:}"); \
	done; \
	[ "$${#missing[@]}" -gt 0 ] || exit 0; \
	if [ -z "$$able" ]; then \
		echo "the tests need these packages of the system: $${missing[*]}" >&2; \
		echo "on Debian and Ubuntu: sudo apt-get install $${missing[*]}" >&2; exit 1; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq </dev/null; \
	apt-get install -y -qq --no-install-recommends "$${missing[@]}" </dev/null
