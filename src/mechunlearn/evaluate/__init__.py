"""What a model knows before and after: screening, elicitations, general text."""
