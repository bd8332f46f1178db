"""Engines that serve language models, in environments of their own."""
