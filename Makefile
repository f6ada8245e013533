# `make` alone tells what there is to make. All of it happens in .venv; nothing is installed twice.
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip -qq --disable-pip-version-check
SOURCES = settings.ini setup.py pyproject.toml

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install app lab test docs bench notebooks lint clean

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.dev  ## .venv with the package, editable, and everything for development

app: $(VENV)/.app  ## the workbench in the browser, at http://127.0.0.1:8866; Ctrl-C ends it
	@exec $(BIN)/pod up $(ARGS)

lab: $(VENV)/.app  ## JupyterLab on the notebooks
	@exec $(BIN)/jupyter lab nbs $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

test: $(VENV)/.dev  ## notebooks and pytest, with what they need (Chromium, PostgreSQL, MariaDB by apt when root)
	@sh scripts/setup_tests.sh
	@$(BIN)/python scripts/in_step.py
	@echo "testing the notebooks"
	@$(BIN)/nbdev_test --n_workers 2 --skip_folder_re '^([_.]|(bench|dashboards)$$)'
	@$(BIN)/python -m pytest tests -ra $(ARGS)

docs: $(VENV)/.dev  ## the site, from the notebooks, into _docs/
	@$(BIN)/python scripts/docs.py $(ARGS)

bench: $(VENV)/.dev  ## run the comparisons of nbs/bench again, outputs saved
	@$(BIN)/python scripts/notebooks.py nbs/bench

notebooks: $(VENV)/.dev  ## run all other notebooks again in reading order, outputs saved
	@$(BIN)/python scripts/notebooks.py

lint: $(VENV)/.dev  ## ask ruff
	@$(BIN)/ruff check

clean:  ## remove what was built; .venv and runs stay
	@rm -rf _docs _proc build dist *.egg-info .pytest_cache .ruff_cache .smalldocs
	@find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# two notebooks at a time are tested: torch's idle threads shall not spin
test: export GOMP_SPINCOUNT ?= 1000

$(VENV)/pyvenv.cfg:
	@sh scripts/make_venv.sh $(VENV)

$(VENV)/.app: $(SOURCES) | $(VENV)/pyvenv.cfg
	@echo "installing into $(VENV): about 6 GB with PyTorch's CUDA parts, a few minutes the first time"
	@$(PIP) install -e '.[lab]'
	@touch $@

$(VENV)/.dev: $(SOURCES) | $(VENV)/pyvenv.cfg
	@echo "installing into $(VENV), with what development needs: about 6 GB, a few minutes the first time"
	@$(PIP) install -e '.[dev]'
	@touch $(VENV)/.app $@
