"""The only readers of untrusted checkpoint bytes: formats, limits and errors.

Checkpoints are data. Nothing in them is executed, and names and shapes are known before an array
is read. A file cannot claim more data than its size allows. Only requested arrays are read.
"""
