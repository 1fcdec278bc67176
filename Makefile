# SPDX-License-Identifier: Apache-2.0
# make help lists what there is. Anything longer than three lines is a script
# in tests/ or docs/.

SHELL   := /bin/bash
PREFIX  ?= /usr
DESTDIR ?=
BIN     ?= bin
T       ?= 30s

VERSION := $(shell git describe --tags --always --dirty --match 'v*' 2>/dev/null | sed 's/^[0-9a-f]/v0-dev-&/' | grep . || echo v0-dev)
# A tarball has no .git: then there is nothing to stamp.
VCS     := $(shell git rev-parse --git-dir >/dev/null 2>&1 && echo true || echo false)
LDFLAGS := -s -w -X github.com/gantryrun/gantry/internal/version.linked=$(VERSION)
GOFLAGS_STATIC := -trimpath -buildvcs=$(VCS)
export GOFLAGS := -mod=readonly
export GOTOOLCHAIN := local

PURE     := $(filter-out gantry-seccomp,$(notdir $(wildcard cmd/*)))
LIBEXEC  := $(filter-out gantry gantry-oci,$(notdir $(wildcard cmd/*)))
PROGRAMS := $(notdir $(wildcard tests/cmd/*))

.PHONY: help build demo test test-vm check bench conformance fuzz docs install clean test-programs

help: ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | column -t -s $$'\t'

build: ## static, reproducible executables in bin/
	CGO_ENABLED=0 go build $(GOFLAGS_STATIC) -ldflags '$(LDFLAGS)' -o $(BIN)/ $(addprefix ./cmd/,$(PURE))
	CGO_ENABLED=1 go build $(GOFLAGS_STATIC) -tags libseccomp,netgo,osusergo -ldflags '$(LDFLAGS) -linkmode external -extldflags "-static"' -o $(BIN)/ ./cmd/gantry-seccomp

test-programs:
	CGO_ENABLED=0 go build $(GOFLAGS_STATIC) -ldflags '-s -w' -o $(BIN)/tests/ $(addprefix ./tests/cmd/,$(PROGRAMS))

demo: ## make, sign, fetch, verify and run an image, see two refused, leave nothing
	source tests/setup/apt.sh && apt_need gcc libc6-dev pkg-config libseccomp-dev
	$(MAKE) -s build test-programs
	tests/demo.sh

test: ## everything: installs what it needs, ends with a count
	tests/run.sh

test-vm: ## the functional tests on a Debian 13 kernel, in an emulated machine
	tests/run.sh vm

check: ## formats, vet, linters, known vulnerabilities, unit tests
	tests/run.sh check unit

bench: ## gantry beside crun, runc and podman: tables and JSON in bench/out, figures of docs/performance.md
	tests/bench/run.sh --docs docs/performance.md

conformance: ## the validation suite of runtime-tools on gantry-oci, runc and crun: docs/conformance.md
	tests/conformance/run.sh

fuzz: ## each fuzz target for T=30s
	tests/fuzz.sh $(T)

docs: build ## man pages and command reference, from the commands
	docs/generate.sh

install: build ## to $(DESTDIR)$(PREFIX)
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin $(BIN)/gantry $(BIN)/gantry-oci
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/libexec/gantry $(addprefix $(BIN)/,$(LIBEXEC))
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man1 docs/man/*.1
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man8 docs/man/*.8
	docs/completion.sh $(BIN)/gantry $(DESTDIR)$(PREFIX)/share

clean: ## remove what was built
	rm -rf bin bench/out
