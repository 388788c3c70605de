"""The only readers of untrusted checkpoint bytes: formats, limits and errors.

Checkpoints are data. Nothing in them is executed, and names and shapes are known before an array
is read. The size of a file bounds its claims. Only requested arrays are read.
"""
