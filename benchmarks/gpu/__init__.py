"""Eight minutes on a GPU: what no CPU can answer, measured by one prepared script (`python -m benchmarks.gpu`).

It needs torch, transformers, safetensors, accelerate and this checkout, nothing else: no network, no weights. Parts
come in the order of their worth, each in a process and with a limit of its own, and each writes what it has at once.
"""
