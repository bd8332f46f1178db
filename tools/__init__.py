"""What can be done to a model: one package a tool, pure functions below, a thin LangChain tool on top."""
