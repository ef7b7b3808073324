# make book     the book, from nothing to _build/html/index.html
# make test     the package, every chapter and the built pages, from nothing to pytest's last line
# make serve    look at the book
# make help     everything else
#
# PYTHON        which Python to build .venv with: 3.11 to 3.14 (found by itself)
# TORCH_INDEX   where to take PyTorch from; empty is the usual registry. On Linux that build brings CUDA
#               (3 GB); make book TORCH_INDEX=https://download.pytorch.org/whl/cpu takes the small one.
# TESTS         what `make test` runs, for example TESTS=tests/test_hopfield.py
# PROCESSES     how many run them side by side, each on one core; 0 runs them in one, as --pdb wants
# COLAB         what `make colab` is told, for example COLAB=06_characters or COLAB='--list current'
# BENCH         what `make bench` is told, for example BENCH='--sizes small --forms ours plain jax'
# LOCK          what `make lock` is told: empty keeps what can be kept, LOCK=--upgrade takes the newest of all,
#               LOCK='--upgrade-package NAME' of one
# TAG           the tag of the release that `make dist` and `make pages` are for

SUPPORTED = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
TORCH_INDEX ?=
TESTS ?=
PROCESSES ?= 2
COLAB ?=
BENCH ?=
LOCK ?=
TAG ?=
PORT ?= 8000
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet
BENCH_PIP = $(BENCH_VENV)/bin/python -m pip --disable-pip-version-check install --quiet
TORCH = $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) --requirement requirements-torch.txt
NOTEBOOKS = $(wildcard book/*.ipynb)
BENCH_VENV = .venv-bench
LOCK_VENV = .venv-lock
RELEASE_VENV = .venv-release
UV = uv==0.13.9
OLDEST_VENV = .venv-oldest
OLDEST_PIP = $(OLDEST_VENV)/bin/python -m pip --disable-pip-version-check install --quiet
VENDOR = book/_vendor/fetched

# The kernel "python3" must be this environment's, whatever else is on the path.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYDEVD_DISABLE_FILE_VALIDATION = 1
# The chapters' tensors are small: on a busy machine more threads only wait for each other.
export OMP_NUM_THREADS ?= 1

.PHONY: help install book zip serve test bench oldest colab lint format address figures lock dist pages hooks clean \
	distclean
.DELETE_ON_ERROR:

help:
	@echo 'make book       build the book into _build/html'
	@echo 'make serve      show it at http://127.0.0.1:$(PORT)'
	@echo 'make zip        the built book as one file, to be read without a network'
	@echo 'make test       run all tests'
	@echo 'make bench      time a training step beside JAX, TorchOpt, higher and plain PyTorch: an hour'
	@echo 'make oldest     test the package with the oldest versions that it allows'
	@echo 'make colab      run every chapter with the versions that Colab has'
	@echo 'make lint       check style, types and that notebooks carry no outputs'
	@echo 'make format     put style and notebooks in order'
	@echo 'make address    bring notebooks, links and tags in step with _config.yml and pyproject.toml'
	@echo 'make figures    compute the pictures of the landing page'
	@echo 'make lock       choose exact versions: requirements.lock, environment.yml, and those of benchmarks and releases'
	@echo 'make dist       wheel and sdist, built and checked; with TAG=v1.2.3, that all is in step with that tag'
	@echo 'make hooks      check style at every commit'
	@echo 'make clean      remove what was built; make distclean removes the environments too'

install: $(VENV)/installed

define python_is_supported
@test -n "$(PYTHON)" || { echo 'Python 3.11, 3.12, 3.13 or 3.14 is needed: make PYTHON=/path/to/python3.11'; exit 1; }
@$(PYTHON) -c '$(SUPPORTED)' || { echo '$(PYTHON) is not Python 3.11, 3.12, 3.13 or 3.14'; exit 1; }
endef

$(VENV)/locked: requirements.lock requirements-torch.txt
	$(python_is_supported)
	@echo 'Installing exact versions into $(VENV) with $(PYTHON): minutes, once'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) --require-hashes --requirement requirements.lock
	$(PIP) $(TORCH)
	@touch $@

$(VENV)/installed: $(VENV)/locked pyproject.toml
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENDOR): tools/fetch_widgets.py package.json package-lock.json $(VENV)/locked
	$(BIN)/python tools/fetch_widgets.py
	@touch $@

book: $(VENV)/installed $(VENDOR)
	rm -rf _build
	$(BIN)/jupyter-book build book --config _config.yml --path-output . --warningiserror --nitpick --keep-going
	@echo 'The book: $(CURDIR)/_build/html/index.html   (make serve shows it with its search)'

_build/html/index.html:
	$(MAKE) book

zip: $(VENV)/installed _build/html/index.html
	$(BIN)/python tools/zip_book.py

serve: $(VENV)/installed _build/html/index.html
	@echo 'http://127.0.0.1:$(PORT)   (stop with Ctrl-C)'
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

test: $(VENV)/installed $(VENDOR)
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) $(TESTS)

$(BENCH_VENV)/installed: benchmarks/requirements.txt requirements-torch.txt
	$(python_is_supported)
	@echo 'Installing JAX, TorchOpt and higher into $(BENCH_VENV) with $(PYTHON): minutes, once'
	$(PYTHON) -m venv --clear $(BENCH_VENV)
	$(BENCH_PIP) --require-hashes --no-deps --requirement $<
	$(BENCH_PIP) $(TORCH)
	@touch $@

bench: $(BENCH_VENV)/installed
	$(BENCH_VENV)/bin/python -m benchmarks.run $(BENCH)

oldest: $(VENV)/installed
	$(BIN)/python tools/oldest.py > $(VENV)/oldest.txt
	$(PYTHON) -m venv --clear $(OLDEST_VENV)
	$(if $(TORCH_INDEX),$(OLDEST_PIP) --index-url $(TORCH_INDEX) $$(grep '^torch==' $(VENV)/oldest.txt))
	$(OLDEST_PIP) --requirement $(VENV)/oldest.txt pytest pytest-timeout hypothesis papermill pyyaml packaging
	PYTHONPATH=. $(OLDEST_VENV)/bin/python -m pytest -m 'not slow' @tests/package.txt

colab: $(VENV)/installed
	$(BIN)/python tools/try_colab.py $(COLAB)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/windows ebmm
	$(BIN)/codespell
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/repo-review .
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --keep-id --verify $(NOTEBOOKS))

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --keep-id $(NOTEBOOKS))

address: $(VENV)/installed
	$(BIN)/python tools/sync_address.py

figures: $(VENV)/installed
	$(BIN)/python tools/make_figures.py

$(LOCK_VENV)/bin/uv: Makefile
	$(PYTHON) -m venv --clear $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip --disable-pip-version-check install --quiet $(UV)

COMPILE = $(LOCK_VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-package torch --custom-compile-command 'make lock' --constraint requirements-torch.txt $(LOCK)

lock: $(LOCK_VENV)/bin/uv
	$(COMPILE) pyproject.toml --all-extras --group dev --output-file requirements.lock
	$(COMPILE) benchmarks/requirements.in --constraint requirements.lock --output-file benchmarks/requirements.txt
	$(COMPILE) --group release --constraint requirements.lock --output-file tools/release.lock
	$(COMPILE) --group node --output-file tools/node.lock
	$(PYTHON) tools/conda.py

$(RELEASE_VENV)/installed: tools/release.lock
	$(PYTHON) -m venv --clear $(RELEASE_VENV)
	$(RELEASE_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --requirement $<
	@touch $@

dist: $(VENV)/installed $(RELEASE_VENV)/installed
	$(BIN)/python tools/sync_address.py --check $(if $(TAG),--tag $(TAG))
	rm -rf dist
	$(RELEASE_VENV)/bin/python -m build --no-isolation
	$(RELEASE_VENV)/bin/twine check --strict dist/*

pages: $(VENV)/installed _build/html/index.html
	rm -rf _build/pages
	$(BIN)/python tools/versions.py _build/html published $(TAG) _build/pages

hooks: $(VENV)/installed
	$(BIN)/pre-commit install

clean:
	rm -rf _build build dist book/_vendor tests/_vendor .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find ebmm tests tools book benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(BENCH_VENV) $(OLDEST_VENV) $(LOCK_VENV) $(RELEASE_VENV)
