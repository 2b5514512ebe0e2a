"""The command line against a guard made of plain answers."""
