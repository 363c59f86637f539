# make up     the whole cluster in one process, on this machine
# make test   every test of every module, with the race detector, real NATS and real PostgreSQL
SHELL := /bin/bash
DATA ?= $(shell scripts/data-dir)
HTTP ?= 127.0.0.1:8080
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

build_flags = -trimpath -ldflags "-X main.version=$(VERSION)"
roles = edge worker recorder

.PHONY: up build test day bench lint generate check clean

up:
	@scripts/install postgres
	@$(MAKE) --no-print-directory build
	@exec bin/usher up --data "$(DATA)" --http "$(HTTP)" $(ARGS)

# Without cgo the programs are static: they run on any machine of the kind.
build:
	@mkdir -p bin
	CGO_ENABLED=0 go build $(build_flags) -o bin/usher ./services/usher/cmd/usher
	$(foreach r,$(roles),CGO_ENABLED=0 go build $(build_flags) -o bin/usher-$(r) ./services/$(r)/cmd/usher-$(r) &&) true

test:
	@scripts/install postgres compiler nginx
	go test -race -timeout 9m work

# The simulated day: 2,000 viewers, five nodes, restarts and kills; six minutes. USHER_DAY=small: 300 viewers in one.
day:
	@scripts/install postgres
	USHER_DAY=$${USHER_DAY:-large} go test -tags day -count=1 -timeout 20m -run 'TestDay$$' -v ./services/usher/e2e

# What DESIGN.md promises of speed, as ratios to a yardstick in the same run: services/usher/bench/README.md.
# make bench ARGS="-only new-64 -rounds 3"
bench:
	@scripts/install postgres
	@go run ./services/usher/bench $(ARGS)

lint:
	@scripts/lint

generate:
	@scripts/install protoc
	@scripts/generate

# What CI runs.
check:
	@.ci/run

clean:
	rm -rf bin
