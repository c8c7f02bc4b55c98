# Two commands do everything on a fresh Debian machine, as root: `make demo` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

DEMO_ROOT ?= /var/tmp/kestrelpi-demo
NODES ?= 2
MODEL ?= 4
KEEP ?=
FUZZ ?= 1000000
COMPARE ?= mmdebstrap,naive
SCRIPTS = scripts/prepare scripts/run-tests .ci/run $(shell find phases modules overlays -type f -perm -u+x ! -name '*.j2' ! -path '*/initramfs/*')

.PHONY: help prepare prepare-demo prepare-tests demo test unit integration boot lint format fuzz bench-build bench-levers bench-boot bench-boot-services bench-fibo clean

help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 28

prepare:
	@scripts/prepare

prepare-demo:
	@scripts/prepare --demo

prepare-tests:
	@scripts/prepare --tests

demo: prepare-demo  ## Build an image, boot two emulated Pis from it, register them, compute (KEEP=1 leaves them up)
	@.venv/bin/kestrelpi --root $(DEMO_ROOT) lab demo --nodes $(NODES) --model $(MODEL) $(if $(KEEP),--keep)

test: prepare-tests lint  ## Every test: lint, unit, integration, boot
	@scripts/run-tests

unit: prepare  ## Only the unit tests (seconds)
	.venv/bin/pytest tests/unit -q

integration: prepare-tests  ## Only the tests with real servers and clients
	.venv/bin/pytest tests/integration

boot: prepare-tests  ## Only the tests that boot emulated Pis
	.venv/bin/pytest tests/boot

lint: prepare-tests  ## ruff, mypy --strict, shellcheck
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	shellcheck -x $(SCRIPTS)
	shellcheck -x -s dash overlays/initramfs/init overlays/initramfs/lib/kestrelpi/functions overlays/initramfs/lib/kestrelpi/udhcpc

fuzz: prepare  ## A million malformed DHCP, TFTP and DNS packets against the daemon (FUZZ=1000000)
	.venv/bin/python tests/integration/fuzzing.py --packets $(FUZZ)

format: prepare  ## Format the code
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench-build: prepare-tests  ## Builds and their disk, beside mmdebstrap and the naive recipe, over an hour (COMPARE= without)
	.venv/bin/python benches/build.py --compare "$(COMPARE)"

bench-levers: prepare-tests  ## What each lever of the builder is worth: builds with one of them off, over half an hour
	.venv/bin/python benches/levers.py

bench-boot: prepare-demo  ## What a node reads from power-on to its login prompt, beside a stock NFS root
	.venv/bin/python benches/boot.py

bench-boot-services: prepare-tests  ## TFTP, DHCP, DNS, storms, 10,000 nodes, beside dnsmasq and tftpd-hpa: one table of ratios, 20 minutes (ONLY=dns,fleet)
	.venv/bin/python benches/boot_services.py $(if $(ONLY),--only $(ONLY))

bench-fibo: prepare  ## fibo against a parallel region in every call
	.venv/bin/python benches/fibo.py

.PHONY: torture
torture: prepare-tests  ## Kill builds, publications, rollbacks and clean-ups at 200 random moments, with disks that fill up
	KESTRELPI_KILLS=200 .venv/bin/pytest -s tests/integration/images/test_images_kill.py

clean:  ## Remove the demo's root and the virtual environment
	@if [ -x .venv/bin/kestrelpi ]; then .venv/bin/kestrelpi --root $(DEMO_ROOT) lab down; fi
	rm -rf .venv $(DEMO_ROOT)
