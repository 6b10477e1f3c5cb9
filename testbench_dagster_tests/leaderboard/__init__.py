"""Tests of testbench_dagster.stages.rank."""
