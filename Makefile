# SPDX-License-Identifier: Apache-2.0
# A thin front of Meson and Ninja. `make demo` and `make check` also install what is missing (Debian, Ubuntu).
BUILD ?= build
MESON_OPTIONS ?=
TESTS ?=

all: build

# Meson and the libraries come from the distribution; say how to get them instead of failing in the middle.
$(BUILD)/build.ninja:
	@command -v meson >/dev/null && command -v ninja >/dev/null || \
		{ echo "cairn: meson or ninja is missing; try: make deps" >&2; exit 1; }
	@meson setup $(MESON_OPTIONS) $(BUILD) >$(BUILD)-setup.log 2>&1 || \
		{ cat $(BUILD)-setup.log >&2; rm -rf $(BUILD); \
		  echo "cairn: a library is missing; try: make deps" >&2; exit 1; }
	@rm -f $(BUILD)-setup.log

build: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet

deps:
	@scripts/install-deps.sh build

test-deps:
	@scripts/install-deps.sh test

demo: deps
	@$(MAKE) --no-print-directory build
	@scripts/demo.sh $(BUILD)/cairn

check: test-deps
	@$(MAKE) --no-print-directory build
	@tests/run --build $(BUILD) $(TESTS)

check-long: test-deps
	@$(MAKE) --no-print-directory build
	@tests/run --build $(BUILD) --long $(TESTS)

# QUICK=1: in a minute; CRIU=/path/to/criu: beside it.
bench:
	@scripts/install-deps.sh bench
	@$(MAKE) --no-print-directory build
	@bench/run --build $(BUILD) $(if $(QUICK),--quick)

# DESTDIR and MESON_OPTIONS="--prefix=..." as usual.
install: build
	@meson install -C $(BUILD) --no-rebuild

clean:
	rm -rf build build-*

.PHONY: all build deps test-deps demo check check-long bench install clean
