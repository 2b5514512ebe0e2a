"""The operator's commands, one file per family; ``apiguard.cli`` imports the file it needs."""
