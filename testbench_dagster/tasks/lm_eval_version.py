"""The installed lm-eval version, read without importing lm_eval."""

from __future__ import annotations

import importlib.metadata

LM_EVAL_VERSION = importlib.metadata.version("lm_eval")
