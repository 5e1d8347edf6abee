# `make demo` and `make test` work in a fresh clone: each makes .venv first when it is missing or out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# For another package index or torch build: make test PIP_ARGS="--index-url …"
PIP_ARGS ?=
# The environment with vLLM, whose packages are not those of the other tests.
VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/.installed
# The environment of the sharding engines, with DeepSpeed's operators compiled for the CPU.
ENGINES := .venv-engines
ENGINES_STAMP := $(ENGINES)/.installed
ENGINES_ENV := OMP_NUM_THREADS=1 DS_ACCELERATOR=cpu TORCH_EXTENSIONS_DIR=$(abspath $(ENGINES))/torch_extensions \
	PATH=$(abspath $(ENGINES))/bin:$$PATH
# Test workers; each runs single-threaded, so that two of them fill two cores.
JOBS ?= 2

# `make photos PHOTOS=…/scene_graphs.jsonl`: rows with their photos, of which these are used.
PHOTOS ?=
ONLY ?= 'vcoco_*' 'psg_*'
RUN := runs/photos

# Of the machine that `make gpu-wheels` downloads for.
GPU_PYTHON ?= 3.12
GPU_PLATFORMS ?= manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64

.PHONY: help demo study photos test test-slow test-slurm test-vllm test-engines test-gpu gpu-wheels browser bench docs screenshots lint clean

help:
	@echo "make demo    SFT and GRPO of the base model, and a report in runs/demo, about 5 minutes on 2 cores"
	@echo "make photos PHOTOS=rows.jsonl    overfit a small model on photos, a few minutes (docs/photos.md)"
	@echo "make test    the test suite"
	@echo "make test-slow   the tests that take more than half a minute each"
	@echo "make browser Debian's Chromium, as root: without a browser the tests of pages are skipped"
	@echo "make test-vllm   training and prediction with a real vLLM on the CPU; makes .venv-vllm, 6 GB, and takes some minutes"
	@echo "make test-gpu    tests and bench/gpu.py on this machine's GPU; make gpu-wheels: for one without a network"
	@echo "make test-slurm  job scripts on a SLURM of three nodes on this machine, as root on Debian, about 12 minutes"
	@echo "make bench   every script of bench/: time and memory beside TRL, COCO evaluators and sgbench, one core"
	@echo "             (docs/benchmarks.md; ARGS=--smoke only sees that they run)"
	@echo "make docs    the documentation site in build/site, and docs/commands.md anew"
	@echo "make study   the claims of the papers on small models, docs/claims.md, a few hours on 2 cores"
	@echo "make screenshots  the pictures of docs/gallery.md, from runs/demo"
	@echo "make lint    style checks, and types of the public modules"
	@echo "make test-engines   two processes under DDP, FSDP2, DeepSpeed ZeRO-2 and 3, and QLoRA, on the CPU; makes"
	@echo "             .venv-engines (some minutes, once; needs g++), then about half an hour; renews the table in docs/cluster.md"
	@echo "make clean   remove .venv, .venv-vllm, .venv-engines and caches; runs/ stays"

demo: $(STAMP)
	@$(BIN)/scenerl demo $(ARGS)

study: $(STAMP)
	@$(BIN)/scenerl study --page docs/claims.md $(ARGS)

photos: $(STAMP)
	@test -f "$(PHOTOS)" || { echo "make photos PHOTOS=rows.jsonl: a data set with photos (docs/photos.md)"; exit 2; }
	@test -f $(RUN)/photos.jsonl || $(BIN)/scenerl data convert "$(PHOTOS)" --only $(ONLY) --out $(RUN)/photos.jsonl
	@$(BIN)/scenerl data check $(RUN)/photos.jsonl
	@$(BIN)/scenerl sft --config recipes/sft_tiny_photos.yaml
	@$(BIN)/scenerl predict --model $(RUN)/sft --data $(RUN)/photos.jsonl --out $(RUN)/sft.jsonl --max_new_tokens 256
	@$(BIN)/scenerl eval $(RUN)/sft.jsonl --data $(RUN)/photos.jsonl --out $(RUN)/metrics.json
	@$(BIN)/scenerl report --data $(RUN)/photos.jsonl --title Photos --predictions SFT=$(RUN)/sft.jsonl \
		--metrics SFT=$(RUN)/metrics.json --logs SFT=$(RUN)/sft/log.jsonl --out $(RUN)/report.html

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --durations 5 $(ARGS)

test-slow: $(STAMP)
	@$(BIN)/python -m pytest -q -m slow $(ARGS)

browser:
	@command -v chromium >/dev/null || command -v apt-get >/dev/null || \
		{ echo "make browser needs apt-get; elsewhere: $(BIN)/playwright install chromium"; exit 2; }
	@command -v chromium >/dev/null || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; }

test-vllm: $(VLLM_STAMP)
	@OMP_NUM_THREADS=1 PYTHONPATH=src $(VLLM)/bin/python -m pytest -q -m vllm tests/inference tests/training $(ARGS)

# A compiler that was killed leaves a lock, for which every later process would wait.
test-engines: $(ENGINES_STAMP)
	@rm -f $(ENGINES)/torch_extensions/*/lock
	@start=$$(date +%s); $(ENGINES_ENV) ENGINE_RESULTS=tests/engines/results.json \
		$(ENGINES)/bin/python -m pytest -q -m engines tests/engines $(ARGS); code=$$?; \
		$(ENGINES)/bin/python tests/engines/table.py; \
		echo "test-engines took $$(( ($$(date +%s) - start + 30) / 60 )) minutes"; exit $$code

test-gpu: $(STAMP)
	@PYTHON=$(abspath $(BIN))/python bench/gpu.sh $(ARGS)

gpu-wheels: $(STAMP)
	@mkdir -p wheels
	@sed 's/#.*//' requirements-gpu.txt | grep . > wheels/names.txt
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt --no-deps \
		--only-binary=:all: --python-version $(GPU_PYTHON) --implementation cp $(GPU_PLATFORMS:%=--platform %) \
		-d wheels -r wheels/names.txt
	@rm wheels/names.txt
	@du -sh wheels

# In namespaces of its own: what the cluster changes, and all of its processes, are gone afterwards.
test-slurm: $(STAMP)
	@which slurmctld slurmd sbatch munged ip >/dev/null || command -v apt-get >/dev/null || \
		{ echo "make test-slurm needs slurmctld, slurmd, slurm-client, munge and iproute2"; exit 2; }
	@which slurmctld slurmd sbatch munged ip >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge iproute2 >/dev/null; }
	@OMP_NUM_THREADS=1 unshare --net --uts --pid --mount --mount-proc --fork --kill-child \
		$(BIN)/python -m pytest -q -m slurm tests/slurm $(ARGS)

bench: $(STAMP)
	@for name in data rewards evaluate report update step scaling constrain group_sampling; do echo "== bench/$$name.py"; \
		OMP_NUM_THREADS=1 $(BIN)/python bench/$$name.py $(ARGS) || exit 1; done

docs: $(STAMP)
	@$(BIN)/python -m scenerl.commands.reference > docs/commands.md
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site is written: python -m http.server --directory build/site"

screenshots: $(STAMP)
	@$(BIN)/python docs/tools/screenshots.py runs/demo

lint: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt ruff mypy types-pyyaml
	@$(BIN)/ruff check src tests bench examples docs/tools
	@$(BIN)/ruff format --check src tests bench examples docs/tools
	@$(BIN)/mypy

clean:
	rm -rf $(VENV) $(VLLM) $(ENGINES) wheels .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing SceneRL and its packages into $(VENV) (a few minutes, once) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[train,app,test,docs]'
	@# A reference of the tests and a peer of bench/. It asks for numpy below 2 and needs no more than any numpy.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps sgbench==1.0.0
	@touch $@

$(ENGINES_STAMP): pyproject.toml constraints.txt
	@command -v g++ >/dev/null || { echo "make test-engines needs g++, which compiles DeepSpeed's operators"; exit 2; }
	@echo "Installing SceneRL with DeepSpeed and bitsandbytes into $(ENGINES), and compiling (some minutes, once) …"
	@test -x $(ENGINES)/bin/python || $(PYTHON) -m venv $(ENGINES)
	@$(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt \
		-e '.[train,deepspeed,qlora,test]'
	@rm -f $(ENGINES)/torch_extensions/*/lock
	@$(ENGINES_ENV) $(ENGINES)/bin/python tests/engines/compile_operators.py
	@touch $@

$(VLLM_STAMP): requirements-vllm.txt
	@echo "Installing vLLM and its packages into $(VLLM), about 6 GB (a few minutes, once) …"
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps -r $<
	@touch $@
