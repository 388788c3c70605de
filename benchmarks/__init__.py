"""Measurements, one command each. The output states the command and the machine."""
