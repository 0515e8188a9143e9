"""Optimizers, schedules and weight averages."""
