# make setup     everything into .venv (Linux, Python 3.11 to 3.13, a C++ compiler; 7 GB)
# make lean      what `make demo` and the command line need, without CUDA (1.7 GB)
# make demo      conversions, a short training and what it changed, as one page: runs/demo/demo.html
# make paper     all tables and figures: DATASET=mini (default), PAPER=all or rows with commas,
#                OUT=<folder>, CONFIG="checkpoint=runs/<run>"; what is done is not done again
# make docs      the site: README, docs and notebooks, executed copies of runs/ where there are some
# make test      the test suite; make lint: style, types, import order, notebooks in step
# make notebooks write the .ipynb of every py:percent source; make cards: DATASETS.md,
#                WEIGHTS.md and docs/systems/ of the presets
# make clean     remove build leftovers

PYTHON ?= python3
PY ?= .venv/bin/python
JOBS ?= 2
STAMP := .venv/.installed
DEMO ?= runs/demo
PAPERMILL := $(PY) -m papermill --log-output --no-progress-bar
DATASET ?= mini
OUT ?= $(if $(filter mini,$(DATASET)),.,runs/paper_$(DATASET))
# PyTorch without CUDA, which its own index has; elsewhere: make lean CPU_TORCH='torch==2.13.0+cpu'.
# Where it cannot be had, `make lean` takes the one with CUDA, and where it was, `make setup` replaces it.
CPU_TORCH ?= --extra-index-url https://download.pytorch.org/whl/cpu torch==2.12.1+cpu
LEAN := .venv/.lean
WHOLE := "from importlib.metadata import version; raise SystemExit('+' in version('torch'))"
READY := .venv/.ready
SITE ?= build/site
WITHOUT_PINS := parallel-wavegan==0.6.1 facenet-pytorch==2.6.0 distillmos==0.9.1 xls-r-sqa==0.1.0

.PHONY: setup lean extras demo docs paper test lint types format notebooks cards clean

setup: $(STAMP)

lean: $(if $(wildcard $(STAMP)),,$(LEAN))

$(READY):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"Python is {v[0]}.{v[1]}; expected 3.11 to 3.13; run make PYTHON=python3.11 setup")'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo 'the venv module is missing; on Debian or Ubuntu: apt-get install python3-venv'; exit 1; }
	@command -v c++ >/dev/null || { echo 'a C++ compiler is missing (two packages have no wheel); on Debian or Ubuntu: apt-get install g++ python3-dev'; exit 1; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q 'pip==24.0' 'setuptools<74' wheel
	@touch $@

$(STAMP): pyproject.toml constraints.txt Makefile | $(READY)
	@echo 'installing into .venv (7 GB; it is quiet for some minutes)'
	@test ! -e $(LEAN) || .venv/bin/python -c $(WHOLE) || .venv/bin/python -m pip uninstall -q -y torch
	.venv/bin/python -m pip install -q -c constraints.txt -e '.[all]'
	@$(MAKE) --no-print-directory extras PY=.venv/bin/python
	@rm -f $(LEAN)
	@touch $@

$(LEAN): pyproject.toml constraints.txt Makefile | $(READY)
	@echo 'installing into .venv (1.7 GB; it is quiet for a minute or two)'
	@.venv/bin/python -m pip install -q $(CPU_TORCH) || { echo 'PyTorch without CUDA cannot be had (see above; another source: make lean CPU_TORCH=torch==<version>+cpu); taking the one with CUDA, which needs 5 GB'; .venv/bin/python -m pip install -q -c constraints.txt torch; }
	grep -v '^torch==' constraints.txt > $@.txt
	.venv/bin/python -m pip install -q -c $@.txt -e '.[demo]'
	.venv/bin/python -m pip install -q --no-deps $(filter facenet%,$(WITHOUT_PINS))
	@touch $@

# parallel-wavegan has no wheel and its set-up needs the installed pip; facenet-pytorch pins a PyTorch
# of 2024; distillmos asks for transformers, which it never imports. All run well with the tested set.
extras:
	$(PY) -m pip install -q --no-deps --no-build-isolation $(WITHOUT_PINS)

# Without a model in the package, one is trained for 300 steps and shown instead.
demo: lean
	@mkdir -p $(DEMO)
	$(PAPERMILL) notebooks/prepare_data.ipynb $(DEMO)/prepare_data.ipynb -p dataset mini
ifneq ($(wildcard xfavot/weights/model/state.json),)
	$(PAPERMILL) notebooks/demo.ipynb $(DEMO)/demo.ipynb
else
	$(PAPERMILL) notebooks/train.ipynb $(DEMO)/train.ipynb -p dataset mini -p steps 300 -p resume auto
	$(PAPERMILL) notebooks/explore.ipynb $(DEMO)/demo.ipynb -p dataset mini
endif
	$(PY) -m nbconvert --log-level ERROR --to html --no-input $(DEMO)/demo.ipynb
	@echo 'done: open $(DEMO)/demo.html'
	@test -z "$$DISPLAY$$WAYLAND_DISPLAY" || $(PY) -m webbrowser -t file://$(abspath $(DEMO))/demo.html

# Only the pictures of mini, which are drawn, belong into the repository. What failed stops only what
# follows from it: the page is made of the rest, and says what is missing.
WORKFLOW = $(PY) -m snakemake -s workflow/Snakefile --cores $(JOBS) --directory runs/paper_$(DATASET) \
	--config dataset=$(DATASET) out=$(OUT) $(if $(PAPER),rows=$(PAPER)) $(CONFIG)
paper: setup
	@mkdir -p runs/paper_$(DATASET)
	$(WORKFLOW) || { $(WORKFLOW) present=True; exit 1; }
	@echo 'done: runs/paper_$(DATASET).ipynb shows all of it'

# Sphinx needs none of the other packages and has an environment of its own.
docs:
	test -e .venv-docs/.ready || { $(PYTHON) -m venv .venv-docs && .venv-docs/bin/python -m pip install -q -r docs/requirements.txt && touch .venv-docs/.ready; }
	rm -rf $(SITE).draft build/pages && mkdir -p build/pages
	cp -r *.md LICENSE CITATION.cff docs figures paper_tables notebooks xfavot build/pages
	@for name in $(notdir $(wildcard notebooks/*.ipynb)); do \
	  for copy in runs/$$name $(DEMO)/$$name; do \
	    test ! -e $$copy || cp $$copy build/pages/notebooks/$$name; done; done
	.venv-docs/bin/sphinx-build -q -W --keep-going -c docs build/pages $(SITE).draft
	cp $(SITE).draft/README.html $(SITE).draft/index.html
	rm -rf $(SITE) && mv $(SITE).draft $(SITE)
	@echo 'done: open $(SITE)/index.html'

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
