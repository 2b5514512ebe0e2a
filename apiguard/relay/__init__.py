"""The relay: LIST and WATCH for everybody from one list and one watch upstream.

Sans-IO: upstream's bytes and the time come in as arguments, wishes and frames go out as values
and calls. Authentication and authorisation happen before; nothing here knows a caller.
"""
