"""The command line on values alone."""
