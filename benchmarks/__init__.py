"""Measurements. Each is a command; its output includes the command and the machine."""
