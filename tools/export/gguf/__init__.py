"""The pruned model as one file for llama.cpp."""
