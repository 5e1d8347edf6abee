"""Training through TRL: supervised fine-tuning, GRPO, and the warm-up of small models. Nothing else imports TRL."""

import warnings

# Which versions were tested with SceneRL is checked in vllm_engine.py.
warnings.filterwarnings("ignore", "TRL currently supports vLLM versions", UserWarning)
