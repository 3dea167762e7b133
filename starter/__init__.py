"""Starter models and reference galleries, as data: `classifiers.starter` reads it, `benchmarks.starter` makes it."""
