"""The only readers of untrusted checkpoint files, with their limits and errors.

Checkpoints are data: nothing in them is executed. Names and shapes are known before an array is
read. A file cannot claim more data than its size allows. Only requested arrays are read.
"""
