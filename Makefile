# `make demo` and `make test` do all of their own set-up; `make help` lists what else there is. GNU make.

PYTHON ?= python3
# More arguments for pytest: make test ARGS='-k sync'
ARGS ?=
# Tests at the same time: most of a test is waiting.
JOBS ?= 4

# One environment for each Python, so that one can be tried beside another.
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin

# Debian packages, each with a program that it brings.
FOR_LINT := shellcheck:shellcheck
FOR_TEST := dash:dash mksh:mksh ksh93u+m:ksh93 busybox-static:busybox shellcheck:shellcheck \
	qemu-system-x86:qemu-system-x86_64 qemu-system-arm:qemu-system-aarch64 git:git iproute2:ip openssl:openssl \
	systemd:systemd-analyze ser2net:ser2net socat:socat telnet:telnet

SHELL_FILES := $(wildcard target-scripts/lava-*) fixtures/example-plugin/multinode_example/lava-now
BENCHMARKS := $(wildcard bench/*.py)

.DEFAULT_GOAL := help
# Half an environment must not be taken for one the next time.
.DELETE_ON_ERROR:
.NOTPARALLEL:
.ONESHELL:
.SHELLFLAGS := -euc

define FUNCTIONS
say() { printf 'make: %s\n' "$$*" >&2; }
stop() { say "$$@"; exit 1; }
# absent PACKAGE:PROGRAM ...: prints the packages whose program is not there.
absent() { for pair do command -v "$${pair#*:}" >/dev/null || printf '%s ' "$${pair%%:*}"; done; }
# fetch PACKAGE ...: installs Debian packages where that is ours to do; whether it worked is for the caller to see.
fetch() {
	[ $$# -gt 0 ] && [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 0
	say "installing the Debian packages: $$*"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update >/dev/null || :
	apt-get -qq -y -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 --no-install-recommends install "$$@" >/dev/null || :
}
# install WHAT: pip, and what to do when it fails.
install() {
	say "installing $$1 into $(VENV)"
	"$(BIN)/python" -m pip install -q --disable-pip-version-check -e "$$1" || {
		say "pip could not install what this needs; its reason stands above."
		say "It needs a package index: the network, a proxy (HTTPS_PROXY) or an index of yours (PIP_INDEX_URL)."
		exit 1
	}
}
endef

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 8

demo: $(VENV)/installed ## the API page's client and server example on two local shells
	@"$(BIN)/multinode" demo

test: $(VENV)/installed-dev ## all tests; what they need is installed where you are root, else it is named
	@$(FUNCTIONS)
	fetch $$(absent $(FOR_TEST))
	missing=$$(absent $(FOR_TEST))
	[ -z "$$missing" ] || say "as root: apt-get install --no-install-recommends $$missing"
	[ -z "$$missing" ] || [ -z "$${CI-}" ] || stop "these packages are missing, and in CI no test may be skipped"
	[ -z "$$missing" ] || say "these packages are missing; the tests that need them are skipped"
	"$(BIN)/python" -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: $(VENV)/installed-dev ## style, types and the shell scripts
	@$(FUNCTIONS)
	fetch $$(absent $(FOR_LINT))
	[ -z "$$(absent $(FOR_LINT))" ] || stop "shellcheck is missing; as root: apt-get install $$(absent $(FOR_LINT))"
	set -x
	"$(BIN)/python" -m ruff check .
	"$(BIN)/python" -m ruff format --check .
	"$(BIN)/python" -m mypy dispatcher fixtures/example-plugin/multinode_example lava-plugin/multinode_lava
	shellcheck -x -s sh $(SHELL_FILES)
	shellcheck .ci/run

soak: $(VENV)/installed-dev ## the property tests, random corruptions and the bad line, for much longer
	@HYPOTHESIS_PROFILE=soak "$(BIN)/python" -m pytest -n $(JOBS) --dist worksteal -m hypothesis $(ARGS)
	MULTINODE_CORRUPTIONS=10000000 "$(BIN)/python" -m pytest tests/framing/test_reliable.py -k corruption $(ARGS)
	MULTINODE_SOAK=1 "$(BIN)/python" -m pytest -n $(JOBS) --dist worksteal tests/line tests/scripts/test_frames_console.py $(ARGS)

bench: $(VENV)/installed-dev ## the benchmarks
	@for script in $(BENCHMARKS); do
		printf '== %s\n' "$$script"
		"$(BIN)/python" "$$script"
	done

clean: ## remove what make has made
	rm -rf .venv .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(FUNCTIONS)
	have() { command -v "$(PYTHON)" >/dev/null; }
	have || fetch python3
	have || stop "there is no $(PYTHON); as root: apt-get install python3 python3-venv (or name one: make PYTHON=...)"
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
		stop "$(PYTHON) is $$("$(PYTHON)" -V 2>&1); 3.11 or newer is needed. Name one: make PYTHON=python3.12 ..."
	package=$$("$(PYTHON)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
	complete() { "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; }
	complete || fetch "$$package"
	complete || stop "$(PYTHON) cannot make a virtual environment; as root: apt-get install $$package"
	"$(PYTHON)" -m venv --clear $(VENV)

# They are made again when what is to be installed changes.
$(VENV)/installed: setup.cfg pyproject.toml | $(BIN)/python
	@$(FUNCTIONS)
	install .
	touch $@

$(VENV)/installed-dev: setup.cfg pyproject.toml | $(BIN)/python
	@$(FUNCTIONS)
	install '.[dev]'
	touch $(VENV)/installed $@

.PHONY: help demo test lint soak bench clean
