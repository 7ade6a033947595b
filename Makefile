# make demo    2,048 synthetic ECGs and a picture, from the bundled bank and models
# make test    all tests; those on a real Slurm cluster skip, saying so, unless root on Debian with what .ci/run installs
# make bundled rebuilds the bundled bank and models from PTB-XL: make bundled PTBXL=/path/to/ptbxl

# the first Python 3.11 or 3.12 on the PATH; or make PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PINS := pyproject.toml constraints.txt $(wildcard ecg_batch/*.cpp ecg_batch/*.h)
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test bundled clean

demo: .venv/installed
	$(BIN)/python jobs/synthesize.py configs/demo.yaml --out runs/demo --workers 2
	$(BIN)/python jobs/plot.py runs/demo

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or 3.12 found; install one, or say make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: $(PINS) | .venv/bin/python
	@echo "installing pinned packages into .venv (about a minute; torch is 200 MB)"
	$(INSTALL) .
	@touch $@

.venv/installed-dev: $(PINS) | .venv/bin/python
	@echo "installing pinned packages and test tools into .venv (about a minute; torch is 200 MB)"
	$(INSTALL) '.[dev]'
	@touch $@ .venv/installed

bundled: .venv/installed
	@test -n "$(PTBXL)" || { echo "make: say where PTB-XL is: make bundled PTBXL=/path/to/ptbxl"; exit 1; }
	$(BIN)/python jobs/prepare.py --ptbxl "$(PTBXL)" --out runs/bank
	$(BIN)/python jobs/train.py vqvae --bank runs/bank --out runs/models
	$(BIN)/python jobs/train.py mamba --bank runs/bank --out runs/models
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt scikit-learn
	$(BIN)/python jobs/train.py judge --ptbxl "$(PTBXL)" --out runs/models --set augment=1
	$(BIN)/python jobs/train.py judge --ptbxl "$(PTBXL)" --out runs/models --name encoder --set augment=1
	rm -rf ecg_batch/bundled/donors.zarr
	cp -r runs/bank/donors.zarr runs/models/vqvae.safetensors runs/models/mamba.safetensors \
		runs/models/judge.safetensors runs/models/encoder.safetensors ecg_batch/bundled/

clean:
	rm -rf .venv build *.egg-info
