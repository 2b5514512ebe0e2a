"""The relay: LIST and WATCH for everybody from one list and one watch upstream.

Sans-IO: upstream's bytes and the time come in as arguments, wishes and frames go out as values
and calls. Who may ask is judged before; nothing here knows a caller. What cannot be answered
exactly is passed upstream with a reason, so most refusals are upstream's own words.

::

    upstream                                                       clients
    --------                                                       -------
    LIST  -> kube.lists   ->  Reflector  --fill, converge-->  WatchCache --Snapshot--> ListAnswer
    WATCH -> kube.framing ->  (wishes)   --apply-->               |        (pieces, shared)
                                  |                            EventLog
                                  +------deliver----->  Fanout    |
                                                           Watcher (a position) ----> Frame

``item``       one version of one object: bytes, key, labels, selectable values
``snapshot``   items in etcd's order; an immutable state in microseconds
``eventlog``   recent changes; positions for watchers, the way back to past states
``store``      WatchCache: the three above for one resource in one representation
``gathering``  a list as it arrives, made ready to be held
``diff``       from one list to a later one as events
``digest``     whether keys and revisions equal upstream's
``reflector``  Reflector: list, watch, resume, relist; when to believe that upstream went back
``selection``  what one client may see, as a value
``listing``    the table of LIST, and what is served, waited for or passed
``freshness``  reads without a resourceVersion: one proof for all who wait
``bodies``     answers built once, in pieces of at most 240 KiB
``packing``    the same compressed, by ``checksum`` of their parts
``watching``   the same for WATCH
``watcher``    Watcher: initial events, the log, live; bookmarks, deadline, stall
``fanout``     Fanout: watchers by selection, found by index; one frame per outcome
``standouts``  Standouts: the largest objects and those changing most, found when asked for

A cache holds one representation (JSON, protobuf, metadata-only of both) because the bytes are
upstream's: nothing is decoded further than selectors need, nothing is encoded twice. Four promises
hold it together:

- An answer is a state upstream had. A cache that was never filled answers nothing.
- A stream is ascending, without gap or repetition, and a bookmark follows everything before it.
- Memory follows objects and log, never watchers times events.
- No step takes long: bodies, initial events and catching up advance in bounded pieces, which
  their owner asks for, and lists are gathered as they arrive. Only what follows a whole list does
  not: proofs and digests (5 ms for 10,000 objects, 50 ms for 100,000), and telling a difference.
"""
