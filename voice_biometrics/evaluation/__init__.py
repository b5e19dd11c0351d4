"""Scored trials to results: thresholds, conditions, groups, comparison."""
