"""Tests of testbench_dagster.leaderboard."""
