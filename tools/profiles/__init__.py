"""Profiles as integers: the space, budgets, operators, sensitivities, models of cost and selection."""
