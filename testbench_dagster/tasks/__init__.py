"""Tasks: which exist (index), what the configuration makes of them (catalog), and lm-eval behind them.

Only :mod:`testbench_dagster.tasks.lm_eval_adapter` imports lm_eval, and it runs in the worker process that
:mod:`testbench_dagster.tasks.worker` keeps warm.

Belongs here: which tasks there are, what the configuration makes of them, and the frameworks that ask and
score them. Does not: stored registrations and prompts (`stages/sample` has them).
"""
