"""Tests of testbench_dagster; the folders mirror the package."""
