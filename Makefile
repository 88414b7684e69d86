.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PROJECTS := protocol/pyproject.toml device/pyproject.toml cloud/pyproject.toml
PROTOS := segue/v1/split_inference.proto segue/cluster/v1/worker.proto
STUBS ?= protocol/segue_protocol/stubs
BUF := tools/buf/node_modules/.bin/buf
TSC := device-js/node_modules/.bin/tsc
RELEASED := protocol/proto/segue.v1.binpb

.PHONY: help setup proto proto-image chromium test check demo chat clean

help:
	@echo "make demo    run the cluster and the same prompts three ways (ARGS=--json for one JSON line)"
	@echo "make chat    the same in a web page (with node and npm the browser can be the device)"
	@echo "make test    run every test (with node, npm and chromium)"
	@echo "make check   ruff, mypy, tsc and buf (the last two need node and npm)"
	@echo "make proto   regenerate the protocol stubs"
	@echo "make proto-image   at a release: what later versions of the protocol must not break"

# torch goes in first and alone, so that the exact version of constraints.txt is
# looked for among the builds at hand before anything else can pull another one.
.venv/.installed: $(PROJECTS) requirements-dev.txt constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	@touch $@

setup: .venv/.installed .venv/.llama

# llama.cpp is compiled here, for the processor it will run on: minutes, so that
# only what needs it waits. A wheel of such a build must not go to other machines.
.venv/.llama: .venv/.installed
	CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" $(BIN)/pip install -q \
	    --disable-pip-version-check -c constraints.txt -e "./device[llama]"
	@touch $@

# The generator lives apart: it needs an older protobuf than the rest, and its
# stubs import on protobuf 5, 6 and 7, which those of newer generators do not.
.venv-proto/.installed:
	test -x .venv-proto/bin/python || $(PYTHON) -m venv .venv-proto
	.venv-proto/bin/pip install -q --disable-pip-version-check grpcio-tools==1.63.2 "setuptools<81"
	@touch $@

proto: .venv-proto/.installed
	mkdir -p $(STUBS)
	cd protocol/proto && ../../.venv-proto/bin/python -m grpc_tools.protoc -I. \
	    --python_out=$(abspath $(STUBS)) --pyi_out=$(abspath $(STUBS)) \
	    --grpc_python_out=$(abspath $(STUBS)) $(PROTOS)
	find $(STUBS) -name '*_pb2*.py*' | xargs sed -i 's/^from segue\./from segue_protocol.stubs.segue./'
	find $(STUBS) -type d | while read d; do touch $$d/__init__.py; done

# No install scripts: the package of this platform holds the program itself.
tools/buf/node_modules/.installed: tools/buf/package.json tools/buf/.npmrc
	@command -v npm >/dev/null || { echo "buf checks the proto files and comes by npm:" \
	    "install node and npm, then try again" >&2; exit 1; }
	cd tools/buf && npm install --ignore-scripts --no-audit --no-fund --loglevel=error
	$(BUF) --version
	@touch $@

# What a page and node need to run the browser's SDK, and what checks its types.
device-js/node_modules/.installed: device-js/package.json device-js/.npmrc
	@command -v npm >/dev/null || { echo "the browser's SDK is tested with node: install node" \
	    "(20 or newer) and npm, then try again" >&2; exit 1; }
	cd device-js && npm install --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

chromium:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	    if command -v $$name >/dev/null; then exit 0; fi; \
	done; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    apt-get update -q && apt-get install -q -y --no-install-recommends chromium; \
	else echo "pages are tested in a browser: install chromium, then try again" >&2; exit 1; fi

# Only the public package; the private one may change with every release.
proto-image: tools/buf/node_modules/.installed
	$(BUF) build protocol/proto --path protocol/proto/segue/v1 --exclude-source-info -o $(RELEASED)

# The device's form of the tiny model; converting again is a no-op while the source is unchanged.
models/tiny-onnx/segue_model.json: .venv/.installed demos/model/tiny/model.safetensors
	$(BIN)/python -m segue_device.convert demos/model/tiny models/tiny-onnx
	@touch $@

# The same for llama.cpp, whose form runs in browsers too.
models/tiny-gguf/segue_model.json: .venv/.installed demos/model/tiny/model.safetensors
	$(BIN)/python -m segue_device.convert demos/model/tiny models/tiny-gguf --format gguf
	@touch $@

# How the pages are judged for people who use assistive technology.
tests/browser/node_modules/.installed: tests/browser/package.json tests/browser/.npmrc
	cd tests/browser && npm install --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

demo: models/tiny-onnx/segue_model.json
	@$(BIN)/python -m demos.split $(ARGS)

chat: models/tiny-onnx/segue_model.json models/tiny-gguf/segue_model.json
	@$(MAKE) -s device-js/node_modules/.installed || \
	    echo "without these packages the browser itself cannot be the device; the rest works" >&2
	@$(BIN)/python -m demos.chat $(ARGS)

test: models/tiny-onnx/segue_model.json models/tiny-gguf/segue_model.json \
    .venv-proto/.installed .venv/.llama \
    device-js/node_modules/.installed tests/browser/node_modules/.installed \
    tools/buf/node_modules/.installed chromium
	$(BIN)/python -m pytest $(ARGS)

check: .venv/.installed tools/buf/node_modules/.installed device-js/node_modules/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TSC) --project device-js
	$(BUF) lint protocol/proto
	$(BUF) breaking protocol/proto --against $(RELEASED)

clean:
	rm -rf .venv .venv-proto models tools/buf/node_modules device-js/node_modules \
	    tests/browser/node_modules
