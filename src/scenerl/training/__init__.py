"""Training through TRL: supervised fine-tuning, GRPO, and the warm-up of small models. Nothing else imports TRL."""
