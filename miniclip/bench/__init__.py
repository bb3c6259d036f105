"""`miniclip bench`: how fast this machine multiplies, how fast miniclip is, and how fast others.

run.py        what the command does, from options to a record
flops.py      floating-point operations of a tower, counted from its configuration
inputs.py     random weights that keep activations alive, pictures, token ids
threads.py    one number of threads for everybody
measure.py    taking turns, medians, ratios round by round
subjects.py   what is measured of miniclip, and the machine's own ceiling
peers.py      the original model.py on PyTorch, and its export on ONNX Runtime
training.py   training steps, ours and PyTorch's
memory.py     peaks of memory, each in a process of its own (memory_child.py)
report.py     tables for people, a record for files
"""
