"""``apiguard top`` in a terminal.

``state``     what is shown and what a key does to it: values, no terminal
``drawing``   the state as a screen
``keyboard``  bytes of a terminal -> keys
``loop``      joins them: asks guards in threads, so that a slow one never delays a key
"""
