# make setup     everything into .venv (Linux, Python 3.11 to 3.13, a C++ compiler; 6 GB)
# make demo      data, training and pictures of dataset mini, into runs/
# make paper     all tables and figures: DATASET=mini (default), PAPER="-p checkpoint runs/<run>",
#                OUT=<folder>; what is fresh is skipped
# make test      the test suite; make lint: style, types, import order, notebooks in step
# make notebooks write the .ipynb of every py:percent source; make cards: DATASETS.md and
#                WEIGHTS.md of the presets
# make clean     remove build leftovers

PYTHON ?= python3
PY ?= .venv/bin/python
JOBS ?= 2
STAMP := .venv/.installed
DEMO ?= runs/demo
PAPERMILL := $(PY) -m papermill --log-output --no-progress-bar
DATASET ?= mini
OUT ?= $(if $(filter mini,$(DATASET)),.,runs/paper_$(DATASET))
WITHOUT_PINS := parallel-wavegan==0.6.1 facenet-pytorch==2.6.0 distillmos==0.9.1 xls-r-sqa==0.1.0

.PHONY: setup extras demo paper test lint types format notebooks cards clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"Python is {v[0]}.{v[1]}; expected 3.11 to 3.13; run make PYTHON=python3.11 setup")'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo 'the venv module is missing; on Debian or Ubuntu: apt-get install python3-venv'; exit 1; }
	@command -v c++ >/dev/null || { echo 'a C++ compiler is missing (two packages have no wheel); on Debian or Ubuntu: apt-get install g++ python3-dev'; exit 1; }
	@echo 'installing into .venv (6 GB; it is quiet for some minutes)'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q 'pip==24.0' 'setuptools<74' wheel
	.venv/bin/python -m pip install -q -c constraints.txt -e '.[all]'
	@$(MAKE) --no-print-directory extras PY=.venv/bin/python
	@touch $@

# parallel-wavegan has no wheel and its set-up needs the installed pip; facenet-pytorch pins a PyTorch
# of 2024; distillmos asks for transformers, which it never imports. All run well with the tested set.
extras:
	$(PY) -m pip install -q --no-deps --no-build-isolation $(WITHOUT_PINS)

demo: setup
	@mkdir -p $(DEMO)
	$(PAPERMILL) notebooks/prepare_data.ipynb $(DEMO)/prepare_data.ipynb -p dataset mini
	$(PAPERMILL) notebooks/train.ipynb $(DEMO)/train.ipynb -p dataset mini -p steps 300 -p resume auto
	$(PAPERMILL) notebooks/explore.ipynb $(DEMO)/explore.ipynb -p dataset mini
	@echo 'done: open $(DEMO)/explore.ipynb, or look into runs/'

# Only the pictures of mini, which are drawn, belong into the repository.
paper: setup
	@mkdir -p runs
	$(PAPERMILL) notebooks/paper.ipynb runs/paper_$(DATASET).ipynb -p dataset $(DATASET) -p out $(OUT) $(PAPER)
	@echo 'done: runs/paper_$(DATASET).ipynb shows all of it'

test: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

lint: setup types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -c 'from importlinter.cli import lint_imports_command as run; run()'
	$(PY) -m pytest -q -p no:cacheprovider tests/unit/test_house.py

types: setup
	$(PY) -m mypy

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

cards: setup
	$(PY) -m tools.cards

notebooks: setup
	$(PY) -m jupytext --sync notebooks/*.py

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
