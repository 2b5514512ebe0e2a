"""The guard's own commands, one file each: serve, check, explain, demo.

``apiguard.cli`` imports a file only when its command is called: what an operator types against a
running guard is in ``apiguard.ctl`` and must not wait for the proxy to be imported.
"""
