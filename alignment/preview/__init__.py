"""What a recipe will train, row by row, before it is trained: the rows that training makes, as text."""
