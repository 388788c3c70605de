"""Measurements. Each is a command; what it prints or writes says how it was made."""
