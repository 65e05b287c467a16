"""Benchmarks: each prints what it has measured. None is a test."""
