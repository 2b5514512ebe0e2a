"""What upstream says of a resource beside its objects reaches the relay's clients too."""

from __future__ import annotations

from apiguard.policy.relayconfig import RelayedResource

from .conftest import StartRelay
from .guarding import JSON, PROTOBUF
from .streams import Stream
from .test_lists import visible

ENDPOINTS = "/api/v1/namespaces/default/endpoints"


async def test_lists_watches_and_refusals_tell_that_a_resource_is_deprecated(
    start: StartRelay,
) -> None:
    relayed = await start(resources=(RelayedResource("", "v1", "endpoints"),))
    queries = ("", "?resourceVersion=0", "?resourceVersion=0", "?resourceVersion=bogus")
    for accept in (JSON, PROTOBUF):
        for query in queries:
            direct = await relayed.direct(ENDPOINTS + query, accept=accept)
            assert "warning" in {name.lower() for name, _ in direct.headers}
            through = await relayed.through(ENDPOINTS + query, accept=accept)
            assert visible(through) == visible(direct)
    watch = f"{ENDPOINTS}?watch=true&resourceVersion={relayed.server.store.revision}"
    streams = [await Stream.open(url, watch) for url in (relayed.server.url, relayed.url)]
    direct_said, through_said = [stream.head.get(b"warning") for stream in streams]
    assert direct_said
    assert through_said == direct_said
    for stream in streams:
        stream.close()
    lists = sum(feed.counts.lists for feed in relayed.desk.feeds.values())
    watches = sum(feed.counts.watches for feed in relayed.desk.feeds.values())
    assert (lists, watches) == (6, 1)
