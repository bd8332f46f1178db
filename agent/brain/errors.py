"""What can go wrong between a prompt and a legal tool call."""

from self_pruner.memory.errors import SelfPrunerError


class BrainError(SelfPrunerError):
    """The brain gave no usable reply; the run goes on with the tool's own random operator."""


class SchemaError(BrainError):
    """The schema of a legal call uses something we cannot obey, or admits no value at all."""


class ContextOverflowError(BrainError):
    """The prompt and the longest reply do not fit in the model's context."""


class BrainTimeoutError(BrainError):
    """The brain took longer than it was given."""
